//! What a start finds in the place of its interfaces: left by an earlier start, or of others.

use adit_linux::netlink::{Network, VethPair};

use super::world::{Kernel, TUN, World, config};
use crate::overlay::{OnExit, leftovers};
use crate::reconcile::devices::{HIDDEN_MAC, HIDDEN_MTU, HiddenEnd, VISIBLE_MAC};
use crate::reconcile::objects;

/// The names and indices of the pair's ends.
type Ends = [Option<u32>; 2];

/// What a start makes of what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The pair is used as it is.
    Kept,
    /// A new pair takes the place.
    Replaced,
    /// The start fails, and changes nothing. The error has these words.
    Refused(&'static str),
}
use Outcome::{Kept, Refused, Replaced};

/// What is there, how it came, and what a start makes of it.
type Row = (&'static str, fn(&mut World), Outcome);

fn pair(name: &str, hidden: &str, mac: [u8; 6]) -> VethPair {
    VethPair {
        name: name.to_owned(),
        mac,
        mtu: 1500,
        hidden: hidden.to_owned(),
        hidden_mac: HIDDEN_MAC,
        hidden_mtu: HIDDEN_MTU,
    }
}

fn add(world: &mut World, name: &str, hidden: &str, mac: [u8; 6]) {
    world.others.add_veth_pair(&pair(name, hidden, mac), None).unwrap();
}

fn alias(world: &mut World, name: &str, alias: &str) {
    let index = world.index(name);
    world.others.set_alias(index, alias).unwrap();
}

const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];

const ROWS: &[Row] = &[
    ("nothing", |_| {}, Replaced),
    (
        "the pair of an earlier daemon",
        |world| {
            let overlay = world.bring_up(&config(TUN)).unwrap();
            overlay.close(OnExit::Keep).unwrap();
        },
        Kept,
    ),
    (
        "a pair without aliases, of a start that was killed",
        |world| add(world, "ipipA", "ipipA-h", VISIBLE_MAC),
        Kept,
    ),
    (
        "the same, when the hidden end had its alias",
        |world| {
            add(world, "ipipA", "ipipA-h", VISIBLE_MAC);
            alias(world, "ipipA-h", "adit:a::hidden");
        },
        Kept,
    ),
    (
        "the pair has other addresses, which somebody has given it",
        |world| {
            add(world, "ipipA", "ipipA-h", THEIRS);
            alias(world, "ipipA", "adit:a");
        },
        Kept,
    ),
    (
        "the other end of a pair whose tunnel interface is elsewhere",
        |world| {
            add(world, "elsewhere", "ipipA-h", VISIBLE_MAC);
            alias(world, "ipipA-h", "adit:a::hidden");
        },
        Replaced,
    ),
    (
        "the same without an alias, of a start that was killed",
        |world| add(world, "elsewhere", "ipipA-h", VISIBLE_MAC),
        Replaced,
    ),
    (
        "a pair of others",
        |world| add(world, "ipipA", "theirs", THEIRS),
        Refused("a device of kind `veth` without our alias"),
    ),
    (
        "the pair of another overlay",
        |world| {
            add(world, "ipipA", "theirs", VISIBLE_MAC);
            alias(world, "ipipA", "adit:b");
        },
        Refused("belongs to overlay `b` on this machine"),
    ),
    (
        "an interface of others with the name of the hidden end",
        |world| add(world, "ipipA-h", "theirs", THEIRS),
        Refused("`ipipA-h`"),
    ),
    (
        "the same, beside the pair of an earlier daemon whose hidden end was renamed",
        |world| {
            add(world, "ipipA", "renamed", VISIBLE_MAC);
            alias(world, "ipipA", "adit:a");
            alias(world, "renamed", "adit:a::hidden");
        },
        Kept,
    ),
];

fn ends(world: &mut World, names: [&str; 2]) -> Ends {
    names.map(|name| world.others.link(name).unwrap().map(|link| link.index))
}

fn check(rows: &[Row], kernel: Kernel) {
    for (what, prepare, outcome) in rows {
        kernel.run(&|mut world: World| {
            let empty = world.view();
            prepare(&mut world);
            let before = world.view();
            let visible_before = ends(&mut world, ["ipipA", "ipipA-h"])[0];
            let planned = world.plan(None, &config(TUN));
            let started = world.bring_up(&config(TUN));
            if let Refused(words) = outcome {
                for error in [planned.err(), started.err()] {
                    let text = error.unwrap_or_else(|| panic!("{what}: it is refused")).to_string();
                    assert!(text.contains(words), "{what}: {text}");
                }
                assert_eq!(world.view(), before, "{what}");
                return;
            }
            let mut overlay = started.unwrap();
            assert_eq!(overlay.repair().unwrap(), [], "{what}: everything is as desired");
            let visible = ends(&mut world, ["ipipA", "ipipA-h"])[0];
            assert_eq!(visible == visible_before, *outcome == Kept, "{what}");
            overlay.close(OnExit::Remove).unwrap();
            assert_eq!(world.view(), empty, "{what}: nothing stays");
        });
    }
}

