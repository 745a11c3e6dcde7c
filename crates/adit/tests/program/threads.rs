//! A thread of the daemon ends, or stands still: it is replaced, or the process ends, so that it is
//! started again. Traffic passes, and the log says why.

use std::fs;
use std::path::PathBuf;
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
    // Status knows the thread and the cause, and how long ago it was.
    let last = bed.status()["last_repairs"]["data-plane"].clone();
    let what = last["what"].as_str().unwrap();
    assert!(what.starts_with("the thread adit-") && what.contains("Cannot allocate memory"), "{last}");
    assert!(last["seconds"].as_f64() < Some(PATIENCE.as_secs_f64()), "{last}");
    let text = bed.adit(&["status", "a"]).ok().stdout;
    assert!(text.contains("  repaired data-plane ") && text.contains(what), "{text}");
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

/// The thread of this name. A thread takes its name only once it runs.
fn thread(process: u32, name: &str) -> String {
    let mut found = None;
    wait_until(PATIENCE, &format!("the thread {name} runs"), || {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|task| task.unwrap().path());
        let has_name =
            |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        found = tasks.into_iter().find(has_name);
        found.is_some()
    });
    found.unwrap().file_name().unwrap().to_str().unwrap().to_owned()
}

/// Holds a thread at its next call of this name, for longer than any test takes.
fn hold(bed: &Testbed, thread: &str, call: &str) -> Running {
    let mut strace = Command::new("strace");
    strace.args(["--quiet=all", &format!("--trace={call}"), &format!("--inject={call}:delay_enter=600s")]);
    strace.args(["--attach", thread]);
    bed.sites.machine.start_command(bed.gateway().ns(), strace)
}

/// A thread that is held ends the process, which says its name.
fn ended(plane: DataplaneChoice, name: &str) {
    let mut bed = Testbed::running(plane);
    let tracer = hold(&bed, &thread(bed.daemon(Side::A).pid(), name), "poll");
    bed.wait_for(Side::A, &format!("the thread {name} has not moved for 10 s"));
    if plane == DataplaneChoice::Ebpf {
        bed.sites.assert_joined();
    }
    // The kernel ends the process once nobody holds a thread of it.
    tracer.signal(Signal::SIGKILL);
    let _ = tracer.wait();
    let (status, said) = bed.take(Side::A).wait();
    assert_eq!(status.code(), Some(1), "{said}");
    if plane == DataplaneChoice::Ebpf {
        bed.sites.assert_joined();
    }
    // As the service manager does.
    bed.start(Side::A);
    bed.sites.assert_joined();
    assert_eq!(bed.repairs(), 0);
}

#[test(root, ebpf, strace)]
fn a_prober_that_stands_still_ends_the_process_and_the_programs_forward_on() {
    ended(DataplaneChoice::Ebpf, "adit-probe");
}

#[test(root, strace)]
fn a_sender_that_stands_still_ends_the_process() {
    ended(DataplaneChoice::Userspace, "adit-out-0");
}

#[test(root, strace)]
fn a_receiver_that_stands_still_ends_the_process() {
    ended(DataplaneChoice::Userspace, "adit-in-0");
}

/// The thread that looks at all others is looked at by one of them. Who started the daemon in the
/// background starts it again.
#[test(root, strace)]
fn a_runtime_that_stands_still_ends_the_process_which_is_started_again() {
    let mut bed = Testbed::new(DataplaneChoice::Userspace);
    bed.start(Side::B);
    bed.adit(&["up", &bed.file("a.toml")]).ok();
    let machine = bed.sites.machine.clone();
    let held = machine.holder("a").expect("it runs");
    // Its first thread has its number.
    let tracer = hold(&bed, &held.to_string(), "epoll_wait");
    let log = || machine.with_files(|| fs::read_to_string("/run/adit/a.log").unwrap_or_default());
    wait_until(PATIENCE, "it is said", || log().contains("the thread runtime has not moved for 10 s"));
    tracer.signal(Signal::SIGKILL);
    let _ = tracer.wait();
    let is_new = || machine.holder("a").is_some_and(|pid| pid != held);
    wait_until(PATIENCE, "another daemon serves the overlay", is_new);
    wait_until(PATIENCE, "B is reached", || bed.reaches());
    bed.adit(&["down", "a"]).ok();
}
