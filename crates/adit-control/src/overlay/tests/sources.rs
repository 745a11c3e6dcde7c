//! The source of our routes: a preference, derived from the addresses that exist at each look. The
//! kernel deletes a route together with the address of its source.

use super::world::{Kernel, TUN, World, config, needs, with_ipip};

/// What happens to addresses, the changes that a repair reports, and the tunnel's route then.
type Row = (&'static str, fn(&mut World), &'static [&'static str], &'static str);

fn delete(world: &mut World, interface: &str, address: &str) {
    let index = world.index(interface);
    world.others.delete_address(index, address.parse().unwrap()).unwrap();
}

fn add(world: &mut World, interface: &str, address: &str) {
    let index = world.index(interface);
    world.others.add_address(index, address.parse().unwrap()).unwrap();
}

const WITHOUT: &str = "192.168.199.0/24 via 10.1.1.2 dev ipipA proto 173";
const WITH: &str = "192.168.199.0/24 via 10.1.1.2 dev ipipA src 172.16.17.1 proto 173";

/// In this order. The address of the site's second network is listed after that of the first.
const ROWS: &[Row] = &[
    (
        "the LAN's address goes",
        |world| delete(world, "lan0", "172.16.17.1/24"),
        &["+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink"],
        WITHOUT,
    ),
    (
        "it is back",
        |world| add(world, "lan0", "172.16.17.1/24"),
        &["~ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1"],
        WITH,
    ),
    (
        "the LAN is renumbered",
        |world| {
            delete(world, "lan0", "172.16.17.1/24");
            add(world, "lan0", "172.16.17.254/24");
        },
        &["+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.254"],
        "192.168.199.0/24 via 10.1.1.2 dev ipipA src 172.16.17.254 proto 173",
    ),
    (
        "the address moves to another interface",
        |world| {
            delete(world, "lan0", "172.16.17.254/24");
            add(world, "eth0", "172.16.17.1/24");
        },
        &["+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1"],
        WITH,
    ),
    ("one of another LAN is added", |world| add(world, "lan0", "172.16.18.1/24"), &[], WITH),
    (
        "only that one stays",
        |world| delete(world, "eth0", "172.16.17.1/24"),
        &["+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.18.1"],
        "192.168.199.0/24 via 10.1.1.2 dev ipipA src 172.16.18.1 proto 173",
    ),
    (
        "the LAN's interface is deleted",
        |world| {
            let index = world.index("lan0");
            world.others.delete_link(index).unwrap();
        },
        &["+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink"],
        WITHOUT,
    ),
    (
        "an address that is in no network of the site is added",
        |world| add(world, "eth0", "10.9.9.9/24"),
        &[],
        WITHOUT,
    ),
];

fn check(file: &str, kernel: Kernel) {
    // The packet filter of the ipip driver names the addresses of this machine.
    let is_about_routes = |line: &String| !line.starts_with("~ table");
    // The driver's interface of a single peer needs no gateway.
    let is_ipip = file.contains("kernel");
    let of_plane = |line: &str| match is_ipip {
        true => line.replace(" via 10.1.1.2", "").replace(" onlink", ""),
        false => line.to_owned(),
    };
    let wanted = config(&file.replace("\"172.16.17.0/24\"", "\"172.16.17.0/24\", \"172.16.18.0/24\""));
    kernel.run(&|mut world: World| {
        let mut overlay = world.bring_up(&wanted).unwrap();
        let guard = world.view().routes.into_iter().find(|route| route.contains("Unreachable")).unwrap();
        for (what, happens, expected, route) in ROWS {
            happens(&mut world);
            assert!(world.view().routes.contains(&guard), "{what}: the guard stays");
            let planned = world.plan(Some(&wanted), &wanted).unwrap();
            let changes = overlay.repair().unwrap();
            let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
            assert_eq!(lines, planned, "{what}: the plan");
            let lines: Vec<String> = lines.into_iter().filter(is_about_routes).collect();
            let expected: Vec<String> = expected.iter().map(|line| of_plane(line)).collect();
            assert_eq!(lines, expected, "{what}");
            let view = world.view().routes;
            let found: Vec<&String> = view.iter().filter(|route| route.contains("ipipA")).collect();
            assert_eq!(found, [&of_plane(route)], "{what}");
            assert_eq!(overlay.repair().unwrap(), [], "{what}: nothing is left to repair");
            assert_eq!(world.plan(Some(&wanted), &wanted).unwrap(), [""; 0], "{what}: nor to plan");
        }
    });
}

#[test]
fn a_route_follows_its_source_on_the_model() {
    check(TUN, Kernel::Model);
    check(&with_ipip(TUN), Kernel::Model);
}

#[test(root)]
fn a_route_follows_its_source_on_the_kernel() {
    check(TUN, Kernel::Real);
}

#[test(root, needs::ipip)]
fn a_route_follows_its_source_with_the_ipip_driver() {
    check(&with_ipip(TUN), Kernel::Real);
}
