//! A client of the TLS listener, and the certificates that tests are made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::device::Device;
use super::wire::Encoding;
use super::{SOON, unique};

/// What a WebSocket goes over.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate and, of one that another has issued, those above it short of the first.
    chain: Vec<String>,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate and what leads from it to the first authority, in PEM.
    pub pem: String,
    pub key: String,
    serial: Option<SerialNumber>,
}

impl Issued {
    /// A certificate and its key that others have made.
    pub fn of(pem: String, key: String) -> Issued {
        Issued { pem, key, serial: None }
    }
}

impl Authority {
    /// An authority that nobody has issued.
    pub fn new() -> Authority {
        let (params, key) = (Authority::params(), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap();
        Authority { chain: vec![certificate.pem()], issuer: Issuer::new(params, key) }
    }

    /// An authority that this one has issued.
    pub fn below(&self) -> Authority {
        let (params, key) = (Authority::params(), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Authority { chain: vec![certificate.pem()], issuer: Issuer::new(params, key) }
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, unique("ca"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// Its own certificate in PEM.
    pub fn pem(&self) -> String {
        self.chain.concat()
    }

    /// Issues a certificate, of these parameters beside the usual ones.
    pub fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        (params.not_before, params.not_after) = ((SystemTime::now() - DAY).into(), (SystemTime::now() + DAY).into());
        let serial = SerialNumber::from(u64::from(rand::random::<u32>()) | 1 << 40);
        params.serial_number = Some(serial.clone());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { pem: certificate.pem(), key: key.serialize_pem(), serial: Some(serial) }
    }

    /// A certificate for the node.
    pub fn server(&self) -> Issued {
        self.issue(|params| {
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// A certificate for a device, which a URI names.
    pub fn device(&self, uri: &str) -> Issued {
        self.device_with(uri, |_| {})
    }

    /// The same, changed.
    pub fn device_with(&self, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        self.issue(|params| {
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(params);
        })
    }

    /// Its list of revoked certificates in PEM, due for an update in a day.
    pub fn list(&self, revoked: &[&Issued]) -> String {
        self.list_until(revoked, SystemTime::now() + DAY)
    }

    /// Its list of revoked certificates in PEM.
    pub fn list_until(&self, revoked: &[&Issued], next_update: SystemTime) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: issued.serial.clone().expect("one of ours"),
            revocation_time: (SystemTime::now() - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: (SystemTime::now() - 2 * DAY).into(),
            next_update: next_update.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A node's certificate and key on disk, with the authority that issued it.
pub struct TlsFiles {
    pub authority: Authority,
    dir: TempDir,
}

impl TlsFiles {
    /// Writes a certificate and its key.
    pub fn new() -> TlsFiles {
        let files = TlsFiles { authority: Authority::new(), dir: TempDir::with_prefix("shoprelay-tls-").unwrap() };
        files.write_server(&files.authority.server());
        files
    }

    /// Writes another certificate and its key.
    pub fn write_server(&self, server: &Issued) {
        self.write("cert.pem", &server.pem);
        self.write("key.pem", &server.key);
    }

    /// Puts a file in the place of the one of this name, at once.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.dir.path().join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of a file as text.
    pub fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }

    /// The settings for a node that takes devices by TLS.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("TLS_LISTEN", "127.0.0.1:0".into()),
            ("TLS_CERT", self.text("cert.pem")),
            ("TLS_KEY", self.text("key.pem")),
        ]
    }

    /// The settings for a node where a certificate of this authority, or those in the PEM text, says who a
    /// device is.
    pub fn mutual_settings(&self, authorities: &str) -> Vec<(&'static str, String)> {
        self.write("clients.pem", authorities);
        let mut settings = self.settings();
        settings.push(("TLS_CLIENT_CA", self.text("clients.pem")));
        settings.push(("AUTH", "mtls".into()));
        settings
    }
}

/// A path as text.
pub fn text(path: &Path) -> String {
    path.to_str().expect("a temporary directory has a plain name").to_owned()
}

/// How to connect to a node by TLS.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    pub address: String,
    /// What is sent before TLS begins.
    preamble: Vec<u8>,
}

impl TlsClient {
    /// A client that trusts the authorities of this PEM text and shows the certificate, if any.
    pub fn new(address: &str, authorities: &str, own: Option<&Issued>) -> TlsClient {
        TlsClient::of(address, authorities, own, &[])
    }

    /// The same, of these versions of TLS only; all where none is named.
    pub fn of(
        address: &str,
        authorities: &str,
        own: Option<&Issued>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsClient {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = if versions.is_empty() {
            builder.with_safe_default_protocol_versions().unwrap()
        } else {
            builder.with_protocol_versions(versions).unwrap()
        };
        let builder = builder.with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_slice_iter(own.pem.as_bytes()).collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        TlsClient { config: Arc::new(config), address: address.into(), preamble: Vec::new() }
    }

    /// The same with other settings.
    pub fn with(mut self, change: impl FnOnce(&mut ClientConfig)) -> TlsClient {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// The same, but this is sent before TLS begins, as a balancer does.
    pub fn after(self, preamble: Vec<u8>) -> TlsClient {
        TlsClient { preamble, ..self }
    }

    /// The same, but every handshake is a whole one.
    pub fn without_resumption(self) -> TlsClient {
        self.with(|config| config.resumption = Resumption::disabled())
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Why it came to nothing; with TLS 1.3 a client hears of a refused certificate only when it reads.
    pub async fn stream(&self) -> Result<TlsStream<TcpStream>, String> {
        let shaking = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&self.preamble).await?;
            let name = "localhost".try_into().expect("a name");
            TlsConnector::from(self.config.clone()).connect(name, stream).await
        };
        timeout(SOON, shaking).await.map_err(|_| format!("no TLS in {SOON:?}"))?.map_err(|cause| cause.to_string())
    }

    /// Opens a WebSocket.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn device(&self, encoding: Encoding) -> Result<Device, String> {
        let url = format!("wss://{}/ws", self.address);
        Device::over(Box::new(self.stream().await?), &url, Some(encoding)).await
    }

    /// `GET path`: the whole answer as text.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, path: &str) -> Result<String, String> {
        let mut stream = self.stream().await?;
        let exchange = async {
            let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = timeout(SOON, exchange).await.map_err(|_| format!("no answer in {SOON:?}"))?;
        answer.map(|answer| String::from_utf8_lossy(&answer).into_owned()).map_err(|cause| cause.to_string())
    }
}
