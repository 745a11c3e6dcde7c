//! Drift: each thing that others can break, the change that is seen, and what the repair makes of
//! it.

use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Route, RouteKind, STATIC_PROTOCOL};

use super::beside::add_overlay;
use super::world::{Kernel, PEER_C, TUN, World, config, needs, with_ipip};
use crate::reconcile::desired::guard_metric;

const NETWORK: &str = "192.168.199.0/24";

/// What there is after the repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything is as before the drift.
    Restored,
    /// Everything is as others left it.
    Untouched,
    /// Everything is as before the drift, beside what others added.
    RestoredBeside,
    /// The same without our route, whose place a foreign one has.
    WithoutRoute,
    /// The repair fails, and everything is as others left it.
    Refused,
}
use Outcome::{Refused, Restored, RestoredBeside, Untouched, WithoutRoute};

struct Row {
    what: &'static str,
    drift: fn(&mut World),
    /// The changes that the repair reports.
    expected: &'static [&'static str],
    outcome: Outcome,
}

fn check(file: &str, rows: &[Row], kernel: Kernel) {
    for Row { what, drift, expected, outcome } in rows {
        kernel.run(&|mut world: World| {
            let mut overlay = world.bring_up(&config(file)).unwrap();
            let before = world.view();
            drift(&mut world);
            let drifted = world.view();
            let repaired = overlay.repair();
            match (&repaired, outcome) {
                (Err(_), Refused) => {}
                (Ok(changes), Restored | RestoredBeside | WithoutRoute | Untouched) => {
                    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
                    assert_eq!(lines, *expected, "{what}");
                }
                _ => panic!("{what}: {repaired:?}"),
            }
            let wanted = match outcome {
                Restored => before,
                Untouched | Refused => drifted,
                RestoredBeside | WithoutRoute => {
                    let mut both = before;
                    if *outcome == WithoutRoute {
                        both.routes.retain(|route| !route.contains("dev ipipA"));
                    }
                    both.routes.extend(drifted.routes);
                    both.routes.sort();
                    both.routes.dedup();
                    both
                }
            };
            assert_eq!(world.view(), wanted, "{what}");
            if *outcome != Refused {
                assert_eq!(overlay.repair().unwrap(), [], "{what}: nothing is left to repair");
            }
        });
    }
}

fn delete_route(world: &mut World, destination: &str, device: &str) {
    let route = world.route(destination, device);
    world.others.delete_routes(&[route]).unwrap();
}

/// An administrator's route.
fn foreign(world: &mut World, destination: &str, metric: Option<u32>) -> Route {
    Route { protocol: STATIC_PROTOCOL, metric, ..world.route(destination, "eth0") }
}

/// The guard of site `a` for the network of peer `b`.
fn guard(destination: &str, site: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        kind: RouteKind::Unreachable,
        metric: Some(guard_metric(site)),
        ..Route::default()
    }
}

const GUARD_ADDED: &str = "+ route unreachable 192.168.199.0/24 metric 4278987208";
const ROUTE_ADDED: &str = "+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1";

