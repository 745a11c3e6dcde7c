//! What others have beside an overlay: routes to its networks, of any metric and owner, and
//! forwarding that is off. It starts, changes and is repaired beside what is not in its way.

use adit_linux::netlink::{Route, STATIC_PROTOCOL, VethPair};

use super::world::{Kernel, PEER_C, TUN, World, config};
use crate::overlay::here::look_on;
use crate::reconcile::devices::{HIDDEN_MAC, HIDDEN_MTU, VISIBLE_MAC};

const NETWORK: &str = "192.168.199.0/24";

/// What others have, and the words by which a start is refused.
type Row = (&'static str, fn(&mut World), Option<&'static str>);

/// The tunnel interface of another overlay.
pub(super) fn add_overlay(world: &mut World, device: &str, site: &str) {
    let pair = VethPair {
        name: device.to_owned(),
        mac: VISIBLE_MAC,
        mtu: 1480,
        hidden: format!("{device}-h"),
        hidden_mac: HIDDEN_MAC,
        hidden_mtu: HIDDEN_MTU,
    };
    world.others.add_veth_pair(&pair, None).unwrap();
    let index = world.index(device);
    world.others.set_alias(index, &format!("adit:{site}")).unwrap();
    world.others.set_up(index).unwrap();
}

fn add(world: &mut World, device: &str, protocol: u8, metric: Option<u32>) {
    let route = Route { protocol, metric, ..world.route(NETWORK, device) };
    world.others.add_route(&route).unwrap();
}

const ROWS: &[Row] = &[
    ("nothing", |_| {}, None),
    ("a backup route", |world| add(world, "eth0", STATIC_PROTOCOL, Some(100)), None),
    (
        "two backup routes",
        |world| {
            add(world, "eth0", STATIC_PROTOCOL, Some(100));
            add(world, "lan0", 186, Some(20));
        },
        None,
    ),
    (
        "a route in the place of ours",
        |world| add(world, "eth0", STATIC_PROTOCOL, None),
        Some("a route to 192.168.199.0/24 exists and is not Adit's (dev eth0 proto 4)"),
    ),
    (
        "one with our protocol, of nobody's overlay",
        |world| add(world, "eth0", 173, None),
        Some("is not Adit's (dev eth0 proto 173)"),
    ),
    (
        "the route of another overlay",
        |world| {
            add_overlay(world, "two0", "two");
            add(world, "two0", 173, None);
        },
        Some("192.168.199.0/24 belongs to overlay `two` on this machine (dev two0 proto 173)"),
    ),
    (
        "the route of another overlay, with another metric",
        |world| {
            add_overlay(world, "two0", "two");
            add(world, "two0", 173, Some(5));
        },
        Some("belongs to overlay `two`"),
    ),
    (
        "another overlay, which has other networks",
        |world| {
            add_overlay(world, "two0", "two");
            let route = world.route("10.60.0.0/16", "two0");
            world.others.add_route(&route).unwrap();
        },
        None,
    ),
];

fn starts_or_is_refused(kernel: Kernel) {
    for (what, prepare, refused) in ROWS {
        kernel.run(&|mut world: World| {
            prepare(&mut world);
            let before = world.view();
            let planned = world.plan(None, &config(TUN));
            let started = world.bring_up(&config(TUN));
            let found = look_on(&world.host(), None, &config(TUN));
            if let Some(words) = refused {
                for error in [planned.err(), started.err()] {
                    let text = error.unwrap_or_else(|| panic!("{what}: it is refused")).to_string();
                    assert!(text.contains(words), "{what}: {text}");
                }
                assert!(found.obstacles.iter().any(|it| it.to_string().contains(words)), "{what}: {found:?}");
                assert_eq!(world.view(), before, "{what}");
                return;
            }
            let mut overlay = started.unwrap();
            assert_eq!(overlay.repair().unwrap(), [], "{what}");
            assert!(found.obstacles.is_empty(), "{what}: {found:?}");
            // An unrelated change, and its way back.
            for file in [format!("{TUN}{PEER_C}"), TUN.to_owned(), format!("{TUN}[tunnel]\nmtu = 1400\n")] {
                overlay.reload(&config(&file)).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(overlay.repair().unwrap(), [], "{what}");
            }
            let view = world.view();
            assert!(before.routes.iter().all(|route| view.routes.contains(route)), "{what}: theirs stay");
            overlay.close(crate::overlay::OnExit::Remove).unwrap();
            assert_eq!(world.view(), before, "{what}");
        });
    }
}

#[test]
fn an_overlay_starts_beside_routes_of_another_metric_only_on_the_model() {
    starts_or_is_refused(Kernel::Model);
}

#[test(root)]
fn an_overlay_starts_beside_routes_of_another_metric_only_on_the_kernel() {
    starts_or_is_refused(Kernel::Real);
}

