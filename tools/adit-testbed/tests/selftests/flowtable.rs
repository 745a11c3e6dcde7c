//! Linux, tools/testing/selftests/net/netfilter/nft_flowtable.sh (`tun0`): a transfer through the
//! tunnel arrives unchanged and with the same path MTU, with and without a fast path.

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{HOST_B, INSIDE_A, TwoSites};
use adit_linux::netlink::Netlink;
use adit_testbed::needs::ebpf;
use adit_wire::icmpv4::Icmpv4Error;

use crate::planes::bring_up_with;
use crate::support::ANSWER_TIMEOUT;
use crate::support::stream::{Hash, Stream};

const LEN: usize = 8 << 20;
const NARROW: u32 = 1400;

/// The visible results of a transfer.
#[derive(Debug, PartialEq, Eq)]
struct Observation {
    sent: Hash,
    received: Hash,
    /// The gateway's answer to a datagram that is too big, and the path MTU in host A's kernel.
    refused: Answer,
    path_mtu: Option<u32>,
    /// The longest outer datagram on the narrow link.
    longest: Option<usize>,
}

fn transfer(plane: DataplaneChoice) -> Observation {
    let network = TwoSites::build().unwrap();
    network.router.mtu("toB", NARROW).unwrap();
    network.gateway_b.mtu("underlayB", NARROW).unwrap();
    let _tunnels = bring_up_with(&network, plane, "probe = false");
    // Without offloads the veths carry datagrams instead of GSO packets.
    network.gateway_a.run(|| adit_linux::ethtool::disable_transmit_offloads("underlayA")).unwrap();
    network.host_a.run(|| adit_linux::ethtool::disable_transmit_offloads("eth0")).unwrap();
    let tap = Tap::start(&network.router, "toB").unwrap();
    let stream = Stream { seed: LEN as u64, len: LEN, write: 64 * 1024, nodelay: true };
    let (sent, received) = stream.send((&network.host_a, &network.host_b), HOST_B);
    let refused = network.host_a.run(|| ping(HOST_B, 1480, 64, ANSWER_TIMEOUT)).unwrap();
    let path_mtu = network.host_a.run(Netlink::open).unwrap().route_to(HOST_B, None).unwrap().mtu;
    let frames = tap.finish();
    let outer =
        frames.iter().filter_map(Frame::ipv4).filter(|bytes| bytes[9] == 4 && bytes[12..16] == [10, 1, 1, 1]);
    Observation { sent, received, refused, path_mtu, longest: outer.map(<[u8]>::len).max() }
}

#[test(root, ebpf)]
fn both_planes_carry_a_transfer_alike() {
    let planes = [DataplaneChoice::Userspace, DataplaneChoice::Ebpf];
    let [slow, fast] = planes.map(transfer);
    assert_eq!(slow.sent, slow.received, "the received bytes differ");
    let too_big = Answer::Refused { by: INSIDE_A, error: Icmpv4Error::TooBig { mtu: 1380 } };
    assert_eq!((slow.refused, slow.path_mtu, slow.longest), (too_big, Some(1380), Some(NARROW as usize)));
    assert_eq!(fast, slow);
}
