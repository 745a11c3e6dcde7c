//! rtnetlink with the running kernel, in network namespaces that the tests create.

#[macro_use(test)]
extern crate adit_harness;

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use adit_linux::netlink::{
    Event, Events, Group, LinkLayer, MAIN_TABLE, NeighbourState, Netlink, Network, ROUTE_PROTOCOL, Route,
    RouteKind, RouteScope,
};
use adit_linux::netns::NetNs;
use adit_linux::sysctl;
use common::{TIMEOUT, await_running};
use ipnet::{IpNet, Ipv4Net};

/// Two namespaces with a veth between them: 192.0.2.1/24 on `left`, 192.0.2.2/24 on `right`.
struct Pair {
    left: NetNs,
    right: NetNs,
    left_netlink: Netlink,
    right_netlink: Netlink,
    left_index: u32,
    right_index: u32,
}

impl Pair {
    fn new() -> Self {
        let left = NetNs::fresh().unwrap();
        let right = NetNs::fresh().unwrap();
        let mut left_netlink = left.run(Netlink::open).unwrap().unwrap();
        let mut right_netlink = right.run(Netlink::open).unwrap().unwrap();
        let left_index = left_netlink.add_veth("to-right", "to-left", &right).unwrap();
        let right_index =
            right_netlink.link("to-left").unwrap().expect("the peer is in the other namespace").index;
        for (netlink, index, address) in [
            (&mut left_netlink, left_index, "192.0.2.1/24"),
            (&mut right_netlink, right_index, "192.0.2.2/24"),
        ] {
            netlink.add_address(index, address.parse().unwrap()).unwrap();
            netlink.set_up(index).unwrap();
            let loopback = netlink.link("lo").unwrap().unwrap();
            netlink.set_up(loopback.index).unwrap();
        }
        await_running(&left, "to-right");
        await_running(&right, "to-left");
        Self { left, right, left_netlink, right_netlink, left_index, right_index }
    }
}

/// Returns the result of `wanted` for the first event for which there is one.
fn await_event<T>(events: &mut Events, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    let mut seen = Vec::new();
    while Instant::now() < deadline {
        if let Some(event) = events.next(deadline - Instant::now()).unwrap() {
            seen.push(format!("{event:?}"));
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }
    panic!("no event: {what}; seen: {seen:#?}");
}

#[test(root)]
fn a_veth_connects_two_namespaces() {
    let mut pair = Pair::new();
    let here = pair.left_netlink.link("to-right").unwrap().unwrap();
    assert_eq!(here.index, pair.left_index);
    assert_eq!((here.hardware, here.mtu, here.kind.as_deref()), (LinkLayer::Ethernet, 1500, Some("veth")));
    assert!(here.up && here.running && here.mac.is_some());
    assert_eq!(pair.left_netlink.link("to-left").unwrap(), None, "the peer is not here");
    assert_eq!(pair.left_netlink.link_by_index(here.index).unwrap().as_ref(), Some(&here));
    assert_eq!(pair.left_netlink.link_by_index(9999).unwrap(), None);
    let names: Vec<String> = pair.left_netlink.links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo", "to-right"]);
    assert_eq!(pair.left_netlink.links().unwrap()[0].hardware, LinkLayer::Loopback);

    pair.left_netlink.delete_link(here.index).unwrap();
    assert_eq!(pair.right_netlink.link("to-left").unwrap(), None, "one end does not outlive the other");
}

#[test(root)]
fn a_changed_link_reads_back_as_set() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    netlink.set_mtu(index, 1400).unwrap();
    netlink.set_alias(index, "adit paris").unwrap();
    netlink.set_down(index).unwrap();
    netlink.rename(index, "renamed").unwrap();
    let link = netlink.link("renamed").unwrap().unwrap();
    assert_eq!((link.index, link.mtu, link.up, link.running), (index, 1400, false, false));
    assert_eq!(link.alias.as_deref(), Some("adit paris"));
}