/// A foreign route wins: it is said, left alone, and hinders no other change.
fn is_said(kernel: Kernel) {
    kernel.run(&|mut world: World| {
        let mut overlay = world.bring_up(&config(TUN)).unwrap();
        let foreign_routes = |overlay: &crate::overlay::Overlay| {
            let warnings = overlay.warnings().into_iter();
            let warnings = warnings.filter(|warning| warning.name.as_str() == "foreign-route");
            warnings.map(|warning| (warning.about, warning.what)).collect::<Vec<_>>()
        };
        assert_eq!(foreign_routes(&overlay), []);
        let theirs = Route { protocol: STATIC_PROTOCOL, ..world.route(NETWORK, "eth0") };
        world.others.replace_routes(std::slice::from_ref(&theirs)).unwrap();
        assert_eq!(overlay.repair().unwrap(), []);
        let [(about, what)] = &foreign_routes(&overlay)[..] else { panic!("it is said") };
        assert_eq!(about, NETWORK);
        assert!(what.contains("(dev eth0 proto 4), so it is not reached through peer `b`"), "{what}");

        let with_c = config(&format!("{TUN}{PEER_C}"));
        let changed_b = config(&format!("{TUN}{PEER_C}").replace("10.1.1.2", "10.1.1.9"));
        for file in [&with_c, &changed_b] {
            let planned = world.plan(Some(overlay.config()), file).unwrap();
            let lines: Vec<String> = overlay.reload(file).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(lines, planned, "the plan is what is done");
            assert!(!lines.iter().any(|line| line.contains(NETWORK) && line.contains("route")), "{lines:?}");
            let routes = world.view().routes;
            assert!(routes.contains(&"192.168.199.0/24 dev eth0 proto 4".to_owned()), "{routes:?}");
            assert_eq!(overlay.repair().unwrap(), []);
        }
        // A peer with their network is refused all the same.
        let new = Route { protocol: STATIC_PROTOCOL, ..world.route("10.5.0.0/16", "eth0") };
        world.others.add_route(&new).unwrap();
        let refused = overlay.reload(&config(&format!("{TUN}{PEER_C}").replace("10.4.0.0", "10.5.0.0")));
        assert!(refused.unwrap_err().to_string().contains("a route to 10.5.0.0/16 exists"));

        world.others.delete_routes(&[theirs]).unwrap();
        let lines: Vec<String> = overlay.repair().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["+ route 192.168.199.0/24 via 10.1.1.9 dev ipipA onlink src 172.16.17.1"]);
        assert_eq!(foreign_routes(&overlay), []);
    });
}

#[test]
fn a_foreign_route_that_wins_is_said_on_the_model() {
    is_said(Kernel::Model);
}

#[test(root)]
fn a_foreign_route_that_wins_is_said_on_the_kernel() {
    is_said(Kernel::Real);
}

#[test]
fn forwarding_that_is_off_is_said_by_a_look_a_plan_and_the_overlay() {
    let mut world = World::model();
    let about = |warnings: &[crate::state::warning::Warning]| {
        warnings
            .iter()
            .map(|warning| format!("{} {}", warning.name.as_str(), warning.about))
            .collect::<Vec<_>>()
    };
    let file = config(TUN);
    let set = |world: &World, names: &[&str], is_on| {
        names.iter().for_each(|name| world.fake().set_forwarding(name, is_on));
    };
    set(&world, &["all", "default", "eth0", "lan0"], false);
    let host = world.host();
    assert_eq!(about(&look_on(&host, None, &file).warnings), ["forwarding-off all"]);
    assert_eq!(
        about(&crate::overlay::plan::plan_on(&host, None, &file).unwrap().warnings),
        ["forwarding-off all"]
    );
    set(&world, &["ipipA"], false);
    let mut overlay = world.bring_up(&file).unwrap();
    assert_eq!(about(&overlay.warnings()), ["forwarding-off all"]);
    set(&world, &["all", "default", "eth0", "ipipA"], true);
    overlay.check_forwarding();
    assert_eq!(about(&overlay.warnings()), ["forwarding-off lan0"]);
    // Another interface is the LAN's now.
    let (lan, eth) = (world.index("lan0"), world.index("eth0"));
    world.others.delete_address(lan, "172.16.17.1/24".parse().unwrap()).unwrap();
    world.others.add_address(eth, "172.16.17.1/24".parse().unwrap()).unwrap();
    overlay.repair().unwrap();
    assert_eq!(about(&overlay.warnings()), [""; 0]);
}

