//! A daemon in the background: it is started again when it ends by itself, and its log is bounded.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use adit_config::DataplaneChoice;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::machine::PATIENCE;
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

/// Both sites; A's daemon is in the background.
fn running() -> Testbed {
    let mut bed = Testbed::new(DataplaneChoice::Userspace);
    bed.start(Side::B);
    bed.adit(&["up", &bed.file("a.toml")]).ok();
    bed.sites.assert_joined();
    bed
}

fn daemon(bed: &Testbed) -> Option<Pid> {
    bed.sites.machine.holder("a")
}

fn supervisor(bed: &Testbed) -> Option<Pid> {
    bed.sites.machine.holder("a.supervisor")
}

#[track_caller]
fn kill_daemon(bed: &Testbed) -> Pid {
    let daemon = daemon(bed).expect("it runs");
    kill(daemon, Signal::SIGKILL).unwrap();
    daemon
}

/// Takes it down, after which nothing of it is left.
#[track_caller]
fn down(bed: &Testbed) {
    let supervisor = supervisor(bed);
    bed.adit(&["down", "a"]).ok();
    let files = bed.sites.machine.files();
    let left: Vec<_> = files.iter().filter(|file| !file.to_string_lossy().contains("/adit/b")).collect();
    assert!(left.is_empty(), "{left:?}");
    for process in [daemon(bed), self::supervisor(bed)] {
        assert_eq!(process, None);
    }
    if let Some(pid) = supervisor {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "the supervisor has ended: {stat}");
    }
}

fn log(bed: &Testbed) -> String {
    bed.sites.machine.with_files(|| fs::read_to_string("/run/adit/a.log").unwrap_or_default())
}

#[test(root)]
fn a_daemon_that_is_killed_is_started_again_until_it_is_taken_down() {
    let bed = running();
    for _ in 0..2 {
        let killed = kill_daemon(&bed);
        let is_new = || daemon(&bed).is_some_and(|pid| pid != killed);
        wait_until(PATIENCE, "another daemon serves the overlay", is_new);
        wait_until(PATIENCE, "B is reached", || bed.reaches());
    }
    assert!(log(&bed).contains("the daemon has ended, and is started again in 4s"), "{}", log(&bed));
    down(&bed);
}

#[test(root)]
fn a_daemon_that_ended_when_asked_is_not_started_again() {
    let bed = running();
    let supervisor = supervisor(&bed).expect("it supervises");
    kill(daemon(&bed).unwrap(), Signal::SIGTERM).unwrap();
    let has_ended = || fs::read_link(format!("/proc/{supervisor}/exe")).is_err();
    wait_until(PATIENCE, "the supervisor ends too", has_ended);
    assert_eq!(daemon(&bed), None);
    down(&bed);
}

/// The daemon is dead, and its supervisor waits to start it again.
#[test(root)]
fn whoever_comes_while_the_supervisor_waits_is_obeyed() {
    let bed = running();
    let waiting = supervisor(&bed).expect("it supervises");
    kill_daemon(&bed);
    bed.adit(&["up", &bed.file("a.toml")]).ok();
    assert_ne!(supervisor(&bed), Some(waiting), "another has taken its place");
    bed.sites.assert_joined();
    kill_daemon(&bed);
    down(&bed);
}

#[test(root)]
fn a_second_daemon_is_refused_and_the_first_one_stays_supervised() {
    let bed = running();
    let before = (daemon(&bed), supervisor(&bed));
    let refused = bed.adit(&["up", &bed.file("a.toml")]).with(1);
    assert!(refused.stderr.contains("is already running"), "{refused:?}");
    assert_eq!((daemon(&bed), supervisor(&bed)), before);
    down(&bed);
}

#[test(root)]
fn the_log_is_begun_anew_when_it_is_long_or_moved_away() {
    let bed = running();
    let (path, old, moved) = ("/run/adit/a.log", "/run/adit/a.log.old", "/run/adit/moved");
    let hang_up = || {
        kill(daemon(&bed).unwrap(), Signal::SIGHUP).unwrap();
        wait_until(PATIENCE, "the log has it", || log(&bed).contains("reloaded: nothing has changed"));
    };
    bed.sites.machine.with_files(|| {
        // As an earlier version left it.
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        let long = "x".repeat(80) + "\n";
        fs::write(path, fs::read_to_string(path).unwrap() + &long.repeat(1 << 14)).unwrap();
    });
    hang_up();
    let length = |file: &str| bed.sites.machine.with_files(|| fs::metadata(file).map(|file| file.len()).ok());
    assert!(length(path) < Some(4096) && length(old) > Some(1 << 20), "{:?}", (length(path), length(old)));
    bed.sites.machine.with_files(|| fs::rename(path, moved).unwrap());
    hang_up();
    let modes = bed
        .sites
        .machine
        .with_files(|| [path, moved].map(|file| fs::metadata(file).unwrap().permissions().mode() & 0o777));
    assert_eq!(modes, [0o600; 2]);
    bed.sites.machine.with_files(|| fs::remove_file(moved).unwrap());
    down(&bed);
}
