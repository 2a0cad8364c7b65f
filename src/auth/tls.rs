//! What the node shows of itself by TLS, and whom it trusts to vouch for devices.
//!
//! Owns the certificate, the authorities and the revocation lists that are in force, and when new ones take
//! their place. Never shakes hands and never touches a socket. Asked by the TLS door for what a handshake
//! needs, and about certificates by whoever holds one.

mod files;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::ServerSessionMemoryCache;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::sign::SingleCertAndKey;

pub use files::TlsError;

use super::certificate::ClientCertificate;
use crate::config::TlsFiles;
use files::Material;

/// Sessions of TLS 1.2 that are remembered for clients that know no tickets; each has a few hundred bytes,
/// and with a client certificate that as well.
const SESSIONS_MAX: usize = 1024;

/// The files of TLS, as they were last read.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    in_force: RwLock<Arc<InForce>>,
    looked: Mutex<Looked>,
}

/// What handshakes use, until other files take its place.
#[derive(Debug)]
pub struct InForce {
    generation: u64,
    pub server: Arc<ServerConfig>,
    trust: Option<Arc<dyn ClientCertVerifier>>,
}

/// How the files looked.
#[derive(Debug)]
struct Looked {
    /// When they were last read, and taken or refused.
    when_read: Vec<Option<Stamp>>,
    /// At the last look.
    last: Vec<Option<Stamp>>,
}

/// What tells a file from the one that was there before: through a symbolic link, so that a link which now
/// leads elsewhere is another file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let file = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

impl InForce {
    fn new(material: Material, generation: u64) -> Result<InForce, TlsError> {
        material.report_expiries();
        let Material { certificate, trust, .. } = material;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        // TLS 1.2 and 1.3.
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = match &trust {
            Some(trust) => builder.with_client_cert_verifier(trust.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Both are new with every change of the files: what was agreed under the old ones is not resumed.
        server.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        server.ticketer = ring::Ticketer::new()?;
        // A device has one connection at a time.
        server.send_tls13_tickets = 1;
        Ok(InForce { generation, server: Arc::new(server), trust })
    }

    /// The client certificate of a handshake under these files, or None where none was asked for. One that
    /// came with a resumed session is checked anew, which the library does not do.
    ///
    /// # Errors
    /// It is no longer good, or cannot be read, and the connection is not to be.
    pub fn certificate(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        is_resumed: bool,
    ) -> Result<Option<Arc<ClientCertificate>>, Distrusted> {
        let Some(trust) = &self.trust else { return Ok(None) };
        let chain = chain.ok_or(Distrusted)?;
        if is_resumed {
            verify(trust.as_ref(), chain)?;
        }
        ClientCertificate::read(chain, self.generation).map(Arc::new).map(Some).ok_or(Distrusted)
    }
}

/// A certificate is not, or no longer, good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client certificate is not, or no longer, one to trust")]
pub struct Distrusted;

fn verify(trust: &dyn ClientCertVerifier, chain: &[CertificateDer<'_>]) -> Result<(), Distrusted> {
    let (own, between) = chain.split_first().ok_or(Distrusted)?;
    trust.verify_client_cert(own, between, UnixTime::now()).map(|_| ()).map_err(|_| Distrusted)
}

impl Tls {
    /// Reads the files, which blocks as long as the file system does.
    ///
    /// # Errors
    /// The first file that cannot be taken.
    pub fn open(files: &TlsFiles) -> Result<Tls, TlsError> {
        let stamps = stamps(files);
        let in_force = InForce::new(Material::read(files)?, 0)?;
        let looked = Mutex::new(Looked { when_read: stamps.clone(), last: stamps });
        Ok(Tls { files: files.clone(), in_force: RwLock::new(Arc::new(in_force)), looked })
    }

    /// What the next handshake is to use.
    pub fn in_force(&self) -> Arc<InForce> {
        self.in_force.read().clone()
    }

    /// Whether a certificate is good by the files that are in force now. Mostly this is known; after the
    /// files have changed it takes the verifying of its chain.
    pub fn trusts(&self, certificate: &ClientCertificate) -> bool {
        let in_force = self.in_force();
        if certificate.trusted_by.load(Ordering::Relaxed) == in_force.generation {
            return true;
        }
        let Some(trust) = &in_force.trust else { return true };
        let is_good = verify(trust.as_ref(), &certificate.chain).is_ok();
        if is_good {
            certificate.trusted_by.store(in_force.generation, Ordering::Relaxed);
        }
        is_good
    }

    /// Reads the files anew, which blocks as long as the file system does.
    ///
    /// # Errors
    /// A file cannot be taken, and everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let mut looked = self.looked.lock();
        looked.when_read = stamps(&self.files);
        self.take()
    }

    /// Reads the files anew if they have changed since they were read, and no longer do: two that belong
    /// together are often written one after the other. None where there is nothing to do.
    pub fn reload_if_changed(&self) -> Option<Result<(), TlsError>> {
        let mut looked = self.looked.lock();
        let now = stamps(&self.files);
        let is_settled = looked.last == now;
        looked.last.clone_from(&now);
        if looked.when_read == now || !is_settled {
            return None;
        }
        looked.when_read = now;
        Some(self.take())
    }

    /// Called with the lock on [`Tls::looked`] held, so that there is one at a time.
    fn take(&self) -> Result<(), TlsError> {
        let material = Material::read(&self.files)?;
        if material.has_expired() {
            // Whatever is in force is no worse.
            return Err(TlsError::Expired { path: self.files.certificate.clone() });
        }
        let generation = self.in_force().generation + 1;
        *self.in_force.write() = Arc::new(InForce::new(material, generation)?);
        Ok(())
    }
}

/// Taken before the files are read, so that what changes meanwhile is seen at the next look.
fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    let clients = files.clients.iter().flat_map(|clients| [Some(&clients.authorities), clients.revoked.as_ref()]);
    let paths = [Some(&files.certificate), Some(&files.key)].into_iter().chain(clients).flatten();
    paths.map(|path| Stamp::of(path)).collect()
}
