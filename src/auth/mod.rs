//! Who may come in: back ends by an API key, devices by a token or a certificate.
//!
//! Owns the keys of all, as read from the files that the settings name, and what they prove. Never
//! logs, prints or answers a key, a secret or a token, and knows neither sockets nor the store. Opened
//! by `node`, which also has it read the files anew; asked by whoever takes a request or a login;
//! `check` opens it to see whether a node could.

mod api;
mod certificate;
mod claims;
mod crypto;
mod issue;
mod keys;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod tls;
mod token;

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};
use tracing::{info, warn};

pub use api::{ApiAuth, Unauthorized};
pub use certificate::{ClientCertificate, Unnamed};
pub use issue::{IssueError, NewToken, issue};
pub use keys::{ApiKey, ApiKeys, KeyProblem, KeyShops, KeysError, Scope, Scopes};
pub use tls::{Distrusted, InForce, Tls, TlsError};
pub use token::{DeviceAuth, JwtAuth, Refusal, TOKEN_BYTES_MAX, TokenKeyError};

use crate::config::Config;
use crate::ids::{DeviceId, ShopId};
use crate::metrics;

/// Time between looks at the files of TLS. One that changed is read at the second look that finds it so.
const WATCH: Duration = Duration::from_secs(1);

/// A file with keys that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error(transparent)]
    Api(#[from] KeysError),
    #[error(transparent)]
    Devices(#[from] TokenKeyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The doors of a node. The keys behind them can change while it runs; which kind of key is asked for
/// cannot.
#[derive(Debug)]
pub struct Gate {
    pub api: ApiAuth,
    pub devices: DeviceAuth,
    /// None where nobody is served by TLS.
    pub tls: Option<Arc<Tls>>,
}

impl Gate {
    /// Reads the files that the settings name, which blocks as long as the file system does.
    ///
    /// # Errors
    /// The first file that cannot be taken.
    pub fn open(config: &Config) -> Result<Gate, GateError> {
        let tls = config.tls.as_ref().map(|tls| Tls::open(&tls.files)).transpose()?;
        Ok(Gate { api: ApiAuth::open(config)?, devices: DeviceAuth::open(config)?, tls: tls.map(Arc::new) })
    }

    /// What is wrong with each of the files; nothing where [`Gate::open`] would succeed.
    pub fn problems(config: &Config) -> Vec<GateError> {
        let api = ApiAuth::open(config).err().map(GateError::from);
        let devices = DeviceAuth::open(config).err().map(GateError::from);
        let tls = config.tls.as_ref().and_then(|tls| Tls::open(&tls.files).err()).map(GateError::from);
        [api, devices, tls].into_iter().flatten().collect()
    }

    /// Reads the files anew, each kind by itself. Where one cannot be taken, what was in force stays. What
    /// came of it is logged. A session that is logged in stays so, unless the certificate that it came with
    /// is no longer good.
    ///
    /// # Errors
    /// The files were not all read, for a fault of the relay's own.
    pub async fn reload(self: &Arc<Gate>) -> Result<(), JoinError> {
        let gate = self.clone();
        spawn_blocking(move || gate.read_anew()).await
    }

    /// Looks at the files of TLS, without end, and reads them anew when they change.
    pub async fn watch(self: Arc<Gate>) {
        let Some(tls) = &self.tls else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(WATCH);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let tls = tls.clone();
            match spawn_blocking(move || tls.reload_if_changed()).await {
                Ok(reloaded) => reloaded.into_iter().for_each(tell_of_tls),
                Err(error) => warn!(%error, "the files of TLS could not be looked at"),
            }
        }
    }

    fn read_anew(&self) {
        let (api, devices) = (self.api.reload(), self.devices.reload());
        if matches!((&api, &devices, &self.tls), (Ok(None), Ok(None), None)) {
            info!("nothing was read anew: the settings name no files with keys");
        }
        match api {
            Ok(Some(keys)) => info!(keys, "the API's keys were read anew"),
            Ok(None) => {}
            Err(error) => warn!(%error, "the API's keys stay as they were"),
        }
        match devices {
            Ok(Some(keys)) => info!(keys, "the keys for device tokens were read anew"),
            Ok(None) => {}
            Err(error) => warn!(%error, "the keys for device tokens stay as they were"),
        }
        if let Some(tls) = &self.tls {
            tell_of_tls(tls.reload());
        }
    }

    /// Whether a client certificate that was good when its connection was made still is.
    pub fn trusts(&self, certificate: &ClientCertificate) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.trusts(certificate))
    }

    /// Whether a connection with this client certificate may log in as this device, at this time in seconds
    /// since 1970; and when the certificate expires, where there is one.
    ///
    /// # Errors
    /// The login is to be refused.
    pub fn check_certificate(
        &self,
        certificate: Option<&ClientCertificate>,
        shop: &ShopId,
        device: &DeviceId,
        now_s: u64,
    ) -> Result<Option<u64>, Refusal> {
        let Some(certificate) = certificate else {
            let is_needed = matches!(self.devices, DeviceAuth::Mtls);
            return if is_needed { Err(Refusal::NoCertificate) } else { Ok(None) };
        };
        if matches!(self.devices, DeviceAuth::Mtls) {
            let (its_shop, its_device) = certificate.names()?;
            if its_shop != shop {
                return Err(Refusal::OtherCertificate { name: "shop" });
            }
            if its_device != device {
                return Err(Refusal::OtherCertificate { name: "device" });
            }
        }
        if now_s >= certificate.expires_at_s() || !self.trusts(certificate) {
            return Err(Refusal::Distrusted(Distrusted));
        }
        Ok(Some(certificate.expires_at_s()))
    }
}

/// Says what came of reading the files of TLS anew.
fn tell_of_tls(reloaded: Result<(), TlsError>) {
    metrics::tls_reloaded(reloaded.is_ok());
    match reloaded {
        Ok(()) => info!("the certificates and keys of TLS were read anew"),
        Err(error) => warn!(%error, "the certificates and keys of TLS stay as they were"),
    }
}

/// The whole of a file that has at most `limit` bytes.
fn read_file(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}
