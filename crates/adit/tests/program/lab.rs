//! `adit lab`: proves what it says, leaves nothing behind, and says what is missing where it
//! cannot run.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::machine::{Machine, PROGRAM};
use crate::support::sites::{View, view_of};
use crate::support::{Said, keys};
use adit_lab::two_sites::TwoSites;
use adit_lab::{checks, crossing};
use adit_linux::netlink::Netlink;
use adit_linux::netns::NetNs;
use nix::sys::signal::Signal;

const NOBODY: u32 = 65534;
const CHECKS: [&str; 16] = [
    "isolated-before",
    "ping",
    "ping-hosts",
    "http",
    "capture",
    "ping-ipv6",
    "capture-6in4",
    "mtu",
    "mtu-ipv6",
    "ping-4in6",
    "ping-6in6",
    "mtu-4in6",
    "mtu-6in6",
    "capture-4in6",
    "capture-6in6",
    "isolated-after",
];

/// A machine with one network namespace, in which somebody types the command.
struct Here {
    machine: Machine,
    ns: NetNs,
}

/// What somebody who looks around sees: interfaces, routes, mounts, named namespaces.
type Around = (View, String, Vec<PathBuf>);

impl Here {
    fn new() -> Self {
        Self { machine: Machine::new(), ns: NetNs::fresh().unwrap() }
    }

    fn around(&self) -> Around {
        self.machine.within(&self.ns, || {
            let view = view_of(&mut Netlink::open().unwrap());
            let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
            let named = fs::read_dir("/run/netns").unwrap().map(|entry| entry.unwrap().path()).collect();
            (view, mounts, named)
        })
    }

    fn as_nobody(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(PROGRAM);
        self.machine.run(&self.ns, command.args(arguments).uid(NOBODY).gid(NOBODY))
    }
}

/// The report has the shape of the contract, and every check held, on this data plane.
#[track_caller]
fn assert_proved(said: Said, dataplane: &str) -> serde_json::Value {
    assert_eq!(said.stderr, "", "{said:#?}");
    let report = said.json();
    assert_eq!(said.code, Some(0), "{report:#}");
    assert_eq!((&report["schema"], &report["ok"]), (&1.into(), &true.into()), "{report:#}");
    assert_eq!(report["dataplane"], dataplane);
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, CHECKS);
    for check in checks {
        assert_eq!(keys(check), ["detail", "name", "ok"]);
        assert_eq!(check["ok"], true, "{check}");
        assert!(check["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{check}");
    }
    report
}

#[test(root)]
fn root_is_shown_everything() {
    let here = Here::new();
    let before = here.around();
    let report = assert_proved(here.machine.adit(&here.ns, &["lab", "--json"]), "ebpf");
    assert_eq!(keys(&report), ["checks", "dataplane", "ok", "schema", "throughput"]);
    assert_eq!(keys(&report["throughput"]), ["tunnel_gbps", "underlay_gbps"]);
    for figure in report["throughput"].as_object().unwrap().values() {
        assert!(figure.as_f64().is_some_and(|gbps| gbps > 0.0), "{report:#}");
    }
    assert_eq!(here.around(), before);
    assert!(here.machine.files().is_empty());
}

