//! The model of the kernel against the kernel: the same steps, with the same answers and results.

use std::net::Ipv4Addr;

use adit_linux::netlink::{Link, LinkLayer, Network, Route, RouteLookup, VethPair};

use super::world::{Kernel, World};
use crate::reconcile::devices::{self, HIDDEN_MAC, HIDDEN_MTU, VISIBLE_MAC};

/// The answer to a call: `ok`, or the error's number.
fn answer(result: adit_linux::error::Result<()>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("errno {}", error.errno().unwrap_or_default()),
    }
}

fn replace(network: &mut dyn Network, route: &Route) -> adit_linux::error::Result<()> {
    network.replace_routes(std::slice::from_ref(route))
}

fn delete(network: &mut dyn Network, route: &Route) -> adit_linux::error::Result<()> {
    network.delete_routes(std::slice::from_ref(route))
}

/// Calls the kernel as control does, in the order of the rows. A row names the call, the answer,
/// and the routes that there are then beside those of the addresses.
fn check(mut world: World) {
    let (eth0, lan0) = (world.index("eth0"), world.index("lan0"));
    let route = |destination: &str, device| Route {
        destination: destination.parse().unwrap(),
        device: Some(device),
        ..Route::default()
    };
    let from_lan = |route| Route { preferred_source: Some([172, 16, 17, 1].into()), ..route };
    let via = |last: u8, route| Route { gateway: Some([10, 1, 1, last].into()), ..route };
    let one = route("10.7.0.0/16", eth0);
    let initial = world.view().routes;
    let mut row = |what: &str,
                   call: &dyn Fn(&mut dyn Network) -> adit_linux::error::Result<()>,
                   expected: &str,
                   routes: &[&str]| {
        assert_eq!(answer(call(world.others.as_mut())), expected, "{what}");
        let view = world.view().routes;
        let new: Vec<&String> = view.iter().filter(|route| !initial.contains(route)).collect();
        assert_eq!(new, routes, "{what}");
    };

    row("a route is added", &|n| n.add_route(&one), "ok", &["10.7.0.0/16 dev eth0 proto 173"]);
    row("it exists", &|n| n.add_route(&one), "errno 17", &["10.7.0.0/16 dev eth0 proto 173"]);
    let metric = Route { metric: Some(9), ..one.clone() };
    let both = ["10.7.0.0/16 dev eth0 metric 9 proto 173", "10.7.0.0/16 dev eth0 proto 173"];
    row("another metric is another route", &|n| n.add_route(&metric), "ok", &both);
    row("it is deleted", &|n| delete(n, &metric), "ok", &both[1..]);
    row("there is none", &|n| delete(n, &metric), "errno 3", &both[1..]);
    let replaced = from_lan(route("10.7.0.0/16", lan0));
    let listed = ["10.7.0.0/16 dev lan0 src 172.16.17.1 proto 173"];
    row("a route is replaced, by another interface", &|n| replace(n, &replaced), "ok", &listed);
    let foreign = Route { preferred_source: Some([192, 0, 2, 9].into()), ..one.clone() };
    row("the source is not ours", &|n| replace(n, &foreign), "errno 22", &listed);
    let nowhere = route("10.8.0.0/16", 9999);
    row("the interface does not exist", &|n| replace(n, &nowhere), "errno 19", &listed);
    let unreachable = via(9, route("10.8.0.0/16", lan0));
    row("the gateway is not on the link", &|n| n.add_route(&unreachable), "errno 101", &listed);
    let onlink = Route { onlink: true, ..unreachable.clone() };
    let with_onlink = [listed[0], "10.8.0.0/16 via 10.1.1.9 dev lan0 proto 173"];
    row("it is said to be", &|n| n.add_route(&onlink), "ok", &with_onlink);
    let on_eth0 = Route { device: Some(eth0), ..replaced.clone() };
    let with_both = ["10.7.0.0/16 dev eth0 src 172.16.17.1 proto 173", with_onlink[1]];
    row("a source may be on another interface", &|n| replace(n, &on_eth0), "ok", &with_both);
    let delete_address = |n: &mut dyn Network| n.delete_address(lan0, "172.16.17.1/24".parse().unwrap());
    row(
        "routes disappear with their source, and with the interface's last address",
        &delete_address,
        "ok",
        &[],
    );
    row("the address is gone", &delete_address, "errno 99", &[]);
    let only_onlink = &with_onlink[1..];
    row("an interface without addresses may have routes", &|n| n.add_route(&onlink), "ok", only_onlink);
    row("the interface goes down", &|n| n.set_down(lan0), "ok", &[]);
    row("it is down", &|n| n.add_route(&onlink), "errno 100", &[]);
    row("it comes up again", &|n| n.set_up(lan0), "ok", &[]);
    row("its routes do not", &|n| n.add_route(&onlink), "ok", &with_onlink[1..]);
    row(
        "an address is ours already",
        &|n| n.add_address(eth0, "10.1.1.1/24".parse().unwrap()),
        "errno 17",
        &with_onlink[1..],
    );
    row("the interface is deleted", &|n| n.delete_link(lan0), "ok", &[]);
    row("it does not exist", &|n| n.delete_link(lan0), "errno 19", &[]);
    row("it cannot be set up", &|n| n.set_up(lan0), "errno 19", &[]);
    row("it has no routes", &|n| n.routes_by(173, lan0, 254).map(drop), "errno 19", &[]);

    look_up(&mut world, eth0);
    make_pair(&mut world);
}

/// A call about the ends of a pair, the visible one first, by their indices; 0: it does not exist.
type PairCall<'a> = dyn Fn(&mut dyn Network, [u32; 2]) -> adit_linux::error::Result<()> + 'a;

