//! Whose certificates are believed where the relay, or a tool of it, is the TLS client.
//!
//! Owns the reading of authorities, from a file or the system. Never connects. Called by who dials: the store,
//! and the clients of `demo`, `prove` and `bench`.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Why there is nobody to believe; who called knows by which setting.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("no certificate authority could be read from the file")]
    Unreadable,
    #[error("the system has no certificate authorities")]
    NoRoots,
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A client that believes the authorities in this PEM file, or the system's, and shows no certificate.
///
/// # Errors
/// [`TrustError`]
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(|_| TrustError::Unreadable)? {
                let certificate = certificate.map_err(|_| TrustError::Unreadable)?;
                roots.add(certificate).map_err(|_| TrustError::Unreadable)?;
            }
            if roots.is_empty() {
                return Err(TrustError::Unreadable);
            }
        }
        None => {
            // One that cannot be read does not spoil the others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TrustError::NoRoots);
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}
