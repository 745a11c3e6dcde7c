//! A disk that is full or read-only, and files that cannot be read: nothing that forwards stops, a
//! promise is kept, and status says what is wrong.

use std::fs;

use adit_config::DataplaneChoice;
use adit_testbed::needs::ebpf;
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::support::machine::{Machine, PATIENCE};
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

const STATE: &str = "/var/lib/adit/a";
const PLANES: [DataplaneChoice; 2] = [DataplaneChoice::Ebpf, DataplaneChoice::Userspace];

/// Fills the file system of the state directory.
fn fill(machine: &Machine) {
    machine.remount("/var/lib", "remount,size=64k");
    machine.with_files(|| {
        let _ = fs::write("/var/lib/fill", vec![0; 1 << 20]);
        assert!(fs::write("/var/lib/probe", [0; 8192]).is_err(), "there is room");
        let _ = fs::remove_file("/var/lib/probe");
    });
}

fn warnings(bed: &Testbed) -> Vec<String> {
    let status = bed.status();
    let names = status["warnings"].as_array().expect("a list").iter();
    names.filter_map(|warning| warning["name"].as_str().map(str::to_owned)).collect()
}

#[track_caller]
fn has_warning(bed: &Testbed, name: &str, is_there: bool) {
    let what = format!("{name}: {is_there}");
    wait_until(PATIENCE, &what, || warnings(bed).iter().any(|warning| warning == name) == is_there);
}

/// Another file, with which B is not reached.
fn without_b(bed: &Testbed) -> String {
    bed.write_changed("other.toml", |text| text.replace("192.168.199.0/24", "192.168.77.0/24"))
}

fn forwards_without_a_state_directory(plane: DataplaneChoice) {
    let mut bed = Testbed::new(plane);
    bed.start(Side::B);
    for (is_full, again) in [(false, "remount,rw"), (true, "remount,size=1m")] {
        if is_full {
            fill(&bed.sites.machine);
        } else {
            bed.sites.machine.remount("/var/lib", "remount,ro");
        }
        bed.start(Side::A);
        bed.sites.assert_joined();
        has_warning(&bed, "state-not-written", true);
        bed.sites.machine.remount("/var/lib", again);
        has_warning(&bed, "state-not-written", false);
        bed.take(Side::A).kill();
        bed.adit(&["down", "a"]).ok();
    }
}

#[test(root, ebpf)]
fn a_start_with_ebpf_needs_no_state_directory() {
    forwards_without_a_state_directory(DataplaneChoice::Ebpf);
}

#[test(root)]
fn a_start_with_userspace_needs_no_state_directory() {
    forwards_without_a_state_directory(DataplaneChoice::Userspace);
}

#[test(root, ebpf)]
fn what_cannot_be_promised_is_refused() {
    for plane in PLANES {
        let bed = Testbed::running(plane);
        let other = without_b(&bed);
        fill(&bed.sites.machine);
        let refused = bed.adit(&["apply", "--confirm", "60", &other]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("No space left on device"), "{refused:?}");
        bed.sites.assert_joined();
        assert_eq!(bed.status()["pending"], Value::Null);
        bed.sites.machine.remount("/var/lib", "remount,size=1m");
        bed.adit(&["apply", "--confirm", "60", &other]).ok();
        assert!(!bed.reaches());
    }
}

/// Two daemons without a lock would be worse than none.
#[test(root)]
fn a_start_that_cannot_write_its_lock_is_refused() {
    let mut bed = Testbed::running(DataplaneChoice::Userspace);
    let machine = bed.sites.machine.clone();
    // One that runs goes on where there is no room left, and does all that it is asked for.
    let used = machine.with_files(|| {
        let run = nix::sys::statvfs::statvfs("/run").unwrap();
        (run.blocks() - run.blocks_free()) * run.fragment_size()
    });
    machine.remount("/run", &format!("remount,size={used}"));
    bed.sites.assert_joined();
    bed.ip("route delete 192.168.199.0/24 dev ipipA");
    wait_until(PATIENCE, "what others break is repaired", || bed.reaches());
    bed.adit(&["apply", &without_b(&bed)]).ok();
    bed.adit(&["apply", &bed.file("a.toml")]).ok();
    bed.sites.assert_joined();
    bed.take(Side::A).kill();
    bed.take(Side::B).kill();
    machine.remount("/run", "remount,ro");
    let own = bed.file("a.toml");
    for command in ["run", "up"] {
        let refused = bed.adit(&[command, &own]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("/run/adit"), "{refused:?}");
        assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    }
    machine.remount("/run", "remount,rw,size=1g");
    bed.start(Side::B);
    bed.start(Side::A);
    wait_until(PATIENCE, "B is reached", || bed.reaches());
}