/// A veth pair, as control creates and changes it.
fn make_pair(world: &mut World) {
    let pair = VethPair {
        name: "ipipA".to_owned(),
        mac: VISIBLE_MAC,
        mtu: 1480,
        hidden: "ipipA-h".to_owned(),
        hidden_mac: HIDDEN_MAC,
        hidden_mtu: HIDDEN_MTU,
    };
    let names = [&pair.name, &pair.hidden];
    let mut row = |what: &str, call: &PairCall<'_>, expected: &str, ends: &str| {
        let find = |n: &mut dyn Network| names.map(|name| n.link(name).unwrap());
        let index = |link: &Option<Link>| link.as_ref().map_or(0, |link| link.index);
        let indices = find(world.others.as_mut()).each_ref().map(index);
        assert_eq!(answer(call(world.others.as_mut(), indices)), expected, "{what}");
        let found = find(world.others.as_mut());
        let [visible, hidden] = found.each_ref().map(index);
        let other = [hidden, visible];
        let described = found.iter().flatten().zip(other).map(|(link, other)| {
            let state = if link.up { "up" } else { "down" };
            let arp = if devices::is_no_arp(link) { "noarp" } else { "arp" };
            let is_veth = devices::is_veth(link) && link.hardware == LinkLayer::Ethernet;
            assert!(is_veth && link.lower == Some(other), "{what}: {link:?}");
            let mac = link.mac.map(|mac| mac[5]).unwrap_or_default();
            format!("{} {mac} mtu {} {state} {arp}", link.name, link.mtu)
        });
        assert_eq!(described.collect::<Vec<_>>().join(", "), ends, "{what}");
    };

    let new = "ipipA 1 mtu 1480 down arp, ipipA-h 2 mtu 65535 down arp";
    row("a pair is created", &|n, _| n.add_veth_pair(&pair, None), "ok", new);
    row("both names are taken", &|n, _| n.add_veth_pair(&pair, None), "errno 17", new);
    let other = VethPair { name: "other".to_owned(), ..pair.clone() };
    row("one name is taken", &|n, _| n.add_veth_pair(&other, None), "errno 17", new);
    let no_arp = "ipipA 1 mtu 1480 down noarp, ipipA-h 2 mtu 65535 down arp";
    row("ARP is turned off", &|n, [visible, _]| n.set_no_arp(visible), "ok", no_arp);
    let up = "ipipA 1 mtu 1480 up noarp, ipipA-h 2 mtu 65535 down arp";
    row("one end goes up", &|n, [visible, _]| n.set_up(visible), "ok", up);
    let mac = "ipipA 9 mtu 1480 up noarp, ipipA-h 2 mtu 65535 down arp";
    row("its address is changed", &|n, [visible, _]| n.set_mac(visible, [2, 0, 0, 0, 0, 9]), "ok", mac);
    row("one end is deleted, and both are gone", &|n, [_, hidden]| n.delete_link(hidden), "ok", "");
    row("there is no such interface", &|n, _| n.set_mac(9999, VISIBLE_MAC), "errno 19", "");
    row("nor has it a flag", &|n, _| n.set_no_arp(9999), "errno 19", "");
}

/// Lookups, with a longer route in front of another.
fn look_up(world: &mut World, eth0: u32) {
    let network = |text: &str| text.parse().unwrap();
    let wide = world.route("10.7.0.0/16", "eth0");
    let long = world.route("10.9.9.0/24", "eth0");
    world.others.replace_routes(&[wide.clone(), long]).unwrap();
    let mut exactly = |text: &str| {
        let found = world.others.routes_to_exactly(&[network(text)]).unwrap();
        found.map(|routes| routes.iter().map(|route| route.destination.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(exactly("10.7.0.0/16"), Some(vec!["10.7.0.0/16".to_owned()]));
    assert_eq!(exactly("10.7.7.0/24"), Some(vec![]), "only a shorter one");
    assert_eq!(exactly("10.9.9.0/25"), Some(vec![]));
    assert_eq!(exactly("10.9.0.0/16"), Some(vec![]));
    assert_eq!(exactly("10.9.9.0/20"), Some(vec![]), "its first address has no route");
    assert_eq!(exactly("10.9.9.0/24"), Some(vec!["10.9.9.0/24".to_owned()]));
    assert_eq!(exactly("192.0.2.0/24"), Some(vec![]));

    let destinations = [[10, 1, 1, 2].into(), [10, 7, 1, 1].into(), [192, 0, 2, 1].into()];
    let (ours, elsewhere) = (Ipv4Addr::new(10, 1, 1, 1), Ipv4Addr::new(192, 0, 2, 9));
    let found = world.others.routes_to(&destinations, Some(ours.into())).unwrap();
    let devices: Vec<_> = found
        .into_iter()
        .map(|found| match found {
            Ok(RouteLookup { device, next_hop, .. }) => Ok((device, next_hop)),
            Err(error) => Err(error.errno().unwrap_or_default()),
        })
        .collect();
    assert_eq!(devices, [Ok((eth0, destinations[0])), Ok((eth0, destinations[1])), Err(101)]);
    let not_ours = world.others.routes_to(&destinations[..1], Some(elsewhere.into())).unwrap();
    assert_eq!(not_ours[0].as_ref().unwrap_err().errno(), Some(101));
}

#[test]
fn the_model_answers_like_a_kernel() {
    Kernel::Model.run(&check);
}

#[test(root)]
fn the_kernel_answers_like_the_model() {
    Kernel::Real.run(&check);
}
