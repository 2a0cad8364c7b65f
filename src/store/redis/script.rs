//! How a script is run.
//!
//! Owns the digest that stands for its text, and what happens where a server does not know it: one that was
//! restarted, or has become a primary. Never knows what a script does; that is [`super::scripts`], which
//! calls it.

use std::sync::Arc;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::Value;
use sha1::{Digest, Sha1};

use crate::store::StoreError;
use crate::store::redis::batches;
use crate::store::redis::call::Call;
use crate::store::redis::client::Shard;
use crate::store::redis::fleet::{Fleet, Line, client_of};
use crate::store::redis::reply::Reply;

/// What stands around a script to make several calls of it one, and where the script stands in it.
const MANY: &str = include_str!("../../../lua/many.lua");
const BODY: &str = "-- BODY\n";

/// A script, and whether calls of it go together.
pub struct Script {
    texts: Arc<Texts>,
    goes_together: bool,
}

/// What a server needs to know of a script.
#[derive(Debug, Clone)]
pub struct ScriptText {
    pub text: Box<str>,
    /// What Redis knows it by.
    pub digest: Box<str>,
}

/// A script for one call, and for several.
#[derive(Debug, Clone)]
pub struct Texts {
    pub name: &'static str,
    pub one: ScriptText,
    pub many: ScriptText,
}

/// A way to run scripts: on the primary that has their keys, over this connection to it.
pub struct Way {
    pub fleet: Arc<Fleet>,
    pub line: Line,
}

impl ScriptText {
    fn new(text: String) -> ScriptText {
        let digest: String = Sha1::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        ScriptText { text: text.into(), digest: digest.into() }
    }
}

impl Texts {
    fn new(name: &'static str, text: &str) -> Texts {
        let (flags, body) = text.split_once('\n').unwrap_or((text, ""));
        let many = format!("{flags}\n{}", MANY.replacen(BODY, body, 1));
        Texts { name, one: ScriptText::new(text.to_owned()), many: ScriptText::new(many) }
    }
}

impl Script {
    /// The script of this name, and its text.
    pub fn new(name: &'static str, text: &'static str) -> Script {
        Script { texts: Arc::new(Texts::new(name, text)), goes_together: false }
    }

    /// As [`Script::new`], for one that is called so often that calls had better go together.
    pub fn in_batches(name: &'static str, text: &'static str) -> Script {
        Script { goes_together: true, ..Script::new(name, text) }
    }

    /// Runs it, and makes it known where Redis has forgotten it.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn run(&self, way: &Way, call: Call) -> Result<Reply, StoreError> {
        let (slot, call) = (call.slot(), Arc::new(call));
        let run = |shard| self.run_on(shard, way.line, call.clone());
        way.fleet.follow(self.texts.name, slot, run).await.map(|value| Reply::new(self.texts.name, value))
    }

    async fn run_on(&self, shard: Arc<Shard>, line: Line, call: Arc<Call>) -> Result<Value, Error> {
        match (line, &shard.commits) {
            (Line::Committed, Some(commits)) => Box::pin(commits.run(&self.texts, call)).await,
            (Line::Commands | Line::Committed, _) if self.goes_together => shard.batches.run(&self.texts, call).await,
            _ => {
                let client = client_of(&shard, line);
                ensure_up(client)?;
                // Boxed, for what fred keeps of a command is large, and every call of the store would have room for it.
                Box::pin(batches::run_script(client, &self.texts.one, |script| call.words(script))).await
            }
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