#[test(root)]
fn an_error_has_the_attempt_and_the_reason() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    let taken = netlink.add_veth("to-right", "other", &pair.right).unwrap_err();
    assert_eq!(taken.errno(), Some(libc::EEXIST), "{taken}");
    assert!(
        taken.to_string().starts_with("cannot make the veth pair to-right and other: File exists"),
        "{taken}"
    );

    let twice = netlink.add_address(index, "192.0.2.1/24".parse().unwrap()).unwrap_err();
    assert_eq!(twice.errno(), Some(libc::EEXIST), "{twice}");
    let words = twice.kernel_text().expect("the kernel says more than a number");
    assert!(words.contains("already"), "{words}");
    assert!(twice.to_string().contains(words), "{twice}");

    let unreachable = Route {
        destination: "10.9.0.0/16".parse().unwrap(),
        gateway: Some([203, 0, 113, 1].into()),
        ..Route::default()
    };
    let error = netlink.add_route(&unreachable).unwrap_err();
    assert!(error.kernel_text().is_some_and(|text| text.contains("gateway")), "{error}");

    for name in ["", "sixteen-is-a-lot"] {
        assert_eq!(netlink.link(name).unwrap_err().errno(), Some(libc::EINVAL), "{name}");
    }
    // Answers to earlier requests do not disturb the next one.
    assert_eq!(netlink.link("to-right").unwrap().unwrap().index, index);
}

#[test(root)]
fn addresses_are_added_and_removed() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    let second = "10.1.0.1/31".parse().unwrap();
    netlink.add_address(index, second).unwrap();
    // The kernel adds a link-local address of IPv6 by itself.
    let of_v4 = |netlink: &mut Netlink| -> Vec<IpNet> {
        let found = netlink.addresses(Some(index)).unwrap().into_iter().map(|address| address.prefix);
        found.filter(|prefix| prefix.addr().is_ipv4()).collect()
    };
    let prefixes = of_v4(netlink);
    assert_eq!(prefixes, ["192.0.2.1/24".parse().unwrap(), second]);
    let all = netlink.addresses(None).unwrap();
    let all_v4 = all.iter().filter(|address| address.prefix.addr().is_ipv4());
    assert_eq!(all_v4.count(), 3, "those two and the loopback's: {all:?}");
    netlink.delete_address(index, second).unwrap();
    assert_eq!(of_v4(netlink).len(), 1);
    assert_eq!(netlink.delete_address(index, second).unwrap_err().errno(), Some(libc::EADDRNOTAVAIL));
}

#[test(root)]
fn addresses_of_ipv6_are_added_listed_with_their_state_and_removed() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    let ours: IpNet = "2001:db8::1/64".parse().unwrap();
    netlink.add_address(index, ours).unwrap();
    let find = |netlink: &mut Netlink| {
        let found = netlink.addresses(Some(index)).unwrap();
        found.into_iter().find(|address| address.prefix == ours)
    };
    let found = find(netlink).expect("it is there");
    assert!(found.is_global && !found.is_tentative && !found.is_secondary && !found.is_deprecated);
    assert_eq!(netlink.add_address(index, ours).unwrap_err().errno(), Some(libc::EEXIST));
    netlink.delete_address(index, ours).unwrap();
    assert_eq!(find(netlink), None);
    assert_eq!(netlink.delete_address(index, ours).unwrap_err().errno(), Some(libc::EADDRNOTAVAIL));

    // `ip` has it checked for duplicates, here for hours.
    let add = ["-6", "address", "add", "2001:db8::1/64", "dev", "to-right", "preferred_lft", "0"];
    let added = pair.left.run(|| {
        sysctl::write("net/ipv6/conf/to-right/dad_transmits", "10000").expect("it can be set");
        std::process::Command::new("ip").args(add).status().expect("there is `ip`")
    });
    assert!(added.expect("a namespace").success());
    let found = find(&mut pair.left_netlink).expect("it is there");
    assert!(found.is_tentative && found.is_deprecated, "{found:?}");
}

