//! What the tests of the program share: how a command is run and what it said, and the
//! [`Machine`](machine::Machine) that it is run on.

pub(crate) mod booted;
pub(crate) mod documents;
pub(crate) mod encrypted;
pub(crate) mod exposition;
pub(crate) mod faults;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod manager;
pub(crate) mod package;
pub(crate) mod programs;
pub(crate) mod sites;
pub(crate) mod testbed;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The program under test.
pub(crate) const ADIT: &str = env!("CARGO_BIN_EXE_adit");

/// What a command that has ended said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// It ended with this code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// It was done, and complained of nothing.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.stderr, "", "{self:#?}");
        self.with(0)
    }

    /// It printed one line of JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:#?}");
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// Runs `adit` where the test itself runs: for what neither needs nor changes a network.
pub(crate) fn adit(arguments: &[&str]) -> Said {
    Command::new(ADIT).args(arguments).output().unwrap().into()
}

/// Waits until `condition` holds, which nothing announces; returns how long that took.
#[track_caller]
pub(crate) fn wait_until(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// The names of an object's members, sorted.
#[track_caller]
pub(crate) fn keys(value: &serde_json::Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
