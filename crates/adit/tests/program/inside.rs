//! The inside of an overlay elsewhere than its underlay: in another network namespace, in a VRF;
//! and several overlays on one machine.

use crate::support::testbed::{Side, Testbed};
use adit_testbed::needs::ebpf;
use std::fs;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::time::Duration;

use crate::support::load::Load;
use crate::support::machine::Running;
use crate::support::sites::{Sites, View, assert_reaches, reaches, view};
use crate::support::wait_until;
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, HOST_B, INSIDE_A, INSIDE_B};
use adit_linux::netlink::Netlink;
use ipnet::Ipv4Net;
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(10);
/// What the issue allows a repair.
const A_SECOND: Duration = Duration::from_secs(1);
const NETNS: &str = "blue";

/// The testbed with the daemon on B; the inside of A is in another namespace, which has no name
/// yet.
struct SplitSite {
    testbed: Testbed,
    /// The namespace, with the inside's network.
    blue: Host,
    /// A host behind it.
    host: Host,
}

impl Deref for SplitSite {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.testbed
    }
}

impl SplitSite {
    fn new() -> Self {
        let mut testbed = Testbed::with_configs(&in_netns(CONFIG_A, "auto"), CONFIG_B);
        // A's own inside is taken away: what works does not work by it.
        let gateway = testbed.gateway();
        let index = gateway.index("dummyA").unwrap();
        gateway.netlink().unwrap().delete_link(index).unwrap();
        let (blue, host) = inside();
        testbed.start(Side::B);
        Self { testbed, blue, host }
    }

    fn assert_joined(&self) {
        assert_reaches(&self.blue, INSIDE_B);
        assert_reaches(&self.host, HOST_B);
    }
}

/// A namespace and a host behind it, with the addresses of the article's A.
fn inside() -> (Host, Host) {
    let (blue, host) = (Host::new("blue").unwrap(), Host::new("host in blue").unwrap());
    blue.forward().unwrap();
    blue.connect("lan", &host, "eth0").unwrap();
    blue.address("lan", "172.16.17.1/24".parse::<Ipv4Net>().unwrap()).unwrap();
    host.address("eth0", "172.16.17.10/24".parse::<Ipv4Net>().unwrap()).unwrap();
    host.route("0.0.0.0/0".parse().unwrap(), Some(INSIDE_A), None).unwrap();
    (blue, host)
}

fn in_netns(config: &str, plane: &str) -> String {
    let keys = format!("[site]\nnetns = \"{NETNS}\"\ndataplane = \"{plane}\"");
    let without: Vec<&str> = config.lines().filter(|line| !line.starts_with("dataplane")).collect();
    without.join("\n").replace("[site]", &keys)
}

/// What there is without the hidden end, which is in the namespace of the underlay.
fn without_hidden_end((mut links, routes): View) -> View {
    links.retain(|link| !link.contains(" ipipA-h "));
    (links, routes)
}

fn has_device(host: &Host, device: &str) -> bool {
    host.run(|| Netlink::open()?.link(device)).unwrap().is_some()
}