#[test(root)]
fn a_route_keeps_its_protocol_and_source() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    netlink.add_address(index, "10.1.0.1/32".parse().unwrap()).unwrap();
    let mut route = Route {
        destination: "10.2.0.0/16".parse().unwrap(),
        device: Some(index),
        preferred_source: Some([10, 1, 0, 1].into()),
        mtu: Some(1380),
        ..Route::default()
    };
    netlink.add_route(&route).unwrap();
    let ours = |netlink: &mut Netlink| -> Vec<Route> {
        netlink.routes().unwrap().into_iter().filter(|route| route.protocol == ROUTE_PROTOCOL).collect()
    };
    let expected = Route { scope: Some(RouteScope::Link), ..route.clone() };
    assert_eq!(ours(netlink), [expected]);
    let again = netlink.add_route(&route).unwrap_err();
    assert_eq!(again.errno(), Some(libc::EEXIST), "{again}");

    route.mtu = None;
    route.gateway = Some([192, 0, 2, 2].into());
    netlink.replace_route(&route).unwrap();
    let expected = Route { scope: Some(RouteScope::Universe), ..route.clone() };
    assert_eq!(ours(netlink), [expected], "replaced, not added");

    let blackhole =
        Route { destination: "10.3.0.0/16".parse().unwrap(), kind: RouteKind::Blackhole, ..Route::default() };
    netlink.add_route(&blackhole).unwrap();
    assert!(ours(netlink).iter().any(|route| route.kind == RouteKind::Blackhole && route.device.is_none()));

    // As ip(8) shows it.
    let shown =
        pair.left.run(|| std::process::Command::new("ip").args(["route", "show", "proto", "173"]).output());
    let shown = String::from_utf8(shown.unwrap().unwrap().stdout).unwrap();
    assert!(shown.contains("10.2.0.0/16 via 192.0.2.2 dev to-right src 10.1.0.1"), "{shown}");
    assert!(shown.contains("blackhole 10.3.0.0/16"), "{shown}");

    netlink.delete_route(&route).unwrap();
    netlink.delete_route(&blackhole).unwrap();
    assert_eq!(ours(netlink), []);
    assert_eq!(netlink.delete_route(&route).unwrap_err().errno(), Some(libc::ESRCH));
}

#[test(root)]
fn a_route_of_ipv6_keeps_its_protocol_source_and_gateway() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    let ip = |arguments: &str| -> String {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let ran =
            pair.left.run(|| std::process::Command::new("ip").args(&arguments).output()).unwrap().unwrap();
        assert!(ran.status.success(), "{arguments:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    };
    ip("address add 2001:db8:1::1/128 dev to-right nodad");
    let ours = |netlink: &mut Netlink| -> Vec<Route> {
        netlink.routes().unwrap().into_iter().filter(|route| route.protocol == ROUTE_PROTOCOL).collect()
    };
    let mut route = Route {
        destination: "2001:db8:2::/48".parse().unwrap(),
        device: Some(index),
        gateway: Some("fe80::2".parse().unwrap()),
        onlink: true,
        preferred_source: Some("2001:db8:1::1".parse().unwrap()),
        ..Route::default()
    };
    let guard = Route {
        destination: route.destination,
        kind: RouteKind::Unreachable,
        metric: Some(0xff00_0001),
        ..Route::default()
    };
    for added in [&route, &guard] {
        netlink.add_route(added).unwrap();
        assert!(ours(netlink).iter().any(|listed| added.is_already(listed)), "{:?}", ours(netlink));
        assert_eq!(netlink.add_route(added).unwrap_err().errno(), Some(libc::EEXIST));
    }
    assert_eq!(ours(netlink).len(), 2);
    assert_eq!(netlink.routes_of_kind(ROUTE_PROTOCOL, RouteKind::Unreachable, None).unwrap().len(), 1);
    assert_eq!(netlink.routes_by(ROUTE_PROTOCOL, index, MAIN_TABLE).unwrap().len(), 1);
    let shown = ip("-6 route show proto 173");
    assert!(
        shown.contains("2001:db8:2::/48 via fe80::2 dev to-right src 2001:db8:1::1 metric 1024"),
        "{shown}"
    );
    assert!(shown.contains("unreachable 2001:db8:2::/48"), "{shown}");

    let before = ours(netlink)[0].clone();
    route.mtu = Some(1380);
    assert!(!route.is_already(&before));
    netlink.replace_route(&route).unwrap();
    assert_eq!(ours(netlink).len(), 2, "replaced, not added");
    assert!(route.is_already(&ours(netlink)[0]), "{:?}", ours(netlink));
    // A route of another metric, a backup, is another route.
    ip("-6 route add 2001:db8:2::/48 dev to-right metric 2000");
    let networks = [route.destination, "2001:db8:3::/48".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
    let exact = netlink.routes_to_exactly(&networks).unwrap().expect("the lookups decide");
    assert_eq!(exact.len(), 2, "{exact:?}");
    assert!(route.is_already(&exact[0]), "{exact:?}");
    assert!(exact[0].has_default_metric());

    netlink.delete_routes(&[route.clone(), guard]).unwrap();
    assert_eq!(ours(netlink), []);
    assert_eq!(netlink.delete_route(&route).unwrap_err().errno(), Some(libc::ESRCH));
}

#[test(root)]
fn a_namespace_without_routes_lists_none() {
    let mut netlink = NetNs::fresh().unwrap().run(Netlink::open).unwrap().unwrap();
    assert_eq!(netlink.routes().unwrap(), []);
    assert_eq!(netlink.addresses(None).unwrap(), []);
    let lost = netlink.route_to(Ipv4Addr::new(192, 0, 2, 2), None).unwrap_err();
    assert_eq!(lost.errno(), Some(libc::ENETUNREACH), "{lost}");
}

#[test(root)]
fn a_route_lookup_returns_next_hop_source_and_mtu() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    let [here, there, beyond] = [[192, 0, 2, 1], [192, 0, 2, 2], [198, 51, 100, 7]].map(Ipv4Addr::from);
    netlink
        .add_route(&Route {
            destination: "198.51.100.0/24".parse().unwrap(),
            gateway: Some(there.into()),
            mtu: Some(1400),
            ..Route::default()
        })
        .unwrap();
    let on_link = netlink.route_to(there, None).unwrap();
    assert_eq!((on_link.device, on_link.next_hop, on_link.source), (index, there.into(), Some(here.into())));
    assert_eq!((on_link.mtu, on_link.kind), (None, RouteKind::Unicast));
    let routed = netlink.route_to(beyond, Some(here.into())).unwrap();
    assert_eq!((routed.device, routed.next_hop, routed.mtu), (index, there.into(), Some(1400)));
    assert_eq!(netlink.route_to(here, None).unwrap().kind, RouteKind::Local);
    let refused = netlink.route_to(beyond, Some(Ipv4Addr::new(203, 0, 113, 9).into())).unwrap_err();
    assert!(refused.errno().is_some(), "{refused}");
}

/// Returns routes to `count` networks of 256 addresses each, from 10.0.0.0 on, by an interface.
fn many_routes(count: u32, device: u32) -> Vec<Route> {
    let network = |number| Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0a00_0000 + number * 256), 24).into();
    (0..count)
        .map(|number| Route { destination: network(number), device: Some(device), ..Route::default() })
        .collect()
}

