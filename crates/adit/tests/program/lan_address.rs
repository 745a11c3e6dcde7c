//! The address of a LAN is the preferred source of our routes, and the kernel deletes them together
//! with it: they are back within a second, and nothing leaves in the open.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_lab::LabError;
use adit_lab::two_sites::{HOST_B, INSIDE_A};
use adit_linux::netlink::{Event, Events, Group, RouteKind};
use adit_testbed::needs::{ebpf, ipip};
use adit_testbed::reality::lan::{Lan, RENUMBERED};
use adit_testbed::test_planes::plane_name;
use ipnet::IpNet;

use crate::support::sites::assert_reaches;
use crate::support::testbed::{Side, Testbed};

/// What the issue allows a repair.
const A_SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens: in words, the change, and the source of the route then.
type Row = (&'static str, fn(&Lan) -> Result<(), LabError>, Option<Ipv4Addr>);

/// The daemons start before the LAN has an address.
const ROWS: &[Row] = &[
    ("the address comes late", Lan::assign, Some(INSIDE_A)),
    ("the address goes", Lan::withdraw, None),
    ("it is back", Lan::assign, Some(INSIDE_A)),
    ("the LAN is renumbered", Lan::renumber, Some(RENUMBERED)),
    ("the address moves to a bridge", Lan::move_to_bridge, Some(INSIDE_A)),
    ("the bridge is deleted", Lan::delete_bridge, None),
    ("the interface has the address again", Lan::assign, Some(INSIDE_A)),
];

/// Waits until the kernel reports the tunnel's route with this source, or with none.
fn await_route(events: &mut Events, source: Option<Ipv4Addr>, what: &str) {
    let network: IpNet = "192.168.199.0/24".parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let Some(Event::RouteChanged { route, gone: false }) = events.next(left).unwrap() else { continue };
        let is_ours = route.destination == network && route.kind == RouteKind::Unicast;
        if is_ours && route.preferred_source == source.map(IpAddr::from) {
            return;
        }
    }
    panic!("{what}: no route with the source {source:?} within {PATIENCE:?}");
}

fn routes_follow(plane: DataplaneChoice) {
    let mut bed = Testbed::new(plane);
    let lan = Lan::of_a(&bed.sites.network);
    lan.withdraw().unwrap();
    bed.start(Side::B);
    bed.start(Side::A);
    for (what, change, source) in ROWS {
        let mut events = bed.gateway().ns().run(|| Events::open(&[Group::Route])).unwrap().unwrap();
        let repairs = bed.repairs();
        change(&lan).unwrap();
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
