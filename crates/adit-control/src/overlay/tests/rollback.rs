//! A failure at every step of a start, of a change and of a repair: afterwards everything is as
//! before, or as desired.

use std::sync::Mutex;

use adit_config::Config;

use super::world::{Kernel, PEER_C, TUN, World, config, needs, with_ipip};
use crate::overlay::Overlay;

/// More calls than any step of these tables makes.
const MAX_CALLS: usize = 500;

/// Changes of a running overlay: what, from and to.
fn changes() -> Vec<(&'static str, String, String)> {
    let one = TUN.to_owned();
    let two = format!("{TUN}{PEER_C}");
    vec![
        ("the MTU", one.clone(), format!("{TUN}[tunnel]\nmtu = 1400\n")),
        ("the TTL", one.clone(), format!("{TUN}[tunnel]\nttl = 9\n")),
        ("a network", one.clone(), TUN.replace("192.168.199.0/24", "192.168.198.0/24")),
        ("one more network", one.clone(), TUN.replace("199.0/24\"", "199.0/24\", \"10.5.0.0/16\"")),
        ("a peer's address", one.clone(), TUN.replace("10.1.1.2", "10.1.1.9")),
        ("a second peer", one.clone(), two.clone()),
        ("one peer less", two.clone(), one),
        ("a third peer", two.clone(), format!("{two}{}", peer("d", 4, 6))),
        ("another second peer", two.clone(), two.replace("10.1.1.3", "10.1.1.4")),
        ("networks of a second peer", two.clone(), two.replace("10.3.0.0/16", "10.5.0.0/16")),
        (
            "networks change owners",
            two.clone(),
            two.replace("10.4.0.0", "tmp")
                .replace("192.168.199.0/24", "10.4.0.0/16")
                .replace("tmp/16", "192.168.199.0/24"),
        ),
    ]
}

fn peer(name: &str, last: u8, network: u8) -> String {
    format!(
        "\n[[peer]]\nname = \"{name}\"\nunderlay = \"10.1.1.{last}\"\nnetworks = [\"10.{network}.0.0/16\"]\n"
    )
}

/// The peers that the tunnel of an overlay knows.
fn tunnel_peers(overlay: &Overlay) -> Vec<String> {
    let mut peers: Vec<String> = overlay
        .plane()
        .tunnel()
        .peers()
        .map(|(_, peer)| format!("{} {} {:?}", peer.name, peer.underlay, peer.networks))
        .collect();
    peers.sort();
    peers
}

/// What came of an attempt.
struct Attempt {
    is_refused: bool,
    /// Whether a call has failed.
    has_struck: bool,
}

/// Calls `attempt` with a failure at call 1, 2, 3 and so on, each on a machine of its own, until it
/// makes no call of that number. Returns how many attempts failed.
fn at_every_step(kernel: Kernel, attempt: impl Fn(&mut World, usize) -> Attempt + Sync) -> usize {
    let mut refused = 0;
    for call in 1..MAX_CALLS {
        let result = Mutex::new(None);
        kernel.run(&|mut world: World| *result.lock().unwrap() = Some(attempt(&mut world, call)));
        let Attempt { is_refused, has_struck } = result.into_inner().unwrap().unwrap();
        if !has_struck {
            return refused;
        }
        refused += usize::from(is_refused);
    }
    panic!("there are more calls than {MAX_CALLS}");
}

fn starts_are_atomic(files: &[String], kernel: Kernel) {
    for file in files {
        let wanted = config(file);
        let refused = at_every_step(kernel, |world, call| {
            let before = (world.view(), world.filters());
            world.faults.fail_at(call);
            let overlay = world.bring_up(&wanted);
            let has_struck = world.faults.stop();
            let is_refused = overlay.is_err();
            if is_refused {
                assert_eq!((world.view(), world.filters()), before, "call {call} of\n{file}");
            } else {
                assert_eq!(world.plan(Some(&wanted), &wanted).unwrap(), [] as [&str; 0], "call {call}");
            }
            Attempt { is_refused, has_struck }
        });
        assert!(refused > 10, "only {refused} calls of a start can fail");
    }
}

fn changes_are_atomic(changes: &[(&str, String, String)], kernel: Kernel) {
    for (what, from, to) in changes {
        let (from, to) = (config(from), config(to));
        let desired = Mutex::new(None);
        kernel.run(&|mut world: World| {
            let mut overlay = world.bring_up(&from).unwrap();
            overlay.reload(&to).unwrap();
            *desired.lock().unwrap() = Some((world.view(), tunnel_peers(&overlay)));
        });
        let desired = desired.into_inner().unwrap().unwrap();
        at_every_step(kernel, |world, call| {
            let mut overlay = world.bring_up(&from).unwrap();
            let before = (world.view(), tunnel_peers(&overlay));
            let filters = world.filters();
            world.faults.fail_at(call);
            let changed = overlay.reload(&to);
            let is_refused = changed.is_err();
            let expected: (_, &Config) = if is_refused { (&before, &from) } else { (&desired, &to) };
            let what = format!("{what}, call {call}: {changed:?}");
            assert_eq!((&(world.view(), tunnel_peers(&overlay)), overlay.config()), expected, "{what}");
            if is_refused {
                assert_eq!(world.filters(), filters, "{what}");
            }
            let has_struck = world.faults.stop();
            assert_eq!(overlay.repair().unwrap(), [], "{what}: nothing is left to repair");
            overlay.reload(&to).unwrap();
            assert_eq!((world.view(), tunnel_peers(&overlay)), desired, "{what}: the next attempt");
            Attempt { is_refused, has_struck }
        });
    }
}

fn ipip_files() -> Vec<String> {
    vec![with_ipip(TUN), with_ipip(&format!("{TUN}{PEER_C}"))]
}

fn ipip_changes() -> Vec<(&'static str, String, String)> {
    let of_driver = |(what, from, to): (_, String, String)| (what, with_ipip(&from), with_ipip(&to));
    changes().into_iter().map(of_driver).collect()
}

#[test]
fn a_start_that_fails_at_any_step_leaves_nothing_on_the_model() {
    starts_are_atomic(&[TUN.to_owned(), format!("{TUN}{PEER_C}")], Kernel::Model);
    starts_are_atomic(&ipip_files(), Kernel::Model);
}

#[test(root)]
fn a_start_that_fails_at_any_step_leaves_nothing_on_the_kernel() {
    starts_are_atomic(&[format!("{TUN}{PEER_C}")], Kernel::Real);
}

#[test(root, needs::ipip)]
fn a_start_that_fails_at_any_step_leaves_nothing_with_the_ipip_driver() {
    starts_are_atomic(&ipip_files(), Kernel::Real);
}

#[test]
fn a_change_that_fails_at_any_step_is_rolled_back_on_the_model() {
    changes_are_atomic(&changes(), Kernel::Model);
    changes_are_atomic(&ipip_changes(), Kernel::Model);
}

#[test(root)]
fn a_change_that_fails_at_any_step_is_rolled_back_on_the_kernel() {
    changes_are_atomic(&changes()[..3], Kernel::Real);
}

#[test(root, needs::ipip)]
fn a_change_that_fails_at_any_step_is_rolled_back_with_the_ipip_driver() {
    changes_are_atomic(&ipip_changes()[..3], Kernel::Real);
}