/// Everything that keeps an overlay from starting is found in one look.
#[test]
fn a_look_finds_every_obstacle() {
    let mut world = World::model();
    world.add_link("ipipA", "dummy");
    world.add_link("ipipA-h", "dummy");
    add(&mut world, "eth0", STATIC_PROTOCOL, None);
    let file = config(&TUN.replace("\"10.1.1.1\"", "\"10.1.1.77\""));
    let before = world.view();
    let found = look_on(&world.host(), None, &file);
    let texts: Vec<String> = found.obstacles.iter().map(ToString::to_string).collect();
    for (words, text) in [
        ("site.underlay is 10.1.1.77, which is no address of this machine", 0),
        ("an interface `ipipA` exists", 1),
        ("an interface `ipipA-h` exists", 2),
        ("a route to 192.168.199.0/24 exists", 3),
    ]
    .map(|(words, at)| (words, texts.get(at).cloned().unwrap_or_default()))
    {
        assert!(text.contains(words), "{words}: {texts:?}");
    }
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert_eq!(world.view(), before);
}

/// A repair that fails is said with its reason, and not counted.
#[test]
fn a_repair_is_counted_when_it_was_made() {
    let mut world = World::model();
    let mut overlay = world.bring_up(&config(TUN)).unwrap();
    let index = world.index("ipipA");
    world.others.set_mtu(index, 1400).unwrap();
    let mut failed = 0;
    for call in 1.. {
        world.faults.fail_at(call);
        let repaired = overlay.repair();
        if !world.faults.stop() {
            break;
        }
        let Err(error) = repaired else { continue };
        failed += 1;
        assert!(overlay.repairs().is_empty(), "call {call}: nothing was made");
        let [warning] = &overlay.warnings()[..] else { panic!("call {call}: it is said once") };
        assert_eq!(warning.name.as_str(), "repair-fails");
        assert!(warning.what.contains(&error.to_string()), "{warning:?}");
        world.others.set_mtu(index, 1400).unwrap();
    }
    assert!(failed > 3, "several steps can fail");
    assert_eq!(overlay.warnings(), [], "it is over");
    assert_eq!(overlay.repairs().values().map(|repairs| repairs.count).sum::<u64>(), 1);
}

/// Linux's driver has one interface for each pair of addresses.
#[test]
fn a_second_ipip_interface_between_the_same_gateways_is_refused() {
    let file = config(&super::world::with_ipip(TUN));
    for (alias, words) in [
        ("adit:first:b", "from 10.1.1.1 to 10.1.1.2 exists (ipip9, of overlay `first`)"),
        ("theirs", "from 10.1.1.1 to 10.1.1.2 exists (ipip9, its alias is `theirs`)"),
    ] {
        let mut world = World::model();
        let pair = adit_linux::netlink::IpTunnel::between(
            adit_linux::netlink::TunnelDriver::Ipip,
            [10, 1, 1, 1].into(),
            Some([10, 1, 1, 2].into()),
        );
        world.others.add_tunnel("ipip9", 1480, &pair).unwrap();
        let index = world.index("ipip9");
        world.others.set_alias(index, alias).unwrap();
        let before = world.view();
        let found = look_on(&world.host(), None, &file).obstacles.into_iter().next();
        for error in [world.plan(None, &file).err(), world.bring_up(&file).err(), found] {
            let text = error.expect("it is refused").to_string();
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(world.view(), before);
        // To another peer there may be one.
        let other = adit_linux::netlink::IpTunnel { remote: Some([10, 1, 1, 3].into()), ..pair };
        world.others.change_tunnel(index, &other).unwrap();
        world.bring_up(&file).unwrap();
    }
}

/// IPv4 in IPv4 would go to one of the two, whoever has made it.
#[test]
fn an_interface_of_another_driver_for_the_same_packets_is_refused() {
    use adit_linux::netlink::{IpTunnel, TunnelDriver};
    const BOTH: &str = "\"192.168.199.0/24\", \"2001:db8:199::/64\"";
    let of_v4 = super::world::with_ipip(TUN);
    let of_both = of_v4.replace("\"192.168.199.0/24\"", BOTH);
    let between = |driver| IpTunnel::between(driver, [10, 1, 1, 1].into(), Some([10, 1, 1, 2].into()));
    let only_v6 = IpTunnel { protocol: 41, ..between(TunnelDriver::Sit) };
    for (theirs, ours, is_refused) in [
        (between(TunnelDriver::Sit), &of_v4, true),
        (between(TunnelDriver::Ipip), &of_both, true),
        (only_v6, &of_v4, false),
        (only_v6, &of_both, true),
    ] {
        let mut world = World::model();
        world.others.add_tunnel("theirs", 1480, &theirs).unwrap();
        let result = world.bring_up(&config(ours));
        assert_eq!(result.is_err(), is_refused, "{theirs:?}: {ours}");
        if let Err(error) = result {
            let words = format!("an interface of {} from 10.1.1.1 to 10.1.1.2", theirs.driver.kind());
            assert!(error.to_string().contains(&words), "{error}");
        }
    }
}
