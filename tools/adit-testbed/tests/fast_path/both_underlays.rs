//! Gateways with an underlay address of each family: what each sends over, what is accepted, and
//! what happens when one family goes.

use std::net::{Ipv6Addr, UdpSocket};
use std::time::Duration;

use adit_config::{Config, DataplaneChoice};
use adit_lab::capture::Tap;
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{
    CONFIG_A, CONFIG_B, HOST_A, HOST_A6, HOST_B, HOST_B6, INSIDE_A, INSIDE_A6, INSIDE_B, INSIDE_B6, Tunnels,
    TwoSites, UNDERLAY_A, UNDERLAY_A6, UNDERLAY_B, UNDERLAY_B6, bring_up, over_both, with_ipv6_networks,
};
use adit_linux::family::Family;
use adit_testbed::hub::{HubNetwork, Site, UNDERLAY};
use adit_testbed::loss_stream::{LossStream, StreamOptions};
use adit_testbed::test_planes::with_plane;
use adit_tunnel::{DropReason, PeerIndex};
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::icmpv6::Icmpv6Error;
use ipnet::{IpNet, Ipv6Net};

use crate::planes::on_every_plane;
use crate::support::stream::{Stream, send_both_families_both_ways};
use crate::support::{
    ANSWER_TIMEOUT, ATTEMPT_TIMEOUT, WAIT_TIMEOUT, ask, assert_no_drops, drops_since, outer_packets_from,
    wait_until,
};

const PEER: PeerIndex = PeerIndex::new(0);
const MEGABYTE: usize = 1 << 20;
/// Time for datagrams in flight when a stream ends.
const GRACE: Duration = Duration::from_millis(500);
/// So many that a moment in which a switch loses a datagram shows.
const SWITCHES: usize = 40;

on_every_plane!(
    gateways_that_prefer_different_families_hear_each_other,
    streams_arrive_both_ways_at_once,
    the_largest_packet_fits_both_headers,
    a_site_goes_on_over_one_family_without_its_address_of_the_other,
    another_order_of_addresses_switches_the_path,
    a_hub_joins_a_spoke_over_ipv4_and_one_over_ipv6,
);

fn config(plane: DataplaneChoice, text: &str, first: Family) -> String {
    with_plane(&over_both(&with_ipv6_networks(text), first), plane)
}

/// A sends over IPv6, and B over IPv4. The file of B names the interface that has its addresses.
fn bring_up_both(network: &TwoSites, plane: DataplaneChoice) -> Tunnels {
    let a = bring_up(&network.gateway_a, &config(plane, CONFIG_A, Family::V6)).unwrap();
    let of_b = config(plane, CONFIG_B, Family::V4)
        .replace(&format!("[\"{UNDERLAY_B}\", \"{UNDERLAY_B6}\"]"), "\"underlayB\"");
    assert!(of_b.contains("underlayB"), "{of_b}");
    Tunnels { a, b: bring_up(&network.gateway_b, &of_b).unwrap() }
}

fn gateways_that_prefer_different_families_hear_each_other(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    let tap = Tap::start(&network.router, "toA").unwrap();
    for size in [88, 576, 1280, 1460] {
        for (host, to) in [(&network.host_a, HOST_B6), (&network.host_b, HOST_A6)] {
            assert!(ask(host, to, size).is_reply(), "{size}");
        }
        for (host, to) in [(&network.host_a, HOST_B), (&network.host_b, HOST_A)] {
            assert!(ask(host, to, size).is_reply(), "{size}");
        }
    }
    assert!(ask(&network.gateway_a, INSIDE_B6, 88).is_reply(), "from gateway to gateway");
    assert!(ask(&network.gateway_b, INSIDE_A, 88).is_reply(), "from gateway to gateway");
    assert_no_drops(&tunnels);
    let frames = tap.finish();
    let [v4, v6] = outer_packets_from(UNDERLAY_A, UNDERLAY_A6, &frames);
    assert!(v4 == 0 && v6 >= 18, "A sent {v4} over IPv4 and {v6} over IPv6");
    let [v4, v6] = outer_packets_from(UNDERLAY_B, UNDERLAY_B6, &frames);
    assert!(v4 >= 18 && v6 == 0, "B sent {v4} over IPv4 and {v6} over IPv6");
    wait_until("both paths are probed and answered", || {
        [&tunnels.a, &tunnels.b].iter().all(|overlay| overlay.plane().tunnel().probe_answered(PEER).is_some())
    });
}

