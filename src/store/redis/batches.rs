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

use crate::store::redis::call::Call;
use crate::store::redis::reply;
use crate::store::redis::script::{ScriptText, Texts, ensure_up};

/// Calls that may wait for the end of a turn; more wait to be among them.
const WAITING_MAX: usize = 8192;
/// Calls of one batch: what they share is shared by then, and others are not kept from Redis for long.
const BATCH_MAX: usize = 32;
/// Keys and arguments of a call that goes with others: Lua holds a few thousand values at once.
const WORDS_MAX: usize = 1000;

/// A call that waits for its answer.
struct Job {
    texts: Arc<Texts>,
    call: Arc<Call>,
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
    pub async fn run(&self, texts: &Arc<Texts>, call: Arc<Call>) -> Result<Value, Error> {
        ensure_up(&self.client)?;
        let (done, answer) = oneshot::channel();
        let closed = || Error::new(ErrorKind::Canceled, "the store is closed");
        self.jobs.send(Job { texts: texts.clone(), call, done }).await.map_err(|_| closed())?;
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
            if job.call.len() > WORDS_MAX {
                self.under_way.spawn(run(self.client.clone(), vec![job]));
                continue;
            }
            let slot = if self.is_cluster { job.call.slot() } else { 0 };
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
        let _ = done.send(run_script(&client, &texts.one, |script| call.words(script)).await);
    }
}

async fn run_together(client: Client, batch: Vec<Job>) {
    let Some(texts) = batch.first().map(|job| job.texts.clone()) else { return };
    let answers = run_script(&client, &texts.many, |script| Call::words_of_many(script, &batch)).await;
    let answers = answers.and_then(|answers| split(answers, batch.len()));
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

impl AsRef<Call> for Job {
    fn as_ref(&self) -> &Call {
        &self.call
    }
}

/// The answers to so many calls.
fn split(answers: Value, calls: usize) -> Result<Vec<Result<Value, Error>>, Error> {
    let mut items = answers.into_array().into_iter();
    let mut answer = || {
        let count = items.next()?.as_i64()?;
        let Ok(count) = usize::try_from(count) else {
            let failure = items.next()?;
            return Some(Err(Error::new(ErrorKind::Unknown, reply::text(&failure).unwrap_or_default().to_owned())));
        };
        let answer: Vec<Value> = items.by_ref().take(count).collect();
        (answer.len() == count).then_some(Ok(Value::Array(answer)))
    };
    let answers: Option<Vec<Result<Value, Error>>> = (0..calls).map(|_| answer()).collect();
    let in_part = || Error::new(ErrorKind::Protocol, "calls that went together were answered in part");
    answers.filter(|_| items.next().is_none()).ok_or_else(in_part)
}

/// Runs a script, and makes it known where Redis has forgotten it; `words` are those that follow its name.
///
/// # Errors
/// Those of Redis, and of the connection to it.
pub async fn run_script(
    client: &Client,
    script: &ScriptText,
    words: impl Fn(&str) -> Vec<Value>,
) -> Result<Value, Error> {
    match client.custom(command("EVALSHA"), words(&script.digest)).await {
        // It did not run, so running it now is no repeat; EVAL also makes it known.
        Err(error) if reply::is_unknown_script(&error) => client.custom(command("EVAL"), words(&script.text)).await,
        answer => answer,
    }
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn answers_are_told_apart() {
        let oom = Value::from("OOM no");
        let answers = vec![Value::from(2), Value::from("x"), Value::Null, Value::from(-1), oom, Value::from(0)];
        let told = split(Value::Array(answers.clone()), 3).unwrap();
        assert_eq!(told[0], Ok(Value::Array(vec![Value::from("x"), Value::Null])));
        assert!(matches!(reply::store_error("publish", told[1].clone().unwrap_err()), StoreError::Full));
        assert_eq!(told[2], Ok(Value::Array(Vec::new())));
        for calls in [2, 4] {
            assert!(split(Value::Array(answers.clone()), calls).is_err(), "{calls}");
        }
        assert!(split(Value::Array(answers[..2].to_vec()), 1).is_err());
    }
}
