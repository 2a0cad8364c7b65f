//! What a run is asked to be.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{self, NewToken};
use crate::client::{Dial, Trust};
use crate::config::KeyFile;
use crate::ids::{IdError, unix_ms};
use crate::message::Role;
use crate::prove::ProveError;
use crate::prove::crew::{CREW_MAX, Crew};
use crate::prove::plan::Proof;

/// The shortest and longest time between two turns of a habit.
const PERIOD: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(20));
/// A token is good for this much longer than the run.
const TOKEN_SPARE: Duration = Duration::from_secs(3600);

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Addresses of nodes, or of the balancer before them; devices take turns.
    pub urls: Vec<String>,
    pub shops: u32,
    pub crew: Crew,
    /// Messages a second, over all shops.
    pub rate: u32,
    pub lasts: Duration,
    /// How long what was accepted may take to arrive, once nothing new is sent.
    pub settle: Duration,
    /// What the names of the shops begin with.
    pub shop_prefix: String,
    /// Secrets for tokens; none where the deployment asks for none.
    pub secrets: Vec<KeyFile>,
    pub kid: Option<String>,
    pub tls_ca: Option<PathBuf>,
    /// Where the journals are written.
    pub journal: Option<PathBuf>,
}

/// What of it cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("say --url ws://host:port, of a node or of the balancer; it may be repeated")]
    Nowhere,
    #[error("--kid {kid} is the name of a secret; say which with --token-secret-file")]
    NoSecret { kid: String },
    #[error("a shop needs a main and a sub at least, and has {CREW_MAX} devices at most; change --mains or --subs")]
    Crew,
    #[error("--shop-prefix {prefix:?}: the name of a shop {cause}")]
    Prefix { prefix: String, cause: IdError },
}

impl Settings {
    /// Checks what one value alone does not tell.
    ///
    /// # Errors
    /// [`SettingsError`] says what to change.
    pub fn check(self) -> Result<Settings, SettingsError> {
        if self.urls.is_empty() {
            return Err(SettingsError::Nowhere);
        }
        if let Some(kid) = self.kid.as_ref().filter(|_| self.secrets.is_empty()) {
            return Err(SettingsError::NoSecret { kid: kid.clone() });
        }
        let Crew { mains, subs } = self.crew;
        if mains == 0 || subs == 0 || usize::from(mains) + usize::from(subs) > CREW_MAX {
            return Err(SettingsError::Crew);
        }
        let longest = self.shop(self.shops);
        let wrong = |cause| SettingsError::Prefix { prefix: self.shop_prefix.clone(), cause };
        longest.parse::<crate::ids::ShopId>().map_err(wrong)?;
        Ok(self)
    }

    /// The name of a shop. It tells how many devices the shop has: a run with fewer would leave some that
    /// never come back, and whose messages fill the shop's log.
    pub(super) fn shop(&self, number: u32) -> String {
        format!("{}{}x{}-{}", self.shop_prefix, self.crew.mains, self.crew.subs, number + 1)
    }

    pub(super) fn dials(&self) -> Result<Arc<[Dial]>, ProveError> {
        let is_tls = self.urls.iter().any(|url| url.starts_with("wss:"));
        let trust = is_tls.then(|| Trust::open(self.tls_ca.as_deref())).transpose()?;
        let dials: Result<Vec<Dial>, _> = self.urls.iter().map(|url| Dial::parse(url, trust.as_ref())).collect();
        Ok(dials?.into())
    }

    /// How often a habit shows: in a short run more often, so that each does.
    pub(super) fn period(&self) -> Duration {
        (self.lasts / 6).clamp(PERIOD.0, PERIOD.1)
    }

    pub(super) fn login(&self, shop: &str, device: &str, role: Role, proof: Proof) -> Result<Value, ProveError> {
        let mut login = json!({"op": "login", "shop": shop, "device": device, "role": role, "ack": proof.word()});
        if !self.secrets.is_empty()
            && let Some(fields) = login.as_object_mut()
        {
            fields.insert("token".into(), self.token(shop, device, role)?.into());
        }
        Ok(login)
    }

    fn token(&self, shop: &str, device: &str, role: Role) -> Result<String, ProveError> {
        let wrong = |cause| SettingsError::Prefix { prefix: self.shop_prefix.clone(), cause };
        let new = NewToken {
            shop: shop.parse().map_err(wrong)?,
            device: device.parse().map_err(wrong)?,
            role,
            expires_at_s: unix_ms() / 1000 + (self.lasts + self.settle + TOKEN_SPARE).as_secs(),
            groups: None,
            user: None,
            ops: None,
        };
        Ok(auth::issue(&self.secrets, self.kid.as_deref(), &new)?)
    }

    pub(super) fn journal_error(&self, cause: io::Error) -> ProveError {
        let directory = self.journal.as_ref().map_or_else(String::new, |path| path.display().to_string());
        ProveError::Journal { directory, cause }
    }
}
