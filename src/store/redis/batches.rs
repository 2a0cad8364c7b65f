//! Calls of one script that leave together, as one call.
//!
//! Owns the wait for the end of a turn: whatever the tasks that are ready now ask of a script goes out as one
//! call of `lua/many.lua` around it. By itself every call would be a write of its own, with a wake-up of Redis
//! and one of this process for the answer, which costs more than what the script does. Nobody waits for
//! company: a call that is alone at the end of the turn goes as it is. In a cluster only calls of one slot go
//! together. Never knows what a script does, and never sends anything twice. Called by [`super::script`].

use std::collections::HashMap;
use std::sync::Arc;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet, yield_now};

use crate::store::redis::reply;
use crate::store::redis::script::{ScriptText, Texts, ensure_up};

/// Calls that may wait for the end of a turn; more wait to be among them.
const WAITING_MAX: usize = 8192;
/// Calls of one batch: what they share is shared by then, and others are not kept from Redis for long.
const BATCH_MAX: usize = 32;

/// A call of a script.
#[derive(Debug, Clone)]
pub struct Call {
    pub keys: Vec<Value>,
    pub args: Vec<Value>,
}

/// A call that waits for its answer.
struct Job {
    texts: Arc<Texts>,
    slot: u16,
    call: Call,
    done: oneshot::Sender<Result<Value, Error>>,
}