fn streams_arrive_both_ways_at_once(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    send_both_families_both_ways(&network, 64 * MEGABYTE);
    assert_no_drops(&tunnels);
}

/// The tunnel interface leaves room for the longer header, so that a switch of paths changes
/// nothing for the hosts.
fn the_largest_packet_fits_both_headers(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let _tunnels = bring_up_both(&network, plane);
    let (v4, v6) = (Icmpv4Error::TooBig { mtu: 1460 }, Icmpv6Error::TooBig { mtu: 1460 });
    assert_eq!(ask(&network.host_a, HOST_B, 1461), Answer::Refused { by: INSIDE_A, error: v4 });
    assert_eq!(ask(&network.host_a, HOST_B6, 1461), Answer::RefusedV6 { by: INSIDE_A6, error: v6 });
    assert_eq!(ask(&network.host_b, HOST_A, 1461), Answer::Refused { by: INSIDE_B, error: v4 });
    assert_eq!(ask(&network.host_b, HOST_A6, 1461), Answer::RefusedV6 { by: INSIDE_B6, error: v6 });
}

fn a_site_goes_on_over_one_family_without_its_address_of_the_other(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    assert!(ask(&network.host_a, HOST_B, 88).is_reply());
    let receiver = network.host_a.ns().run(|| UdpSocket::bind((HOST_A, 0))).unwrap().expect("a port is free");
    receiver.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("there are timeouts");
    let to = receiver.local_addr().expect("it is bound");
    let sender = network.host_b.ns().run(|| UdpSocket::bind((HOST_B, 0))).unwrap().expect("a port is free");

    let own = IpNet::from(Ipv6Net::new_assert(UNDERLAY_A6, 64));
    let index = network.gateway_a.index("underlayA").unwrap();
    network.gateway_a.netlink().unwrap().delete_address(index, own).unwrap();
    let before = tunnels.a.plane().totals();
    let reaches = || network.host_a.run(|| ping(HOST_B, 88, 64, ATTEMPT_TIMEOUT)).unwrap().is_reply();
    wait_until("nothing is sent from the lost address", || {
        !reaches()
            && drops_since(&before, &tunnels.a.plane().totals())
                .iter()
                .any(|(reason, _)| *reason == DropReason::UnderlaySendFailed)
    });
    // B sends over IPv4, which A still has.
    for number in 0..20u8 {
        sender.send_to(&[number], to).expect("it is sent");
        let mut buffer = [0; 8];
        assert_eq!(receiver.recv(&mut buffer).expect("it arrives"), 1);
        assert_eq!(buffer[0], number);
    }

    network.gateway_a.address("underlayA", own).unwrap();
    network.gateway_a.await_addresses("underlayA", WAIT_TIMEOUT).unwrap();
    wait_until("traffic is back", reaches);
}

