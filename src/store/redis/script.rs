//! How a script is run.
//!
//! Owns the digest that stands for its text, and what happens where a server does not know it: one that was
//! restarted, or has become a primary. Never knows what a script does; that is [`super::scripts`], which
//! calls it.

use std::sync::Arc;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Value;
use sha1::{Digest, Sha1};

use crate::store::StoreError;
use crate::store::redis::client::Shard;
use crate::store::redis::fleet::{Fleet, Line, client_of};
use crate::store::redis::reply::{self, Reply};
use crate::store::redis::slots::slot_of;

/// A script, and the digest that Redis knows it by.
pub struct Script {
    name: &'static str,
    text: ScriptText,
}

/// What a server needs to know of a script.
#[derive(Debug, Clone)]
pub struct ScriptText {
    pub text: &'static str,
    pub digest: Arc<str>,
}

/// A way to run scripts: on the primary that has their keys, over this connection to it.
pub struct Way {
    pub fleet: Arc<Fleet>,
    pub line: Line,
}

impl Script {
    /// The script of this name, and its text.
    pub fn new(name: &'static str, text: &'static str) -> Script {
        let digest: String = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Script { name, text: ScriptText { text, digest: digest.into() } }
    }

    /// Runs it, and makes it known where Redis has forgotten it. All keys are in one slot.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn run(&self, way: &Way, keys: Vec<String>, args: Vec<Value>) -> Result<Reply, StoreError> {
        let slot = keys.first().map_or(0, |key| slot_of(key));
        let run = |shard| self.run_on(shard, way.line, &keys, &args);
        way.fleet.follow(self.name, slot, run).await.map(|value| Reply::new(self.name, value))
    }

    async fn run_on(&self, shard: Arc<Shard>, line: Line, keys: &[String], args: &[Value]) -> Result<Value, Error> {
        if let (Line::Committed, Some(commits)) = (line, &shard.commits) {
            return commits.run(self.text.clone(), keys.to_vec(), args.to_vec()).await;
        }
        let client = client_of(&shard, line);
        ensure_up(client)?;
        match client.evalsha(&*self.text.digest, keys.to_vec(), args.to_vec()).await {
            // It did not run, so running it now is no repeat; EVAL also makes it known.
            Err(error) if reply::is_unknown_script(&error) => {
                client.eval(self.text.text, keys.to_vec(), args.to_vec()).await
            }
            answer => answer,
        }
    }
}

/// Fails at once where the connection is known to be down: fred would wait for it.
///
/// # Errors
/// One of the kind that means that nothing was sent.
pub fn ensure_up(client: &Client) -> Result<(), Error> {
    if client.is_connected() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Canceled, "the connection to Redis is down; it is being made anew"))
}
