//! ICMP errors from routers inside a site, whose addresses no configuration lists: they carry path
//! MTU and traceroute to the other sites, as without a tunnel.

use std::net::Ipv4Addr;

use adit_config::DataplaneChoice;
use adit_lab::checks::reaches;
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::throughput::Flow;
use adit_lab::two_sites::TwoSites;
use adit_testbed::hub::{HubNetwork, Site};
use adit_testbed::reality::unlisted_router::{TO_HOST, UNLISTED, UnlistedRouter};
use adit_testbed::transfer::Transfer;
use adit_tunnel::Totals;
use adit_wire::icmpv4::Icmpv4Error;
use ipnet::Ipv4Net;

use crate::planes::{bring_up_on, on_every_plane};
use crate::support::{ANSWER_TIMEOUT, wait_until};

fn part(network: &str) -> Ipv4Net {
    network.parse().expect("a network")
}

/// Host `from` pings the host behind the router, `hops` hops away, once the path works.
fn expect_errors(from: &Host, far: &UnlistedRouter, hops: u8) {
    wait_until("the path works", || reaches(from, far.address).unwrap());
    let ask = |size, ttl| from.run(|| ping(far.address, size, ttl, ANSWER_TIMEOUT)).unwrap();
    let refused = |error| Answer::Refused { by: UNLISTED, error };
    assert_eq!(ask(84, hops), refused(Icmpv4Error::TimeExceeded { code: 0 }));
    far.router.mtu(TO_HOST, 1300).unwrap();
    assert_eq!(ask(1400, 64), refused(Icmpv4Error::TooBig { mtu: 1300 }));
}

fn nothing_is_dropped(totals: &Totals) {
    assert_eq!(totals.dropped(), 0, "{totals:?}");
}

/// Errors from behind the peer, and to it.
fn errors_of_a_router_on_either_side_reach_the_other(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let behind_b = UnlistedRouter::add(&network.gateway_b, part("192.168.199.128/26")).unwrap();
    let behind_a = UnlistedRouter::add(&network.gateway_a, part("172.16.17.128/26")).unwrap();
    let tunnels = bring_up_on(&network, plane);
    expect_errors(&network.host_a, &behind_b, 3);
    expect_errors(&network.host_b, &behind_a, 3);
    nothing_is_dropped(&tunnels.a.plane().totals());
    nothing_is_dropped(&tunnels.b.plane().totals());
}

/// TCP finds the path MTU by the router's errors alone.
fn a_transfer_passes_a_small_link_behind_an_unlisted_router(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let far = UnlistedRouter::add(&network.gateway_b, part("192.168.199.128/26")).unwrap();
    far.router.mtu(TO_HOST, 1300).unwrap();
    let _tunnels = bring_up_on(&network, plane);
    let address: Ipv4Addr = far.address;
    let flow = Flow { client: &network.host_a, server: &far.host, address: address.into() };
    let transfer = Transfer::start(&flow, None).unwrap();
    wait_until("4 MiB have arrived", || transfer.received() > 4 << 20);
    transfer.finish().unwrap();
}

fn a_hub_passes_them_on(plane: DataplaneChoice) {
    let network = HubNetwork::build().unwrap();
    let two = network.of(Site::Two);
    let mut octets = Site::Two.network().network().octets();
    octets[3] = 128;
    let far = UnlistedRouter::add(&two.gateway, Ipv4Net::new(octets.into(), 26).unwrap()).unwrap();
    let overlays = network.bring_up(plane).unwrap();
    expect_errors(&network.of(Site::One).host, &far, 4);
    for site in Site::ALL {
        nothing_is_dropped(&overlays.of(site).plane().totals());
    }
}

on_every_plane! {
    errors_of_a_router_on_either_side_reach_the_other,
    a_transfer_passes_a_small_link_behind_an_unlisted_router,
    a_hub_passes_them_on,
}
