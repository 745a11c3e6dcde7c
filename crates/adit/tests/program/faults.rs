//! The kernel is short of something, or the daemon dies, at every step: afterwards everything is
//! there, or nothing is.

#![expect(clippy::print_stderr, reason = "the figures are for people")]

use adit_testbed::needs::{ebpf, ipip};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::faults::{Fate, Fault, Faulty};
use crate::support::machine::Running;
use crate::support::programs::pins;
use crate::support::sites::{Sites, View};
use crate::support::wait_until;
use adit_config::DataplaneChoice;
use adit_lab::ping::ping;
use adit_lab::two_sites::HOST_B;
use adit_testbed::test_planes::plane_name;
use nix::sys::signal::Signal;

/// What one repair, and a little more, takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Both sites, of which B runs and A is to.
struct FaultyStart {
    sites: Sites,
    plane: DataplaneChoice,
    before: View,
    _b: Running,
}

impl FaultyStart {
    fn new(plane: DataplaneChoice) -> Self {
        let sites = Sites::with_dataplane(plane_name(plane));
        let b = sites.run_b();
        Self { before: sites.view_a(), sites, plane, _b: b }
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
            // It could still strike what no kernel ever fails, such as the pipe by which a signal
            // is told.
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
                // It had no chance to say anything. What is left half done, the next start makes
                // whole.
                assert!(fault.is_deadly(), "{what}: {code:?} {said}");
                let a = self.sites.run_a(&[]);
                self.reaches(&what);
                a.end(Signal::SIGINT);
            }
        }
        self.is_as_before(&what);
        true
    }

    /// The same with every so many-th call of that name, up to the one that nobody makes; how many
    /// there were.
    #[track_caller]
    fn every(&self, step: usize, call: &'static str, fate: Fate) -> usize {
        const MOST: usize = 2000;
        let steps = (1..MOST).step_by(step);
        let struck = steps.take_while(|&number| self.start(Fault { call, fate, number })).count();
        assert!(struck < MOST / step, "there are more calls of {call} than this looks at");
        struck
    }

    /// Ends the daemon of A by this signal, while this happens to it; whether it did. `down`
    /// removes what is left.
    #[track_caller]
    fn stop(&self, signal: Signal, fault: Fault) -> bool {
        let what = format!("{signal}, {fault:?}");
        let daemon = self.sites.run_a(&[]);
        self.reaches(&what);
        let faulty = Faulty::attach(&self.sites, fault, &daemon);
        // The byte by which a signal is told inside may be the very call that is denied.
        let ends_by = || {
            daemon.signal(signal);
            wait_until(2 * PATIENCE, &what, || !daemon.is_alive() || faulty.has_struck());
            !daemon.is_alive()
        };
        wait_until(2 * PATIENCE, &format!("{what}: it ends"), ends_by);
        let has_struck = faulty.has_struck();
        faulty.detach();
        let (status, said) = daemon.wait();
        match status.code() {
            Some(0) => {}
            Some(1) => assert!(said.contains("adit: ") && said.contains("(os error"), "{what}: {said}"),
            code => assert!(code.is_none() && fault.is_deadly(), "{what}: {code:?} {said}"),
        }
        // What shall stay forwards on, except in userspace.
        if signal == Signal::SIGTERM && self.plane != DataplaneChoice::Userspace {
            self.reaches(&what);
        }
        if (signal, status.code()) != (Signal::SIGINT, Some(0)) {
            self.down();
        }
        self.is_as_before(&what);
        has_struck
    }

    /// Both ends of a daemon, with each call denied, or the daemon killed, at each step.
    fn stops(&self) {
        let fails = [
            ("unlink", "EROFS", 4),
            ("rmdir", "EROFS", 3),
            ("sendto", "ENOBUFS", 6),
            ("openat", "EMFILE", 4),
            ("fsync", "EIO", 3),
            ("bpf", "EPERM", 3),
        ];
        // Few in a guest, where each takes a second.
        let is_guest = self.plane == DataplaneChoice::Kernel;
        let (steps, least) = if is_guest { (2, 4) } else { (usize::MAX, 10) };
        let (mut set, mut struck) = (0, 0);
        let mut stop = |call, fate, most| {
            for signal in [Signal::SIGINT, Signal::SIGTERM] {
                for number in 1..=steps.min(most) {
                    set += 1;
                    if !self.stop(signal, Fault { call, fate, number }) {
                        break;
                    }
                    struck += 1;
                }
            }
        };
        for (call, error, most) in fails {
            stop(call, Fate::Fails(error), most);
        }
        for (call, most) in [("unlink", 4), ("sendto", 4)] {
            stop(call, Fate::Kills, most);
        }
        eprintln!("{}, stop: {set} faults set, {struck} struck, all survived", plane_name(self.plane));
        assert!(struck > least, "{struck}");
    }

    /// Changes the running overlay of A, to which this happens meanwhile; whether it did.
    /// Afterwards it is one of both, as a whole, and goes on.
    #[track_caller]
    fn change(&self, a: &mut Option<Running>, files: [&str; 2], fault: Fault) -> bool {
        let what = format!("{fault:?}");
        let gateway = self.sites.network.gateway_a.ns();
        let adit = |arguments: &[&str]| self.sites.machine.adit(gateway, arguments);
        let daemon = a.take().unwrap_or_else(|| self.sites.run_a(&[]));
        let faulty = Faulty::attach(&self.sites, fault, &daemon);
        let applied = adit(&["apply", files[fault.number % 2]]);
        let has_struck = faulty.has_struck();
        // A daemon that answers after its tracer has gone lives on.
        faulty.detach();
        adit(&["status", "a"]);
        let is_alive = daemon.is_alive();
        let has_struck = !is_alive || has_struck;
        assert!(is_alive || fault.is_deadly(), "{what}: {applied:?}");
        *a = Some(if is_alive {
            daemon
        } else {
            // An apply that finds nobody at work starts the overlay itself.
            if adit(&["status", "a"]).code == Some(0) {
                adit(&["down", "a"]).with(0);
            }
            self.sites.run_a(&[])
        });
        let deadline = Instant::now() + PATIENCE;
        while !files.iter().any(|file| adit(&["plan", file]).code == Some(0)) {
            assert!(Instant::now() < deadline, "{what}: neither the old nor the new: {applied:?}");
        }
        self.reaches(&what);
        has_struck
    }
}

