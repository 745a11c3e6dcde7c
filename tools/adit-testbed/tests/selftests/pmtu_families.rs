//! Linux, tools/testing/selftests/net/pmtu.sh, `pmtu_ipv{4,6}_ipv{4,6}_exception`: the kernel of a
//! host learns the MTU of a narrow link in the path of the tunnel, in each combination of families.
//! The first number is that of the outer family.

use std::net::IpAddr;

use adit_config::DataplaneChoice;
use adit_lab::ping::Answer;
use adit_lab::two_sites::{
    CONFIG_A, CONFIG_B, HOST_A, HOST_A6, HOST_B, HOST_B6, INSIDE_A, INSIDE_A6, INSIDE_B, INSIDE_B6, TwoSites,
    bring_up, over_ipv6, with_ipv6_networks,
};
use adit_testbed::test_planes::with_plane;
use adit_tunnel::PeerIndex;
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::icmpv6::Icmpv6Error;

use crate::planes::on_every_plane;
use crate::pmtu::expect_path_mtu;
use crate::support::{ask, wait_until};

const PATH_MTU: u32 = 1400;
const UNDERLAY_MTU: u32 = 1500;

/// The inner addresses of one family.
struct Inner {
    hosts: [IpAddr; 2],
    gateways: [IpAddr; 2],
}

const IPV4: Inner = Inner {
    hosts: [IpAddr::V4(HOST_A), IpAddr::V4(HOST_B)],
    gateways: [IpAddr::V4(INSIDE_A), IpAddr::V4(INSIDE_B)],
};

const IPV6: Inner = Inner {
    hosts: [IpAddr::V6(HOST_A6), IpAddr::V6(HOST_B6)],
    gateways: [IpAddr::V6(INSIDE_A6), IpAddr::V6(INSIDE_B6)],
};

on_every_plane!(pmtu_ipv4_ipv4_exception, pmtu_ipv4_ipv6_exception);

fn pmtu_ipv4_ipv4_exception(plane: DataplaneChoice) {
    hosts_learn_the_mtu(|text| with_plane(text, plane), &IPV4, 20);
}

fn pmtu_ipv4_ipv6_exception(plane: DataplaneChoice) {
    hosts_learn_the_mtu(|text| with_plane(text, plane), &IPV6, 20);
}

#[test(root)]
fn pmtu_ipv6_ipv4_exception() {
    hosts_learn_the_mtu(over_ipv6, &IPV4, 40);
}

#[test(root)]
fn pmtu_ipv6_ipv6_exception() {
    hosts_learn_the_mtu(over_ipv6, &IPV6, 40);
}

/// On both sides, one after the other: the link towards the other side becomes narrow.
fn hosts_learn_the_mtu(config: impl Fn(&str) -> String, inner: &Inner, overhead: u32) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = [(&network.gateway_a, CONFIG_A), (&network.gateway_b, CONFIG_B)]
        .map(|(gateway, text)| bring_up(gateway, &config(&with_ipv6_networks(text))).unwrap());
    for (side, host, port) in [(0, &network.host_a, "toB"), (1, &network.host_b, "toA")] {
        let (to, by) = (inner.hosts[1 - side], inner.gateways[side]);
        let ask = |size| ask(host, to, size as usize);
        let narrow = network.router.limit_mtu(port, PATH_MTU).unwrap();
        let fits = PATH_MTU - overhead;
        wait_until("the sender learns the MTU", || ask(UNDERLAY_MTU - overhead) == too_big(by, fits));
        expect_path_mtu(host, to, fits);
        assert_eq!(u32::from(tunnels[side].plane().tunnel().path_mtu(PeerIndex::new(0)).mtu), PATH_MTU);
        assert_eq!(ask(fits + 1), too_big(by, fits), "the tunnel itself sends the error");
        assert!(ask(fits).is_reply());
        narrow.remove().unwrap();
    }
}

fn too_big(by: IpAddr, mtu: u32) -> Answer {
    match by {
        IpAddr::V4(by) => Answer::Refused { by, error: Icmpv4Error::TooBig { mtu: mtu as u16 } },
        IpAddr::V6(by) => Answer::RefusedV6 { by, error: Icmpv6Error::TooBig { mtu } },
    }
}
