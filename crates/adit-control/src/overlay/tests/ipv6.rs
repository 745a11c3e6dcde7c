//! Private networks of IPv6: their routes and guards, and IPv6 on the tunnel interface.

use adit_linux::net_scope::NetScope;

use super::world::{Kernel, PEER_C, TUN, View, World, config, with_ipip};
use crate::host::Ipv6;

/// The two-site network's file with networks of both families.
fn both_families() -> String {
    TUN.replace("\"172.16.17.0/24\"", "\"172.16.17.0/24\", \"2001:db8:17::/64\"")
        .replace("\"192.168.199.0/24\"", "\"192.168.199.0/24\", \"2001:db8:199::/64\"")
}

fn of_tunnel(view: &View) -> Vec<&str> {
    let is_ours = |route: &&String| route.contains("2001:db8:199::") || route.contains("192.168.199.0");
    view.routes.iter().filter(is_ours).map(String::as_str).collect()
}

fn lines<T: ToString>(changes: &[T]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

/// A machine with an address of IPv6 on its private network.
fn with_address(mut world: World) -> World {
    let lan = world.index("lan0");
    world.others.add_address(lan, "2001:db8:17::1/64".parse().unwrap()).unwrap();
    world
}

fn ends(world: &World) -> [Ipv6; 2] {
    ["ipipA", "ipipA-h"].map(|end| world.host().ipv6(&NetScope::default(), end).unwrap())
}

const ROUTES: [&str; 4] = [
    "192.168.199.0/24 Unreachable metric 4278987208 proto 173",
    "192.168.199.0/24 via 10.1.1.2 dev ipipA src 172.16.17.1 proto 173",
    "2001:db8:199::/64 Unreachable dev lo metric 4278987208 proto 173",
    "2001:db8:199::/64 via fe80::a01:102 dev ipipA src 2001:db8:17::1 metric 1024 proto 173",
];

/// The model's kernel fills nothing in.
fn without_defaults(route: &str) -> String {
    route.replace(" dev lo", "").replace(" metric 1024", "")
}

fn networks_of_both_families_are_reached_and_guarded(world: World) {
    let mut world = with_address(world);
    let before = world.view();
    let mut overlay = world.bring_up(&config(&both_families())).unwrap();
    let view = world.view();
    let found: Vec<String> = of_tunnel(&view).into_iter().map(without_defaults).collect();
    assert_eq!(found, ROUTES.map(without_defaults));
    assert_eq!(ends(&world), [Ipv6::Static, Ipv6::Off]);
    assert_eq!(overlay.repair().unwrap(), []);
    assert_eq!(world.plan(Some(overlay.config()), overlay.config()).unwrap(), [""; 0]);
    overlay.close(crate::OnExit::Remove).unwrap();
    assert_eq!(world.view(), before);
}

/// What an administrator does to IPv6 on the interface is repaired, with the routes that go.
fn ipv6_on_the_interface_is_repaired(world: World) {
    let mut world = with_address(world);
    let mut overlay = world.bring_up(&config(&both_families())).unwrap();
    let before = world.view();
    assert!(!overlay.has_other_ipv6());
    world.host().set_ipv6(&NetScope::default(), "ipipA", false).unwrap();
    assert!(overlay.has_other_ipv6());
    let repaired = lines(&overlay.repair().unwrap());
    let route = "+ route 2001:db8:199::/64 via fe80::a01:102 dev ipipA onlink src 2001:db8:17::1";
    assert_eq!(repaired, ["~ device ipipA ipv6 off -> on", route]);
    assert_eq!((world.view(), ends(&world)), (before, [Ipv6::Static, Ipv6::Off]));
    assert_eq!(overlay.repair().unwrap(), []);
}

fn networks_of_ipv6_come_and_go_with_changes(world: World) {
    let mut world = with_address(world);
    let (one, both) = (config(TUN), config(&both_families()));
    let mut overlay = world.bring_up(&one).unwrap();
    let before = world.view();
    assert_eq!(ends(&world), [Ipv6::Off, Ipv6::Off]);
    let expected = [
        "~ site networks [\"172.16.17.0/24\"] -> [\"172.16.17.0/24\", \"2001:db8:17::/64\"]",
        "~ peer b networks +2001:db8:199::/64",
        "~ device ipipA ipv6 off -> on",
        "+ route unreachable 2001:db8:199::/64 metric 4278987208",
        "+ route 2001:db8:199::/64 via fe80::a01:102 dev ipipA onlink src 2001:db8:17::1",
    ];
    assert_eq!(world.plan(Some(&one), &both).unwrap(), expected);
    assert_eq!(lines(&overlay.reload(&both).unwrap()), expected);
    assert_eq!(ends(&world), [Ipv6::Static, Ipv6::Off]);

    // The first network of IPv6 may also come with a peer.
    overlay.reload(&one).unwrap();
    assert_eq!((world.view(), ends(&world)), (before.clone(), [Ipv6::Off, Ipv6::Off]));
    let with_c = format!("{TUN}{PEER_C}").replace("\"10.4.0.0/16\"", "\"2001:db8:c::/48\"");
    let delta = overlay.config().peers.delta_to(&config(&with_c).peers);
    overlay.update_peers(&delta).unwrap();
    assert_eq!(ends(&world), [Ipv6::Static, Ipv6::Off]);
    let routes = world.view().routes;
    assert!(routes.iter().any(|route| route.starts_with("2001:db8:c::/48 via fe80::a01:103")), "{routes:?}");
    overlay.reload(&one).unwrap();
    assert_eq!((world.view(), ends(&world)), (before, [Ipv6::Off, Ipv6::Off]));
}

/// The kernel takes IPv6 off an interface with a smaller MTU than 1280 bytes.
fn the_mtu_of_an_interface_with_ipv6_is_at_least_1280(world: World) {
    let mut world = with_address(world);
    let eth = world.index("eth0");
    world.others.set_mtu(eth, 1290).unwrap();
    let overlay = world.bring_up(&config(&both_families())).unwrap();
    let links = world.view().links;
    assert!(links.iter().any(|link| link.starts_with("ipipA veth mtu 1280 ")), "{links:?}");
    drop(overlay);
    let _overlay = world.bring_up(&config(TUN)).unwrap();
    let links = world.view().links;
    assert!(links.iter().any(|link| link.starts_with("ipipA veth mtu 1270 ")), "{links:?}");
}

/// Linux's drivers: a network of IPv6 takes another driver than one of IPv4, so its peer gets
/// another interface, which leads to the same networks before the first one goes.
#[test]
fn networks_of_ipv6_on_tunnel_drivers() {
    Kernel::Model.run(&|world| {
        let mut world = with_address(world);
        let (one, both) = (config(&with_ipip(TUN)), config(&with_ipip(&both_families())));
        let before = world.view();
        let mut overlay = world.bring_up(&one).unwrap();
        let ours = |world: &mut World, word: usize| -> Vec<String> {
            let links = world.view().links.into_iter().filter(|link| link.contains("adit:a"));
            links.filter_map(|link| link.split(' ').nth(word).map(str::to_owned)).collect()
        };
        let kinds = |world: &mut World| ours(world, 1);
        assert_eq!(kinds(&mut world), ["ipip"]);
        overlay.reload(&both).unwrap();
        assert_eq!(kinds(&mut world), ["sit"]);
        assert_eq!(overlay.repair().unwrap(), []);
        let device = ours(&mut world, 0).remove(0);
        assert_ne!(device, "ipipA", "both were there");
        let ipv6 = |world: &World| world.host().ipv6(&NetScope::default(), &device).unwrap();
        assert_eq!(ipv6(&world), Ipv6::Static);
        assert!(!overlay.has_other_ipv6());
        world.host().set_ipv6(&NetScope::default(), &device, false).unwrap();
        assert!(overlay.has_other_ipv6());
        let route =
            format!("+ route 2001:db8:199::/64 via fe80::a01:102 dev {device} onlink src 2001:db8:17::1");
        assert_eq!(lines(&overlay.repair().unwrap()), [format!("~ device {device} ipv6 off -> on"), route]);
        assert_eq!(ipv6(&world), Ipv6::Static);
        overlay.reload(&one).unwrap();
        assert_eq!(kinds(&mut world), ["ipip"]);
        overlay.close(crate::OnExit::Remove).unwrap();
        assert_eq!(world.view(), before);
    });
}

const TESTS: [fn(World); 4] = [
    networks_of_both_families_are_reached_and_guarded,
    ipv6_on_the_interface_is_repaired,
    networks_of_ipv6_come_and_go_with_changes,
    the_mtu_of_an_interface_with_ipv6_is_at_least_1280,
];

#[test]
fn networks_of_ipv6_on_the_model() {
    for test in TESTS {
        Kernel::Model.run(&test);
    }
}

#[test(root)]
fn networks_of_ipv6_on_the_kernel() {
    for test in TESTS {
        Kernel::Real.run(&test);
    }
}
