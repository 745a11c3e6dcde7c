//! What others have on the gateway: a backup route to a peer's network, another overlay with the
//! same network, and forwarding that is off.

use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_lab::two_sites::HOST_B;
use adit_linux::netlink::RouteKind;
use adit_testbed::needs::ebpf;
use adit_testbed::reality::foreign_route::{BACKUP_METRIC, ForeignRoute, NETWORK, Rank};
use adit_testbed::reality::second_overlay::rival;
use adit_testbed::test_planes::plane_name;
use ipnet::IpNet;
use serde_json::Value;

use crate::support::sites::{assert_reaches, reaches};
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);
const PEER_C: &str = "\n[[peer]]\nname = \"c\"\nunderlay = \"10.1.1.77\"\nnetworks = [\"10.77.0.0/16\"]\n";

/// The metrics of the routes to B's network, guards left out.
fn metrics(bed: &Testbed) -> Vec<Option<u32>> {
    let network: IpNet = NETWORK.parse().unwrap();
    let routes = bed.gateway().netlink().unwrap().routes().unwrap();
    let meant = routes.iter().filter(|it| it.destination == network && it.kind == RouteKind::Unicast);
    let mut metrics: Vec<Option<u32>> = meant.map(|route| route.metric).collect();
    metrics.sort_unstable();
    metrics
}

fn warnings(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let warnings = status["warnings"].as_array().unwrap();
    warnings.iter().map(|warning| (text(&warning["name"]), text(&warning["about"]))).collect()
}

fn beside_a_backup_route(plane: DataplaneChoice) {
    let mut bed = Testbed::new(plane);
    bed.start(Side::B);
    ForeignRoute::add(&bed.sites.network, Rank::Backup).unwrap();
    bed.start(Side::A);
    assert_reaches(&bed.sites.network.host_a, HOST_B);
    assert_eq!(metrics(&bed), [None, Some(BACKUP_METRIC)]);
    let more = bed.write_changed("more.toml", |text| text + PEER_C);
    bed.adit(&["apply", &more]).ok();
    // The tunnel's own is deleted, and the backup wins for a moment.
    bed.ip(&format!("route delete {NETWORK} dev ipipA"));
    wait_until(PATIENCE, "the tunnel's route is back", || metrics(&bed) == [None, Some(BACKUP_METRIC)]);
    assert_reaches(&bed.sites.network.host_a, HOST_B);
    assert_eq!(warnings(&bed.status()), [], "a backup is no reason to warn");
    bed.adit(&["down", "a"]).ok();
    assert_eq!(metrics(&bed), [Some(BACKUP_METRIC)], "theirs stays");
}

#[test(root, ebpf)]
fn a_backup_route_stays_beside_the_tunnel_with_ebpf() {
    beside_a_backup_route(DataplaneChoice::Ebpf);
}

#[test(root)]
fn a_backup_route_stays_beside_the_tunnel_with_userspace() {
    beside_a_backup_route(DataplaneChoice::Userspace);
}

/// A route that wins: one in the place of ours, and one before it.
#[test(root)]
fn a_foreign_route_that_wins_is_said_once_and_left() {
    let mut bed = Testbed::running(DataplaneChoice::Userspace);
    for rank in [Rank::Replacing, Rank::Preceding] {
        let route = ForeignRoute::add(&bed.sites.network, rank).unwrap();
        bed.wait_for(Side::A, "a route to 192.168.199.0/24 that is not Adit's wins (dev dummyA proto 3)");
        let text = bed.adit(&["status", "a"]).ok().stdout;
        assert!(text.contains(&format!("warning: a route to {NETWORK} that is not Adit's wins")), "{text}");
        assert_eq!(warnings(&bed.status()), [("foreign-route".to_owned(), NETWORK.to_owned())]);
        route.remove().unwrap();
        bed.wait_for(Side::A, "foreign-route does not hold any more");
        assert_eq!(warnings(&bed.status()), []);
        assert_eq!(metrics(&bed), [None], "{rank:?}: ours is there");
        assert_reaches(&bed.sites.network.host_a, HOST_B);
    }
}

fn second_overlay(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    let second = bed.write("second.toml", &rival(plane));
    let before = bed.sites.view_a();
    for command in ["plan", "up", "run"] {
        let said = bed.adit(&[command, &second]).with(1);
        let expected = format!("{NETWORK} belongs to overlay `a` on this machine");
        assert!(said.stderr.contains(&expected), "{command}: {said:?}");
    }
    let said = bed.adit(&["check", "--here", &second]).with(1);
    assert!(said.stdout.contains("this machine: 192.168.199.0/24 belongs to overlay `a`"), "{said:?}");
    assert_eq!(bed.sites.view_a(), before, "{}", plane_name(plane));
    bed.sites.assert_joined();
}

