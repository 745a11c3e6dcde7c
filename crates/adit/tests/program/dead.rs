//! An overlay whose daemon is dead: status says so, and what its programs do; `down` finds what it
//! left.

use adit_config::DataplaneChoice;
use adit_testbed::needs::{ebpf, ipip};
use nix::sys::signal::Signal;

use crate::support::programs::pins;
use crate::support::testbed::{Side, Testbed};

/// A's daemon has ended by this signal. Whether B is reached, and what status says.
fn dead(plane: DataplaneChoice, signal: Signal, dataplane: &str, forwards: bool, what: &str) {
    let mut bed = Testbed::running(plane);
    bed.sites.assert_joined();
    bed.end(Side::A, signal);
    let is_answered = if forwards { bed.is_answered() } else { bed.reaches() };
    assert_eq!(is_answered, forwards);

    let one = bed.adit(&["status", "a"]).with(1);
    let file = bed.file("a.toml");
    let expected = format!(
        "site a  device ipipA  dead: no daemon serves it; {what}\n  `adit up {file}` starts a daemon, \
         `adit down a` removes what is left\n"
    );
    assert_eq!((one.stdout.as_str(), one.stderr.as_str()), (expected.as_str(), ""));
    let all = bed.adit(&["status"]).with(1);
    assert!(all.stdout.starts_with(&expected) && all.stdout.contains("site b  underlay"), "{all:?}");

    let json = bed.adit(&["status", "-j", "a"]).with(1).json();
    assert_eq!(json["unreadable"], serde_json::json!([]));
    let status = &json["overlays"][0];
    assert_eq!((&status["daemon"], &status["file"]), (&"dead".into(), &file.into()));
    let site = &status["site"];
    assert_eq!(
        (&site["name"], &site["device"], &site["dataplane"]),
        (&"a".into(), &"ipipA".into(), &dataplane.into())
    );

    let device = bed.adit(&["down", "ipipA"]).with(1);
    assert!(device.stderr.contains("is the tunnel interface of overlay `a`"), "{device:?}");

    bed.start(Side::A);
    bed.sites.assert_joined();
    assert_eq!(bed.status()["daemon"], "running");
    bed.end(Side::A, signal);
    bed.adit(&["down", "a"]).ok();
    let gone = bed.adit(&["status", "a"]).with(1);
    assert!(gone.stderr.contains("is not running"), "{gone:?}");
}

#[test(root, ebpf)]
fn programs_of_a_dead_daemon_forward_on_and_status_says_so() {
    dead(DataplaneChoice::Ebpf, Signal::SIGKILL, "ebpf", true, "its programs forward on");
}

#[test(root)]
fn userspace_of_a_dead_daemon_forwards_nothing_and_status_says_so() {
    dead(DataplaneChoice::Userspace, Signal::SIGTERM, "", false, "nothing is forwarded");
}

#[test(root, ipip)]
fn a_dead_daemon_is_told_and_what_it_left_forwards_on_with_the_driver() {
    dead(DataplaneChoice::Kernel, Signal::SIGKILL, "kernel", true, "Linux's driver forwards on");
}

/// Programs in a namespace without a name and without a process, which only their pins hold.
#[test(root, ebpf)]
fn down_removes_the_programs_of_a_namespace_that_is_gone() {
    let mut bed = Testbed::new(DataplaneChoice::Ebpf);
    bed.sites.machine.name(bed.gateway().ns(), "netA");
    bed.start(Side::A);
    bed.end(Side::A, Signal::SIGKILL);
    bed.sites.machine.unname("netA");
    assert_ne!(pins(&bed.sites.machine, "a"), [] as [std::path::PathBuf; 0]);
    let elsewhere = bed.side(Side::B).ns();
    let status = bed.sites.machine.adit(elsewhere, &["status", "a"]).with(1);
    assert!(status.stdout.contains("dead"), "{status:?}");
    let down = bed.sites.machine.adit(elsewhere, &["down", "a", "-j"]).ok().json();
    assert_eq!(down["removed"], serde_json::json!(["programs"]));
    assert_eq!(pins(&bed.sites.machine, "a"), [] as [std::path::PathBuf; 0]);
    bed.sites.machine.adit(elsewhere, &["down", "a"]).with(1);
}
