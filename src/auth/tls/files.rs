//! The files that TLS needs, from PEM to what the handshake takes.
//!
//! Owns what is wrong with each of them. Never keeps what it read, and never repeats a line of a key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore};
use tracing::warn;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

use crate::auth::read_file;
use crate::config::{ClientFiles, TlsFiles};
use crate::metrics::{self, TlsFile};

/// Largest file with certificates or a key, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Largest file with revocation lists, in bytes: about 400,000 revoked certificates.
const LISTS_BYTES_MAX: usize = 16 << 20;

/// Why a file cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the TLS file {path} cannot be read: {cause}")]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error(
        "{path} holds no {what} in PEM, or is damaged; its lines stand between -----BEGIN {label}----- and -----END"
    )]
    Absent { path: PathBuf, what: &'static str, label: &'static str },
    #[error("certificate number {number} of {path} cannot be taken: {cause}")]
    Certificate { path: PathBuf, number: usize, cause: String },
    #[error(
        "the TLS key {path} is encrypted, and a node has nobody to ask for its password; `openssl pkey -in {path} -out \
         <file>` writes it in the clear"
    )]
    EncryptedKey { path: PathBuf },
    #[error(
        "the TLS key {path} is not of a kind that is supported: RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519"
    )]
    Key { path: PathBuf },
    #[error(
        "the TLS key {key} is not that of the first certificate in {certificate}; the node's own certificate stands first, \
         and its authorities after it"
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate in {path} has expired already")]
    Expired { path: PathBuf },
    #[error(
        "a revocation list of {path} cannot be taken (it has to be of version 2, as `openssl ca` writes with crl_extensions): {cause}"
    )]
    Revoked { path: PathBuf, cause: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] Error),
}

/// What the files hold, ready to be used.
pub struct Material {
    pub certificate: CertifiedKey,
    /// Who checks the certificates of devices; None where they need none.
    pub trust: Option<Arc<dyn ClientCertVerifier>>,
    expiries: Vec<(TlsFile, i64)>,
}

impl Material {
    /// Reads all files, which blocks as long as the file system does.
    ///
    /// # Errors
    /// The first file that cannot be taken.
    pub fn read(files: &TlsFiles) -> Result<Material, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut expiries = Vec::new();
        let (certificate, expires_at_s) = own_certificate(files, &provider)?;
        expiries.push((TlsFile::Certificate, expires_at_s));
        let trust = match &files.clients {
            Some(clients) => Some(trust(clients, provider, &mut expiries)?),
            None => None,
        };
        Ok(Material { certificate, trust, expiries })
    }

    /// Whether the node's own certificate is past its time.
    pub fn has_expired(&self) -> bool {
        self.expiries.iter().any(|(file, at_s)| *file == TlsFile::Certificate && *at_s < now_s())
    }

    /// Tells until when the files are good, and warns of those that no longer are.
    pub fn report_expiries(&self) {
        for (file, at_s) in &self.expiries {
            metrics::tls_expiry(*file, *at_s);
            if *at_s < now_s() {
                let ago_s = now_s() - at_s;
                match file {
                    TlsFile::Certificate => warn!(ago_s, "the certificate of tls_cert has expired; no device takes it"),
                    TlsFile::ClientCa => warn!(ago_s, "a CA of tls_client_ca has expired"),
                    TlsFile::ClientCrl => {
                        warn!(ago_s, "a list of tls_client_crl is past its next update; what it revokes stays revoked")
                    }
                }
            }
        }
    }
}

/// The node's certificate with its key, and when the first of its chain expires.
fn own_certificate(files: &TlsFiles, provider: &CryptoProvider) -> Result<(CertifiedKey, i64), TlsError> {
    let path = &files.certificate;
    let chain = certificates(path)?;
    let mut expires_at_s = i64::MAX;
    for (index, certificate) in chain.iter().enumerate() {
        expires_at_s = expires_at_s.min(parsed(certificate, path, index)?.validity().not_after.timestamp());
    }
    let key = key(&files.key)?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| TlsError::Key { path: files.key.clone() })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok((certified, expires_at_s)),
        Err(Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: path.clone(), key: files.key.clone() })
        }
        Err(cause) => Err(TlsError::Certificate { path: path.clone(), number: 1, cause: cause.to_string() }),
    }
}

