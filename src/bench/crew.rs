//! The processes of a benchmark, as the parent sees them.
//!
//! Owns the children: the workers that play the devices of one deployment, and the floor. They end with
//! their standard input, which is when this is dropped. Never measures anything. Called by [`super`].

use std::process::Stdio;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::floor::{FloorJob, FloorWord};
use super::plan::{Command, Job, Report, Target, Turn, Word};
use super::{BENCH_FLOOR, BENCH_WORKER};

/// A child and the two pipes to it.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts this program again, as one of its hidden subcommands.
    async fn start(role: &str, job: &impl Serialize) -> Result<Process, String> {
        let failed = |error: std::io::Error| format!("a process of the benchmark cannot be started: {error}");
        let mut command = tokio::process::Command::new(std::env::current_exe().map_err(failed)?);
        command.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C is for the parent, which has them tell what they have.
        command.process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a process of the benchmark has no pipes".into());
        };
        let mut process = Process { child, input, output: BufReader::new(output).lines() };
        process.tell(job).await?;
        Ok(process)
    }

    async fn tell(&mut self, what: &impl Serialize) -> Result<(), String> {
        let mut line = serde_json::to_vec(what).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.input.write_all(&line).await.map_err(|error| format!("a process of the benchmark has ended: {error}"))
    }

    async fn hear<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let line = self.output.next_line().await.map_err(|error| error.to_string())?;
        let line = line.ok_or("a process of the benchmark has ended without a word")?;
        serde_json::from_str(&line).map_err(|error| format!("a process of the benchmark cannot be understood: {error}"))
    }
}

/// The workers of one deployment.
pub struct Crew {
    workers: Vec<Process>,
}

impl Crew {
    /// Starts a worker for each job.
    ///
    /// # Errors
    /// Where a process cannot be started.
    pub async fn start(jobs: &[Job]) -> Result<Crew, String> {
        let mut workers = Vec::new();
        for job in jobs {
            workers.push(Process::start(BENCH_WORKER, job).await?);
        }
        Ok(Crew { workers })
    }

    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Tells each worker its own command.
    ///
    /// # Errors
    /// Where one has ended.
    pub async fn tell(&mut self, command: impl Fn(usize) -> Command) -> Result<(), String> {
        for (n, worker) in self.workers.iter_mut().enumerate() {
            worker.tell(&command(n)).await?;
        }
        Ok(())
    }

    /// Waits until all have done what they were to open or close.
    ///
    /// # Errors
    /// Why one could not.
    pub async fn opened(&mut self) -> Result<usize, String> {
        let mut all = 0;
        for worker in &mut self.workers {
            match worker.hear().await? {
                Word::Opened { sockets } => all += sockets,
                Word::Failed { why } => return Err(why),
                Word::Turned(_) => return Err("a worker told of a turn that nobody asked for".into()),
            }
        }
        Ok(all)
    }

    /// Waits until all have told of their turn.
    ///
    /// # Errors
    /// Why one could not go on.
    pub async fn turned(&mut self) -> Result<Vec<Report>, String> {
        let mut reports = Vec::new();
        for worker in &mut self.workers {
            match worker.hear().await? {
                Word::Turned(report) => reports.push(*report),
                Word::Failed { why } => return Err(why),
                Word::Opened { .. } => return Err("a worker opened what nobody asked for".into()),
            }
        }
        Ok(reports)
    }

    /// Begins a turn.
    ///
    /// # Errors
    /// Where a worker has ended.
    pub async fn begin(&mut self, turn: impl Fn(usize) -> Turn) -> Result<(), String> {
        self.tell(|worker| Command::Turn(turn(worker))).await
    }
}

/// The floor, listening.
pub struct FloorProcess {
    /// The process lives as long as this does.
    process: Process,
    pub target: Target,
}

impl FloorProcess {
    /// Starts the floor.
    ///
    /// # Errors
    /// Where it cannot listen, or not run on those cores.
    pub async fn start(job: &FloorJob) -> Result<FloorProcess, String> {
        let mut process = Process::start(BENCH_FLOOR, job).await?;
        match process.hear().await? {
            FloorWord::Listening(address) => Ok(FloorProcess {
                process,
                target: Target { address, host: address.to_string(), path: "/".into(), tls_name: None },
            }),
            FloorWord::Failed { why } => Err(format!("the floor cannot be laid: {why}")),
        }
    }

    /// Its process; None once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.process.child.id()
    }
}
