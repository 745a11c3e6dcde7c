//! System calls that fail as the kernel lets them fail when it is short of something: strace(1)
//! answers instead of it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use tempfile::NamedTempFile;

use super::machine::{PATIENCE, PROGRAM, Running};
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
    /// Whether it may end a process at once: without memory, neither the loader nor the allocator
    /// can go on.
    pub(crate) fn is_deadly(self) -> bool {
        matches!(self.fate, Fate::Kills) || self.call == "mmap"
    }

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
        if matches!(fault.fate, Fate::Fails(_)) {
            // The kernel then stops the daemon at these calls only, not at each. strace sends no
            // signals in that mode.
            command.arg("--seccomp-bpf");
        }
        command.args([PROGRAM, "run", &sites.file("a.toml")]);
        let tracer = sites.machine.start_command(sites.network.gateway_a.ns(), command);
        Self { tracer, trace }
    }

    /// From now on, for a daemon that runs.
    pub(crate) fn attach(sites: &Sites, fault: Fault, daemon: &Running) -> Self {
        let trace = NamedTempFile::new().unwrap();
        let mut command = fault.tracer(&trace);
        command.args(["--attach", &daemon.pid().to_string()]);
        let tracer = sites.machine.start_command(sites.network.gateway_a.ns(), command);
        let pid = tracer.pid().to_string();
        let is_traced = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).into_iter().flatten().flatten();
            tasks.map(|task| fs::read_to_string(task.path().join("status")).unwrap_or_default()).all(
                |status| {
                    status
                        .lines()
                        .any(|line| line.strip_prefix("TracerPid:").is_some_and(|by| by.trim() == pid))
                },
            )
        };
        let deadline = Instant::now() + PATIENCE;
        while !is_traced() {
            assert!(Instant::now() < deadline, "strace does not attach");
            std::thread::sleep(Duration::from_millis(5));
        }
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
            let deadline = Instant::now() + PATIENCE;
            let mut next_signal = Instant::now();
            while fs::read_link(format!("/proc/{daemon}/exe")).is_ok() {
                let now = Instant::now();
                assert!(now < deadline, "it does not end");
                // The byte by which a signal is told inside may be the very call that is denied,
                // once in each thread.
                if now >= next_signal {
                    let _ = kill(daemon, Signal::SIGINT);
                    next_signal = now + Duration::from_millis(100);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
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

    /// Leaves a daemon that runs in peace: the kernel lets go of those whose tracer has gone.
    #[track_caller]
    pub(crate) fn detach(self) {
        self.tracer.signal(Signal::SIGKILL);
        let _ = self.tracer.wait();
    }
}
