//! Underlay addresses of both families: which are found on an interface, and which are missing.

use std::net::IpAddr;

use super::world::{TUN, World, config};
use crate::ControlError;

/// The underlay is an interface, and the peer has an address of each family.
fn by_interface() -> String {
    TUN.replace("underlay = \"10.1.1.1\"", "underlay = \"eth0\"")
        .replace("\"10.1.1.2\"", "[\"2001:db8:1::2\", \"10.1.1.2\"]")
}

fn set_address(world: &mut World, prefix: &str, is_there: bool) {
    let eth0 = world.index("eth0");
    let prefix = prefix.parse().unwrap();
    match is_there {
        true => world.others.add_address(eth0, prefix).unwrap(),
        false => world.others.delete_address(eth0, prefix).unwrap(),
    }
}

const V4: &str = "10.1.1.1";
const V6: &str = "2001:db8:1::1";

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn an_interface_gives_an_address_of_each_family_that_the_peer_has() {
    let mut world = World::model();
    let mut overlay = world.bring_up(&config(&by_interface())).unwrap();
    // What happens to the address, the underlay then, the destination of packets to the peer, and
    // the addresses that are missing.
    for (prefix, is_there, underlay, destination, missing) in [
        ("2001:db8:1::1/64", true, &[V4, V6][..], "2001:db8:1::2", &[][..]),
        ("10.1.1.1/24", false, &[V6], "2001:db8:1::2", &[]),
        ("2001:db8:1::1/64", false, &[V6], "2001:db8:1::2", &[V6]),
        ("10.1.1.1/24", true, &[V4], "10.1.1.2", &[]),
    ] {
        let before = overlay.desired().underlay;
        set_address(&mut world, prefix, is_there);
        let lines: Vec<String> = overlay.repair().unwrap().iter().map(ToString::to_string).collect();
        let found = overlay.desired().underlay;
        assert_eq!(found.iter().collect::<Vec<_>>(), addresses(underlay), "{prefix} {is_there}");
        let expected = format!("~ underlay eth0 {before} -> {found}: every peer's file has to name {found}");
        assert_eq!(lines, if found == before { vec![] } else { vec![expected] });
        let path = overlay.plane().tunnel().paths().next().unwrap().1;
        assert_eq!(path.destination, destination.parse::<IpAddr>().unwrap());
        assert_eq!(overlay.missing_underlay(), addresses(missing));
        assert_eq!(overlay.repair().unwrap(), [], "nothing is left to repair");
    }
}

#[test]
fn an_overlay_needs_each_address_of_the_file_and_goes_on_without_it() {
    let mut world = World::model();
    let file = TUN
        .replace("\"10.1.1.1\"", "[\"10.1.1.1\", \"2001:db8:1::1\"]")
        .replace("\"10.1.1.2\"", "[\"10.1.1.2\", \"2001:db8:1::2\"]");
    let refused = world.bring_up(&config(&file)).err().unwrap();
    assert!(
        matches!(refused, ControlError::UnderlayMissing { address, .. } if address.is_ipv6()),
        "{refused}"
    );
    set_address(&mut world, "2001:db8:1::1/64", true);
    let mut overlay = world.bring_up(&config(&file)).unwrap();
    set_address(&mut world, "2001:db8:1::1/64", false);
    assert_eq!(overlay.repair().unwrap(), []);
    assert_eq!(overlay.missing_underlay(), addresses(&[V6]));
    set_address(&mut world, "10.1.1.1/24", false);
    assert_eq!(overlay.repair().unwrap(), []);
    assert_eq!(overlay.missing_underlay(), addresses(&[V4, V6]));
    set_address(&mut world, "2001:db8:1::1/64", true);
    set_address(&mut world, "10.1.1.1/24", true);
    assert_eq!(overlay.repair().unwrap(), []);
    assert!(overlay.missing_underlay().is_empty());
}

#[test]
fn an_interface_without_the_family_of_a_peer_is_no_underlay() {
    let world = World::model();
    let only_v6 = by_interface().replace("[\"2001:db8:1::2\", \"10.1.1.2\"]", "\"2001:db8:1::2\"");
    let refused = world.bring_up(&config(&only_v6)).err().unwrap().to_string();
    assert!(refused.contains("site.underlay is eth0, which has no global IPv6 address yet"), "{refused}");
}
