//! The example worker as a process, built as whoever reads it would build it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;

use tempfile::NamedTempFile;

use super::{SOON, eventually_get};

/// A running `examples/call_worker.rs`. It is killed when this is dropped; where that happens in a
/// panic, what it said is printed.
pub struct Worker {
    name: String,
    child: Child,
    said: NamedTempFile,
}

impl Worker {
    /// The program, which may have to be built first: to be called before a device logs in and waits.
    ///
    /// # Panics
    /// Where it cannot be built.
    pub fn binary() -> &'static Path {
        static BINARY: LazyLock<PathBuf> = LazyLock::new(|| build("call_worker"));
        &BINARY
    }

    /// Starts a worker of this name with these variables.
    ///
    /// # Panics
    /// Where it cannot be built or started.
    pub fn start(name: &str, variables: &[(&str, &str)]) -> Worker {
        let said = NamedTempFile::new().expect("a file can be made");
        let mut command = Command::new(Worker::binary());
        command.env("NAME", name).envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(said.reopen().expect("the file can be opened again"));
        let child = command.spawn().expect("the worker can be started");
        Worker { name: name.into(), child, said }
    }

    /// Stops its clock: it does nothing until it goes on.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Ends it as a power cut would.
    pub fn sigkill(&self) {
        self.signal("KILL");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.as_ref().is_ok_and(ExitStatus::success), "kill -s {name} {}: {status:?}", self.name);
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.said.path()).expect("what it says is text")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it is still there after 10 s.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually_get(SOON, "the worker's end", async || child.try_wait().expect("it can be waited for")).await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- what worker {} said\n{}", self.name, self.said());
        }
    }
}

/// Has cargo build an example, which `cargo test --test it` alone does not, and says where it is.
fn build(example: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_shoprelay"));
    let target = program.ancestors().nth(2).expect("the program lies in the target directory");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--example", example, "--message-format=json"]).arg("--target-dir").arg(target);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // What cargo tells a test about its package; build scripts that look at it would run again, and half of
    // the dependencies be built anew.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|of| name.to_string_lossy().starts_with(of)) {
            command.env_remove(name);
        }
    }
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo can be started");
    assert!(output.status.success(), "cargo build --example: {}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("cargo speaks JSON");
    let built = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == example).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    built.unwrap_or_else(|| panic!("cargo does not say where {example} is:\n{messages}"))
}
