//! Linux, tools/testing/selftests/net/forwarding/ipip_*.sh: a ping of 1,800 bytes fails, and passes
//! after the underlay's MTUs are raised under the running tunnel.

use adit_config::DataplaneChoice;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{HOST_A, HOST_B, INSIDE_A, TwoSites};
use adit_tunnel::PeerIndex;
use adit_wire::icmpv4::Icmpv4Error;

use crate::planes::{bring_up_with, on_every_plane};
use crate::support::{ANSWER_TIMEOUT, wait_until};

const PEER: PeerIndex = PeerIndex::new(0);
const LARGE: usize = 1800;
const LARGE_MTU: u32 = 2000;

/// `ipip_flat` and `ipip_hier` (`test_mtu_change`). The tunnel follows the underlay's MTU by
/// itself. Its interface keeps the MTU of its start (`[tunnel] mtu = "auto"` is read once). The
/// test raises that by hand, as `ip link set ipipA mtu 1980` or a restart does.
fn a_large_ping_passes_after_the_underlay_mtu_grows(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let TwoSites { host_a, gateway_a, router, gateway_b, host_b } = &network;
    for (host, device) in [(host_a, "eth0"), (gateway_a, "dummyA"), (gateway_b, "dummyB"), (host_b, "eth0")] {
        host.mtu(device, LARGE_MTU).unwrap();
    }
    let tunnels = bring_up_with(&network, plane, "probe = false");
    let ask = |size| host_a.run(|| ping(HOST_B, size, 64, ANSWER_TIMEOUT)).unwrap();
    let refused = |mtu| Answer::Refused { by: INSIDE_A, error: Icmpv4Error::TooBig { mtu } };
    assert_eq!(ask(LARGE), refused(1480));

    let cables = [(gateway_a, "underlayA"), (router, "toA"), (router, "toB"), (gateway_b, "underlayB")];
    for (host, device) in cables {
        host.mtu(device, LARGE_MTU).unwrap();
    }
    let tunnel_mtu = |end: &adit_control::Overlay| u32::from(end.plane().tunnel().path_mtu(PEER).mtu);
    wait_until("both tunnels follow the underlay", || {
        [&tunnels.a, &tunnels.b].map(tunnel_mtu) == [LARGE_MTU; 2]
    });
    assert_eq!(ask(LARGE), refused(1480), "the tunnel interface keeps its MTU");
    for (gateway, device) in [(gateway_a, "ipipA"), (gateway_b, "ipipB")] {
        gateway.mtu(device, LARGE_MTU - 20).unwrap();
    }
    for size in [LARGE, 1980] {
        let answer = ask(size);
        assert!(answer.is_reply(), "{size} bytes: {answer:?}");
    }
    assert_eq!(ask(1981), refused(1980));
    let answer = host_b.run(|| ping(HOST_A, LARGE, 64, ANSWER_TIMEOUT)).unwrap();
    assert!(answer.is_reply(), "{answer:?}");

    // The underlay shrinks again, and the tunnel interface still takes 1,980 bytes.
    for (host, device) in cables {
        host.mtu(device, 1500).unwrap();
    }
    wait_until("both tunnels follow the underlay", || [&tunnels.a, &tunnels.b].map(tunnel_mtu) == [1500; 2]);
    assert_eq!(ask(LARGE), refused(1480));
    assert!(ask(1480).is_reply());
}

on_every_plane! {
    a_large_ping_passes_after_the_underlay_mtu_grows,
}
