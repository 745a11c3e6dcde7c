//! What is left of root once a daemon runs, thread by thread; and that it is enough.

use adit_testbed::needs::ebpf;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::support::machine::PATIENCE;
use crate::support::sites::Sites;
use adit_config::DataplaneChoice;
use adit_testbed::test_planes::plane_name;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::signal::Signal;

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const IPC_LOCK: u64 = 1 << 14;
const SYS_RESOURCE: u64 = 1 << 24;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// Of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    rights: u64,
    /// A filter of system calls.
    is_filtered: bool,
}

/// What the threads of a process have, with their names without a number; and that none can come by
/// more.
#[track_caller]
fn held(pid: u32) -> BTreeSet<(String, Held)> {
    let mut threads = BTreeSet::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        let status = fs::read_to_string(task.join("status")).unwrap();
        let value = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("{name}: {status}"))
                .trim()
        };
        let set = |name: &str| u64::from_str_radix(value(name), 16).unwrap();
        let rights = set("CapEff:");
        assert_eq!((set("CapPrm:"), set("CapInh:"), set("CapAmb:")), (rights, 0, 0), "{status}");
        // A packet thread has no right to lower its bound, nor a way to make use of it.
        assert_eq!(set("CapBnd:") & !(NET_ADMIN | NET_RAW | IPC_LOCK | BPF | PERFMON), 0, "{status}");
        assert_eq!(value("NoNewPrivs:"), "1", "{status}");
        let name = fs::read_to_string(task.join("comm")).unwrap();
        let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        let found = Held { rights, is_filtered: value("Seccomp:") == "2" };
        threads.insert((name, found));
    }
    threads
}

/// What a daemon keeps in place of a limit of locked memory that it may not lift.
fn right_to_lock_memory() -> u64 {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let set = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let may_lift = u64::from_str_radix(set, 16).unwrap() & SYS_RESOURCE != 0;
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
    if may_lift || hard == RLIM_INFINITY { 0 } else { IPC_LOCK }
}

fn what_is_left(plane: DataplaneChoice) {
    let sites = Sites::with_dataplane(plane_name(plane));
    let before = sites.view_a();
    let (a, b) = (sites.run_a(&[]), sites.run_b());
    sites.assert_joined();
    let of_process = match plane {
        DataplaneChoice::Ebpf => NET_ADMIN | NET_RAW | PERFMON | BPF,
        _ => NET_ADMIN | NET_RAW,
    } | right_to_lock_memory();
    // With programs in front, the kernel routes what userspace sends.
    let of_senders = if plane == DataplaneChoice::Ebpf { 0 } else { NET_RAW | right_to_lock_memory() };
    let expected = [
        ("adit-under-test", of_process, false),
        ("adit-keep", of_process, false),
        ("adit-change", of_process, false),
        ("adit-watch", of_process, false),
        // Anybody can send what it reads.
        ("adit-probe", 0, true),
        ("adit-out-", of_senders, true),
        ("adit-in-", 0, true),
    ];
    let expected: BTreeSet<(String, Held)> =
        expected.map(|(name, rights, is_filtered)| (name.to_owned(), Held { rights, is_filtered })).into();
    // A thread takes its name, and gives up its rights, only once it runs.
    let deadline = Instant::now() + PATIENCE;
    while held(a.pid()) != expected && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(held(a.pid()), expected);
    // Ends as it would with all of them.
    a.end(Signal::SIGINT);
    b.end(Signal::SIGINT);
    assert_eq!(sites.view_a(), before);
}

#[test(root, ebpf)]
fn a_daemon_keeps_what_ebpf_needs() {
    what_is_left(DataplaneChoice::Ebpf);
}

#[test(root)]
fn a_daemon_keeps_what_userspace_needs() {
    what_is_left(DataplaneChoice::Userspace);
}

/// What was given up does not come back, and is asked for in vain with words that help.
#[test(root)]
fn a_reload_that_needs_more_is_refused() {
    let sites = Sites::with_dataplane("userspace");
    let (_a, _b) = (sites.run_a(&[]), sites.run_b());
    let gateway = &sites.network.gateway_a;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("ebpf.toml");
    let text = fs::read_to_string(sites.file("a.toml")).unwrap();
    fs::write(&file, text.replace("\"userspace\"", "\"ebpf\"")).unwrap();
    let refused = sites.machine.adit(gateway.ns(), &["apply", file.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("systemctl restart adit@a"), "{refused:?}");
    sites.assert_joined();
}
