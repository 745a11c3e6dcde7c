//! The underlay address goes (VRRP, DHCP): within half a second nothing leaves from it any more,
//! and everything is back with the address.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::host::Host;
use adit_lab::ping::ping;
use adit_lab::two_sites::{HOST_B, TwoSites, UNDERLAY_A};
use adit_testbed::hub::{HubNetwork, Site, UNDERLAY};
use adit_testbed::reality::vrrp::VrrpPair;
use adit_tunnel::DropReason;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};
use ipnet::Ipv4Net;

use crate::planes::{bring_up_on, on_every_plane};
use crate::support::{drops_since, wait_until};

/// How long datagrams may still leave from an address that is gone.
const GRACE: Duration = Duration::from_millis(500);
/// How long the address stays away: longer than a probe waits for its answer.
const ABSENCE: Duration = Duration::from_secs(3);
/// How long traffic may take to be back.
const RETURN: Duration = Duration::from_millis(500);
/// How long an echo may take on a busy machine.
const ANSWER: Duration = Duration::from_secs(10);
const QUICK: Duration = Duration::from_millis(20);

fn reaches(from: &Host, to: Ipv4Addr, timeout: Duration) -> bool {
    from.run(|| ping(to, 84, 64, timeout)).unwrap().is_reply()
}

/// Sends for a while, whatever comes back.
fn send(from: &Host, to: Ipv4Addr, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        let _ = reaches(from, to, QUICK);
    }
}

/// The datagrams of IP in IP from `source` later than `since`.
fn sent_from(frames: &[Frame], source: Ipv4Addr, since: SystemTime) -> usize {
    let is_meant = |frame: &&Frame| {
        let outer = frame.ipv4().and_then(|bytes| Ipv4Packet::parse(bytes, Validation::Datapath).ok());
        frame.time > since
            && outer.is_some_and(|outer| outer.source() == source && outer.protocol() == Protocol::IPIP)
    };
    frames.iter().filter(is_meant).count()
}

#[track_caller]
fn assert_back(from: &Host, to: Ipv4Addr) {
    let start = Instant::now();
    wait_until("traffic is back", || reaches(from, to, QUICK));
    assert!(start.elapsed() < RETURN, "traffic is back only after {:?}", start.elapsed());
}

fn a_vrrp_backup_sends_nothing(plane: DataplaneChoice) {
    let sites = TwoSites::build().unwrap();
    let pair = VrrpPair::add(&sites).unwrap();
    let tunnels = bring_up_on(&sites, plane);
    assert!(reaches(&sites.host_a, HOST_B, ANSWER));
    let path_mtu = || tunnels.a.plane().tunnel().path_mtu(adit_tunnel::PeerIndex::new(0)).mtu;
    let (mtu, before) = (path_mtu(), tunnels.a.plane().totals());

    let tap = Tap::start(&sites.router, "toA").unwrap();
    let start = SystemTime::now();
    assert!(reaches(&sites.host_a, HOST_B, ANSWER));
    pair.fail_over().unwrap();
    let gone = SystemTime::now();
    send(&sites.host_a, HOST_B, ABSENCE);
    let frames = tap.finish();
    assert!(sent_from(&frames, UNDERLAY_A, start) > 0, "the capture sees what is sent before");
    assert_eq!(sent_from(&frames, UNDERLAY_A, gone + GRACE), 0, "nothing is sent from the lost address");
    let after = tunnels.a.plane().totals();
    let drops = drops_since(&before, &after);
    let is_named =
        |(reason, count): &(DropReason, u64)| *reason == DropReason::UnderlaySendFailed && *count > 10;
    assert!(drops.iter().any(is_named), "what is not sent is counted: {drops:?}");

    pair.fail_back().unwrap();
    assert_back(&sites.host_a, HOST_B);
    assert_eq!(path_mtu(), mtu, "what probes could not find out changes nothing");
}

/// The hub still receives, for example because of an old neighbour entry, and must not relay.
fn a_hub_without_its_address_relays_nothing(plane: DataplaneChoice) {
    let network = HubNetwork::build().unwrap();
    let _overlays = network.bring_up(plane).unwrap();
    let (gateway, host) = (&network.of(Site::Hub).gateway, &network.of(Site::One).host);
    assert!(reaches(host, Site::Two.host(), ANSWER));
    let own = Ipv4Net::new_assert(Site::Hub.underlay(), 30);
    // The neighbour goes on answering, and routes stay.
    let network_of_hub = own.trunc().to_string();
    let mac = adit_testbed::wire_tap::mac(gateway, UNDERLAY).unwrap();
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let neighbour = own.addr().to_string();
    let permanent =
        ["neigh", "replace", &neighbour, "lladdr", &mac, "dev", Site::Hub.port(), "nud", "permanent"];
    network.router.program("ip", &permanent).unwrap();

    let tap = Tap::start(&network.router, Site::Hub.port()).unwrap();
    let start = SystemTime::now();
    assert!(reaches(host, Site::Two.host(), ANSWER));
    let index = gateway.index(UNDERLAY).unwrap();
    gateway.netlink().unwrap().delete_address(index, own.into()).unwrap();
    let router = Site::Hub.router().to_string();
    gateway.program("ip", &["route", "replace", &network_of_hub, "dev", UNDERLAY]).unwrap();
    gateway.program("ip", &["route", "replace", "default", "via", &router]).unwrap();
    let gone = SystemTime::now();
    send(host, Site::Two.host(), Duration::from_secs(1));
    let frames = tap.finish();
    assert!(sent_from(&frames, own.addr(), start) > 0, "the capture sees what is relayed before");
    assert_eq!(sent_from(&frames, own.addr(), gone + GRACE), 0, "nothing is relayed from the lost address");

    gateway.address(UNDERLAY, own).unwrap();
    assert_back(host, Site::Two.host());
}

on_every_plane! {
    alone;
    a_vrrp_backup_sends_nothing,
    a_hub_without_its_address_relays_nothing,
}
