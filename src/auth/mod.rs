//! Who may come in: back ends by an API key, devices by a token.
//!
//! Owns the keys of both, as read from the files that the settings name, and what they prove. Never
//! logs, prints or answers a key, a secret or a token, and knows neither sockets nor the store. Opened
//! by `node`, which also has it read the files anew; asked by whoever takes a request or a login;
//! `check` opens it to see whether a node could.

mod api;
mod claims;
mod crypto;
mod issue;
mod keys;
mod token;

use std::io::{self, Read as _};
use std::path::Path;

use tracing::{info, warn};

pub use api::{ApiAuth, Unauthorized};
pub use issue::{IssueError, NewToken, issue};
pub use keys::{ApiKey, ApiKeys, KeyProblem, KeyShops, KeysError, Scope, Scopes};
pub use token::{DeviceAuth, JwtAuth, Refusal, TOKEN_BYTES_MAX, TokenKeyError};

use crate::config::Config;

/// A file with keys that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error(transparent)]
    Api(#[from] KeysError),
    #[error(transparent)]
    Devices(#[from] TokenKeyError),
}

/// Both doors of a node. The keys behind them can change while it runs; which kind of key is asked for
/// cannot.
#[derive(Debug)]
pub struct Gate {
    pub api: ApiAuth,
    pub devices: DeviceAuth,
}

impl Gate {
    /// Reads the files that the settings name, which blocks as long as the file system does.
    ///
    /// # Errors
    /// The first file that cannot be taken.
    pub fn open(config: &Config) -> Result<Gate, GateError> {
        Ok(Gate { api: ApiAuth::open(config)?, devices: DeviceAuth::open(config)? })
    }

    /// What is wrong with each of the files; nothing where [`Gate::open`] would succeed.
    pub fn problems(config: &Config) -> Vec<GateError> {
        let api = ApiAuth::open(config).err().map(GateError::from);
        api.into_iter().chain(DeviceAuth::open(config).err().map(GateError::from)).collect()
    }

    /// Reads the files anew, which blocks as long as the file system does. Where one cannot be taken the
    /// keys that were in force stay. What came of it is logged. A session that is logged in stays so.
    pub fn reload(&self) {
        let (api, devices) = (self.api.reload(), self.devices.reload());
        if matches!((&api, &devices), (Ok(None), Ok(None))) {
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
