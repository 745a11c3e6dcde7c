//! What belongs to others and changes while an overlay runs: the MTU of the underlay, the addresses
//! of this machine, and other overlays. It is derived at each look, by a plan as by a repair.

use std::net::{IpAddr, Ipv4Addr};

use super::beside::add_overlay;
use super::world::{Kernel, TUN, World, config};
use crate::overlay::Overlay;

/// What the data plane knows of the machine: the underlay's MTU, the source of probes, whether our
/// LAN address is local, and the networks of other overlays.
type Known = (u16, Option<IpAddr>, bool, Vec<String>);

fn known(overlay: &Overlay) -> Known {
    let tunnel = overlay.plane().tunnel();
    let config = tunnel.config();
    let others = tunnel.other_networks().iter().map(ToString::to_string).collect();
    let source = config.probe.as_ref().and_then(|probe| probe.sources.first().copied());
    (config.underlay_mtu, source, config.local_addresses.contains(&LAN.into()), others)
}

const LAN: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 1);
const LAN_PREFIX: &str = "172.16.17.1/24";

/// What happens, the changes that a repair reports, and what the data plane knows then.
type Row = (&'static str, fn(&mut World), &'static [&'static str], fn() -> Known);

const ROWS: &[Row] = &[
    ("nothing", |_| {}, &[], || (1500, Some(LAN.into()), true, vec![])),
    (
        "the underlay has a smaller MTU",
        |world| {
            let index = world.index("eth0");
            world.others.set_mtu(index, 1400).unwrap();
        },
        &["~ device ipipA mtu 1480 -> 1380"],
        || (1400, Some(LAN.into()), true, vec![]),
    ),
    (
        "the route to the peer is gone: nothing says another MTU",
        |world| {
            let route = adit_linux::netlink::Route {
                protocol: 2,
                preferred_source: Some([10, 1, 1, 1].into()),
                ..world.route("10.1.1.0/24", "eth0")
            };
            world.others.delete_routes(&[route]).unwrap();
            let index = world.index("eth0");
            world.others.set_mtu(index, 1300).unwrap();
        },
        &[],
        || (1400, Some(LAN.into()), true, vec![]),
    ),
    (
        "it is back",
        |world| {
            let route = world.route("10.1.1.0/24", "eth0");
            world.others.add_route(&adit_linux::netlink::Route { protocol: 4, ..route }).unwrap();
        },
        &["~ device ipipA mtu 1380 -> 1280"],
        || (1300, Some(LAN.into()), true, vec![]),
    ),
    (
        "the LAN's address goes",
        |world| {
            let index = world.index("lan0");
            world.others.delete_address(index, LAN_PREFIX.parse().unwrap()).unwrap();
        },
        &["+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink"],
        || (1300, None, false, vec![]),
    ),
    (
        "it comes",
        |world| {
            let index = world.index("lan0");
            world.others.add_address(index, LAN_PREFIX.parse().unwrap()).unwrap();
        },
        &["~ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1"],
        || (1300, Some(LAN.into()), true, vec![]),
    ),
    (
        "another overlay comes",
        |world| {
            add_overlay(world, "two0", "two");
            let route = world.route("10.60.0.0/16", "two0");
            world.others.add_route(&route).unwrap();
        },
        &[],
        || (1300, Some(LAN.into()), true, vec!["10.60.0.0/16".to_owned()]),
    ),
    (
        "it goes",
        |world| {
            let index = world.index("two0");
            world.others.delete_link(index).unwrap();
        },
        &[],
        || (1300, Some(LAN.into()), true, vec![]),
    ),
];

fn follow(kernel: Kernel) {
    let file = config(TUN);
    kernel.run(&|mut world: World| {
        let mut overlay = world.bring_up(&file).unwrap();
        for (what, happens, expected, knows) in ROWS {
            happens(&mut world);
            world.mtu = overlay.desired().mtu;
            let planned = world.plan(Some(&file), &file).unwrap();
            let repaired = overlay.repair().unwrap();
            let lines: Vec<String> = repaired.iter().map(ToString::to_string).collect();
            assert_eq!(lines, *expected, "{what}");
            assert_eq!(planned, lines, "{what}: the plan says what the repair does");
            assert_eq!(known(&overlay), knows(), "{what}");
            assert_eq!(overlay.repair().unwrap(), [], "{what}: nothing is left to repair");
            // A change begins with the same facts.
            overlay.reload(&config(&TUN.replace("[[peer]]", "[tunnel]\nttl = 9\n[[peer]]"))).unwrap();
            assert_eq!(known(&overlay), knows(), "{what}: after a change");
            overlay.reload(&file).unwrap();
        }
    });
}

#[test]
fn what_belongs_to_others_is_derived_at_each_look_on_the_model() {
    follow(Kernel::Model);
}

#[test(root)]
fn what_belongs_to_others_is_derived_at_each_look_on_the_kernel() {
    follow(Kernel::Real);
}

/// An MTU that the file names is nobody else's.
#[test]
fn a_fixed_mtu_stays() {
    let mut world = World::model();
    let file = config(&TUN.replace("[[peer]]", "[tunnel]\nmtu = 1400\n[[peer]]"));
    let mut overlay = world.bring_up(&file).unwrap();
    let index = world.index("eth0");
    world.others.set_mtu(index, 1300).unwrap();
    assert_eq!(overlay.repair().unwrap(), []);
    assert_eq!(overlay.desired().mtu, 1400);
}