#[test(root)]
fn many_routes_are_added_changed_and_removed() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    let mut routes = many_routes(100_000, index);
    netlink.replace_routes(&routes).unwrap();
    let listed = netlink.routes_by(ROUTE_PROTOCOL, index, MAIN_TABLE).unwrap();
    assert_eq!(listed.len(), routes.len());
    assert!(routes.iter().zip(&listed).all(|(route, listed)| route.is_already(listed)));
    let all = netlink.routes().unwrap();
    let of_ipv4 = all.iter().filter(|route| route.destination.addr().is_ipv4()).count();
    assert_eq!(of_ipv4, routes.len() + 1, "and that of our address");

    routes.truncate(1000);
    for route in &mut routes {
        route.gateway = Some([192, 0, 2, 2].into());
    }
    assert!(!routes[0].is_already(&listed[0]));
    netlink.replace_routes(&routes).unwrap();
    netlink.delete_routes(&listed[1000..]).unwrap();
    let listed = netlink.routes_by(ROUTE_PROTOCOL, index, MAIN_TABLE).unwrap();
    assert_eq!(listed.len(), routes.len());
    assert!(routes.iter().zip(&listed).all(|(route, listed)| route.is_already(listed)));

    netlink.delete_routes(&listed).unwrap();
    assert_eq!(netlink.delete_routes(&listed).unwrap_err().errno(), Some(libc::ESRCH));
    assert_eq!(netlink.routes_by(ROUTE_PROTOCOL, index, MAIN_TABLE).unwrap(), []);
    netlink.replace_routes(&[]).unwrap();
}

#[test(root)]
fn the_error_about_many_routes_names_the_first_refused_one() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    let mut routes = many_routes(1000, index);
    // Two are refused, and the error must be about the first.
    for refused in [700, 710] {
        routes[refused].gateway = Some([203, 0, 113, 1].into());
    }
    let error = netlink.replace_routes(&routes).unwrap_err();
    let alone = netlink.replace_route(&routes[700]).unwrap_err();
    assert_eq!(error.to_string(), alone.to_string());
    assert!(
        error.to_string().starts_with("cannot set the route to 10.2.188.0/24 via 203.0.113.1"),
        "{error}"
    );
    assert!(error.kernel_text().is_some_and(|text| text.contains("gateway")), "{error}");
    let listed = netlink.routes_by(ROUTE_PROTOCOL, index, MAIN_TABLE).unwrap();
    assert!(routes[..700].iter().zip(&listed).all(|(route, listed)| route.is_already(listed)));
    // Answers to earlier requests do not disturb the next one.
    assert_eq!(netlink.link("to-right").unwrap().unwrap().index, index);
}

