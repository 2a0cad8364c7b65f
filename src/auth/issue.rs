//! `shoprelay token`: a token for a device, signed with a secret of the relay.
//!
//! Owns the making of tokens, which the relay itself never does: it only checks them. Never reads a
//! clock. Called by `main`.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use super::crypto;
use super::token::{TOKEN_BYTES_MAX, TokenKeyError, read_secret};
use crate::config::KeyFile;
use crate::ids::{DeviceId, Name, ShopId};
use crate::message::Role;

/// What a new token is to say.
#[derive(Debug, Clone, Serialize)]
pub struct NewToken {
    pub shop: ShopId,
    pub device: DeviceId,
    pub role: Role,
    /// The end of its validity, in seconds since 1970.
    #[serde(rename = "exp")]
    pub expires_at_s: u64,
    /// The groups the device is in, and no others; None to leave them as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Name>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Name>,
    /// The only ops it allows, beside those that are always allowed; None for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<Vec<String>>,
}

/// Why a token cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("there is no secret to sign with; name one with --jwt-secret-file")]
    NoSecret,
    #[error("there are several secrets; say which is to sign with --kid, out of {kids}")]
    WhichSecret { kids: String },
    #[error("no secret has the kid {kid:?}; there are {kids}")]
    UnknownKid { kid: String, kids: String },
    #[error(transparent)]
    Secret(#[from] TokenKeyError),
    #[error("the token would have {size} bytes, and a relay looks at {TOKEN_BYTES_MAX} at most; leave some groups out")]
    TooLarge { size: usize },
    #[error("the token cannot be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Signs a token with the secret of this `kid`. Where none is named it is the only secret, or the only one
/// without a kid.
///
/// # Errors
/// [`IssueError`] says what to do.
pub fn issue(secrets: &[KeyFile], kid: Option<&str>, token: &NewToken) -> Result<String, IssueError> {
    let secret = choose(secrets, kid)?;
    crypto::install();
    let header = Header { kid: secret.kid.clone(), ..Header::new(Algorithm::HS256) };
    let key = EncodingKey::from_secret(&read_secret(&secret.path)?);
    let signed = encode(&header, token, &key)?;
    if signed.len() > TOKEN_BYTES_MAX {
        return Err(IssueError::TooLarge { size: signed.len() });
    }
    Ok(signed)
}

fn choose<'a>(secrets: &'a [KeyFile], kid: Option<&str>) -> Result<&'a KeyFile, IssueError> {
    let kids = || {
        let kids: Vec<&str> = secrets.iter().filter_map(|secret| secret.kid.as_deref()).collect();
        if kids.is_empty() { "none".to_owned() } else { kids.join(", ") }
    };
    if let Some(kid) = kid {
        let secret = secrets.iter().find(|secret| secret.kid.as_deref() == Some(kid));
        return secret.ok_or_else(|| IssueError::UnknownKid { kid: kid.to_owned(), kids: kids() });
    }
    let nameless: Vec<&KeyFile> = secrets.iter().filter(|secret| secret.kid.is_none()).collect();
    match (secrets, &nameless[..]) {
        ([], _) => Err(IssueError::NoSecret),
        ([only], _) => Ok(only),
        (_, [only]) => Ok(only),
        _ => Err(IssueError::WhichSecret { kids: kids() }),
    }
}