/// A peer beside B.
const FAR: &str = "\n[[peer]]\nname = \"far\"\nunderlay = \"10.1.1.77\"\nnetworks = [\"10.77.0.0/16\"]\n";

/// A start to which the kernel denies one call: it comes to its end, or says why not and leaves
/// nothing behind.
#[test(root, ebpf, strace)]
fn a_start_that_is_denied_a_call_is_whole_or_nothing() {
    let bed = FaultyStart::new(DataplaneChoice::Ebpf);
    // What netlink, the program loader, descriptors and ethtool may run out of, or refuse.
    for (step, call, error) in [
        (1, "sendto", "ENOBUFS"),
        (2, "recvfrom", "ENOBUFS"),
        (1, "socket", "EMFILE"),
        (1, "ioctl", "EBUSY"),
        (2, "ioctl", "EPERM"),
        // Most of them alike.
        (16, "bpf", "ENOMEM"),
        (24, "bpf", "EPERM"),
        (3, "mkdir", "ENOSPC"),
        (7, "openat", "EMFILE"),
    ] {
        assert!(bed.every(step, call, Fate::Fails(error)) > 1, "{call}");
    }
}

/// A daemon that dies at any step of a start: the next one makes whole what it left.
#[test(root, ebpf, strace)]
fn a_start_that_dies_is_made_whole_by_the_next() {
    let bed = FaultyStart::new(DataplaneChoice::Ebpf);
    for (step, call) in [(1, "sendto"), (2, "ioctl"), (16, "bpf"), (3, "mkdir")] {
        assert!(bed.every(step, call, Fate::Kills) > 1, "{call}");
    }
}

/// An apply to which the kernel denies a call, or in which the daemon dies: what ran before runs,
/// or what was asked for, and B is reached.
#[test(root, ebpf, strace)]
fn an_apply_that_is_hindered_is_the_old_or_the_new() {
    let bed = FaultyStart::new(DataplaneChoice::Ebpf);
    let folder = tempfile::tempdir().unwrap();
    let less = bed.sites.file("a.toml");
    let more = folder.path().join("more.toml");
    std::fs::write(&more, std::fs::read_to_string(&less).unwrap() + FAR).unwrap();
    let files = [less.as_str(), more.to_str().unwrap()];
    let mut a = Some(bed.sites.run_a(&[]));
    for (step, call, fate) in [
        (2, "sendto", Fate::Fails("ENOBUFS")),
        (7, "bpf", Fate::Fails("ENOMEM")),
        (3, "sendto", Fate::Kills),
        (11, "bpf", Fate::Kills),
    ] {
        let steps = (1..).step_by(step).take(6);
        let struck = steps.filter(|&number| bed.change(&mut a, files, Fault { call, fate, number })).count();
        assert!(struck > 0, "{call} {fate:?}");
    }
}

/// An end to which the kernel denies a call, or in which the daemon dies: it is told, and `down`
/// removes what is left.
#[test(root, ebpf, strace)]
fn a_stop_that_is_hindered_leaves_nothing_that_down_does_not_find_with_ebpf() {
    FaultyStart::new(DataplaneChoice::Ebpf).stops();
}

#[test(root, strace)]
fn a_stop_that_is_hindered_leaves_nothing_that_down_does_not_find_with_userspace() {
    FaultyStart::new(DataplaneChoice::Userspace).stops();
}

#[test(root, ipip, strace)]
fn a_stop_that_is_hindered_leaves_nothing_that_down_does_not_find_with_the_driver() {
    FaultyStart::new(DataplaneChoice::Kernel).stops();
}
