//! The devices' door: from a login's token to what it grants.
//!
//! Owns the keys that tokens are checked with. A key has its algorithm, which no token can change. Never
//! reads a clock, and never says more of a bad token than its own device may know.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use parking_lot::RwLock;
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tracing::warn;

use super::claims::{Claims, grant};
use super::{Distrusted, Unnamed, crypto, read_file};
use crate::config::{Auth, Config, KeyFile, LegacyTokens, TokenKeyFiles, TokenShops};
use crate::ids::{DeviceId, IdError, ShopId};
use crate::message::Role;
use crate::session::Grant;

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Shorter secrets are warned of, in bytes: that of the digest, as RFC 7518 asks.
const SECRET_BYTES_MIN: usize = 32;
/// Largest file with a key, in bytes.
const FILE_BYTES_MAX: usize = 64 * 1024;
/// What stands before the key in an Ed25519 `SubjectPublicKeyInfo` (RFC 8410), always the same.
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ED25519_BYTES: usize = 32;

/// Why a key for tokens cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    #[error("the token key {path} cannot be read: {cause}")]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("the token secret {path} is empty; `openssl rand -base64 48` makes one")]
    Empty { path: PathBuf },
    #[error("the token secret {path} is a PEM file; give a public key with --jwt-public-key-file")]
    PemSecret { path: PathBuf },
    #[error(
        "{path} holds no Ed25519 public key in PEM; `openssl pkey -in <private key> -pubout` writes one, from a key that \
         `openssl genpkey -algorithm ed25519` made"
    )]
    PublicKey { path: PathBuf },
}

