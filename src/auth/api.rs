//! The API's door: from an `Authorization` header to the key whose it is.
//!
//! Owns which keys are in force. Never answers a request and never says which key nearly fitted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::keys::{ApiKey, ApiKeys, KeysError};
use crate::config::Config;

/// Why a request has no key that lets it in; the message is for who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorized {
    #[error("an API key is needed, in the header \"Authorization: Bearer <key>\"")]
    Missing,
    #[error("the Authorization header does not have the form \"Bearer <key>\"")]
    Form,
    #[error("there is no such API key")]
    Unknown,
}

/// Who may use the API.
#[derive(Debug)]
pub enum ApiAuth {
    /// There is no keys file: everyone may do everything, as `local`.
    Local(Arc<ApiKey>),
    /// Who has a key of this file.
    Keys(KeysInForce),
}

/// The keys of a file, as last read.
#[derive(Debug)]
pub struct KeysInForce {
    path: PathBuf,
    keys: RwLock<Arc<ApiKeys>>,
}

impl ApiAuth {
    /// Reads the keys file, where the settings name one.
    ///
    /// # Errors
    /// [`KeysError`] says what is wrong with it.
    pub fn open(config: &Config) -> Result<ApiAuth, KeysError> {
        match &config.api_keys_file {
            Some(path) => Self::from_file(path),
            None => Ok(ApiAuth::Local(Arc::new(ApiKey::local()))),
        }
    }

    /// Reads the keys file.
    ///
    /// # Errors
    /// [`KeysError`] says what is wrong with it.
    pub fn from_file(path: &Path) -> Result<ApiAuth, KeysError> {
        let keys = RwLock::new(Arc::new(ApiKeys::read(path)?));
        Ok(ApiAuth::Keys(KeysInForce { path: path.to_owned(), keys }))
    }

    /// Whether there is no keys file, so that no key is asked for.
    pub fn is_open(&self) -> bool {
        matches!(self, ApiAuth::Local(_))
    }

    /// The key of a request with this `Authorization` header; without a keys file the header does not
    /// matter.
    ///
    /// # Errors
    /// The request is to be answered 401.
    pub fn check(&self, authorization_header: Option<&str>) -> Result<Arc<ApiKey>, Unauthorized> {
        if let ApiAuth::Local(everyone) = self {
            return Ok(everyone.clone());
        }
        let header = authorization_header.ok_or(Unauthorized::Missing)?;
        let (scheme, key) = header.trim().split_once(' ').ok_or(Unauthorized::Form)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Unauthorized::Form);
        }
        self.check_key(Some(key.trim_start()))
    }

    /// The key that a request presents as it is, for who cannot set a header.
    ///
    /// # Errors
    /// The request is to be refused.
    pub fn check_key(&self, presented: Option<&str>) -> Result<Arc<ApiKey>, Unauthorized> {
        match self {
            ApiAuth::Local(everyone) => Ok(everyone.clone()),
            ApiAuth::Keys(in_force) => {
                let presented = presented.filter(|key| !key.is_empty()).ok_or(Unauthorized::Missing)?;
                let keys = in_force.keys.read().clone();
                keys.find(presented).ok_or(Unauthorized::Unknown)
            }
        }
    }

    /// Reads the file anew; requests that come after it meet the new keys. Gives how many there are, or
    /// None where there is no file.
    ///
    /// # Errors
    /// The file cannot be taken, and the keys from before stay in force.
    pub fn reload(&self) -> Result<Option<usize>, KeysError> {
        let ApiAuth::Keys(in_force) = self else { return Ok(None) };
        let keys = ApiKeys::read(&in_force.path)?;
        let count = keys.len();
        *in_force.keys.write() = Arc::new(keys);
        Ok(Some(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::Scope;

    const KEY: &str = "0123456789abcdef";

    fn file(key: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        write(&file, key);
        file
    }

    fn write(file: &tempfile::NamedTempFile, key: &str) {
        let text = format!("[[keys]]\nname = \"back\"\nkey = \"{key}\"\nshops = [\"*\"]\nscopes = [\"read\"]\n");
        std::fs::write(file.path(), text).unwrap();
    }

    #[test]
    fn a_bearer_header_is_read_whatever_the_case_of_its_scheme() {
        let file = file(KEY);
        let auth = ApiAuth::from_file(file.path()).unwrap();
        for header in [format!("Bearer {KEY}"), format!("bearer  {KEY}"), format!("BEARER {KEY} ")] {
            assert_eq!(auth.check(Some(&header)).unwrap().name.as_str(), "back", "{header}");
        }
        assert_eq!(auth.check_key(Some(KEY)).unwrap().name.as_str(), "back");
        assert_eq!(auth.check_key(None).unwrap_err(), Unauthorized::Missing);
        let refused = |header: Option<&str>| auth.check(header).unwrap_err();
        assert_eq!(refused(None), Unauthorized::Missing);
        assert_eq!(refused(Some("Bearer 0123456789abcdee")), Unauthorized::Unknown);
        for header in [KEY, "Bearer", "Bearer ", "Basic 0123456789abcdef"] {
            assert_eq!(refused(Some(header)), Unauthorized::Form, "{header}");
        }
    }

    #[test]
    fn without_a_file_everyone_is_local_and_may_do_everything() {
        let auth = ApiAuth::Local(Arc::new(ApiKey::local()));
        for header in [None, Some("Bearer nonsense"), Some("nonsense")] {
            let key = auth.check(header).unwrap();
            assert_eq!(key.name.as_str(), "local");
            assert!(key.has_all_shops() && key.may_enter(&"s1".parse().unwrap()));
            assert!(Scope::ALL.iter().all(|scope| key.may(*scope)));
        }
        assert!(auth.is_open() && auth.reload().unwrap().is_none());
    }

    #[test]
    fn a_bad_file_leaves_the_old_keys_in_force_and_a_good_one_replaces_them() {
        let file = file(KEY);
        let auth = ApiAuth::from_file(file.path()).unwrap();
        write(&file, "");
        assert!(auth.reload().is_err());
        assert!(auth.check_key(Some(KEY)).is_ok());
        write(&file, "fedcba9876543210");
        assert_eq!(auth.reload().unwrap(), Some(1));
        assert_eq!(auth.check_key(Some(KEY)).unwrap_err(), Unauthorized::Unknown);
        assert!(auth.check_key(Some("fedcba9876543210")).is_ok());
    }
}
