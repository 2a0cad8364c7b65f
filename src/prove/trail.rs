//! The journals as a file, for whoever looks for what became of one message.
//!
//! Owns a file of JSON lines, one for each thing that a device did or was sent. Bounded: who writes
//! faster than the disk waits for it.

use std::path::Path;

use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Lines that may wait for the disk.
const LINES_MAX: usize = 10_000;

/// The way to the file.
#[derive(Clone)]
pub struct Trail(mpsc::Sender<Value>);

impl Trail {
    /// Begins the run's file in this directory. The file is whole when the handle has ended, which it
    /// does with the last [`Trail`].
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn open(directory: &Path, run: &str) -> std::io::Result<(Trail, JoinHandle<std::io::Result<()>>)> {
        tokio::fs::create_dir_all(directory).await?;
        let file = File::create_new(directory.join(format!("prove-{run}.jsonl"))).await?;
        let (lines, mut written) = mpsc::channel::<Value>(LINES_MAX);
        let writing = tokio::spawn(async move {
            let mut file = BufWriter::new(file);
            while let Some(line) = written.recv().await {
                file.write_all(line.to_string().as_bytes()).await?;
                file.write_all(b"\n").await?;
            }
            file.flush().await
        });
        Ok((Trail(lines), writing))
    }

    /// Adds a line.
    pub async fn write(&self, line: Value) {
        // The file's end is told where its handle is awaited.
        let _ = self.0.send(line).await;
    }
}
