//! An underlay of IPv6: Adit at one end and Linux's ip6tnl driver at the other (RFC 2473), as it is
//! by default, without an encapsulation limit, and with routes that name the far end.

use adit_config::DataplaneChoice;
use adit_control::Overlay;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, TwoSites, bring_up, over_ipv6, with_ipv6_networks};
use adit_testbed::test_planes::with_plane;
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::icmpv6::Icmpv6Error;

use crate::planes::on_every_plane;
use crate::support::WAIT_TIMEOUT;
use crate::support::stream::Stream;
use crate::testbed::{End, expect_packets_of_up_to_1280_bytes};

/// How the driver is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It writes an encapsulation limit of 4, 8 bytes of destination options.
    Default,
    /// It writes none.
    WithoutLimit,
    /// It takes the far end from the route, and writes no limit.
    External,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Default, Self::WithoutLimit, Self::External];

    /// The largest packet that fits into 1500 bytes.
    fn mtu(self) -> usize {
        if self == Self::Default { 1452 } else { 1460 }
    }
}

on_every_plane!(
    needs adit_testbed::needs::ip6tnl;
    networks_of_both_families_are_joined,
    a_packet_of_1280_bytes_passes_the_narrowest_underlay,
);

fn adit(network: &TwoSites, end: End, plane: DataplaneChoice) -> Overlay {
    let config = match end {
        End::A => CONFIG_A,
        End::B => CONFIG_B,
    };
    let config = with_plane(&over_ipv6(&with_ipv6_networks(config)), plane);
    bring_up(end.gateway(network), &config).unwrap()
}

/// Brings the kernel's driver up at one end, for both families.
fn ip6tnl(network: &TwoSites, end: End, mode: Mode, mtu: usize) {
    let gateway = end.gateway(network);
    let ip = |arguments: &str| gateway.program("ip", &arguments.split(' ').collect::<Vec<_>>()).unwrap();
    let (device, local, remote) = (end.device(), end.underlay_v6(), end.other().underlay_v6());
    let ends = format!("mode any local {local} remote {remote} hoplimit 64");
    let settings = match mode {
        Mode::Default => ends,
        Mode::WithoutLimit => format!("{ends} encaplimit none"),
        Mode::External => "external".to_owned(),
    };
    ip(&format!("link add {device} type ip6tnl {settings}"));
    ip(&format!("link set {device} mtu {mtu} up"));
    let (v4, v6) = match end {
        End::A => ("192.168.199.0/24", "2001:db8:199::/64"),
        End::B => ("172.16.17.0/24", "2001:db8:17::/64"),
    };
    let encap = match mode {
        Mode::External => format!(" encap ip6 dst {remote} src {local} hoplimit 64"),
        Mode::Default | Mode::WithoutLimit => String::new(),
    };
    ip(&format!("route add {v4}{encap} dev {device} src {}", end.addresses().0));
    ip(&format!("-6 route add {v6}{encap} dev {device} src {}", end.addresses_v6().0));
}

/// Pings from the host of one site to the other's, of each family.
fn ask(network: &TwoSites, from: End, size: usize) -> [Answer; 2] {
    let host = from.host(network);
    let v6 = host.run(|| ping(from.other().addresses_v6().1, size, 64, WAIT_TIMEOUT)).unwrap();
    [host.run(|| ping(from.other().addresses().1, size, 64, WAIT_TIMEOUT)).unwrap(), v6]
}

fn networks_of_both_families_are_joined(plane: DataplaneChoice) {
    for (mode, end) in Mode::ALL.into_iter().flat_map(|mode| End::BOTH.map(|end| (mode, end))) {
        let network = TwoSites::build_over_ipv6().unwrap();
        // First: without it, the far end answers the first probe that nobody is there.
        ip6tnl(&network, end.other(), mode, mode.mtu());
        let _overlay = adit(&network, end, plane);
        for from in End::BOTH {
            let mtu = if from == end { 1460 } else { mode.mtu() };
            for size in [48, 104, 1280, mtu] {
                // The answer to a larger one does not fit the driver's interface.
                let size = size.min(mode.mtu());
                let answers = ask(&network, from, size);
                assert!(
                    answers.iter().all(Answer::is_reply),
                    "{mode:?}: {size} bytes from {from:?}: {answers:?}"
                );
            }
            let answers = ask(&network, from, mtu + 1);
            let mtu = mtu as u16;
            let too_big = [
                Answer::Refused { by: from.addresses().0, error: Icmpv4Error::TooBig { mtu } },
                Answer::RefusedV6 {
                    by: from.addresses_v6().0,
                    error: Icmpv6Error::TooBig { mtu: mtu.into() },
                },
            ];
            assert_eq!(answers, too_big, "{mode:?}: from {from:?}");
            let ends = (from.host(&network), from.other().host(&network));
            let stream = Stream { seed: 6, len: 2 << 20, write: 65_536, nodelay: false };
            for to in
                [from.other().addresses_v6().1.into(), std::net::IpAddr::from(from.other().addresses().1)]
            {
                let (sent, received) = stream.send(ends, to);
                assert_eq!(received, sent, "{mode:?}: to {to}");
            }
        }
    }
}

/// RFC 2473 section 7.1: an underlay of 1280 bytes leaves less than IPv6 needs. Adit sends such
/// packets in outer fragments, which the driver reassembles. The driver itself refuses them (Linux
/// 6.1), with Packet Too Big of 1280, so nothing is asked of it.
fn a_packet_of_1280_bytes_passes_the_narrowest_underlay(plane: DataplaneChoice) {
    for (mode, end) in Mode::ALL.into_iter().flat_map(|mode| End::BOTH.map(|end| (mode, end))) {
        let network = TwoSites::build_over_ipv6().unwrap();
        network.set_underlay_mtus(1280).unwrap();
        // First: without it, the far end answers the first probe that nobody is there.
        ip6tnl(&network, end.other(), mode, 1280);
        let _overlay = adit(&network, end, plane);
        let [_, answer] = ask(&network, end, 1232);
        assert!(answer.is_reply(), "{mode:?}: {answer:?}");
        expect_packets_of_up_to_1280_bytes(&network, end);
    }
}
