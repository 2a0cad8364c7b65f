//! The proof kit: what it says of a relay that is well, of one whose operator breaks things, and of one
//! that has a fault.

mod faults;
mod well;

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a run may take beyond what it was told, on a machine that has much to do.
const LATE_MAX: Duration = Duration::from_secs(120);
/// What must not have happened, by the names of the verdict.
const BREACHES: [&str; 9] =
    ["lost", "wrong", "disordered", "repeated", "doubled", "split", "unproven", "ghosts", "unchecked"];

/// A run of `shoprelay prove`.
struct Proof {
    child: Child,
    pid: u32,
}

/// What it said.
struct Outcome {
    verdict: Value,
    code: i32,
}

impl Proof {
    /// Starts it against these addresses.
    fn start(urls: &[String], args: &[&str]) -> Proof {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoprelay"));
        command.args(["prove", "--json"]);
        for url in urls {
            command.args(["--url", url]);
        }
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().expect("the program can be started");
        let pid = child.id().expect("a new process has an id");
        Proof { child, pid }
    }

    fn interrupt(&self) {
        let status = std::process::Command::new("kill").args(["-s", "INT", &self.pid.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Its verdict.
    ///
    /// # Panics
    /// Where it has none.
    async fn outcome(self) -> Outcome {
        let output = timeout(LATE_MAX, self.child.wait_with_output()).await.expect("it comes to its end").unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let verdict = serde_json::from_str(&stdout).unwrap_or_else(|error| {
            panic!("no verdict ({error}): {stdout}{}", String::from_utf8_lossy(&output.stderr))
        });
        Outcome { verdict, code: output.status.code().expect("it exits by itself") }
    }
}

impl Outcome {
    fn count(&self, field: &str) -> u64 {
        self.verdict[field].as_u64().unwrap_or_else(|| panic!("no {field} in {}", self.verdict))
    }

    /// The breaches that were found.
    fn breaches(&self) -> Vec<&'static str> {
        BREACHES.into_iter().filter(|breach| self.count(breach) > 0).collect()
    }

    /// Checks that every promise was kept, with so many messages at least.
    ///
    /// # Panics
    /// Where one was not.
    fn assert_kept(&self, accepted_min: u64) {
        assert_eq!(self.breaches(), [""; 0], "{:#}", self.verdict);
        assert_eq!((self.code, &self.verdict["kept"]), (0, &Value::Bool(true)), "{:#}", self.verdict);
        assert!(self.count("accepted") >= accepted_min, "{:#}", self.verdict);
        assert!(self.count("delivered") >= self.count("accepted"), "{:#}", self.verdict);
    }
}