#[test(root)]
fn a_second_change_keeps_the_promise() {
    let bed = Testbed::running(DataplaneChoice::Userspace);
    let (own, other) = (bed.file("a.toml"), without_b(&bed));
    bed.adit(&["apply", "--confirm", "600", &other]).ok();
    let pending = bed.status()["pending"].clone();
    assert_eq!(pending["returns_to"], own.as_str());
    assert!((500.0..=600.0).contains(&pending["seconds_left"].as_f64().unwrap()), "{pending}");
    assert_eq!(bed.status()["file"], other.as_str());
    // Without `--confirm` the time runs on. With it the deadline moves.
    let third = bed.write_changed("third.toml", |text| text.replace("192.168.199.0/24", "192.168.78.0/24"));
    bed.adit(&["apply", &third]).ok();
    assert_eq!(bed.status()["pending"]["returns_to"], own.as_str());
    bed.adit(&["apply", "--confirm", "1", &other]).ok();
    wait_until(PATIENCE, "what was confirmed runs", || bed.reaches());
    let status = bed.status();
    assert_eq!((&status["file"], &status["pending"]), (&own.as_str().into(), &Value::Null));
    has_warning(&bed, "rolled-back", true);
    bed.adit(&["apply", &own]).ok();
    has_warning(&bed, "rolled-back", false);
}

/// How many processes wait to roll back changes to this file. One that was just started may still
/// lack its command line: `spawn` returns before the kernel has written it.
fn waiting_guards(file: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&format!("\0guard\0{file}\0"))).count()
}

/// Its file is not the one to start the overlay with if the daemon dies.
#[test(root)]
fn the_guard_of_a_confirmed_change_does_not_guard_the_next_one() {
    let bed = Testbed::running(DataplaneChoice::Userspace);
    let first = bed.write_changed("first.toml", |text| text.replacen("[tunnel]", "[tunnel]\nttl = 32", 1));
    let second = bed.write_changed("second.toml", |text| text.replacen("[tunnel]", "[tunnel]\nttl = 16", 1));
    bed.adit(&["apply", "--confirm", "600", &first]).ok();
    bed.adit(&["confirm", "a"]).ok();
    // Before the first guard looks again.
    bed.adit(&["apply", "--confirm", "600", &second]).ok();
    wait_until(PATIENCE, "the first guard has ended", || waiting_guards(&first) == 0);
    wait_until(PATIENCE, "the second guard waits", || waiting_guards(&second) == 1);
    bed.adit(&["confirm", "a"]).ok();
}

#[test(root)]
fn nobody_waits_for_a_change_that_is_confirmed_or_rolled_back() {
    let bed = Testbed::running(DataplaneChoice::Userspace);
    let other = without_b(&bed);
    for is_confirmed in [true, false] {
        bed.adit(&["apply", "--confirm", "600", &other]).ok();
        wait_until(PATIENCE, "a guard waits", || waiting_guards(&other) == 1);
        if is_confirmed {
            bed.adit(&["confirm", "a"]).ok();
            bed.adit(&["apply", &bed.file("a.toml")]).ok();
        } else {
            bed.adit(&["apply", "--confirm", "1", &other]).ok();
        }
        wait_until(PATIENCE, "the guard has ended", || waiting_guards(&other) == 0);
        bed.sites.assert_joined();
    }
}

/// The record of a change is empty after a crash.
#[test(root)]
fn a_record_that_cannot_be_read_counts_as_not_confirmed() {
    let mut bed = Testbed::running(DataplaneChoice::Userspace);
    for is_confirmed_readable in [true, false] {
        bed.write_changed("a.toml", |text| text.replace("192.168.199.0/24", "192.168.77.0/24"));
        bed.adit(&["apply", "--confirm", "600", &bed.file("a.toml")]).ok();
        bed.take(Side::A).kill();
        bed.sites.machine.with_files(|| {
            fs::write(format!("{STATE}/confirm.json"), "").unwrap();
            if !is_confirmed_readable {
                fs::write(format!("{STATE}/confirmed.json"), "").unwrap();
            }
        });
        bed.start(Side::A);
        assert_eq!(bed.reaches(), is_confirmed_readable);
        has_warning(&bed, if is_confirmed_readable { "rolled-back" } else { "rollback-fails" }, true);
        bed.write_changed("a.toml", |text| text.replace("192.168.77.0/24", "192.168.199.0/24"));
        bed.adit(&["apply", &bed.file("a.toml")]).ok();
        bed.sites.assert_joined();
    }
}

#[test(root)]
fn a_reload_that_fails_is_told() {
    let bed = Testbed::running(DataplaneChoice::Userspace);
    let file = bed.file("a.toml");
    let text = fs::read_to_string(&file).unwrap();
    let refused = |what: &str, said: &str| {
        let reloaded = bed.adit(&["reload", "a"]);
        assert_eq!(reloaded.code, Some(1), "{what}: {reloaded:?}");
        assert!(reloaded.stderr.contains(said), "{what}: {reloaded:?}");
        has_warning(&bed, "reload-failed", true);
        bed.sites.assert_joined();
        let _ = fs::remove_file(&file);
        fs::write(&file, &text).unwrap();
        bed.adit(&["reload", &file]).ok();
        has_warning(&bed, "reload-failed", false);
    };
    fs::write(&file, text.clone() + "netwroks = []\n").unwrap();
    refused("a mistake", "unknown key `netwroks`");
    fs::remove_file(&file).unwrap();
    refused("no file", "cannot read");
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(file.as_str(), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    refused("a pipe", "is no regular file");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    refused("an endless device", "is no regular file");
}