#[test(root, ebpf)]
fn a_network_of_another_overlay_is_refused_by_its_name_with_ebpf() {
    second_overlay(DataplaneChoice::Ebpf);
}

#[test(root)]
fn a_network_of_another_overlay_is_refused_by_its_name_with_userspace() {
    second_overlay(DataplaneChoice::Userspace);
}

fn set_forwarding(bed: &Testbed, knob: &str, value: &str) {
    bed.gateway().run(|| adit_linux::sysctl::write(&format!("net/ipv4/{knob}"), value)).unwrap();
}

fn forwarding(plane: DataplaneChoice) {
    let mut bed = Testbed::new(plane);
    bed.start(Side::B);
    let file = bed.file("a.toml");
    let here = |bed: &Testbed| bed.adit(&["check", "--here", &file, "-j"]).ok().json()["here"].clone();
    assert_eq!(here(&bed), serde_json::json!({ "obstacles": [], "warnings": [], "passed_by": [] }));
    let planned = bed.adit(&["plan", &file]).with(2);
    assert_eq!(planned.stderr, "");

    set_forwarding(&bed, "ip_forward", "0");
    let words = "warning: forwarding is off (net.ipv4.ip_forward is 0)";
    assert_eq!(here(&bed)["warnings"][0]["name"], "forwarding-off");
    assert!(bed.adit(&["check", "--here", &file]).ok().stdout.contains(words));
    assert!(bed.adit(&["plan", &file]).with(2).stderr.contains(words));
    assert!(bed.adit(&["up", &file]).with(0).stderr.contains(words));
    assert_eq!(warnings(&bed.status()), [("forwarding-off".to_owned(), "all".to_owned())]);
    assert!(!reaches(&bed.sites.network.host_a, HOST_B));
    bed.adit(&["down", "a"]).ok();

    // While it runs: each change is said once, by an event.
    set_forwarding(&bed, "ip_forward", "1");
    bed.start(Side::A);
    bed.sites.assert_joined();
    set_forwarding(&bed, "conf/ipipA/forwarding", "0");
    bed.wait_for(Side::A, "forwarding is off on ipipA (net.ipv4.conf.ipipA.forwarding is 0)");
    let text = bed.adit(&["status", "a"]).ok().stdout;
    assert!(text.contains("warning: forwarding is off on ipipA"), "{text}");
    assert!(bed.adit(&["plan", &file]).with(0).stderr.contains("forwarding is off on ipipA"));
    set_forwarding(&bed, "conf/ipipA/forwarding", "1");
    bed.wait_for(Side::A, "forwarding-off does not hold any more");
    assert_eq!(warnings(&bed.status()), []);
    bed.sites.assert_joined();
}

#[test(root, ebpf)]
fn forwarding_that_is_off_is_said_with_ebpf() {
    forwarding(DataplaneChoice::Ebpf);
}

#[test(root)]
fn forwarding_that_is_off_is_said_with_userspace() {
    forwarding(DataplaneChoice::Userspace);
}

/// All that keeps an overlay from starting is said in one look, without a change.
#[test(root)]
fn a_look_at_this_machine_finds_every_obstacle() {
    let bed = Testbed::new(DataplaneChoice::Userspace);
    bed.ip("link add ipipA type veth peer name other");
    ForeignRoute::add(&bed.sites.network, Rank::Replacing).unwrap();
    let file = bed.write_changed("away.toml", |text| text.replace("\"10.1.1.1\"", "\"10.1.1.9\""));
    let before = bed.sites.view_a();
    let said = bed.adit(&["check", "--here", &file]).with(1).stdout;
    for words in [
        "no mistakes",
        "this machine: site.underlay is 10.1.1.9, which is no address of this machine",
        "this machine: an interface `ipipA` exists and is not Adit's",
        "this machine: a route to 192.168.199.0/24 exists and is not Adit's (dev dummyA",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let json = bed.adit(&["check", "--here", &file, "-j"]).with(1).json();
    assert_eq!((&json["ok"], json["here"]["obstacles"].as_array().unwrap().len()), (&Value::Bool(false), 3));
    // What follows from an obstacle is none: nothing is said of an address that there is not.
    let file = bed.write_changed("host.toml", |text| text.replace("\"10.1.1.1\"", "\"gw.lan\""));
    let said = bed.adit(&["check", "--here", &file]).with(1).stdout;
    assert!(said.contains("no interface of this machine, and names of hosts are not looked up"), "{said}");
    assert!(!said.contains("0.0.0.0"), "{said}");
    assert_eq!(bed.sites.view_a(), before);
}