#[test(root)]
fn many_lookups_return_what_single_ones_return() {
    let mut pair = Pair::new();
    let (netlink, here) = (&mut pair.left_netlink, Ipv4Addr::new(192, 0, 2, 1));
    netlink
        .add_route(&Route {
            destination: "198.51.100.0/24".parse().unwrap(),
            gateway: Some([192, 0, 2, 2].into()),
            ..Route::default()
        })
        .unwrap();
    let networks = [[192, 0, 2, 0], [198, 51, 100, 0], [203, 0, 113, 0]].map(u32::from_be_bytes);
    // In turn on the link, by the gateway, and without a route; the last has none.
    let asked: Vec<IpAddr> = (0..768)
        .map(|number| Ipv4Addr::from_bits(networks[number % 3] + (number / 3) as u32).into())
        .collect();
    let answers = netlink.routes_to(&asked, Some(here.into())).unwrap();
    assert_eq!(answers.len(), asked.len());
    for (address, answer) in asked.iter().zip(answers) {
        let alone = netlink.route_to(*address, Some(here.into()));
        match (answer, alone) {
            (Ok(answer), Ok(alone)) => assert_eq!(answer, alone, "{address}"),
            (Err(answer), Err(alone)) => assert_eq!(answer.to_string(), alone.to_string()),
            (answer, alone) => panic!("{address}: {answer:?} among others, {alone:?} alone"),
        }
    }
}

#[test(root)]
fn a_neighbour_in_use_is_resolved() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    let there = Ipv4Addr::new(192, 0, 2, 2);
    let nobody = Ipv4Addr::new(192, 0, 2, 77);
    let mut events = pair.left.run(|| Events::open(&[Group::Neighbour])).unwrap().unwrap();
    assert_eq!(netlink.neighbour(index, there).unwrap(), None);
    netlink.use_neighbour(index, there).unwrap();
    let mac = pair.right_netlink.link_by_index(pair.right_index).unwrap().unwrap().mac;
    assert!(mac.is_some());
    await_event(&mut events, "the neighbour answers", |event| match event {
        Event::NeighbourChanged(known) if known.ip == there && known.state.is_usable() => Some(()),
        _ => None,
    });
    let known = netlink.neighbour(index, there).unwrap().expect("it has answered");
    assert_eq!((known.index, known.ip, known.mac), (index, there.into(), mac));

    netlink.set_neighbour(index, nobody, [2, 0, 0, 0, 0, 7]).unwrap();
    netlink.use_neighbour(index, nobody).unwrap();
    let set = netlink.neighbour(index, nobody).unwrap().expect("it was set");
    assert_eq!((set.state, set.mac), (NeighbourState::Permanent, Some([2, 0, 0, 0, 0, 7])), "left alone");
    let listed = netlink.neighbours(index).unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let set = netlink.neighbour(index, nobody).unwrap().unwrap();
    assert_eq!((set.mac, set.state), (Some([2, 0, 0, 0, 0, 7]), NeighbourState::Permanent));
    assert_eq!(netlink.neighbours(1).unwrap(), [], "another interface's are not listed");
    netlink.delete_neighbour(index, nobody).unwrap();
    assert!(!netlink.neighbour(index, nobody).unwrap().is_some_and(|known| known.state.is_usable()));
}

#[test(root)]
fn every_change_is_an_event() {
    let mut pair = Pair::new();
    let (left, index) = (&mut pair.left_netlink, pair.left_index);
    let mut events = pair
        .left
        .run(|| Events::open(&[Group::Link, Group::Address, Group::Route, Group::RouteV6]))
        .unwrap()
        .unwrap();
    left.add_address(index, "10.1.0.1/32".parse().unwrap()).unwrap();
    await_event(&mut events, "the address comes", |event| match event {
        Event::AddressChanged { address, gone: false } => {
            (address.prefix.to_string() == "10.1.0.1/32").then_some(())
        }
        _ => None,
    });
    left.add_route(&Route {
        destination: "10.2.0.0/16".parse().unwrap(),
        device: Some(index),
        ..Route::default()
    })
    .unwrap();
    await_event(&mut events, "the route comes", |event| {
        matches!(event, Event::RouteChanged { gone: false, .. }).then_some(())
    });
    left.add_route(&Route {
        destination: "2001:db8:2::/48".parse().unwrap(),
        device: Some(index),
        ..Route::default()
    })
    .unwrap();
    await_event(&mut events, "the route of IPv6 comes", |event| match event {
        Event::RouteChanged { route, gone: false } => {
            (route.destination.to_string() == "2001:db8:2::/48").then_some(())
        }
        _ => None,
    });
    // The far end goes down: this end stays up, but does not run.
    pair.right_netlink.set_down(pair.right_index).unwrap();
    await_event(&mut events, "the link stops running", |event| match event {
        Event::Link(link) if link.index == index && link.up && !link.running => Some(()),
        _ => None,
    });
    pair.right_netlink.delete_link(pair.right_index).unwrap();
    await_event(&mut events, "the link goes", |event| (event == Event::LinkGone(index)).then_some(()));
}

