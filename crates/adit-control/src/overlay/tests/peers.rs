//! Changes of peers, one after another: each leads to the next revision, whoever asks for it.

use super::world::{Kernel, PEER_C, TUN, View, World, config};
use crate::error::ControlError;

fn peer_routes(view: &View) -> Vec<&str> {
    view.routes.iter().filter(|route| route.contains("ipipA")).map(String::as_str).collect()
}

/// Files and deltas change the same overlay in turn.
fn check(mut world: World) {
    let (two, three) = (format!("{TUN}{PEER_C}"), format!("{TUN}{PEER_C}{PEER_D}"));
    let (two, three) = (config(&two), config(&three));
    let mut overlay = world.bring_up(&two).unwrap();
    let before = world.view();
    for round in 0..3_u64 {
        let to_three = overlay.config().peers.delta_to(&three.peers);
        assert_eq!((to_three.base, to_three.revision), (2 * round, 2 * round + 1));
        let lines: Vec<String> =
            overlay.update_peers(&to_three).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "+ peer d underlay 10.1.1.4 networks 10.6.0.0/16",
                "+ route unreachable 10.6.0.0/16 metric 4278987208",
                "+ route 10.6.0.0/16 via 10.1.1.4 dev ipipA onlink src 172.16.17.1",
            ]
        );
        assert_eq!(overlay.config(), &three);
        assert_eq!(peer_routes(&world.view()).len(), 4);
        assert_eq!(overlay.plane().tunnel().peers().count(), 3);
        let stale = overlay.update_peers(&to_three).unwrap_err();
        assert!(matches!(stale, ControlError::Peers(_)), "{stale}");

        // A file has no revision.
        overlay.reload(&two).unwrap();
        assert_eq!(world.view(), before);
        assert_eq!(overlay.config().peers.revision(), 2 * round + 2);
        assert_eq!(overlay.reload(&two).unwrap(), [], "nothing changes");
        assert_eq!(overlay.config().peers.revision(), 2 * round + 2);
    }
}

const PEER_D: &str = r#"
[[peer]]
name = "d"
underlay = "10.1.1.4"
networks = ["10.6.0.0/16"]
"#;

#[test]
fn each_change_of_peers_is_a_revision_on_the_model() {
    Kernel::Model.run(&check);
}

#[test(root)]
fn each_change_of_peers_is_a_revision_on_the_kernel() {
    Kernel::Real.run(&check);
}