/// A datagram leaves by the old path or by the new one.
fn another_order_of_addresses_switches_the_path(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let mut tunnels = bring_up_both(&network, plane);
    let mut switch_to = |first: Family| {
        let config = Config::parse("a.toml", &config(plane, CONFIG_A, first)).expect("it is valid");
        network.gateway_a.ns().run(|| tunnels.a.reload(&config)).unwrap().expect("it is applied");
        let path = tunnels.a.plane().tunnel().paths().next().expect("there is a peer").1;
        assert_eq!(path.destination.is_ipv6(), first == Family::V6);
    };
    for first in [Family::V4, Family::V6] {
        switch_to(first);
        let tap = Tap::start(&network.router, "toA").unwrap();
        assert!(ask(&network.host_a, HOST_B6, 88).is_reply());
        let [v4, v6] = outer_packets_from(UNDERLAY_A, UNDERLAY_A6, &tap.finish());
        assert_eq!((v4 > 0, v6 > 0), (first == Family::V4, first == Family::V6), "{v4} and {v6}");
    }
    let start = |from: &Host, to: &Host, address| {
        LossStream::start(from, to, address, StreamOptions::default(), WAIT_TIMEOUT).unwrap()
    };
    let streams =
        [start(&network.host_a, &network.host_b, HOST_B), start(&network.host_b, &network.host_a, HOST_A)];
    for first in [Family::V4, Family::V6].repeat(SWITCHES / 2) {
        switch_to(first);
        for stream in &streams {
            assert!(stream.wait_for_arrival(WAIT_TIMEOUT), "traffic goes on");
        }
    }
    for stream in streams {
        let report = stream.finish(GRACE).unwrap();
        assert!(report.is_complete(), "{report}");
    }
}

/// The programs cannot replace a header by one of the other family, so userspace relays.
fn a_hub_joins_a_spoke_over_ipv4_and_one_over_ipv6(plane: DataplaneChoice) {
    let network = HubNetwork::build().unwrap();
    let v6 = |site: Site, last: u16| Ipv6Addr::new(0x2001, 0xdb8, 0xffff, site as u16, 0, 0, 0, last);
    network.router.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
    for site in [Site::Hub, Site::Two] {
        let gateway = &network.of(site).gateway;
        network.router.address(site.port(), Ipv6Net::new_assert(v6(site, 0xff), 64)).unwrap();
        gateway.address(UNDERLAY, Ipv6Net::new_assert(v6(site, 1), 64)).unwrap();
        gateway
            .route_v6(Ipv6Net::new_assert(v6(Site::Hub, 0), 48).trunc(), Some(v6(site, 0xff)), None)
            .unwrap();
    }
    for site in [Site::Hub, Site::Two] {
        network.of(site).gateway.await_addresses(UNDERLAY, WAIT_TIMEOUT).unwrap();
    }
    let addresses = |text: String| {
        let (hub, two) = (Site::Hub.underlay(), Site::Two.underlay());
        let both = format!("[\"{hub}\", \"{}\"]", v6(Site::Hub, 1));
        text.replace(&format!("\"{hub}\""), &both)
            .replace(&format!("\"{two}\""), &format!("\"{}\"", v6(Site::Two, 1)))
    };
    let up = |site: Site| bring_up(&network.of(site).gateway, &addresses(site.config(plane))).unwrap();
    let (hub, one, two) = (up(Site::Hub), up(Site::One), up(Site::Two));
    let host = |site: Site| &network.of(site).host;
    for (from, to) in [(Site::One, Site::Two), (Site::Two, Site::One)] {
        for size in [88, 1400, 1460] {
            assert!(ask(host(from), to.host(), size).is_reply(), "{from:?} to {to:?}, {size} bytes");
        }
        assert!(ask(host(from), Site::Hub.host(), 1460).is_reply(), "{from:?} to the hub");
    }
    std::thread::scope(|scope| {
        for (from, to) in [(Site::One, Site::Two), (Site::Two, Site::One)] {
            scope.spawn(move || {
                let stream = Stream { seed: 7, len: 16 * MEGABYTE, write: 65_536, nodelay: false };
                let (sent, received) = stream.send((host(from), host(to)), to.host());
                assert_eq!(received, sent, "{from:?} to {to:?}");
            });
        }
    });
    for overlay in [&hub, &one, &two] {
        assert_eq!(overlay.plane().totals().dropped(), 0, "{:?}", overlay.plane().totals());
    }
}