#[test]
fn a_start_takes_over_what_is_ours_and_refuses_what_is_not_on_the_model() {
    check(ROWS, Kernel::Model);
}

#[test(root)]
fn a_start_takes_over_what_is_ours_and_refuses_what_is_not_on_the_kernel() {
    check(ROWS, Kernel::Real);
}

/// A TUN device, which earlier versions had. The model knows no more of it than its kind.
fn add_tun(world: &mut World) {
    world.add_link("ipipA", "tun");
    alias(world, "ipipA", "adit:a");
}

#[test]
fn the_tun_device_of_an_earlier_version_is_replaced_and_the_pair_stays_if_that_start_fails() {
    let mut failed = 0;
    for call in 1.. {
        let mut world = World::model();
        add_tun(&mut world);
        world.faults.fail_at(call);
        let started = world.bring_up(&config(TUN)).map(drop);
        let is_done = !world.faults.stop();
        if let Err(error) = started
            && error.to_string().contains("start the data plane")
        {
            failed += 1;
            let routes = world.view().routes;
            assert!(routes.iter().any(|route| route.contains("dev ipipA")), "it blocks: {routes:?}");
        }
        let mut overlay = world.bring_up(&config(TUN)).unwrap();
        assert_eq!(overlay.repair().unwrap(), [], "call {call}");
        assert_eq!(world.others.link("ipipA").unwrap().unwrap().kind.as_deref(), Some("veth"));
        if is_done {
            break;
        }
    }
    assert_eq!(failed, 1, "the start of the data plane is one of the calls");
}

/// `adit down` without a daemon, from the tunnel interface's side and from the underlay's.
fn leftovers_are_removed(kernel: Kernel) {
    type Remove = fn(&World, &mut dyn Network);
    let from_inside: Remove = |world, network| {
        let removed = leftovers::remove_objects(world.host().as_ref(), network, "a").unwrap();
        assert_eq!(removed, ["ipipA", "guard-routes"]);
    };
    let from_underlay: Remove = |world, network| {
        let removed = objects::remove_hidden_ends(network, &HiddenEnd::of("a", "ipipA")).unwrap();
        assert_eq!(removed, ["ipipA-h"]);
        // Guards are not the pair's.
        leftovers::remove_objects(world.host().as_ref(), network, "a").unwrap();
    };
    for remove in [from_inside, from_underlay] {
        kernel.run(&|mut world: World| {
            let before = world.view();
            world.bring_up(&config(TUN)).unwrap().close(OnExit::Keep).unwrap();
            let mut network = world.host().network(&adit_linux::net_scope::NetScope::default()).unwrap();
            remove(&world, network.as_mut());
            assert_eq!(world.view(), before);
        });
    }
}

#[test]
fn leftovers_are_removed_from_either_end_on_the_model() {
    leftovers_are_removed(Kernel::Model);
}

#[test(root)]
fn leftovers_are_removed_from_either_end_on_the_kernel() {
    leftovers_are_removed(Kernel::Real);
}

/// What `adit down` finds by the name of the tunnel interface in the record of a killed start.
fn half_a_start_is_removed_and_what_others_made_is_not(kernel: Kernel) {
    let remove = |world: &mut World| {
        objects::remove_hidden_ends(world.others.as_mut(), &HiddenEnd::of("a", "ipipA")).unwrap()
    };
    kernel.run(&|mut world: World| {
        let before = world.view();
        add(&mut world, "ipipA", "ipipA-h", VISIBLE_MAC);
        assert_eq!(remove(&mut world), ["ipipA-h"]);
        assert_eq!(world.view(), before);
    });
    // Several starts that were killed have left one each, the other ends wherever they are.
    kernel.run(&|mut world: World| {
        let before = world.view();
        for (name, hidden) in [("one", "one-h"), ("two", "two-h")] {
            add(&mut world, name, hidden, VISIBLE_MAC);
            alias(&mut world, hidden, "adit:a::hidden");
        }
        add(&mut world, "ipipA", "ipipA-h", VISIBLE_MAC);
        let mut removed = remove(&mut world);
        removed.sort();
        assert_eq!(removed, ["ipipA-h", "one-h", "two-h"]);
        assert_eq!(world.view(), before);
    });
    let theirs: [fn(&mut World); 3] = [
        |world| add(world, "ipipA-h", "ipipA", THEIRS),
        |world| alias(world, "ipipA-h", "mine"),
        |world| {
            let index = world.index("ipipA-h");
            world.others.set_up(index).unwrap();
        },
    ];
    for (position, change) in theirs.iter().enumerate() {
        kernel.run(&|mut world: World| {
            if position > 0 {
                add(&mut world, "ipipA", "ipipA-h", VISIBLE_MAC);
            }
            change(&mut world);
            assert!(remove(&mut world).is_empty(), "{position}");
        });
    }
}

#[test]
fn half_a_start_is_removed_and_what_others_made_is_not_on_the_model() {
    half_a_start_is_removed_and_what_others_made_is_not(Kernel::Model);
}

#[test(root)]
fn half_a_start_is_removed_and_what_others_made_is_not_on_the_kernel() {
    half_a_start_is_removed_and_what_others_made_is_not(Kernel::Real);
}