/// Who is trusted to vouch for devices, less what is revoked.
fn trust(
    clients: &ClientFiles,
    provider: Arc<CryptoProvider>,
    expiries: &mut Vec<(TlsFile, i64)>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path = &clients.authorities;
    let authorities = certificates(path)?;
    let mut roots = RootCertStore::empty();
    let mut subjects = Vec::new();
    let mut expires_at_s = i64::MAX;
    for (index, authority) in authorities.iter().enumerate() {
        let parsed = parsed(authority, path, index)?;
        expires_at_s = expires_at_s.min(parsed.validity().not_after.timestamp());
        subjects.push((parsed.subject().as_raw().to_vec(), parsed.subject().to_string()));
        roots.add(authority.clone()).map_err(|cause| unusable(path, index, cause.to_string()))?;
    }
    expiries.push((TlsFile::ClientCa, expires_at_s));
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let Some(path) = &clients.revoked else {
        return verifier.build().map_err(|cause| unusable(&clients.authorities, 0, cause.to_string()));
    };
    let lists = lists(path)?;
    let wrong = |cause: String| TlsError::Revoked { path: path.clone(), cause };
    let mut updates_at_s = i64::MAX;
    for list in &lists {
        let (_, list) = CertificateRevocationList::from_der(list).map_err(|cause| wrong(cause.to_string()))?;
        updates_at_s = updates_at_s.min(list.next_update().map_or(i64::MAX, |at: ASN1Time| at.timestamp()));
        subjects.retain(|(subject, _)| subject != list.issuer().as_raw());
    }
    expiries.push((TlsFile::ClientCrl, updates_at_s));
    for (_, authority) in subjects {
        warn!(%authority, "tls_client_crl has no list of this CA, so whatever it has issued is refused");
    }
    // What is left at its default: every certificate of a chain is looked up, one whose issuer has no list
    // is refused, and a list that is past its next update holds on.
    verifier = verifier.with_crls(lists.iter().cloned());
    verifier.build().map_err(|cause| match cause {
        VerifierBuilderError::InvalidCrl(cause) => wrong(format!("{cause:?}")),
        cause => wrong(cause.to_string()),
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all(path, &read(path, FILE_BYTES_MAX)?, "certificate", "CERTIFICATE")
}

fn lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    all(path, &read(path, LISTS_BYTES_MAX)?, "revocation list", "X509 CRL")
}

/// Every section of one kind; one that is damaged spoils the file.
fn all<T: PemObject>(path: &Path, pem: &[u8], what: &'static str, label: &'static str) -> Result<Vec<T>, TlsError> {
    let found = T::pem_slice_iter(pem).collect::<Result<Vec<T>, _>>().ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| TlsError::Absent { path: path.to_owned(), what, label })
}

/// The first key of a file.
fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path, FILE_BYTES_MAX)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let text = String::from_utf8_lossy(&pem);
        // The old form says so in a header, the new one in its label.
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return TlsError::EncryptedKey { path: path.to_owned() };
        }
        TlsError::Absent { path: path.to_owned(), what: "private key", label: "PRIVATE KEY" }
    })
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>, path: &Path, index: usize) -> Result<X509Certificate<'a>, TlsError> {
    match parse_x509_certificate(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(cause) => Err(unusable(path, index, cause.to_string())),
    }
}

fn unusable(path: &Path, index: usize, cause: String) -> TlsError {
    TlsError::Certificate { path: path.to_owned(), number: index + 1, cause }
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, TlsError> {
    read_file(path, limit).map_err(|cause| TlsError::Unreadable { path: path.to_owned(), cause })
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64)
}
