//! Guard routes over the life of an overlay: who may have them, and what removes them.

use adit_linux::netlink::{MAIN_TABLE, Route, RouteKind, STATIC_PROTOCOL};

use super::world::{Kernel, PEER_C, TUN, World, config, needs, with_ipip};
use crate::error::ControlError;
use crate::overlay::{OnExit, leftovers};
use crate::reconcile::desired::guard_metric;
use crate::reconcile::guard_routes;

/// A guard of the site `site`.
fn guard(destination: &str, site: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        kind: RouteKind::Unreachable,
        metric: Some(guard_metric(site)),
        ..Route::default()
    }
}

/// The destinations of the guards of site `a` in a table.
fn guarded(world: &mut World, table: u32) -> Vec<String> {
    let found = guard_routes::list(world.others.as_mut(), guard_metric("a")).unwrap();
    let found = found.iter().filter(|route| route.table == table);
    let mut found: Vec<String> = found.map(|route| route.destination.to_string()).collect();
    found.sort();
    found
}

/// Each network has a guard as long as its peer is there, whatever an earlier daemon has left.
fn follow_the_peers(file: &str, kernel: Kernel) {
    let (one, two) = (config(file), config(&format!("{file}{PEER_C}")));
    kernel.run(&|mut world: World| {
        let table_of_a_former_vrf = 1001;
        for table in [MAIN_TABLE, table_of_a_former_vrf] {
            world.others.add_route(&Route { table, ..guard("10.9.0.0/16", "a") }).unwrap();
        }
        let theirs = guard("10.8.0.0/16", "b");
        world.others.add_route(&theirs).unwrap();
        let mut overlay = world.bring_up(&one).unwrap();
        assert_eq!(guarded(&mut world, MAIN_TABLE), ["192.168.199.0/24"]);
        assert_eq!(guarded(&mut world, table_of_a_former_vrf), [] as [&str; 0]);
        overlay.reload(&two).unwrap();
        assert_eq!(guarded(&mut world, MAIN_TABLE), ["10.3.0.0/16", "10.4.0.0/16", "192.168.199.0/24"]);
        overlay.reload(&one).unwrap();
        assert_eq!(guarded(&mut world, MAIN_TABLE), ["192.168.199.0/24"]);
        overlay.close(OnExit::Remove).unwrap();
        assert_eq!(guarded(&mut world, MAIN_TABLE), [] as [&str; 0]);
        assert_eq!(
            guard_routes::list(world.others.as_mut(), guard_metric("b")).unwrap().len(),
            1,
            "that of another overlay stays"
        );
    });
}

/// Nothing but the name of the site is known, and the interface is gone too.
fn are_found_when_everything_else_is_lost(file: &str, kernel: Kernel) {
    kernel.run(&|mut world: World| {
        let before = world.view();
        let overlay = world.bring_up(&config(file)).unwrap();
        overlay.close(OnExit::Keep).unwrap();
        assert_eq!(guarded(&mut world, MAIN_TABLE), ["192.168.199.0/24"], "a daemon that ends leaves it");
        let index = world.index("ipipA");
        world.others.delete_link(index).unwrap();
        assert_eq!(
            guarded(&mut world, MAIN_TABLE),
            ["192.168.199.0/24"],
            "the interface does not take it along"
        );
        let host = world.host();
        let removed = leftovers::remove_objects(host.as_ref(), world.others.as_mut(), "a").unwrap();
        assert!(removed.contains(&"guard-routes".to_owned()), "{removed:?}");
        assert_eq!(world.view(), before);
        assert_eq!(leftovers::remove_objects(host.as_ref(), world.others.as_mut(), "a").unwrap(), [""; 0]);
    });
}

/// A network with the guard of another overlay is that overlay's.
fn of_another_overlay_are_refused(kernel: Kernel) {
    kernel.run(&|mut world: World| {
        world.others.add_route(&guard("192.168.199.0/24", "b")).unwrap();
        let before = world.view();
        let refused = world.bring_up(&config(TUN)).err().unwrap();
        assert!(matches!(refused, ControlError::RouteOfOverlay { .. }), "{refused}");
        assert!(refused.to_string().contains("belongs to another overlay"), "{refused}");
        assert_eq!(world.view(), before);
    });
}

/// A foreign route of the same network is no reason to be without a guard.
fn stand_beside_foreign_routes(kernel: Kernel) {
    kernel.run(&|mut world: World| {
        let mut overlay = world.bring_up(&config(TUN)).unwrap();
        let theirs = Route { protocol: STATIC_PROTOCOL, ..world.route("192.168.199.0/24", "eth0") };
        world.others.replace_routes(&[theirs]).unwrap();
        let replaced = world.view();
        world.others.delete_routes(&[guard("192.168.199.0/24", "a")]).unwrap();
        let lines: Vec<String> = overlay.repair().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["+ route unreachable 192.168.199.0/24 metric 4278987208"]);
        assert_eq!(world.view(), replaced);
    });
}

#[test]
fn guards_follow_the_peers_on_the_model() {
    follow_the_peers(TUN, Kernel::Model);
    follow_the_peers(&with_ipip(TUN), Kernel::Model);
}

#[test(root)]
fn guards_follow_the_peers_on_the_kernel() {
    follow_the_peers(TUN, Kernel::Real);
}

#[test(root, needs::ipip)]
fn guards_follow_the_peers_with_the_ipip_driver() {
    follow_the_peers(&with_ipip(TUN), Kernel::Real);
}

#[test]
fn guards_are_found_when_everything_else_is_lost_on_the_model() {
    are_found_when_everything_else_is_lost(TUN, Kernel::Model);
    are_found_when_everything_else_is_lost(&with_ipip(TUN), Kernel::Model);
}

#[test(root)]
fn guards_are_found_when_everything_else_is_lost_on_the_kernel() {
    are_found_when_everything_else_is_lost(TUN, Kernel::Real);
}

#[test(root, needs::ipip)]
fn guards_are_found_when_everything_else_is_lost_with_the_ipip_driver() {
    are_found_when_everything_else_is_lost(&with_ipip(TUN), Kernel::Real);
}

#[test]
fn guards_of_another_overlay_are_refused_on_the_model() {
    of_another_overlay_are_refused(Kernel::Model);
}

#[test(root)]
fn guards_of_another_overlay_are_refused_on_the_kernel() {
    of_another_overlay_are_refused(Kernel::Real);
}

#[test]
fn guards_stand_beside_foreign_routes_on_the_model() {
    stand_beside_foreign_routes(Kernel::Model);
}

#[test(root)]
fn guards_stand_beside_foreign_routes_on_the_kernel() {
    stand_beside_foreign_routes(Kernel::Real);
}
