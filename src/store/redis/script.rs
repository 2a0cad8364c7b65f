//! How a script is run.
//!
//! Owns the digest that stands for its text, and what happens where Redis does not know it. Never knows what
//! a script does; that is [`super::scripts`], which calls it.

use fred::clients::Client;
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Value;
use sha1::{Digest, Sha1};

use crate::store::StoreError;
use crate::store::redis::reply::{self, Reply, store_error, unavailable};

/// A script, and the digest that Redis knows it by.
pub struct Script {
    name: &'static str,
    text: &'static str,
    digest: String,
}

impl Script {
    /// The script of this name, and its text.
    pub fn new(name: &'static str, text: &'static str) -> Script {
        let digest = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Script { name, text, digest }
    }

    /// Runs it, and makes it known where Redis has forgotten it.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn run(&self, client: &Client, keys: Vec<String>, args: Vec<Value>) -> Result<Reply, StoreError> {
        ensure_up(client)?;
        let answer = match client.evalsha(self.digest.as_str(), keys.clone(), args.clone()).await {
            // It did not run, so running it now is no repeat; EVAL also makes it known.
            Err(error) if reply::is_unknown_script(&error) => client.eval(self.text, keys, args).await,
            answer => answer,
        };
        answer.map(|value| Reply::new(self.name, value)).map_err(|error| store_error(self.name, error))
    }
}

/// Fails at once where the connection is known to be down: fred would wait for it.
///
/// # Errors
/// [`StoreError::Unavailable`]
pub fn ensure_up(client: &Client) -> Result<(), StoreError> {
    if client.is_connected() {
        return Ok(());
    }
    Err(unavailable("the connection to Redis is down; it is being made anew"))
}
