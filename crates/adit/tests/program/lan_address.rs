//! The address of a LAN is the preferred source of our routes, and the kernel deletes them together
//! with it: they are back within a second, and nothing leaves in the open.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_lab::two_sites::{HOST_B, INSIDE_A};
use adit_linux::netlink::{Event, Events, Group, RouteKind};
use adit_testbed::needs::{ebpf, ipip};
use adit_testbed::test_planes::plane_name;
use ipnet::Ipv4Net;

use crate::support::sites::assert_reaches;
use crate::support::testbed::Testbed;

/// What the issue allows a repair.
const A_SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens: in words, the commands of `ip`, and the source of the route then.
type Row = (&'static str, &'static [&'static str], Option<Ipv4Addr>);

const RENUMBERED: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 254);

const ROWS: &[Row] = &[
    ("the address goes", &["address delete 172.16.17.1/24 dev dummyA"], None),
    ("it is back", &["address add 172.16.17.1/24 dev dummyA"], Some(INSIDE_A)),
    (
        "the LAN is renumbered",
        &["address delete 172.16.17.1/24 dev dummyA", "address add 172.16.17.254/24 dev dummyA"],
        Some(RENUMBERED),
    ),
    (
        "the address moves to a bridge",
        &[
            "link add br0 type bridge",
            "link set br0 up",
            "address delete 172.16.17.254/24 dev dummyA",
            "link set dummyA master br0",
            "address add 172.16.17.1/24 dev br0",
        ],
        Some(INSIDE_A),
    ),
    ("the bridge is deleted", &["link delete br0"], None),
    ("the interface has the address again", &["address add 172.16.17.1/24 dev dummyA"], Some(INSIDE_A)),
];

/// Waits until the kernel reports the tunnel's route with this source, or with none.
fn await_route(events: &mut Events, source: Option<Ipv4Addr>, what: &str) {
    let network: Ipv4Net = "192.168.199.0/24".parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let Some(Event::RouteChanged { route, gone: false }) = events.next(left).unwrap() else { continue };
        let is_ours = route.destination == network && route.kind == RouteKind::Unicast;
        if is_ours && route.preferred_source == source {
            return;
        }
    }
    panic!("{what}: no route with the source {source:?} within {PATIENCE:?}");
}

fn routes_follow(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    for (what, commands, source) in ROWS {
        let mut events = bed.gateway().ns().run(|| Events::open(&[Group::Route])).unwrap().unwrap();
        let repairs = bed.repairs();
        commands.iter().for_each(|command| bed.ip(command));
        let since = Instant::now();
        await_route(&mut events, *source, what);
        let took = since.elapsed();
        assert!(took < A_SECOND, "{}, {what}: repaired only after {took:?}", plane_name(plane));
        // With no address of the LAN, nothing of the gateway's own is for the peer.
        if source.is_some() {
            assert_reaches(bed.gateway(), HOST_B);
        }
        if *source == Some(INSIDE_A) {
            assert_reaches(&bed.sites.network.host_a, HOST_B);
        }
        let planned = bed.adit(&["plan", &bed.file("a.toml")]).ok().stdout;
        assert_eq!(planned, "overlay `a`: nothing to change\n", "{what}");
        assert!(bed.repairs() > repairs, "{what}: it is counted");
    }
}

#[test(alone, root, ebpf)]
fn routes_follow_the_address_of_the_lan_with_ebpf() {
    routes_follow(DataplaneChoice::Ebpf);
}

#[test(alone, root)]
fn routes_follow_the_address_of_the_lan_with_userspace() {
    routes_follow(DataplaneChoice::Userspace);
}

#[test(alone, root, ipip)]
fn routes_follow_the_address_of_the_lan_with_the_kernel_plane() {
    routes_follow(DataplaneChoice::Kernel);
}
