//! The unit for systemd: what the daemon tells its manager, and that the rights which the unit
//! leaves it are enough, and no more than it needs.

use adit_testbed::needs::ebpf;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::machine::{PROGRAM, Running};
use crate::support::manager::Manager;
use crate::support::sites::Sites;
use crate::support::{ADIT, http};
use adit_config::DataplaneChoice;
use adit_control::api::Endpoint;
use adit_lab::host::Host;
use adit_testbed::test_planes::plane_name;
use nix::sys::signal::Signal;

/// What `systemd-analyze security` of Debian 12 says, ten times over. To be lowered when it gets
/// better.
const EXPOSURE: u32 = 26;

fn unit() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../packaging/adit@.service")
}

/// All values that the unit gives a setting.
fn setting(name: &str) -> Vec<String> {
    let text = fs::read_to_string(unit()).unwrap();
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

/// The rights that the unit leaves, as setpriv(1) calls them.
fn rights() -> Vec<String> {
    let set = setting("CapabilityBoundingSet").concat();
    set.split_whitespace().map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect()
}

/// `adit run` of an example with these rights and no others, as far as a command can do what the
/// unit says.
fn confined(sites: &Sites, file: &str, rights: &[String]) -> Command {
    let bounding: String = rights.iter().map(|name| format!(",+{name}")).collect();
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--inh-caps=-all", &format!("--bounding-set=-all{bounding}")]).args([
        PROGRAM,
        "run",
        &sites.file(file),
    ]);
    command
}

fn start(sites: &Sites, gateway: &Host, command: Command) -> Running {
    let mut running = sites.machine.start_command(gateway.ns(), command);
    running.wait_for("ready");
    running
}

/// The tunnel works with the unit's rights.
fn the_rights_suffice(plane: DataplaneChoice) {
    let sites = Sites::with_dataplane(plane_name(plane));
    let before = sites.view_a();
    let a = start(&sites, &sites.network.gateway_a, confined(&sites, "a.toml", &rights()));
    let b = start(&sites, &sites.network.gateway_b, confined(&sites, "b.toml", &rights()));
    sites.assert_joined();
    let held = fs::read_to_string(format!("/proc/{}/status", a.pid())).unwrap();
    let count = |line: &str| {
        let set = held.lines().find_map(|found| found.strip_prefix(line)).unwrap().trim();
        u64::from_str_radix(set, 16).unwrap().count_ones() as usize
    };
    // What a data plane has no use for, the daemon gives up by itself.
    assert!(count("CapEff:") <= rights().len() && count("CapBnd:") == rights().len(), "{held}");
    // A restart takes over what an earlier one left, and the end removes it.
    a.end(Signal::SIGTERM);
    let a = start(&sites, &sites.network.gateway_a, confined(&sites, "a.toml", &rights()));
    sites.assert_joined();
    a.end(Signal::SIGINT);
    b.end(Signal::SIGINT);
    assert_eq!(sites.view_a(), before);
}

#[test(root, ebpf)]
fn the_units_rights_suffice_for_ebpf() {
    the_rights_suffice(DataplaneChoice::Ebpf);
}

#[test(root)]
fn the_units_rights_suffice_for_userspace() {
    the_rights_suffice(DataplaneChoice::Userspace);
}

/// Each of the unit's rights is one that the eBPF data plane does not start without.
#[test(root, ebpf)]
fn the_unit_grants_no_right_in_vain() {
    let sites = Sites::with_dataplane("ebpf");
    assert!(!rights().is_empty());
    for missing in rights() {
        let others: Vec<String> = rights().into_iter().filter(|right| *right != missing).collect();
        let command = confined(&sites, "a.toml", &others);
        let (status, said) = sites.machine.start_command(sites.network.gateway_a.ns(), command).wait();
        assert!(status.code() == Some(1) && said.contains("adit: "), "without {missing}, {status}: {said}");
    }
}

#[test(root)]
fn the_manager_is_told() {
    let (sites, manager) = (Sites::with_dataplane("userspace"), Manager::new());
    let mut command = Command::new(PROGRAM);
    command.args(["run", &sites.file("a.toml")]).env("NOTIFY_SOCKET", manager.address());
    let watched = Duration::from_secs(30).as_micros().to_string();
    let a = sites.machine.start_command(sites.network.gateway_a.ns(), {
        command.env("WATCHDOG_USEC", watched);
        command
    });
    assert_eq!(manager.hears(), "READY=1\nSTATUS=site a on ipipA: userspace, 1 peer\n");
    assert_eq!(manager.hears(), "WATCHDOG=1\n");
    a.signal(Signal::SIGTERM);
    let last = std::iter::repeat_with(|| manager.hears()).find(|said| said != "WATCHDOG=1\n");
    assert_eq!(last.as_deref(), Some("STOPPING=1\nSTATUS=stopping\n"));
    assert!(a.wait().0.success());
}

