//! The kernel denies a running daemon a call, at every step of what it does: a change, its
//! confirmation, its end, a reload, a repair. What runs is the old configuration or the new one,
//! traffic passes, and whoever asked hears why.

#![expect(clippy::print_stderr, reason = "the figures are for people")]

use std::fs;
use std::ops::AddAssign;

use adit_config::DataplaneChoice;
use adit_lab::host::Host;
use adit_testbed::needs::{ebpf, ipip};
use adit_testbed::test_planes::plane_name;
use serde_json::Value;

use crate::support::faults::{Fate, Fault, Faulty};
use crate::support::machine::PATIENCE;
use crate::support::testbed::{Side, Testbed};
use crate::support::{Said, wait_until};

const FAR: &str = "\n[[peer]]\nname = \"far\"\nunderlay = \"10.1.1.77\"\nnetworks = [\"10.77.0.0/16\"]\n";

/// What disks and descriptors are denied with. The last number is how many of these calls a thread
/// makes at most in one piece of work.
const DENIED: [(&str, &[&str], usize); 6] = [
    ("fsync", &["ENOSPC", "EIO"], 8),
    ("rename", &["ENOSPC", "EROFS"], 4),
    ("openat", &["ENOSPC", "EROFS", "EMFILE"], 6),
    ("unlink", &["EROFS"], 3),
    ("socket", &["EMFILE"], 4),
    ("accept4", &["EMFILE"], 2),
];

#[derive(Clone, Copy, Debug)]
enum Work {
    Confirm,
    RollBack,
    Reload,
    Repair,
}

/// How many faults were set, and how many came to pass.
#[derive(Debug, Default)]
struct Count {
    set: usize,
    struck: usize,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.set += other.set;
        self.struck += other.struck;
    }
}

/// Two sites that run. A's configuration is `own`; `other` adds a peer.
struct AtWork {
    bed: Testbed,
    own: String,
    other: String,
    text: String,
    /// How many steps of a call are looked at: few in a guest, where each takes a second.
    steps: usize,
}

impl AtWork {
    fn new(plane: DataplaneChoice) -> Self {
        let bed = Testbed::running(plane);
        let (own, other) = (bed.file("a.toml"), bed.write_changed("other.toml", |text| text + FAR));
        let text = fs::read_to_string(&own).unwrap();
        let steps = if plane == DataplaneChoice::Kernel { 2 } else { usize::MAX };
        Self { bed, own, other, text, steps }
    }

    fn in_force(&self) -> (String, usize, Value) {
        let status = self.bed.status();
        let file = status["file"].as_str().unwrap().to_owned();
        (file, status["peers"].as_array().unwrap().len(), status["pending"].clone())
    }

    /// What was refused says why, in the kernel's own words.
    #[track_caller]
    fn is_explained(refused: &Said, what: &str) {
        assert_eq!(refused.code, Some(1), "{what}: {refused:?}");
        assert!(refused.stderr.contains("(os error"), "{what}: {refused:?}");
    }

    #[track_caller]
    fn forwards(&self, what: &str) {
        assert!(self.bed.is_answered(), "{what}: B is not reached");
    }

    /// Does the work while the fault is set, and checks what is left.
    #[track_caller]
    fn under(&self, work: Work, fault: Fault) -> Count {
        let what = format!("{work:?}, {fault:?}");
        let faulty = Faulty::attach(&self.bed.sites, fault, self.bed.daemon(Side::A));
        match work {
            Work::Confirm => self.confirm(faulty, &what),
            Work::RollBack => self.roll_back(faulty, &what),
            Work::Reload => self.reload(faulty, &what),
            Work::Repair => self.repair(faulty, &what),
        }
    }

    #[track_caller]
    fn end(&self, faulty: Faulty, what: &str) -> Count {
        self.forwards(what);
        let struck = usize::from(faulty.has_struck());
        faulty.detach();
        Count { set: 1, struck }
    }

    fn confirm(&self, faulty: Faulty, what: &str) -> Count {
        let applied = self.bed.adit(&["apply", "--confirm", "600", &self.other]);
        self.forwards(what);
        let confirmed = self.bed.adit(&["confirm", "a"]);
        let count = self.end(faulty, what);
        let (file, peers, pending) = self.in_force();
        if applied.code == Some(0) {
            assert_eq!((&file, peers), (&self.other, 2), "{what}");
            if confirmed.code != Some(0) {
                // The promise holds until somebody can confirm.
                Self::is_explained(&confirmed, what);
                assert_ne!(pending, Value::Null, "{what}: {confirmed:?}");
                self.bed.adit(&["confirm", "a"]).ok();
            }
        } else {
            Self::is_explained(&applied, what);
            assert_eq!((&file, peers), (&self.own, 1), "{what}: {applied:?}");
        }
        assert_eq!(self.in_force().2, Value::Null, "{what}");
        self.bed.adit(&["apply", &self.own]).ok();
        count
    }

    fn roll_back(&self, faulty: Faulty, what: &str) -> Count {
        let applied = self.bed.adit(&["apply", "--confirm", "1", &self.other]);
        if applied.code != Some(0) {
            Self::is_explained(&applied, what);
        }
        let is_back = || self.in_force() == (self.own.clone(), 1, Value::Null);
        wait_until(PATIENCE, &format!("{what}: what was confirmed runs"), is_back);
        let count = self.end(faulty, what);
        self.bed.adit(&["apply", &self.own]).ok();
        count
    }