#[test(root)]
fn text_is_the_picture_the_checks_and_the_capture() {
    let here = Here::new();
    let said = here.machine.adit(&here.ns, &["lab", "--no-throughput"]).ok().stdout;
    let picture: Vec<&str> = said.lines().take_while(|line| !line.is_empty()).map(str::trim_end).collect();
    insta::assert_snapshot!(picture.join("\n"));
    for name in CHECKS {
        assert!(said.lines().any(|line| line.starts_with(&format!("ok     {name} "))), "{name}: {said}");
    }
    let captured: Vec<&str> = said.lines().filter(|line| line.contains("(ipip-proto-4)")).collect();
    assert!(captured.len() >= 8, "a whole TCP connection: {said}");
    let first = captured[0];
    assert!(
        first.contains(" IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1.")
            && first.contains(" > 192.168.199.1.80: Flags [S], "),
        "{first}"
    );
    for [from, to] in [
        [
            "IP 10.1.1.1 > 10.1.1.2: IP6 2001:db8:17::10 > 2001:db8:199::10: ICMP6, echo request",
            "IP 10.1.1.2 > 10.1.1.1: IP6 2001:db8:199::10 > 2001:db8:17::10: ICMP6, echo reply",
        ],
        [
            "IP6 2001:db8:1:a::1 > 2001:db8:1:b::1: IP 172.16.17.10 > 192.168.199.10: ICMP echo request",
            "IP6 2001:db8:1:b::1 > 2001:db8:1:a::1: IP 192.168.199.10 > 172.16.17.10: ICMP echo reply",
        ],
        [
            "IP6 2001:db8:1:a::1 > 2001:db8:1:b::1: IP6 2001:db8:17::10 > 2001:db8:199::10: ICMP6, echo request",
            "IP6 2001:db8:1:b::1 > 2001:db8:1:a::1: IP6 2001:db8:199::10 > 2001:db8:17::10: ICMP6, echo reply",
        ],
    ] {
        assert!(said.contains(from) && said.contains(to), "{from}, {to}: {said}");
    }
    assert!(said.ends_with("\nall 16 checks passed; nothing is left behind\n"), "{said}");
}

/// The network namespaces that a process has a thread or a descriptor in.
fn namespaces_of(process: &str) -> HashSet<u64> {
    let threads = entries(&format!("/proc/{process}/task")).into_iter().map(|thread| thread.join("ns/net"));
    threads
        .chain(entries(&format!("/proc/{process}/fd")))
        // A thread or descriptor may be gone by now.
        .filter(|link| fs::read_link(link).is_ok_and(|to| to.to_string_lossy().starts_with("net:[")))
        .filter_map(|link| fs::metadata(link).ok())
        .map(|namespace| namespace.ino())
        .collect()
}

fn entries(directory: &str) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Nobody but this test has any of these namespaces, so that they end when it lets go.
fn assert_abandoned(namespaces: &HashSet<u64>) {
    let ours = std::process::id().to_string();
    for process in entries("/proc") {
        let Some(name) = process.file_name().and_then(|name| name.to_str()) else { continue };
        if name == ours || name.parse::<u32>().is_err() {
            continue;
        }
        let left: Vec<_> = namespaces_of(name).intersection(namespaces).copied().collect();
        assert!(left.is_empty(), "process {name} has {left:?}");
    }
}

#[test(root)]
fn nothing_is_visible_and_nothing_is_left_however_it_ends() {
    let here = Here::new();
    let before = here.around();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        // What a shell has started in the background ignores SIGINT, and so do its children.
        let mut command = Command::new("env");
        command.args(["--default-signal", PROGRAM, "lab"]);
        let mut lab = here.machine.start_command(&here.ns, command);
        // The tunnel is up, and there is more to come.
        lab.wait_for("ok     ping-hosts");
        // Stopped, so that it does not end before it was looked at.
        lab.signal(Signal::SIGSTOP);
        assert_eq!(here.around(), before, "nothing is visible");
        let pid = lab.pid().to_string();
        // Held, so that their numbers are not used again before they were looked for.
        let held: Vec<fs::File> = entries(&format!("/proc/{pid}/fd"))
            .into_iter()
            .chain(entries(&format!("/proc/{pid}/task")).into_iter().map(|thread| thread.join("ns/net")))
            .filter(|link| fs::read_link(link).is_ok_and(|to| to.to_string_lossy().starts_with("net:[")))
            .filter_map(|link| fs::File::open(link).ok())
            .collect();
        let own = here.machine.within(&here.ns, || fs::metadata("/proc/thread-self/ns/net").unwrap().ino());
        let namespaces: HashSet<u64> =
            held.iter().map(|file| file.metadata().unwrap().ino()).filter(|number| *number != own).collect();
        assert!(namespaces.len() >= 5, "five hosts: {namespaces:?}");

        lab.signal(signal);
        lab.signal(Signal::SIGCONT);
        let (status, said) = lab.wait();
        assert!(!status.success(), "{signal}: {status}: {said}");
        assert_eq!(here.around(), before, "{signal}");
        assert_abandoned(&namespaces);
        assert!(here.machine.files().is_empty(), "{signal}");
    }
}