/// A start that has to wait takes longer than the manager allows by default.
#[test(root)]
fn the_manager_is_told_what_a_start_waits_for() {
    let (sites, manager) = (Sites::with_dataplane("userspace"), Manager::new());
    let gateway = &sites.network.gateway_a;
    let (device, address) = (gateway.index("underlayA").unwrap(), "10.1.1.1/24".parse().unwrap());
    gateway.netlink().unwrap().delete_address(device, address).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--wait", &sites.file("a.toml")]).env("NOTIFY_SOCKET", manager.address());
    let a = sites.machine.start_command(gateway.ns(), command);
    let waiting = "STATUS=waiting for the underlay address\nEXTEND_TIMEOUT_USEC=30000000\n";
    assert_eq!(manager.hears(), waiting);
    assert_eq!(manager.hears(), waiting, "again and again");
    gateway.address("underlayA", address).unwrap();
    let next = std::iter::repeat_with(|| manager.hears()).find(|said| said != waiting);
    assert_eq!(next.as_deref(), Some("READY=1\nSTATUS=site a on ipipA: userspace, 1 peer\n"));
    a.end(Signal::SIGINT);
}

/// What it does not read is lost, and the daemon goes on.
#[test(root)]
fn a_manager_that_does_not_read_stops_nothing() {
    let (sites, manager) = (Sites::with_dataplane("userspace"), Manager::new());
    let mut command = Command::new(PROGRAM);
    command.args(["run", &sites.file("a.toml")]).env("NOTIFY_SOCKET", manager.address());
    let mut a = sites.machine.start_command(sites.network.gateway_a.ns(), command);
    a.wait_for("ready");
    let gateway = sites.network.gateway_a.ns();
    // Each says that it begins and that it has ended; a socket holds some ten messages.
    for _ in 0..30 {
        a.signal(Signal::SIGHUP);
        sites.machine.adit(gateway, &["reload", "a"]).ok();
    }
    sites.machine.adit(gateway, &["status", "a"]).ok();
    a.end(Signal::SIGINT);
}

/// Another start would read the same file.
#[test(root)]
fn a_file_with_mistakes_fails_once() {
    let sites = Sites::with_dataplane("userspace");
    let file = sites.file("a.toml");
    fs::write(&file, "[site]\nname = 1\n").unwrap();
    let refused = sites.machine.adit(sites.network.gateway_a.ns(), &["run", "--wait", &file]);
    let code = refused.code.unwrap();
    assert!(code != 0 && refused.stderr.contains("error:"), "{refused:?}");
    let unit = include_str!("../../../../packaging/adit@.service");
    let prevented = unit.lines().filter_map(|line| line.strip_prefix("RestartPreventExitStatus="));
    assert_eq!(prevented.collect::<Vec<_>>(), [code.to_string()]);
}

/// A change runs on a thread of its own: it delays neither answers nor the watchdog.
#[test(alone, root)]
fn a_long_apply_delays_neither_answers_nor_the_watchdog() {
    let (sites, manager) = (Sites::with_dataplane("userspace"), Manager::new());
    let mut command = Command::new(PROGRAM);
    command.args(["run", &sites.file("a.toml")]).env("NOTIFY_SOCKET", manager.address());
    command.env("WATCHDOG_USEC", Duration::from_secs(30).as_micros().to_string());
    let a = sites.machine.start_command(sites.network.gateway_a.ns(), command);
    assert!(manager.hears().starts_with("READY=1\n"));
    // So many that they take seconds.
    let peer = |n: u32| {
        let (underlay, network) = (Ipv4Addr::from(0x0a4e_0000 + n), Ipv4Addr::from(0x0a4d_0000 + n * 4));
        format!("[[peer]]\nname = \"p{n}\"\nunderlay = \"{underlay}\"\nnetworks = [\"{network}/30\"]\n")
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.toml");
    let text = fs::read_to_string(sites.file("a.toml")).unwrap();
    fs::write(&file, text + &(0..12_000).map(peer).collect::<String>()).unwrap();

    let ask = || http::get(UnixStream::connect("/run/adit/a.sock").unwrap(), Endpoint::Status.path());
    let (mut slowest, mut oldest) = (Duration::ZERO, Duration::ZERO);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let apply = scope.spawn(|| {
            sites.machine.adit(sites.network.gateway_a.ns(), &["apply", file.to_str().unwrap()]).ok()
        });
        while !apply.is_finished() {
            let asked = Instant::now();
            let answer = sites.machine.with_files(ask);
            assert_eq!(answer.code, 200);
            // An answer with the new peers is from after the change.
            if !answer.body.contains("\"p0\"") {
                slowest = slowest.max(asked.elapsed());
                let age = answer.header("adit-snapshot-age-ms").unwrap().parse().unwrap();
                oldest = oldest.max(Duration::from_millis(age));
            }
        }
    });
    let took = started.elapsed();
    let fed = std::iter::from_fn(|| manager.hears_within(Duration::from_millis(1)));
    let fed = fed.filter(|said| said == "WATCHDOG=1\n").count();
    let times = format!("applied within {took:?}; slowest answer {slowest:?}, oldest {oldest:?}");
    assert!(slowest < took / 4 && oldest > Duration::from_millis(100), "{times}");
    assert!(fed >= 2, "the watchdog is fed meanwhile");
    a.end(Signal::SIGINT);
}

