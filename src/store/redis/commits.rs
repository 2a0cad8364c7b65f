//! Writes that are answered once enough replicas have them.
//!
//! Owns a connection of its own to a primary, for `WAIT` is about the writes of its own connection and
//! holds up whatever comes after it there. So writes are sent in batches, one `WAIT` at the end of each,
//! and who comes meanwhile is in the next batch. Where replicas were lacking, the next batch is sent only
//! when they are back, so that a sender who tries again and again fills no log. Never knows what a script
//! does. Called by [`super::script`].

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::metrics;
use crate::store::redis::call::Call;
use crate::store::redis::reply;
use crate::store::redis::script::{Texts, ensure_up};

/// Writes that may wait to be sent.
const WAITING_MAX: usize = 4096;
/// Writes of one batch.
const BATCH_MAX: usize = 256;
/// How long replicas may take at most; a connection that is silent for much longer is taken for broken.
const PATIENCE_MAX: Duration = Duration::from_secs(3);
/// How long it may take to learn that replicas that were lacking are back.
const BACK_MAX: Duration = Duration::from_millis(50);

/// A write that waits for its answer.
struct Job {
    texts: Arc<Texts>,
    call: Arc<Call>,
    done: oneshot::Sender<Result<Value, Error>>,
}

/// See the module.
pub struct Commits {
    client: Client,
    jobs: mpsc::Sender<Job>,
    deadline: Duration,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Commits {
    /// Writes over this connection, which its owner makes, are answered when `replicas` have them, within
    /// the deadline.
    pub fn new(client: Client, replicas: u32, deadline: Duration) -> Commits {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let batches = Batches {
            client: client.clone(),
            waiting,
            replicas,
            patience: PATIENCE_MAX.min(deadline / 2),
            is_short: false,
        };
        let task = Mutex::new(Some(tokio::spawn(batches.run())));
        Commits { client, jobs, deadline, task }
    }

    /// Its connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a script, and answers when enough replicas have what it wrote.
    ///
    /// # Errors
    /// Also where it ran and too few replicas have it.
    pub async fn run(&self, texts: &Arc<Texts>, call: Arc<Call>) -> Result<Value, Error> {
        ensure_up(&self.client)?;
        let (done, answer) = oneshot::channel();
        let job = Job { texts: texts.clone(), call, done };
        if self.jobs.try_send(job).is_err() {
            return Err(Error::new(ErrorKind::Backpressure, "too many writes wait for replicas"));
        }
        let canceled = || Error::new(ErrorKind::Canceled, "the store is closed");
        match timeout(self.deadline, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(canceled())),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "replicas took too long")),
        }
    }

    /// Ends the task and the connection.
    pub async fn close(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
        // A polite end matters to nobody.
        let _ = self.client.quit().await;
    }
}

/// The task that sends the batches.
struct Batches {
    client: Client,
    waiting: mpsc::Receiver<Job>,
    replicas: u32,
    /// How long replicas may take.
    patience: Duration,
    /// Too few replicas had the last batch.
    is_short: bool,
}

impl Batches {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
            // Whoever gave up may have gone elsewhere.
            batch.retain(|job: &Job| !job.done.is_closed());
            if self.is_short && !self.are_back().await {
                for job in batch.drain(..) {
                    answer(job, Err(too_few()));
                }
                continue;
            }
            let unknown = self.send(std::mem::take(&mut batch), Form::Digest).await;
            if !unknown.is_empty() {
                self.send(unknown, Form::Text).await;
            }
        }
    }

    /// Sends a batch and answers it, but for those whose script the server does not know.
    async fn send(&mut self, batch: Vec<Job>, form: Form) -> Vec<Job> {
        let mut answers = match self.replies(&batch, form).await {
            Ok(answers) => answers.into_iter(),
            Err(error) => {
                for job in batch {
                    answer(job, Err(error.clone()));
                }
                return Vec::new();
            }
        };
        // The last one is that of WAIT.
        let counted = answers.next_back().and_then(Result::ok).and_then(|count| count.as_u64());
        self.is_short = counted.is_none_or(|count| count < u64::from(self.replicas));
        if self.is_short {
            metrics::replicas_short();
            tracing::debug!(counted, wanted = self.replicas, "too few replicas have what was written");
        }
        let mut unknown = Vec::new();
        for (job, reply) in batch.into_iter().zip(answers) {
            match reply {
                Err(error) if form == Form::Digest && reply::is_unknown_script(&error) => unknown.push(job),
                Ok(_) if self.is_short => answer(job, Err(too_few())),
                reply => answer(job, reply),
            }
        }
        unknown
    }

    /// One reply for each of the batch, and that of WAIT.
    async fn replies(&self, batch: &[Job], form: Form) -> Result<Vec<Result<Value, Error>>, Error> {
        ensure_up(&self.client)?;
        let pipeline = self.client.pipeline();
        for job in batch {
            let (name, script) = match form {
                Form::Digest => ("EVALSHA", &job.texts.one.digest),
                Form::Text => ("EVAL", &job.texts.one.text),
            };
            let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
            let _queued: Value = pipeline.custom(command, job.call.words(script)).await?;
        }
        let _queued: Value = pipeline.custom(wait(), self.wait_args(self.patience)).await?;
        let replies = pipeline.try_all::<Value>().await;
        if replies.len() == batch.len() + 1 {
            return Ok(replies);
        }
        // All of them were lost together.
        let error = replies.into_iter().find_map(Result::err);
        Err(error.unwrap_or_else(|| Error::new(ErrorKind::Protocol, "a pipeline was answered in part")))
    }

    /// Whether enough replicas have all that there is by now.
    async fn are_back(&mut self) -> bool {
        if ensure_up(&self.client).is_err() {
            return false;
        }
        let counted: Result<i64, Error> = self.client.custom(wait(), self.wait_args(BACK_MAX)).await;
        self.is_short = !counted.is_ok_and(|count| count >= i64::from(self.replicas));
        !self.is_short
    }

    fn wait_args(&self, patience: Duration) -> Vec<Value> {
        vec![self.replicas.to_string().into(), patience.as_millis().max(1).to_string().into()]
    }
}

/// How a script is named to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Digest,
    Text,
}

fn wait() -> CustomCommand {
    CustomCommand::new_static("WAIT", ClusterHash::FirstKey, false)
}

fn too_few() -> Error {
    Error::new(ErrorKind::Unknown, "too few replicas have it; it may be stored")
}

fn answer(job: Job, reply: Result<Value, Error>) {
    // Whoever asked may have stopped waiting.
    let _ = job.done.send(reply);
}