#[test(alone, root, ebpf)]
fn the_inside_may_be_in_another_namespace() {
    let bed = SplitSite::new();
    let before = [view(bed.gateway()), view(&bed.blue)];
    let (status, said) = bed.spawn(&[]).wait();
    let expected = "site.netns is blue, and there is no network namespace of that name";
    assert!(!status.success() && said.contains(expected), "{said}");

    let mut a = bed.spawn(&["--wait"]);
    while !a.wait_for("").contains("waiting for the network namespace") {}
    bed.sites.machine.name(bed.blue.ns(), NETNS);
    a.wait_for("ready");
    bed.assert_joined();
    let site = bed.status()["site"].clone();
    assert_eq!(site["dataplane"], "ebpf");
    assert!(has_device(&bed.blue, "ipipA") && !has_device(bed.gateway(), "ipipA"));
    assert!(!has_device(&bed.blue, "ipipA-h"));
    let outside = |bed: &SplitSite| without_hidden_end(view(bed.gateway()));
    assert_eq!(outside(&bed), before[0], "only the hidden end is made outside");
    let answered = |bed: &SplitSite| bed.status()["peers"][0]["soft_state"]["probe"] == "answered";
    wait_until(PATIENCE, "the path is probed from an address inside", || answered(&bed));

    // A peer's path is narrower than the device: whoever sends too much inside is told there, by
    // the gateway there.
    let narrow = bed.sites.network.router.limit_mtu("toB", 1300).unwrap();
    wait_until(PATIENCE, "the sender is told", || {
        let met = bed.host.run(|| ping(HOST_B, 1400, 64, Duration::from_millis(300))).unwrap();
        matches!(met, Answer::Refused { by: INSIDE_A, .. })
    });
    narrow.remove().unwrap();

    // What is broken inside is repaired there.
    let gone = |what: &str| bed.blue.program("ip", &what.split(' ').collect::<Vec<_>>()).unwrap();
    for broken in ["route delete 192.168.199.0/24", "link set ipipA down", "link delete ipipA"] {
        gone(broken);
        let took = wait_until(PATIENCE, broken, || reaches(&bed.host, HOST_B));
        assert!(took < A_SECOND, "{broken}: {took:?}");
    }
    assert_eq!(outside(&bed), before[0], "only the hidden end is made outside");

    // Dead or alive, it is found where it is.
    a.kill();
    assert!(has_device(&bed.blue, "ipipA"));
    bed.adit(&["down", "a"]).ok();
    assert_eq!([view(bed.gateway()), view(&bed.blue)], before);
    let mut a = bed.spawn(&[]);
    a.wait_for("ready");
    bed.assert_joined();
    a.end(Signal::SIGINT);
    assert_eq!([view(bed.gateway()), view(&bed.blue)], before);
}

#[test(root, ebpf)]
fn a_plan_for_another_namespace() {
    let bed = SplitSite::new();
    bed.sites.machine.name(bed.blue.ns(), NETNS);
    let planned = bed.adit(&["plan", "--commands", &bed.file("a.toml")]).stdout;
    let expected = "ip link add name ipipA type ipip local 10.1.1.1 remote 10.1.1.2\n\
                    ip link set ipipA netns blue\n\
                    ip -n blue link set ipipA up\n\
                    ip -n blue route add unreachable 192.168.199.0/24 metric 4278987208\n\
                    ip -n blue route add 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1\n";
    assert_eq!(planned, expected);

    // It stays where it was brought up.
    bed.write("a.toml", &in_netns(CONFIG_A, "auto"));
    let mut a = bed.spawn(&[]);
    a.wait_for("ready");
    bed.write("here.toml", CONFIG_A);
    let said = bed.adit(&["apply", &bed.file("here.toml")]).stderr;
    assert!(said.contains("site.netns is `blue` in the overlay that runs and `off` in the file"), "{said}");
    bed.assert_joined();
    a.end(Signal::SIGINT);
}

/// A container is made anew: another namespace of the same name.
#[test(alone, root, ebpf)]
fn a_namespace_that_is_made_anew_is_followed() {
    let mut bed = SplitSite::new();
    bed.sites.machine.name(bed.blue.ns(), NETNS);
    let mut a = bed.spawn(&[]);
    a.wait_for("ready");
    bed.assert_joined();
    bed.sites.machine.unname(NETNS);
    let (blue, host) = inside();
    bed.sites.machine.name(blue.ns(), NETNS);
    (bed.blue, bed.host) = (blue, host);
    wait_until(PATIENCE, "it is there, too", || reaches(&bed.host, HOST_B));
    bed.assert_joined();
    assert_eq!(bed.status()["repairs"], serde_json::json!({ "device": 1 }));
    // And what happens there is heard.
    bed.blue.program("ip", &["route", "delete", "192.168.199.0/24"]).unwrap();
    let took = wait_until(PATIENCE, "the route is back", || reaches(&bed.host, HOST_B));
    assert!(took < A_SECOND, "{took:?}");
    a.end(Signal::SIGINT);
}

/// A site of an overlay: its name, its underlay address, its network.
type Site<'a> = (&'a str, &'a str, &'a str);