#[test(root)]
fn without_a_change_there_is_no_event() {
    let quiet = NetNs::fresh().unwrap();
    let all = [Group::Link, Group::Address, Group::Route, Group::Neighbour];
    let mut events = quiet.run(|| Events::open(&all)).unwrap().unwrap();
    assert_eq!(events.try_next().unwrap(), None);
    assert_eq!(events.next(Duration::from_millis(1)).unwrap(), None);
}

#[test(root)]
fn an_overrun_is_an_event_and_later_events_follow() {
    let mut pair = Pair::new();
    let (netlink, index) = (&mut pair.left_netlink, pair.left_index);
    let mut events = pair.left.run(|| Events::open(&[Group::Link])).unwrap().unwrap();
    // The kernel's minimum: a few messages fill it.
    events.set_receive_buffer(1).unwrap();
    for mtu in 1000..1100 {
        netlink.set_mtu(index, mtu).unwrap();
    }
    await_event(&mut events, "more than could be kept", |event| (event == Event::Overrun).then_some(()));
    while events.try_next().unwrap().is_some() {}
    netlink.set_mtu(index, 1280).unwrap();
    await_event(&mut events, "what happens afterwards", |event| match event {
        Event::Link(link) => (link.mtu == 1280).then_some(()),
        _ => None,
    });
}

#[test(root)]
fn settings_under_net_belong_to_the_namespace() {
    let pair = Pair::new();
    let knob = "net/ipv4/conf/to-right/forwarding";
    pair.left.run(|| sysctl::write(knob, "1")).unwrap().unwrap();
    assert_eq!(pair.left.run(|| sysctl::read(knob)).unwrap().unwrap(), "1");
    assert!(pair.right.run(|| sysctl::read(knob)).unwrap().is_err(), "the interface is not there");
    assert!(sysctl::read(knob).is_err(), "nor on the host");
}

#[test(root)]
fn work_runs_in_the_namespace_and_its_panic_reaches_the_caller() {
    let host = NetNs::current().unwrap();
    let fresh = NetNs::fresh().unwrap();
    assert!(!fresh.is_same(&host));
    let text = String::from("borrowed");
    let (inside, len) = fresh.run(|| (NetNs::current().unwrap(), text.len())).unwrap();
    assert!(inside.is_same(&fresh));
    assert_eq!(len, 8);
    assert!(NetNs::current().unwrap().is_same(&host), "the caller's thread stays where it was");

    let handle = fresh
        .spawn("inside", || (NetNs::current().unwrap(), std::thread::current().name().map(str::to_owned)));
    let (spawned, name) = handle.unwrap().join().unwrap();
    assert!(spawned.is_same(&fresh));
    assert_eq!(name.as_deref(), Some("inside"));

    let panic = std::panic::catch_unwind(|| fresh.run(|| panic!("from inside"))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"from inside"));

    for name in ["", "..", "a/b"] {
        assert_eq!(NetNs::named(name).unwrap_err().errno(), Some(libc::EINVAL), "{name}");
    }
    let missing = NetNs::named("adit-no-such-namespace").unwrap_err().to_string();
    assert!(missing.starts_with("cannot open the network namespace `adit-no-such-namespace`: "), "{missing}");
}

#[test(root)]
fn netlink_is_a_network() {
    fn names(network: &mut dyn Network) -> Vec<String> {
        network.links().unwrap().into_iter().map(|link| link.name).collect()
    }
    let mut netlink = NetNs::fresh().unwrap().run(Netlink::open).unwrap().unwrap();
    assert_eq!(names(&mut netlink), ["lo"]);
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
