//! Route lookups and neighbours of IPv6 with the running kernel.

#[macro_use(test)]
extern crate adit_harness;

mod common;
#[path = "common/pair_v6.rs"]
mod pair_v6;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use adit_linux::flow_source::FlowSource;
use adit_linux::netlink::{Event, Events, Group, NeighbourState, Netlink, Route, RouteKind};
use common::TIMEOUT;
use pair_v6::{HERE, PairV6, THERE};

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test(root)]
fn a_route_lookup_of_ipv6_returns_next_hop_source_and_mtu() {
    let mut pair = PairV6::new();
    let router = address("fe80::99");
    let route = Route {
        destination: "2001:db8:1::/48".parse().unwrap(),
        device: Some(pair.near),
        gateway: Some(router.into()),
        mtu: Some(1400),
        ..Route::default()
    };
    pair.here_netlink.add_route(&route).unwrap();
    let netlink = &mut pair.here_netlink;
    let on_link = netlink.route_to(THERE, None).unwrap();
    assert_eq!((on_link.device, on_link.next_hop), (pair.near, THERE.into()));
    assert_eq!((on_link.source, on_link.mtu), (Some(HERE.into()), None));
    assert_eq!(on_link.kind, RouteKind::Unicast);
    let routed = netlink.route_to(address("2001:db8:1::7"), Some(HERE.into())).unwrap();
    assert_eq!((routed.device, routed.next_hop), (pair.near, router.into()), "a link-local gateway");
    assert_eq!((routed.source, routed.mtu), (None, Some(1400)));
    let own = netlink.route_to(HERE, None).unwrap();
    assert_eq!((own.kind, own.device), (RouteKind::Local, 1));
}

#[test(root)]
fn a_refused_route_of_ipv6_has_the_error_of_ipv4() {
    let mut pair = PairV6::new();
    pair.ip_here("address add 192.0.2.1/24 dev near");
    let v4 = Ipv4Addr::new(192, 0, 2, 1);
    let kinds = ["unreachable", "blackhole", "prohibit", "throw"];
    for (number, kind) in kinds.iter().enumerate() {
        pair.ip_here(&format!("-4 route add {kind} 10.{number}.0.0/16"));
        pair.ip_here(&format!("-6 route add {kind} 2001:db8:f{number}::/48"));
    }
    // The last has no route at all.
    for number in 0..=kinds.len() {
        let of_v4 = IpAddr::from([10, number as u8, 0, 1]);
        let of_v6 = IpAddr::from([0x2001, 0xdb8, 0xf0 + number as u16, 0, 0, 0, 0, 1]);
        for (from_v4, from_v6) in [(None, None), (Some(v4.into()), Some(HERE.into()))] {
            let [of_v4, of_v6] = [(of_v4, from_v4), (of_v6, from_v6)]
                .map(|(to, from)| pair.here_netlink.route_to(to, from).unwrap_err());
            assert_eq!(of_v6.errno(), of_v4.errno(), "{number}: {of_v6} and {of_v4}");
            assert_eq!(of_v6.is_no_route(), number != 1, "{of_v6}");
        }
    }
}

#[test(root)]
fn a_source_of_ipv6_must_be_an_address_of_this_host() {
    let mut pair = PairV6::new();
    let elsewhere = FlowSource::from(address("2001:db8::77"));
    let error = pair.here_netlink.route_to(THERE, Some(elsewhere)).unwrap_err();
    assert_eq!((error.errno(), error.is_no_route()), (Some(libc::EINVAL), false), "{error}");
    assert!(
        error.to_string().starts_with("cannot find a route to 2001:db8::2 from 2001:db8::77: "),
        "{error}"
    );

    pair.here_netlink.delete_address(pair.near, format!("{HERE}/64").parse().unwrap()).unwrap();
    let gone = pair.here_netlink.route_to(THERE, Some(HERE.into())).unwrap_err();
    assert_eq!((gone.errno(), gone.is_no_route()), (Some(libc::EINVAL), false), "{gone}");
}