#[test(root, tcpdump)]
fn the_capture_is_read_by_tcpdump() {
    let here = Here::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.pcapng");
    let path = file.to_str().unwrap();
    let report =
        assert_proved(here.machine.adit(&here.ns, &["lab", "-j", "--no-throughput", "--pcap", path]), "ebpf");
    assert!(report.get("throughput").is_none(), "it was not measured");

    let read = |filter: &str| {
        let mut command = Command::new("tcpdump");
        command.args(["-nr", path, filter]).output().map(Said::from).unwrap().with(0).stdout
    };
    let tunnelled = read("ip proto 4");
    assert!(
        tunnelled.lines().any(|line| {
            line.contains("IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1.")
                && line.contains(" > 192.168.199.1.80: Flags [S],")
        }),
        "{tunnelled}"
    );
    assert!(tunnelled.contains("IP 10.1.1.2 > 10.1.1.1: IP 192.168.199.1.80 > 172.16.17.1."), "{tunnelled}");
    assert_eq!(read("net 172.16.17.0/24 or net 192.168.199.0/24"), "", "nothing in the open");
}

#[test(root)]
fn a_capture_that_cannot_be_kept_is_an_error() {
    let here = Here::new();
    let said = here.machine.adit(&here.ns, &["lab", "--no-throughput", "--pcap", "/nonexistent/x"]).with(1);
    assert!(said.stderr.starts_with("adit: cannot ") && said.stderr.contains("/nonexistent/x"), "{said:#?}");
}

/// Not even `/dev/net/tun` is needed.
#[test(root)]
fn an_ordinary_user_is_shown_the_same() {
    let here = Here::new();
    here.machine.without_net_devices();
    let before = here.around();
    let report = assert_proved(here.as_nobody(&["lab", "--json"]), "userspace");
    assert!(report["throughput"]["tunnel_gbps"].as_f64().is_some_and(|gbps| gbps > 0.0), "{report:#}");
    assert_eq!(here.around(), before);
}

/// In a user namespace whose own limit is zero, and without any right there: as on a system that
/// has switched user namespaces off, of which the machine around it notices nothing.
#[test(root, util_linux)]
fn without_user_namespaces_it_says_so() {
    let here = Here::new();
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all {PROGRAM} lab"
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]);
    insta::assert_snapshot!(
        here.machine.run(&here.ns, &mut command).with(1).stderr,
        @"adit: cannot create a user namespace: No space left on device (os error 28); user namespaces are switched off: `sysctl user.max_user_namespaces=15000` switches them on, or run as root"
    );
}

#[test(root)]
fn every_check_can_fail() {
    let network = TwoSites::build_over_ipv6().unwrap();
    // Nobody has joined the two sites.
    let mut failed = vec![
        checks::ping_gateways(&network).unwrap(),
        checks::ping_hosts(&network).unwrap(),
        checks::http(&network).unwrap(),
        checks::mtu(&network).unwrap(),
        checks::ping_ipv6(&network).unwrap(),
        checks::mtu_ipv6(&network).unwrap(),
    ];
    failed.extend(checks::over_ipv6(&network).unwrap());
    for crossing in [crossing::HTTP, crossing::PING_6IN4, crossing::PING_4IN6, crossing::PING_6IN6] {
        failed.push(crossing.check(&[]));
    }
    for check in failed {
        assert!(!check.ok, "{check:?}");
    }
    // Somebody has, where isolation is claimed.
    let tunnels = network.bring_up().unwrap();
    let isolated = checks::isolated("isolated-after", &network).unwrap();
    assert!(!isolated.ok, "{isolated:?}");
    for tunnel in [tunnels.a, tunnels.b] {
        tunnel.close(adit_control::OnExit::Remove).unwrap();
    }
    assert!(checks::isolated("isolated-after", &network).unwrap().ok);
}