#[test(root)]
fn the_manager_is_told_of_no_watchdog_that_it_has_not() {
    let (sites, manager) = (Sites::with_dataplane("userspace"), Manager::new());
    let mut command = Command::new(PROGRAM);
    command.args(["run", &sites.file("a.toml")]).env("NOTIFY_SOCKET", manager.address());
    let a = sites.machine.start_command(sites.network.gateway_a.ns(), command);
    assert!(manager.hears().starts_with("READY=1\n"));
    // Longer than the daemon takes to look after its overlay once.
    assert_eq!(manager.hears_within(Duration::from_secs(1)), None);
    a.signal(Signal::SIGINT);
    assert!(manager.hears().starts_with("STOPPING=1\n"));
    assert!(a.wait().0.success());
}

/// The unit does not get laxer: systemd's own measure, which needs no systemd running.
#[test(systemd_analyze)]
fn the_unit_is_no_laxer_than_before() {
    let analyze = |threshold: u32| {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager", &format!("--threshold={threshold}")]);
        command.arg(unit()).output().unwrap()
    };
    let output = analyze(EXPOSURE);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "more exposed than {EXPOSURE} tenths:\n{said}");
    assert!(said.contains(" OK "), "{said}");
    assert!(
        !analyze(EXPOSURE - 1).status.success(),
        "less exposed than {EXPOSURE} tenths: lower the constant"
    );
}

/// Every setting is one that systemd knows, and every path that the unit names is one that it can
/// mean.
#[test(systemd_analyze)]
fn systemd_understands_the_unit() {
    // Under the name of an instance, and with a program that is there before the package is
    // installed.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("adit@a.service");
    fs::write(&copy, fs::read_to_string(unit()).unwrap().replace("/usr/bin/adit", ADIT)).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("adit@"), "{said}");
}

/// Every system call that the daemon makes in its life is one that the unit allows.
#[test(root, ebpf, systemd_analyze, strace)]
fn the_unit_allows_what_the_daemon_calls() {
    let allowed = allowed();
    for plane in ["ebpf", "userspace"] {
        let sites = Sites::with_dataplane(plane);
        let trace = tempfile::NamedTempFile::new().unwrap();
        let mut traced = Command::new("strace");
        traced.args(["--follow-forks", "--quiet=all", "--signal=none", "--output"]).arg(trace.path());
        traced.args([PROGRAM, "run", &sites.file("a.toml")]);
        let a = start(&sites, &sites.network.gateway_a, traced);
        let b = sites.run_b();
        sites.assert_joined();
        b.end(Signal::SIGINT);
        // strace passes no signal on; its only child is the daemon.
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", a.pid())).unwrap();
        let daemon: i32 = children.trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon), Signal::SIGINT).unwrap();
        assert!(a.wait().0.success());
        let calls = calls(&fs::read_to_string(trace.path()).unwrap());
        assert!(calls.contains("setsockopt"), "{calls:?}");
        let refused: Vec<_> = calls.difference(&allowed).collect();
        assert_eq!(refused, Vec::<&String>::new(), "{plane}");
    }
}

/// The system calls of a trace: lines such as `123 read(3, …`, `123 <... read resumed>…`.
fn calls(trace: &str) -> BTreeSet<String> {
    let names = trace.lines().filter_map(|line| line.split_once(' ')?.1.trim().split_once('('));
    let names = names
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    names.map(str::to_owned).collect()
}

/// What the unit's filters leave, in their order, as systemd reads them.
fn allowed() -> BTreeSet<String> {
    let mut allowed = expand("@default");
    for filter in setting("SystemCallFilter") {
        let (is_refusal, words) = match filter.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, filter.as_str()),
        };
        for call in words.split_whitespace().flat_map(expand) {
            if is_refusal {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    allowed
}

/// A system call, or those of one of systemd's groups.
fn expand(word: &str) -> BTreeSet<String> {
    if !word.starts_with('@') {
        return [word.to_owned()].into();
    }
    let output =
        Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", word]).output().unwrap();
    assert!(output.status.success(), "{word}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(expand).collect()
}