/// Files of overlays with one peer.
struct Files(tempfile::TempDir);

impl Files {
    /// `keys` are more lines of `[site]`.
    fn site(&self, site: Site<'_>, peer: Site<'_>, keys: &str) -> String {
        let (name, underlay, network) = site;
        let (peer, peer_underlay, peer_network) = peer;
        let text = format!(
            "[site]\nname = \"{name}\"\nunderlay = \"{underlay}\"\nnetworks = [\"{network}\"]\n\
             device = \"tun-{name}\"\n{keys}\n\
             [[peer]]\nname = \"{peer}\"\nunderlay = \"{peer_underlay}\"\nnetworks = [\"{peer_network}\"]\n"
        );
        let file = self.0.path().join(format!("{name}.toml"));
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

/// Three on one underlay address, one of them with its inside elsewhere: whichever goes, the others
/// stay.
#[test(root, ebpf)]
fn several_overlays_of_one_machine_leave_each_other_alone() {
    let sites = Sites::new();
    let (router, [a, b]) = (&sites.network.router, [&sites.network.gateway_a, &sites.network.gateway_b]);
    // B has two more addresses; and every overlay addresses of its own inside.
    let blue = Host::new("blue").unwrap();
    sites.machine.name(blue.ns(), NETNS);
    for (host, device, address) in [
        (b, "underlayB", "10.1.1.3/32"),
        (b, "underlayB", "10.1.1.4/32"),
        (a, "lo", "10.20.0.1/32"),
        (b, "lo", "10.30.0.1/32"),
        (&blue, "lo", "10.40.0.1/32"),
        (b, "lo", "10.50.0.1/32"),
    ] {
        host.address(device, address.parse::<Ipv4Net>().unwrap()).unwrap();
    }
    for address in ["10.1.1.3/32", "10.1.1.4/32"] {
        router.route(address.parse().unwrap(), None, Some("toB")).unwrap();
    }
    let first = (sites.run_a(&[]), sites.run_b());
    let folder = Files(tempfile::tempdir().unwrap());
    let (two, two_b) = (("two", "10.1.1.1", "10.20.0.0/16"), ("two-b", "10.1.1.3", "10.30.0.0/16"));
    let (three, three_b) = (("three", "10.1.1.1", "10.40.0.0/16"), ("three-b", "10.1.1.4", "10.50.0.0/16"));
    let start = |host: &Host, file: &str| {
        let mut running = sites.machine.start(host.ns(), &["run", file]);
        running.wait_for("ready");
        running
    };
    let netns = format!("netns = \"{NETNS}\"");
    let files = [
        folder.site(two, two_b, "dataplane = \"ebpf\""),
        folder.site(two_b, two, ""),
        folder.site(three, three_b, &netns),
        folder.site(three_b, three, ""),
    ];
    let run = |number: usize| start([a, b, a, b][number], &files[number]);
    let mut others: Vec<Running> = (0..4).map(run).collect();
    let (two_s, three_s) = (Ipv4Addr::new(10, 30, 0, 1), Ipv4Addr::new(10, 50, 0, 1));
    let assert_all = || {
        sites.assert_joined();
        assert_reaches(a, two_s);
        assert_reaches(&blue, three_s);
    };
    assert_all();

    let load = Load::start(&sites.network, None);
    let down = |name: &str| {
        sites.machine.adit(a.ns(), &["down", name]).ok();
    };
    down("two");
    assert!(!reaches(a, two_s));
    assert_reaches(&blue, three_s);
    down("three");
    assert!(!reaches(&blue, three_s));
    others[0] = run(0);
    others[2] = run(2);
    assert_all();
    load.finish("others come and go").assert_lossless();

    down("a");
    assert_reaches(a, two_s);
    assert_reaches(&blue, three_s);
    assert!(!reaches(&sites.network.host_a, HOST_B));
    let a_again = sites.run_a(&[]);
    assert_all();
    for running in others.into_iter().chain([a_again, first.1]) {
        running.end(Signal::SIGINT);
    }
    assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0]);
}