#[test(root)]
fn a_list_of_both_families_is_answered_in_order() {
    let mut pair = PairV6::new();
    pair.ip_here("address add 192.0.2.1/24 dev near");
    let v4 = IpAddr::from([192, 0, 2, 2]);
    let nowhere = IpAddr::from(address("2001:db8:ff::1"));
    let asked = [THERE.into(), v4, nowhere, v4];
    let hops = |answers: Vec<Result<adit_linux::netlink::RouteLookup, adit_linux::error::Error>>| {
        answers.into_iter().map(|found| found.ok().map(|found| found.next_hop)).collect::<Vec<_>>()
    };
    let any = pair.here_netlink.routes_to(&asked, None).unwrap();
    assert_eq!(hops(any), [Some(THERE.into()), Some(v4), None, Some(v4)]);
    // A source is of one family.
    let from_v6 = pair.here_netlink.routes_to(&asked, Some(HERE.into())).unwrap();
    assert_eq!(from_v6[1].as_ref().unwrap_err().errno(), Some(libc::EINVAL));
    assert_eq!(hops(from_v6), [Some(THERE.into()), None, None, None]);
    let from_v4 = pair.here_netlink.routes_to(&asked, Some(Ipv4Addr::new(192, 0, 2, 1).into())).unwrap();
    assert_eq!(hops(from_v4), [None, Some(v4), None, Some(v4)]);
}

#[test(root)]
fn a_route_of_ipv6_is_chosen_by_source_and_mark() {
    let mut pair = PairV6::new();
    pair.ip_here("-6 address add 2001:db8::3/64 dev near nodad");
    pair.ip_here("-6 rule add fwmark 7 table 77");
    pair.ip_here("-6 rule add from 2001:db8::3 table 78");
    for (table, gateway) in [("254", "fe80::1"), ("77", "fe80::77"), ("78", "fe80::78")] {
        pair.ip_here(&format!("-6 route add 2001:db8:9::/48 via {gateway} dev near table {table}"));
    }
    let source = |text: &str, mark| FlowSource { mark, ..address(text).into() };
    for (source, expected) in [
        (source("2001:db8::1", 0), "fe80::1"),
        (source("2001:db8::1", 7), "fe80::77"),
        (source("2001:db8::3", 0), "fe80::78"),
    ] {
        let found = pair.here_netlink.route_to(address("2001:db8:9::1"), Some(source)).unwrap();
        assert_eq!(found.next_hop, IpAddr::from(address(expected)), "{source:?}");
    }
}

#[test(root)]
fn a_neighbour_of_ipv6_in_use_is_resolved() {
    let mut pair = PairV6::new();
    let (netlink, near) = (&mut pair.here_netlink, pair.near);
    let nobody = address("2001:db8::77");
    let mut events = pair.here.run(|| Events::open(&[Group::Neighbour])).unwrap().unwrap();
    assert_eq!(netlink.neighbour(near, THERE).unwrap(), None);
    netlink.use_neighbour(near, THERE).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.next(left).unwrap().expect("the neighbour answers") {
            Event::NeighbourChanged(known) if known.ip == THERE && known.state.is_usable() => break,
            _ => {}
        }
    }
    let far = pair.there.run(|| Netlink::open()?.link_by_index(pair.far)).unwrap().unwrap();
    let mac = far.unwrap().mac;
    let known = netlink.neighbour(near, THERE).unwrap().expect("it has answered");
    assert_eq!((known.index, known.ip, known.mac), (near, THERE.into(), mac));

    netlink.set_neighbour(near, nobody, [2, 0, 0, 0, 0, 7]).unwrap();
    netlink.set_neighbour(near, Ipv4Addr::new(192, 0, 2, 7), [2, 0, 0, 0, 0, 8]).unwrap();
    netlink.use_neighbour(near, nobody).unwrap();
    let set = netlink.neighbour(near, nobody).unwrap().expect("it was set");
    assert_eq!((set.state, set.mac), (NeighbourState::Permanent, Some([2, 0, 0, 0, 0, 7])), "left alone");
    let listed = netlink.neighbours(near).unwrap();
    for ip in [THERE.into(), nobody.into(), IpAddr::from([192, 0, 2, 7])] {
        assert_eq!(listed.iter().filter(|listed| listed.ip == ip).count(), 1, "{ip} in {listed:?}");
    }
    netlink.delete_neighbour(near, nobody).unwrap();
    assert!(!netlink.neighbour(near, nobody).unwrap().is_some_and(|known| known.state.is_usable()));
}

#[test(root)]
fn a_changed_rule_of_ipv6_is_an_event() {
    let pair = PairV6::new();
    let mut events = pair.here.run(|| Events::open(&[Group::RuleV6])).unwrap().unwrap();
    pair.ip_here("-6 rule add fwmark 7 table 77");
    assert_eq!(events.next(TIMEOUT).unwrap(), Some(Event::RulesChanged));
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