/// The calls of one connection.
pub struct Batches {
    client: Client,
    jobs: mpsc::Sender<Job>,
    task: JoinHandle<()>,
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Batches {
    /// Calls that go over this connection, to a server of a cluster or to the only one.
    pub fn new(client: Client, is_cluster: bool) -> Batches {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let sender = Sender { client: client.clone(), is_cluster, waiting, under_way: JoinSet::new() };
        Batches { client, jobs, task: tokio::spawn(sender.run()) }
    }

    /// Runs a script, with others' calls of it where there are any.
    ///
    /// # Errors
    /// As if it had been alone.
    pub async fn run(&self, texts: &Arc<Texts>, slot: u16, call: Call) -> Result<Value, Error> {
        ensure_up(&self.client)?;
        let (done, answer) = oneshot::channel();
        let closed = || Error::new(ErrorKind::Canceled, "the store is closed");
        self.jobs.send(Job { texts: texts.clone(), slot, call, done }).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// The task that sends the batches.
struct Sender {
    client: Client,
    is_cluster: bool,
    waiting: mpsc::Receiver<Job>,
    under_way: JoinSet<()>,
}

impl Sender {
    async fn run(mut self) {
        let mut turn = Vec::with_capacity(BATCH_MAX);
        while self.waiting.recv_many(&mut turn, BATCH_MAX).await > 0 {
            // Whoever is ready to run asks before this goes on.
            yield_now().await;
            while let Ok(job) = self.waiting.try_recv() {
                turn.push(job);
            }
            self.send(&mut turn);
            while self.under_way.try_join_next().is_some() {}
        }
    }

    /// Sends what was asked for in a turn, sorted into batches.
    fn send(&mut self, turn: &mut Vec<Job>) {
        let mut open: HashMap<(&'static str, u16), Vec<Job>> = HashMap::new();
        // Whoever gave up may have gone elsewhere.
        for job in turn.drain(..).filter(|job| !job.done.is_closed()) {
            let slot = if self.is_cluster { job.slot } else { 0 };
            let batch = open.entry((job.texts.name, slot)).or_default();
            batch.push(job);
            if batch.len() == BATCH_MAX {
                self.under_way.spawn(run(self.client.clone(), std::mem::take(batch)));
            }
        }
        for batch in open.into_values().filter(|batch| !batch.is_empty()) {
            self.under_way.spawn(run(self.client.clone(), batch));
        }
    }
}

/// Runs the calls of a batch, and answers them.
async fn run(client: Client, mut batch: Vec<Job>) {
    if batch.len() > 1 {
        return run_together(client, batch).await;
    }
    if let Some(Job { texts, call, done, .. }) = batch.pop() {
        // Whoever asked may have stopped waiting.
        let _ = done.send(run_script(&client, &texts.one, call).await);
    }
}

async fn run_together(client: Client, mut batch: Vec<Job>) {
    let Some(texts) = batch.first().map(|job| job.texts.clone()) else { return };
    let together = join(batch.iter_mut().map(|job| &mut job.call));
    let answers = run_script(&client, &texts.many, together).await.and_then(|answers| split(answers, batch.len()));
    match answers {
        Ok(answers) => {
            for (job, answer) in batch.into_iter().zip(answers) {
                let _ = job.done.send(answer); // as above
            }
        }
        Err(error) => {
            for job in batch {
                let _ = job.done.send(Err(error.clone())); // as above
            }
        }
    }
}

/// The one call of `lua/many.lua` that is all of these, which are empty then.
fn join<'a>(calls: impl ExactSizeIterator<Item = &'a mut Call>) -> Call {
    let mut together = Call { keys: Vec::new(), args: Vec::with_capacity(1 + 2 * calls.len()) };
    let mut args = Vec::new();
    together.args.push(number(calls.len()));
    for call in calls {
        together.args.extend([number(call.keys.len()), number(call.args.len())]);
        together.keys.append(&mut call.keys);
        args.append(&mut call.args);
    }
    together.args.append(&mut args);
    together
}

/// The answers to so many calls.
fn split(answers: Value, calls: usize) -> Result<Vec<Result<Value, Error>>, Error> {
    let answers = answers.into_array();
    if answers.len() != 2 * calls {
        return Err(Error::new(ErrorKind::Protocol, "calls that went together were answered in part"));
    }
    let mut answers = answers.into_iter();
    let mut answer = || {
        let (is_done, answer) = (answers.next()?.as_u64() == Some(1), answers.next()?);
        let failure = || Error::new(ErrorKind::Unknown, reply::text(&answer).unwrap_or_default().to_owned());
        Some(if is_done { Ok(answer) } else { Err(failure()) })
    };
    Ok(std::iter::from_fn(&mut answer).collect())
}

/// Runs a script, and makes it known where Redis has forgotten it.
///
/// # Errors
/// Those of Redis, and of the connection to it.
pub async fn run_script(client: &Client, script: &ScriptText, Call { keys, args }: Call) -> Result<Value, Error> {
    let mut all = Vec::with_capacity(2 + keys.len() + args.len());
    all.extend([Value::String(script.digest.clone()), number(keys.len())]);
    all.extend(keys);
    all.extend(args);
    match client.custom(command("EVALSHA"), all.clone()).await {
        // It did not run, so running it now is no repeat; EVAL also makes it known.
        Err(error) if reply::is_unknown_script(&error) => {
            if let Some(named) = all.first_mut() {
                *named = Value::String(script.text.clone());
            }
            client.custom(command("EVAL"), all).await
        }
        answer => answer,
    }
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

fn number(count: usize) -> Value {
    count.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_joined_and_their_answers_told_apart() {
        let call = |keys: &[&str], args: &[&str]| Call {
            keys: keys.iter().map(|key| Value::from(*key)).collect(),
            args: args.iter().map(|arg| Value::from(*arg)).collect(),
        };
        let mut calls = [call(&["a", "b"], &["1"]), call(&["c"], &[]), call(&[], &["2", "3"])];
        let together = join(calls.iter_mut());
        let texts = |values: &[Value]| values.iter().filter_map(reply::text).collect::<Vec<_>>().join(" ");
        assert_eq!(texts(&together.keys), "a b c");
        assert_eq!(texts(&together.args), "3 2 1 1 0 0 2 1 2 3");
        let answers =
            [Value::from(1), Value::from("x"), Value::from(0), Value::from("OOM no"), Value::from(1), Value::Null];
        let answers = split(Value::Array(answers.into()), 3).unwrap();
        assert_eq!(answers[0].as_ref().unwrap().as_str().unwrap(), "x");
        assert!(matches!(
            reply::store_error("publish", answers[1].clone().unwrap_err()),
            crate::store::StoreError::Full
        ));
        assert_eq!(answers[2], Ok(Value::Null));
        assert!(split(Value::Array(vec![Value::from(1)]), 1).is_err());
    }
}
