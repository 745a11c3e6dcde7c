//! The kernel is short of something, or the daemon dies, at every step: afterwards everything is there, or nothing is.

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_lab::article::HOST_B;
use adit_lab::ping::ping;
use adit_lab::planes::{require, word};
use adit_linux::testing;
use nix::sys::signal::Signal;
use support::faults::{Fate, Fault, Faulty};
use support::machine::Running;
use support::programs::pins;
use support::sites::{Sites, View};

/// What one repair, and a little more, takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Both sites, of which B runs and A is to.
struct Bed {
    sites: Sites,
    before: View,
    _b: Running,
}

impl Bed {
    fn new(test: &str, plane: DataplaneChoice) -> Option<Self> {
        let has_strace = Command::new("strace").arg("-V").output().is_ok_and(|said| said.status.success());
        if !require(test, plane) || !testing::require(test, has_strace, "strace (Debian's package)") {
            return None;
        }
        let sites = Sites::with_dataplane(word(plane));
        let b = sites.run_b();
        Some(Self { before: sites.view_a(), sites, _b: b })
    }

    #[track_caller]
    fn reaches(&self, what: &str) {
        let from = &self.sites.network.host_a;
        let deadline = Instant::now() + PATIENCE;
        while !from.run(|| ping(HOST_B, 84, 64, Duration::from_millis(200))).unwrap().is_reply() {
            assert!(Instant::now() < deadline, "{what}: B is not reached");
        }
    }

    #[track_caller]
    fn is_as_before(&self, what: &str) {
        assert_eq!(self.sites.view_a(), self.before, "{what}");
        assert_eq!(pins(&self.sites.machine, "a"), [] as [PathBuf; 0], "{what}");
    }

    fn down(&self) {
        self.sites.machine.adit(self.sites.network.gateway_a.ns(), &["down", "a"]).with(0);
    }

    /// A start to which this happens; whether it did.
    #[track_caller]
    fn start(&self, fault: Fault) -> bool {
        let what = format!("{fault:?}");
        let mut faulty = Faulty::start(&self.sites, fault);
        let is_ready = faulty.is_ready();
        if is_ready && !faulty.has_struck() {
            // It could still strike what no kernel ever fails, such as the pipe by which a signal is told.
            faulty.kill();
            self.down();
            return false;
        }
        if is_ready {
            self.reaches(&what);
            // What hinders the removal is told, and `adit down` does it.
            let (code, said) = faulty.end();
            if code != Some(0) {
                assert!(said.contains("adit: "), "{what}: {said}");
                self.down();
            }
        } else {
            let (code, said) = faulty.wait();
            if code == Some(1) {
                assert!(said.contains("adit: cannot"), "{what}: {said}");
            } else {
                // It had no chance to say anything. What is left half done, the next start makes whole.
                assert!(matches!(fault.fate, Fate::Kills), "{what}: {code:?} {said}");
                let a = self.sites.run_a(&[]);
                self.reaches(&what);
                a.end(Signal::SIGINT);
            }
        }
        self.is_as_before(&what);
        true
    }

    /// The same with every call of that name, up to the one that nobody makes.
    #[track_caller]
    fn every(&self, call: &'static str, fate: Fate, steps: impl IntoIterator<Item = usize>) -> usize {
        for (struck, number) in steps.into_iter().enumerate() {
            if !self.start(Fault { call, fate, number }) {
                return struck;
            }
        }
        panic!("there are more calls of {call} than this looks at");
    }
}

/// Numbers of calls, each or every so many; nobody makes as many as the last.
fn steps(each: usize) -> impl Iterator<Item = usize> {
    (1..400).step_by(each)
}

#[test]
fn a_start_that_the_kernel_refuses_leaves_nothing() {
    let test = "a_start_that_the_kernel_refuses_leaves_nothing";
    let Some(bed) = Bed::new(test, DataplaneChoice::Ebpf) else { return };
    for (call, error, each) in [
        ("sendto", "ENOBUFS", 1),
        ("recvfrom", "ENOBUFS", 2),
        ("ioctl", "EBUSY", 1),
        ("socket", "EMFILE", 1),
        // Some 110 of them, most alike.
        ("bpf", "ENOMEM", 16),
        ("bpf", "EPERM", 24),
    ] {
        let struck = bed.every(call, Fate::Fails(error), steps(each));
        assert!(struck > 3, "{call} was refused {struck} times only");
    }
}

#[test]
fn a_death_at_any_step_of_a_start_is_mended_by_the_next() {
    let test = "a_death_at_any_step_of_a_start_is_mended_by_the_next";
    let Some(bed) = Bed::new(test, DataplaneChoice::Ebpf) else { return };
    for (call, each) in [("sendto", 1), ("bpf", 16)] {
        let struck = bed.every(call, Fate::Kills, steps(each));
        assert!(struck > 3, "{call} killed {struck} times only");
    }
}
