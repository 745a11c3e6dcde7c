//! The same test on every data plane.

use std::sync::{Mutex, PoisonError};

use adit_config::DataplaneChoice;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, Tunnels, TwoSites, bring_up};
use adit_testbed::test_planes::{require, with_plane};

use crate::support::{config_a, config_b};

/// Makes each of these functions, which take a data plane, a test for every data plane, with these attributes.
macro_rules! on_every_plane {
    ($($(#[$attribute:meta])* $test:ident),+ $(,)?) => {
        mod userspace {
            $(#[test]
            $(#[$attribute])*
            fn $test() {
                let name = concat!(module_path!(), "::", stringify!($test));
                crate::planes::run(name, adit_config::DataplaneChoice::Userspace, super::$test);
            })+
        }
        mod ebpf {
            $(#[test]
            $(#[$attribute])*
            fn $test() {
                let name = concat!(module_path!(), "::", stringify!($test));
                crate::planes::run(name, adit_config::DataplaneChoice::Ebpf, super::$test);
            })+
        }
    };
}
pub(crate) use on_every_plane;

/// Runs a test where this machine can.
pub(crate) fn run(test: &str, plane: DataplaneChoice, body: fn(DataplaneChoice)) {
    if !require(test, plane) {
        return;
    }
    // One at a time: two that share the processors would measure each other.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    body(plane);
}

/// Brings the tunnel of the article's network up with this data plane.
pub(crate) fn bring_up_on(network: &TwoSites, plane: DataplaneChoice) -> Tunnels {
    let up = |gateway, config| bring_up(gateway, &with_plane(config, plane)).unwrap();
    Tunnels { a: up(&network.gateway_a, CONFIG_A), b: up(&network.gateway_b, CONFIG_B) }
}

/// The same, with these lines in the `[tunnel]` of both.
pub(crate) fn bring_up_with(network: &TwoSites, plane: DataplaneChoice, tunnel: &str) -> Tunnels {
    let up = |gateway, config: String| bring_up(gateway, &with_plane(&config, plane)).unwrap();
    Tunnels { a: up(&network.gateway_a, config_a(tunnel)), b: up(&network.gateway_b, config_b(tunnel)) }
}
