//! System calls that fail as the kernel lets them fail when it is short of something: strace(1) answers instead of it.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use tempfile::NamedTempFile;

use super::machine::{PROGRAM, Running};
use super::sites::Sites;

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It is not made, and fails so.
    Fails(&'static str),
    /// The process is killed where it makes it.
    Kills,
}

/// The n-th call of that name in each thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    pub(crate) fate: Fate,
    pub(crate) number: usize,
}

impl Fault {
    fn tracer(self, trace: &NamedTempFile) -> Command {
        let Self { call, fate, number } = self;
        let fate = match fate {
            Fate::Fails(error) => format!("error={error}"),
            Fate::Kills => "signal=SIGKILL".to_owned(),
        };
        let mut command = Command::new("strace");
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output"]).arg(trace.path());
        command.arg(format!("--trace={call}")).arg(format!("--inject={call}:{fate}:when={number}"));
        command
    }
}

/// A daemon on gateway A, to which that happens.
pub(crate) struct Faulty {
    tracer: Running,
    trace: NamedTempFile,
}

impl Faulty {
    /// From its very start.
    pub(crate) fn start(sites: &Sites, fault: Fault) -> Self {
        let trace = NamedTempFile::new().unwrap();
        let mut command = fault.tracer(&trace);
        command.args([PROGRAM, "run", &sites.file("a.toml")]);
        let tracer = sites.machine.start_command(sites.network.gateway_a.ns(), command);
        Self { tracer, trace }
    }

    /// Whether it comes to be ready.
    #[track_caller]
    pub(crate) fn is_ready(&mut self) -> bool {
        self.tracer.comes_to("ready")
    }

    /// Whether the fault has come to pass.
    pub(crate) fn has_struck(&self) -> bool {
        let trace = fs::read_to_string(self.trace.path()).unwrap();
        trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL")
    }

    /// Waits for its end; how it ended (`None`: by a signal), and all it said.
    #[track_caller]
    pub(crate) fn wait(self) -> (Option<i32>, String) {
        let (status, said) = self.tracer.wait();
        (status.code(), said)
    }

    /// Asks the daemon to remove everything, and waits for that.
    #[track_caller]
    pub(crate) fn end(self) -> (Option<i32>, String) {
        // strace passes no signal on.
        if let Some(daemon) = self.tracer.child() {
            let _ = kill(daemon, Signal::SIGINT);
        }
        self.wait()
    }

    /// Ends the daemon without a chance.
    #[track_caller]
    pub(crate) fn kill(self) {
        if let Some(daemon) = self.tracer.child() {
            kill(daemon, Signal::SIGKILL).unwrap();
        }
        let _ = self.tracer.wait();
    }
}