    fn reload(&self, faulty: Faulty, what: &str) -> Count {
        fs::write(&self.own, self.text.clone() + FAR).unwrap();
        let reloaded = self.bed.adit(&["reload", "a"]);
        let count = self.end(faulty, what);
        let expected = if reloaded.code == Some(0) {
            2
        } else {
            Self::is_explained(&reloaded, what);
            let warnings = self.bed.status()["warnings"].to_string();
            assert!(warnings.contains("reload-failed"), "{what}: {warnings}");
            1
        };
        assert_eq!(self.in_force().1, expected, "{what}: {reloaded:?}");
        fs::write(&self.own, &self.text).unwrap();
        self.bed.adit(&["reload", "a"]).ok();
        // A repair that the fault has hindered is tried again.
        let is_well = || self.bed.status()["warnings"] == Value::Array(Vec::new());
        wait_until(PATIENCE, &format!("{what}: nothing to warn of"), is_well);
        count
    }

    fn repair(&self, faulty: Faulty, what: &str) -> Count {
        let gateway = self.bed.gateway();
        delete_route(gateway);
        wait_until(PATIENCE, &format!("{what}: the route is there again"), || self.bed.reaches());
        self.end(faulty, what)
    }

    /// Each call, denied at each step. After it nothing is different from before.
    fn denied(&self, work: Work) -> Count {
        let mut count = Count::default();
        for (call, errors, most) in DENIED {
            for number in 1..=most.min(self.steps) {
                // One error a step: the code does not look which it is.
                let fate = Fate::Fails(errors[number % errors.len()]);
                let fault = self.under(work, Fault { call, fate, number });
                let is_over = fault.struck == 0;
                count += fault;
                if is_over {
                    break;
                }
            }
        }
        count
    }
}

/// The daemon dies at this step of a change with a promise, or of its confirmation. If the promise
/// was written by then, the next daemon keeps it. Otherwise it runs its file. Returns whether it
/// died.
fn dies(bed: &mut Testbed, own: &str, text: &str, fault: Fault) -> bool {
    let what = format!("{fault:?}");
    let peers = |bed: &Testbed| bed.status()["peers"].as_array().unwrap().len();
    fs::write(own, text.to_owned() + FAR).unwrap();
    let faulty = Faulty::attach(&bed.sites, fault, bed.daemon(Side::A));
    let is_applied = bed.adit(&["apply", "--confirm", "4", own]).code == Some(0);
    let is_confirmed = is_applied && bed.adit(&["confirm", "a"]).code == Some(0);
    // A thread that makes such a call at any other time may be the one that is killed, until the
    // tracer is gone. A daemon that answers after that lives on.
    faulty.detach();
    bed.adit(&["status", "a"]);
    let has_died = !bed.daemon(Side::A).is_alive();
    let is_promised = bed.sites.machine.with_files(|| fs::exists("/var/lib/adit/a/confirm.json").unwrap());
    if has_died {
        bed.take(Side::A).kill();
        // Where nobody answers, an apply starts the overlay itself.
        if bed.adit(&["status", "a"]).code == Some(0) {
            bed.adit(&["down", "a"]).ok();
        }
        bed.start(Side::A);
    }
    // While it was dead, the kernel may have told B that nobody speaks protocol 4 here.
    wait_until(PATIENCE, &format!("{what}: B is reached"), || bed.reaches());
    assert!(!(is_confirmed && is_promised), "{what}: it was confirmed");
    wait_until(PATIENCE, &format!("{what}: the time is over"), || bed.status()["pending"] == Value::Null);
    assert_eq!(peers(bed), if is_promised { 1 } else { 2 }, "{what}: promised: {is_promised}");
    fs::write(own, text).unwrap();
    bed.adit(&["apply", own]).ok();
    has_died
}

fn delete_route(gateway: &Host) {
    gateway.program("ip", &["route", "delete", "192.168.199.0/24", "dev", "ipipA"]).unwrap();
}

fn each_step(plane: DataplaneChoice) {
    let at_work = AtWork::new(plane);
    let mut total = Count::default();
    for work in [Work::Confirm, Work::RollBack, Work::Reload, Work::Repair] {
        let count = at_work.denied(work);
        eprintln!(
            "{}, {work:?}: {} faults set, {} struck, all survived",
            plane_name(plane),
            count.set,
            count.struck
        );
        assert!(count.struck > 0, "{work:?}: {count:?}");
        total += count;
    }
    eprintln!("{}: {} faults struck a running daemon; it survived all", plane_name(plane), total.struck);
}

#[test(root, ebpf, strace)]
fn a_call_denied_at_any_step_hinders_nothing_with_ebpf() {
    each_step(DataplaneChoice::Ebpf);
}

#[test(root, strace)]
fn a_call_denied_at_any_step_hinders_nothing_with_userspace() {
    each_step(DataplaneChoice::Userspace);
}

#[test(root, ipip, strace)]
fn a_call_denied_at_any_step_hinders_nothing_with_the_driver() {
    each_step(DataplaneChoice::Kernel);
}

#[test(root, strace)]
fn a_daemon_that_dies_at_any_step_of_a_promised_change_keeps_the_promise() {
    let mut bed = Testbed::running(DataplaneChoice::Userspace);
    let own = bed.file("a.toml");
    let text = fs::read_to_string(&own).unwrap();
    let mut deaths = 0;
    for call in ["fsync", "rename", "unlink", "openat"] {
        let steps = (1..=12).map(|number| Fault { call, fate: Fate::Kills, number });
        deaths += steps.take_while(|&fault| dies(&mut bed, &own, &text, fault)).count();
    }
    eprintln!("a daemon was killed at {deaths} steps of a promised change; it was kept each time");
    assert!(deaths > 8, "{deaths}");
}
