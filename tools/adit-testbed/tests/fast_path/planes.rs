//! A macro that runs one test on every data plane, and helpers that bring the tunnel up.

use adit_config::DataplaneChoice;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, Tunnels, TwoSites, bring_up};
use adit_testbed::test_planes::with_plane;

use crate::support::{config_a, config_b};

/// Makes one test for each data plane from each of these functions, which take a data plane. With
/// `needs PATH;` in front, the tests have that need too. With `alone;` in front, they run alone:
/// tests that measure, because others that share the processors would disturb them.
macro_rules! on_every_plane {
    (needs $need:path; $($test:ident),+ $(,)?) => {
        $crate::planes::on_every_plane!(@ (root, $need), (root, adit_testbed::needs::ebpf, $need); $($test),+);
    };
    (alone; $($test:ident),+ $(,)?) => {
        $crate::planes::on_every_plane!(@ (alone, root), (alone, root, adit_testbed::needs::ebpf); $($test),+);
    };
    ($($test:ident),+ $(,)?) => {
        $crate::planes::on_every_plane!(@ (root), (root, adit_testbed::needs::ebpf); $($test),+);
    };
    (@ $userspace:tt, $ebpf:tt; $($test:ident),+) => {
        mod userspace {
            $(#[test $userspace]
            fn $test() {
                super::$test(adit_config::DataplaneChoice::Userspace);
            })+
        }
        mod ebpf {
            $(#[test $ebpf]
            fn $test() {
                super::$test(adit_config::DataplaneChoice::Ebpf);
            })+
        }
    };
}
pub(crate) use on_every_plane;

/// Brings the tunnel of the two-site network up with this data plane.
pub(crate) fn bring_up_on(network: &TwoSites, plane: DataplaneChoice) -> Tunnels {
    let up = |gateway, config| bring_up(gateway, &with_plane(config, plane)).unwrap();
    Tunnels { a: up(&network.gateway_a, CONFIG_A), b: up(&network.gateway_b, CONFIG_B) }
}

/// The same with these lines in both `[tunnel]` sections.
pub(crate) fn bring_up_with(network: &TwoSites, plane: DataplaneChoice, tunnel: &str) -> Tunnels {
    let up = |gateway, config: String| bring_up(gateway, &with_plane(&config, plane)).unwrap();
    Tunnels { a: up(&network.gateway_a, config_a(tunnel)), b: up(&network.gateway_b, config_b(tunnel)) }
}
