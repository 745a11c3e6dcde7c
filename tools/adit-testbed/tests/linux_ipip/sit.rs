//! Networks of IPv6: Adit at one end and Linux's sit driver at the other (RFC 4213).

use adit_config::DataplaneChoice;
use adit_control::Overlay;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, TwoSites, bring_up, with_ipv6_networks};
use adit_testbed::test_planes::with_plane;
use adit_wire::icmpv6::Icmpv6Error;

use crate::planes::on_every_plane;
use crate::support::WAIT_TIMEOUT;
use crate::support::stream::Stream;
use crate::testbed::End;

on_every_plane!(
    needs adit_testbed::needs::sit;
    networks_of_both_families_are_joined,
    a_packet_of_1280_bytes_passes_a_narrower_underlay,
);

fn adit(network: &TwoSites, end: End, plane: DataplaneChoice) -> Overlay {
    let config = match end {
        End::A => CONFIG_A,
        End::B => CONFIG_B,
    };
    bring_up(end.gateway(network), &with_plane(&with_ipv6_networks(config), plane)).unwrap()
}

/// Brings the kernel's driver up at one end, for both families. It speaks on its interface by
/// itself, which Adit drops.
fn sit(network: &TwoSites, end: End, mtu: u32) {
    let gateway = end.gateway(network);
    let ip = |arguments: &str| gateway.program("ip", &arguments.split(' ').collect::<Vec<_>>()).unwrap();
    let (device, local, remote) = (end.device(), end.underlay(), end.other().underlay());
    ip(&format!("link add {device} type sit mode any local {local} remote {remote} ttl 64"));
    ip(&format!("link set {device} mtu {mtu} up"));
    let (v4, v6) = match end {
        End::A => ("192.168.199.0/24", "2001:db8:199::/64"),
        End::B => ("172.16.17.0/24", "2001:db8:17::/64"),
    };
    ip(&format!("route add {v4} dev {device} src {}", end.addresses().0));
    ip(&format!("-6 route add {v6} dev {device} src {}", end.addresses_v6().0));
}

/// A ping from the host of one site to the other's.
fn ask(network: &TwoSites, from: End, size: usize) -> Answer {
    from.host(network).run(|| ping(from.other().addresses_v6().1, size, 64, WAIT_TIMEOUT)).unwrap()
}

fn networks_of_both_families_are_joined(plane: DataplaneChoice) {
    for end in End::BOTH {
        let network = TwoSites::build_with_ipv6().unwrap();
        // First: without it, the far end answers the first probe that nobody is there.
        sit(&network, end.other(), 1480);
        let _overlay = adit(&network, end, plane);
        for from in End::BOTH {
            for size in [48, 104, 1280, 1480] {
                let answer = ask(&network, from, size);
                assert!(answer.is_reply(), "{size} bytes from {from:?}: {answer:?}");
            }
            let to = from.other().addresses().1;
            let answer = from.host(&network).run(|| ping(to, 1480, 64, WAIT_TIMEOUT)).unwrap();
            assert!(answer.is_reply(), "IPv4 from {from:?}: {answer:?}");
            let too_big =
                Answer::RefusedV6 { by: from.addresses_v6().0, error: Icmpv6Error::TooBig { mtu: 1480 } };
            assert_eq!(ask(&network, from, 1481), too_big, "from {from:?}");
            let ends = (from.host(&network), from.other().host(&network));
            let stream = Stream { seed: 41, len: 2 << 20, write: 65_536, nodelay: false };
            let (sent, received) = stream.send(ends, from.other().addresses_v6().1);
            assert_eq!(received, sent, "from {from:?}");
        }
    }
}

/// RFC 4213 section 3.2.2, on both sides.
fn a_packet_of_1280_bytes_passes_a_narrower_underlay(plane: DataplaneChoice) {
    for end in End::BOTH {
        let network = TwoSites::build_with_ipv6().unwrap();
        network.set_underlay_mtus(1000).unwrap();
        // First: without it, the far end answers the first probe that nobody is there.
        sit(&network, end.other(), 1280);
        let _overlay = adit(&network, end, plane);
        for from in End::BOTH {
            for size in [980, 981, 1280] {
                let answer = ask(&network, from, size);
                assert!(answer.is_reply(), "{size} bytes from {from:?}: {answer:?}");
            }
        }
    }
}
