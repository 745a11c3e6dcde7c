//! A thread of the daemon ends, or stands still: it is replaced, or the process ends, so that it is
//! started again. Traffic passes, and the log says why.

use std::fs;
use std::process::Command;

use adit_config::DataplaneChoice;
use adit_testbed::needs::ebpf;
use nix::sys::signal::Signal;

use crate::support::faults::{Fate, Fault, Faulty};
use crate::support::machine::{PATIENCE, Running};
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

/// The next wait of every thread fails once.
fn replaced(plane: DataplaneChoice) {
    let mut bed = Testbed::running(plane);
    let fault = Fault { call: "poll", fate: Fate::Fails("ENOMEM"), number: 1 };
    let faulty = Faulty::attach(&bed.sites, fault, bed.daemon(Side::A));
    let replaced = || bed.status()["repairs"]["data-plane"].as_u64() >= Some(1);
    wait_until(PATIENCE, "the data plane was started again", replaced);
    faulty.detach();
    wait_until(PATIENCE, "B is reached", || bed.reaches());
    bed.wait_for(Side::A, "Cannot allocate memory");
    // The threads of the new plane go on.
    let before = bed.repairs();
    bed.ip("link set ipipA mtu 1400");
    wait_until(PATIENCE, "what others change is repaired", || bed.repairs() > before);
    bed.sites.assert_joined();
}

#[test(root, ebpf, strace)]
fn a_thread_that_ends_is_replaced_with_ebpf() {
    replaced(DataplaneChoice::Ebpf);
}

#[test(root, strace)]
fn a_thread_that_ends_is_replaced_with_userspace() {
    replaced(DataplaneChoice::Userspace);
}

/// Holds the daemon's thread of this name at its next wait, for longer than any test takes.
fn hold(bed: &Testbed, thread: &str) -> Running {
    let tasks = format!("/proc/{}/task", bed.daemon(Side::A).pid());
    let tasks = fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path());
    let has_name = |task: &std::path::PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread)
    };
    let task = tasks.into_iter().find(has_name).expect("the thread is there");
    let mut strace = Command::new("strace");
    strace.args(["--quiet=all", "--trace=poll", "--inject=poll:delay_enter=600s", "--attach"]);
    strace.arg(task.file_name().unwrap());
    bed.sites.machine.start_command(bed.gateway().ns(), strace)
}

#[test(root, ebpf, strace)]
fn a_thread_that_stands_still_ends_the_process_and_the_programs_forward_on() {
    let mut bed = Testbed::running(DataplaneChoice::Ebpf);
    let tracer = hold(&bed, "adit-probe");
    bed.wait_for(Side::A, "the thread adit-probe has not moved for 10 s");
    bed.sites.assert_joined();
    // The kernel ends the process once nobody holds a thread of it.
    tracer.signal(Signal::SIGKILL);
    let _ = tracer.wait();
    let (status, said) = bed.take(Side::A).wait();
    assert_eq!(status.code(), Some(1), "{said}");
    bed.sites.assert_joined();
    // As the service manager does.
    bed.start(Side::A);
    bed.sites.assert_joined();
    assert_eq!(bed.repairs(), 0);
}