/// Why a login is refused; the message is for the device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a token is needed to log in")]
    Missing,
    #[error("the token has {size} bytes, the limit is {TOKEN_BYTES_MAX}")]
    TooLarge { size: usize },
    #[error("the token is no JSON web token that can be read")]
    Malformed,
    #[error("the token's kid is not that of a key which is known here")]
    UnknownKey,
    #[error("the token is not signed by a key that is known here")]
    Signature,
    #[error("the token has no {claim}")]
    Absent { claim: &'static str },
    #[error("the token's {claim} is not {wanted}")]
    Claim { claim: &'static str, wanted: &'static str },
    #[error("a name in the token's {claim} {cause}")]
    Name { claim: &'static str, cause: IdError },
    #[error("the token expired {ago_s} s ago; get a new one")]
    Expired { ago_s: u64 },
    #[error("the token is not valid for another {in_s} s; wait, or look at the clock of who made it")]
    NotYetValid { in_s: u64 },
    #[error("the token is for another {claim} than the login's")]
    Other { claim: &'static str },
    #[error("a client certificate is needed to log in; connect by TLS, with the device's own")]
    NoCertificate,
    #[error(transparent)]
    Unnamed(#[from] Unnamed),
    #[error("the certificate is for another {name} than the login's")]
    OtherCertificate { name: &'static str },
    #[error(transparent)]
    Distrusted(#[from] Distrusted),
}

/// Which devices may log in.
#[derive(Debug)]
pub enum DeviceAuth {
    /// Anyone; a token is not looked at.
    None,
    /// Who has a token for the identity it logs in with.
    Jwt(JwtAuth),
    /// Anyone, but a legacy device of one of these shops needs a token as above.
    LegacyJwt(JwtAuth, TokenShops),
    /// Whom its client certificate names, see [`super::Gate::check_certificate`]; a token is not looked at.
    Mtls,
}

/// Keys for tokens, as last read from their files.
#[derive(Debug)]
pub struct JwtAuth {
    files: TokenKeyFiles,
    keys: RwLock<Arc<TokenKeys>>,
}

impl DeviceAuth {
    /// Reads the keys, where the settings want tokens.
    ///
    /// # Errors
    /// The first file that cannot be taken.
    pub fn open(config: &Config) -> Result<DeviceAuth, TokenKeyError> {
        match (&config.auth, &config.legacy_tokens) {
            (Auth::None, None) => Ok(DeviceAuth::None),
            (Auth::None, Some(LegacyTokens { shops, files })) => {
                Ok(DeviceAuth::LegacyJwt(JwtAuth::read(files)?, shops.clone()))
            }
            (Auth::Jwt(files), _) => Ok(DeviceAuth::Jwt(JwtAuth::read(files)?)),
            (Auth::Mtls, _) => Ok(DeviceAuth::Mtls),
        }
    }

    /// What a legacy login is granted; see [`DeviceAuth::check`].
    ///
    /// # Errors
    /// It is to be refused.
    pub fn check_legacy(
        &self,
        token: Option<&str>,
        shop: &ShopId,
        device: &DeviceId,
        role: Role,
        now_s: u64,
    ) -> Result<Grant, Refusal> {
        match self {
            DeviceAuth::LegacyJwt(auth, shops) if shops.contains(shop.as_str()) => {
                auth.check(token, shop, device, role, now_s)
            }
            _ => self.check(token, shop, device, role, now_s),
        }
    }

    /// What a login with this identity is granted at this time, in seconds since 1970.
    ///
    /// # Errors
    /// It is to be refused.
    pub fn check(
        &self,
        token: Option<&str>,
        shop: &ShopId,
        device: &DeviceId,
        role: Role,
        now_s: u64,
    ) -> Result<Grant, Refusal> {
        match self {
            DeviceAuth::Jwt(auth) => auth.check(token, shop, device, role, now_s),
            DeviceAuth::None | DeviceAuth::LegacyJwt(..) | DeviceAuth::Mtls => Ok(Grant::default()),
        }
    }

    /// Reads the keys anew; logins that come after it meet the new ones. Gives how many there are, or None
    /// where no token is asked for.
    ///
    /// # Errors
    /// A file cannot be taken, and all keys from before stay in force.
    pub fn reload(&self) -> Result<Option<usize>, TokenKeyError> {
        let (DeviceAuth::Jwt(auth) | DeviceAuth::LegacyJwt(auth, _)) = self else { return Ok(None) };
        let keys = TokenKeys::read(&auth.files)?;
        let count = keys.0.len();
        *auth.keys.write() = Arc::new(keys);
        Ok(Some(count))
    }
}

impl JwtAuth {
    fn read(files: &TokenKeyFiles) -> Result<JwtAuth, TokenKeyError> {
        let keys = RwLock::new(Arc::new(TokenKeys::read(files)?));
        Ok(JwtAuth { files: files.clone(), keys })
    }

    /// What the token grants to this identity.
    fn check(
        &self,
        token: Option<&str>,
        shop: &ShopId,
        device: &DeviceId,
        role: Role,
        now_s: u64,
    ) -> Result<Grant, Refusal> {
        let token = token.filter(|token| !token.is_empty()).ok_or(Refusal::Missing)?;
        let keys = self.keys.read().clone();
        grant(&keys.claims(token)?, shop, device, role, now_s)
    }
}

/// A key with the one algorithm that it is for. The library leaves its bytes out of the `Debug` form.
#[derive(Debug)]
struct TokenKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl TokenKey {
    /// The claims of a token that this key signed.
    fn claims(&self, token: &str) -> Result<Claims, Refusal> {
        let mut validation = Validation::new(self.algorithm);
        // The claims are ours to check: against a clock that is brought along, and without leeway.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        match decode::<Claims>(token, &self.key, &validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Refusal::Signature,
                _ => Refusal::Malformed,
            }),
        }
    }
}

/// The keys of all files.
#[derive(Debug)]
struct TokenKeys(Vec<TokenKey>);

impl TokenKeys {
    fn read(files: &TokenKeyFiles) -> Result<TokenKeys, TokenKeyError> {
        crypto::install();
        let mut keys = Vec::new();
        for KeyFile { kid, path } in &files.secrets {
            let key = DecodingKey::from_secret(&read_secret(path)?);
            keys.push(TokenKey { kid: kid.clone(), algorithm: Algorithm::HS256, key });
        }
        for KeyFile { kid, path } in &files.public_keys {
            let key = DecodingKey::from_ed_der(&read_public_key(path)?);
            keys.push(TokenKey { kid: kid.clone(), algorithm: Algorithm::EdDSA, key });
        }
        Ok(TokenKeys(keys))
    }

    /// The claims of a token, whose signature is good.
    fn claims(&self, token: &str) -> Result<Claims, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLarge { size: token.len() });
        }
        let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
        // Whoever does not understand what `crit` lists has to refuse the token, and none is understood.
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        let mut refusal = Refusal::UnknownKey;
        for key in self.0.iter().filter(|key| self.may_have_signed(key, header.kid.as_deref())) {
            match key.claims(token) {
                Ok(claims) => return Ok(claims),
                Err(other) => refusal = other,
            }
        }
        Err(refusal)
    }

    /// Whether a token with this `kid` is tried against the key: they are the same, or both have none. Where
    /// there is but one key it is enough that either has none.
    fn may_have_signed(&self, key: &TokenKey, kid: Option<&str>) -> bool {
        match (key.kid.as_deref(), kid) {
            (Some(own), Some(named)) => own == named,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => self.0.len() == 1,
        }
    }
}

/// A secret, without white space at its ends.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, TokenKeyError> {
    let bytes = read_key(path)?;
    let secret = bytes.trim_ascii();
    if secret.starts_with(b"-----BEGIN") {
        // What everyone may know would pass for what nobody may.
        return Err(TokenKeyError::PemSecret { path: path.to_owned() });
    }
    if secret.is_empty() {
        return Err(TokenKeyError::Empty { path: path.to_owned() });
    }
    if secret.len() < SECRET_BYTES_MIN {
        warn!(path = %path.display(), "the token secret is short enough to be guessed; `openssl rand -base64 48` makes a good one");
    }
    Ok(secret.to_vec())
}

fn read_public_key(path: &Path) -> Result<Vec<u8>, TokenKeyError> {
    let wrong = || TokenKeyError::PublicKey { path: path.to_owned() };
    let info = SubjectPublicKeyInfoDer::from_pem_slice(&read_key(path)?).map_err(|_| wrong())?;
    let key = info.strip_prefix(&ED25519_PREFIX).filter(|key| key.len() == ED25519_BYTES);
    key.map(<[u8]>::to_vec).ok_or_else(wrong)
}

fn read_key(path: &Path) -> Result<Vec<u8>, TokenKeyError> {
    read_file(path, FILE_BYTES_MAX).map_err(|cause| TokenKeyError::Unreadable { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests;