const TUN_ROWS: &[Row] = &[
    Row { what: "nothing", drift: |_| {}, expected: &[], outcome: Restored },
    Row {
        what: "the route is deleted",
        drift: |world| delete_route(world, NETWORK, "ipipA"),
        expected: &[ROUTE_ADDED],
        outcome: Restored,
    },
    Row {
        what: "the guard is deleted",
        drift: |world| world.others.delete_routes(&[guard(NETWORK, "a")]).unwrap(),
        expected: &[GUARD_ADDED],
        outcome: Restored,
    },
    Row {
        what: "all of our routes are deleted",
        drift: |world| {
            delete_route(world, NETWORK, "ipipA");
            world.others.delete_routes(&[guard(NETWORK, "a")]).unwrap();
        },
        expected: &[GUARD_ADDED, ROUTE_ADDED],
        outcome: Restored,
    },
    Row {
        what: "a guard of ours is added for another network",
        drift: |world| world.others.add_route(&guard("10.9.0.0/16", "a")).unwrap(),
        expected: &["- route unreachable 10.9.0.0/16 metric 4278987208"],
        outcome: Restored,
    },
    Row {
        what: "a guard of another overlay is added for our network",
        drift: |world| world.others.add_route(&guard(NETWORK, "b")).unwrap(),
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "a foreign route takes the place of the guard",
        drift: |world| {
            let metric = guard(NETWORK, "a").metric;
            let route = foreign(world, NETWORK, metric);
            world.others.replace_routes(&[route]).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "the route loses its source",
        drift: |world| {
            let route = world.route(NETWORK, "ipipA");
            world.others.replace_routes(&[route]).unwrap();
        },
        expected: &["~ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1"],
        outcome: Restored,
    },
    Row {
        what: "a route is added under our protocol",
        drift: |world| {
            let route = world.route("10.9.0.0/16", "ipipA");
            world.others.add_route(&route).unwrap();
        },
        expected: &["- route 10.9.0.0/16 dev ipipA"],
        outcome: Restored,
    },
    Row {
        what: "a foreign route takes the place of ours",
        drift: |world| {
            let route = foreign(world, NETWORK, None);
            world.others.replace_routes(&[route]).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "a foreign route is added beside ours",
        drift: |world| {
            let route = foreign(world, NETWORK, Some(9));
            world.others.add_route(&route).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "a foreign route is added and ours is deleted",
        drift: |world| {
            let route = foreign(world, NETWORK, Some(9));
            world.others.add_route(&route).unwrap();
            delete_route(world, NETWORK, "ipipA");
        },
        expected: &[ROUTE_ADDED],
        outcome: RestoredBeside,
    },
    Row {
        what: "a foreign route is added and the interface is deleted",
        drift: |world| {
            let route = foreign(world, NETWORK, Some(9));
            world.others.add_route(&route).unwrap();
            let index = world.index("ipipA");
            world.others.delete_link(index).unwrap();
        },
        expected: &["+ device ipipA mtu 1480", ROUTE_ADDED],
        outcome: RestoredBeside,
    },
    Row {
        what: "a route is added under our protocol with another metric",
        drift: |world| {
            let route = Route { metric: Some(9), ..world.route(NETWORK, "ipipA") };
            world.others.add_route(&route).unwrap();
        },
        expected: &["- route 192.168.199.0/24 dev ipipA metric 9"],
        outcome: Restored,
    },
    Row {
        what: "the route of another overlay takes the place of ours",
        drift: |world| {
            add_overlay(world, "two0", "b");
            let route = world.route(NETWORK, "two0");
            world.others.replace_routes(&[route]).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "a foreign route takes the place of ours, and the interface is deleted",
        drift: |world| {
            let route = foreign(world, NETWORK, None);
            world.others.replace_routes(&[route]).unwrap();
            let index = world.index("ipipA");
            world.others.delete_link(index).unwrap();
        },
        expected: &["+ device ipipA mtu 1480"],
        outcome: WithoutRoute,
    },
    Row {
        what: "a foreign route is added to another network",
        drift: |world| {
            let route = foreign(world, "10.9.0.0/16", None);
            world.others.add_route(&route).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "the MTU is changed",
        drift: |world| {
            let index = world.index("ipipA");
            world.others.set_mtu(index, 1400).unwrap();
        },
        expected: &["~ device ipipA mtu 1400 -> 1480"],
        outcome: Restored,
    },
    Row {
        what: "the alias is changed",
        drift: |world| {
            let index = world.index("ipipA");
            world.others.set_alias(index, "mine").unwrap();
        },
        expected: &["~ device ipipA alias mine -> adit:a"],
        outcome: Restored,
    },
    Row {
        what: "the interface is set down",
        drift: |world| {
            let index = world.index("ipipA");
            world.others.set_down(index).unwrap();
        },
        expected: &["~ device ipipA down -> up", ROUTE_ADDED],
        outcome: Restored,
    },
    Row {
        what: "the interface is deleted",
        drift: |world| {
            let index = world.index("ipipA");
            world.others.delete_link(index).unwrap();
        },
        expected: &["+ device ipipA mtu 1480", ROUTE_ADDED],
        outcome: Restored,
    },
    Row {
        what: "the hidden end is deleted",
        drift: |world| {
            let index = world.index("ipipA-h");
            world.others.delete_link(index).unwrap();
        },
        expected: &["+ device ipipA mtu 1480", ROUTE_ADDED],
        outcome: Restored,
    },
    Row {
        what: "the hidden end is set down",
        drift: |world| {
            let index = world.index("ipipA-h");
            world.others.set_down(index).unwrap();
        },
        expected: &["~ device ipipA-h down -> up"],
        outcome: Restored,
    },
    Row {
        what: "the hidden end has another MTU, alias and address",
        drift: |world| {
            let index = world.index("ipipA-h");
            world.others.set_mtu(index, 1500).unwrap();
            world.others.set_alias(index, "mine").unwrap();
            world.others.set_mac(index, [2, 0, 0, 0, 0, 9]).unwrap();
        },
        expected: &[
            "~ device ipipA-h alias mine -> adit:a::hidden",
            "~ device ipipA-h mtu 1500 -> 65535",
            "~ device ipipA-h address 02:00:00:00:00:09 -> 02:ad:17:00:00:02",
        ],
        outcome: Restored,
    },
    Row {
        what: "IPv6 is turned on on both ends",
        drift: |world| {
            for end in ["ipipA", "ipipA-h"] {
                world.host().set_ipv6(&NetScope::default(), end, true).unwrap();
            }
        },
        expected: &["~ device ipipA ipv6 on -> off", "~ device ipipA-h ipv6 on -> off"],
        outcome: Restored,
    },
    Row {
        what: "the interface has another address",
        drift: |world| {
            let index = world.index("ipipA");
            world.others.set_mac(index, [2, 0, 0, 0, 0, 9]).unwrap();
        },
        expected: &["~ device ipipA address 02:00:00:00:00:09 -> 02:ad:17:00:00:01"],
        outcome: Restored,
    },
    Row {
        what: "the interface is renamed",
        drift: |world| {
            let index = world.index("ipipA");
            world.others.set_down(index).unwrap();
            world.others.rename(index, "other").unwrap();
            world.others.set_up(index).unwrap();
            let source = Some([172, 16, 17, 1].into());
            let gateway = Some([10, 1, 1, 2].into());
            let route = world.route(NETWORK, "other");
            let route = Route { preferred_source: source, gateway, onlink: true, ..route };
            world.others.replace_routes(&[route]).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "the hidden end is renamed",
        drift: |world| {
            let index = world.index("ipipA-h");
            world.others.set_down(index).unwrap();
            world.others.rename(index, "other").unwrap();
            world.others.set_up(index).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "the data plane is broken",
        drift: |world| world.faults.break_plane(),
        expected: &["~ data-plane broken by a test"],
        outcome: Restored,
    },
    Row {
        what: "the underlay address disappears",
        drift: |world| {
            let index = world.index("eth0");
            world.others.delete_address(index, "10.1.1.1/24".parse().unwrap()).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
];

/// With `underlay = "eth0"`.
const UNDERLAY_ROWS: &[Row] = &[
    Row {
        what: "the interface of the underlay has another address",
        drift: |world| {
            let index = world.index("eth0");
            world.others.delete_address(index, "10.1.1.1/24".parse().unwrap()).unwrap();
            world.others.add_address(index, "10.1.1.7/24".parse().unwrap()).unwrap();
        },
        expected: &["~ underlay eth0 10.1.1.1 -> 10.1.1.7: every peer's file has to name 10.1.1.7"],
        outcome: Untouched,
    },
    Row {
        what: "the interface of the underlay has one more address",
        drift: |world| {
            let index = world.index("eth0");
            world.others.add_address(index, "10.1.1.7/24".parse().unwrap()).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "the interface of the underlay has an address of a family that no peer has",
        drift: |world| {
            let index = world.index("eth0");
            world.others.add_address(index, "2001:db8:1::1/64".parse().unwrap()).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
];

/// With two peers, whose interfaces are `ipipA-b` and `ipipA-c`.
const IPIP_ROWS: &[Row] = &[
    Row { what: "nothing", drift: |_| {}, expected: &[], outcome: Restored },
    Row {
        what: "a route is deleted",
        drift: |world| delete_route(world, NETWORK, "ipipA-b"),
        expected: &["+ route 192.168.199.0/24 dev ipipA-b src 172.16.17.1"],
        outcome: Restored,
    },
    Row {
        what: "the guard is deleted",
        drift: |world| world.others.delete_routes(&[guard(NETWORK, "a")]).unwrap(),
        expected: &[GUARD_ADDED],
        outcome: Restored,
    },
    Row {
        what: "a route leads to the other peer",
        drift: |world| {
            let source = Some([172, 16, 17, 1].into());
            let route = Route { preferred_source: source, ..world.route(NETWORK, "ipipA-c") };
            world.others.replace_routes(&[route]).unwrap();
        },
        expected: &["~ route 192.168.199.0/24 dev ipipA-b src 172.16.17.1"],
        outcome: Restored,
    },
    Row {
        what: "a foreign route takes the place of ours",
        drift: |world| {
            let route = foreign(world, NETWORK, None);
            world.others.replace_routes(&[route]).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "an interface is deleted",
        drift: |world| {
            let index = world.index("ipipA-b");
            world.others.delete_link(index).unwrap();
        },
        expected: &["+ device ipipA-b mtu 1480", "+ route 192.168.199.0/24 dev ipipA-b src 172.16.17.1"],
        outcome: Restored,
    },
    Row {
        what: "an interface is set down",
        drift: |world| {
            let index = world.index("ipipA-b");
            world.others.set_down(index).unwrap();
        },
        expected: &["~ device ipipA-b down -> up", "+ route 192.168.199.0/24 dev ipipA-b src 172.16.17.1"],
        outcome: Restored,
    },
    Row {
        what: "an interface has another TTL",
        drift: |world| {
            let link = world.others.link("ipipA-b").unwrap().unwrap();
            let ipip = adit_linux::netlink::IpTunnel { ttl: 9, ..link.tunnel.unwrap() };
            world.others.change_tunnel(link.index, &ipip).unwrap();
        },
        expected: &["~ device ipipA-b local 10.1.1.1 remote 10.1.1.2 mode ipip ttl 9 tos inherit -> \
                     local 10.1.1.1 remote 10.1.1.2 mode ipip ttl 64 tos inherit"],
        outcome: Restored,
    },
    Row {
        what: "the alias is changed",
        drift: |world| {
            let index = world.index("ipipA-b");
            world.others.set_alias(index, "mine").unwrap();
        },
        expected: &["~ device ipipA-b alias mine -> adit:a:b"],
        outcome: Restored,
    },
    Row {
        what: "an interface is added under our alias",
        drift: |world| {
            let template = world.others.link("ipipA-b").unwrap().unwrap().tunnel.unwrap();
            let remote = Some([10, 1, 1, 99].into());
            let ipip = adit_linux::netlink::IpTunnel { remote, ..template };
            world.others.add_tunnel("more", 1480, &ipip).unwrap();
            let index = world.index("more");
            world.others.set_alias(index, "adit:a:more").unwrap();
        },
        expected: &["- device more"],
        outcome: Restored,
    },
    Row {
        what: "an interface is renamed",
        drift: |world| {
            let index = world.index("ipipA-b");
            world.others.set_down(index).unwrap();
            world.others.rename(index, "other").unwrap();
            world.others.set_up(index).unwrap();
            let source = Some([172, 16, 17, 1].into());
            let route = Route { preferred_source: source, ..world.route(NETWORK, "other") };
            world.others.replace_routes(&[route]).unwrap();
        },
        expected: &[],
        outcome: Untouched,
    },
    Row {
        what: "the data plane is broken",
        drift: |world| world.faults.break_plane(),
        expected: &["~ table broken by a test"],
        outcome: Restored,
    },
];

fn underlay_by_interface() -> String {
    TUN.replace("underlay = \"10.1.1.1\"", "underlay = \"eth0\"")
}

#[test]
fn drift_is_repaired_on_the_model() {
    check(TUN, TUN_ROWS, Kernel::Model);
    check(&underlay_by_interface(), UNDERLAY_ROWS, Kernel::Model);
    check(&with_ipip(&format!("{TUN}{PEER_C}")), IPIP_ROWS, Kernel::Model);
}

#[test(root)]
fn drift_is_repaired_on_the_kernel() {
    check(TUN, TUN_ROWS, Kernel::Real);
    check(&underlay_by_interface(), UNDERLAY_ROWS, Kernel::Real);
}

#[test(root, needs::ipip)]
fn drift_is_repaired_with_the_ipip_driver() {
    check(&with_ipip(&format!("{TUN}{PEER_C}")), IPIP_ROWS, Kernel::Real);
}
