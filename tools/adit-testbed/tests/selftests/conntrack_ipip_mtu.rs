//! Linux, tools/testing/selftests/net/netfilter/conntrack_ipip_mtu.sh: UDP of 1,400 bytes through a
//! tunnel over a WAN of 1,400 bytes, without and with connection tracking on the gateways, which
//! reassembles fragments and must fragment them again.

use std::net::{SocketAddrV4, UdpSocket};

use adit_config::DataplaneChoice;
use adit_lab::host::Host;
use adit_lab::two_sites::{HOST_A, HOST_B, INSIDE_A, TwoSites};
use adit_linux::EMSGSIZE;
use adit_linux::sockets::udp::{Origin, PathSocket};
use adit_testbed::reality::nft_rules::TRACKING;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::IpMtu;

use crate::planes::bring_up_with;
use crate::support::{ATTEMPT_TIMEOUT, Random, snmp};

const WAN_MTU: u32 = 1400;
/// The IPv4 and the UDP header.
const HEADERS: usize = 28;
/// The two-site network with a narrow WAN behind its router.
fn narrow_wan(tracking: bool) -> TwoSites {
    let network = TwoSites::build().unwrap();
    network.router.mtu("toB", WAN_MTU).unwrap();
    network.gateway_b.mtu("underlayB", WAN_MTU).unwrap();
    if tracking {
        network.gateway_a.load_nftables(TRACKING).unwrap();
        network.gateway_b.load_nftables(TRACKING).unwrap();
    }
    network
}

/// Sends datagrams with 1,400 bytes of payload and DF clear in both directions. All arrive except
/// one from A: the router refuses it, and the tunnel learns the path MTU.
fn expect_datagrams(plane: DataplaneChoice, tracking: bool) {
    const ROUNDS: usize = 20;
    let network = narrow_wan(tracking);
    let tunnels = bring_up_with(&network, plane, "probe = false");
    let bind = |host: &Host, address| {
        host.sysctl("ipv4/ip_no_pmtu_disc", "1").unwrap();
        let socket = host.ns().run(|| UdpSocket::bind(SocketAddrV4::new(address, 5000))).unwrap();
        let socket = socket.expect("the port is free");
        socket.set_read_timeout(Some(ATTEMPT_TIMEOUT)).expect("there are timeouts");
        socket
    };
    let (a, b) = (bind(&network.host_a, HOST_A), bind(&network.host_b, HOST_B));
    let mut random = Random::seeded(17);
    let mut buffer = [0; 2048];
    let mut lost = Vec::new();
    for round in 0..ROUNDS {
        for (from, to, direction) in [(&a, &b, "A to B"), (&b, &a, "B to A")] {
            let payload = random.bytes(1400);
            from.send_to(&payload, to.local_addr().expect("it is bound")).expect("it is sent");
            match to.recv(&mut buffer) {
                Ok(len) => {
                    assert!(buffer[..len] == payload, "round {round}: {direction}: other bytes arrived")
                }
                Err(_) => lost.push((round, direction)),
            }
        }
    }
    assert_eq!(lost, [(0, "A to B")]);
    assert_eq!((tunnels.a.plane().totals().dropped(), tunnels.b.plane().totals().dropped()), (0, 0));
    assert_eq!(snmp(&network.router, "Ip", "FragCreates"), 0, "the router fragmented an outer datagram");
}

/// Repeats what tracepath does. Each datagram that is too big yields the next MTU (1500, 1480,
/// 1380), and then one arrives.
fn expect_tracepath(plane: DataplaneChoice, tracking: bool) {
    let network = narrow_wan(tracking);
    let _tunnels = bring_up_with(&network, plane, "probe = false");
    let receiver = network.host_b.ns().run(|| UdpSocket::bind(SocketAddrV4::new(HOST_B, 5000))).unwrap();
    let receiver = receiver.expect("the port is free");
    receiver.set_read_timeout(Some(ATTEMPT_TIMEOUT)).expect("there are timeouts");
    let ends = (SocketAddrV4::new(HOST_A, 0), SocketAddrV4::new(HOST_B, 5000));
    let sender = network.host_a.run(|| PathSocket::connect(ends.0, ends.1)).unwrap();
    let mut seen = vec![getsockopt(&sender, IpMtu).expect("it is known").cast_unsigned()];
    for hop in 0.. {
        let size = *seen.last().expect("the list is never empty") as usize;
        sender.send(&vec![7; size - HEADERS]).expect("host A sends a datagram of its path MTU");
        let Some(error) = sender.take_error_within(ATTEMPT_TIMEOUT).expect("it can be read") else { break };
        assert!(hop < 3, "too many errors: {seen:?}");
        assert_eq!((error.origin, error.errno, error.offender), (Origin::Icmp, EMSGSIZE, Some(INSIDE_A)));
        seen.push(error.mtu.expect("the error has an MTU"));
    }
    assert_eq!(seen, [1500, 1480, 1380]);
    assert_eq!(receiver.recv(&mut [0; 2048]).expect("it arrives"), 1380 - HEADERS);
}

fn datagrams_arrive_without_connection_tracking(plane: DataplaneChoice) {
    expect_datagrams(plane, false);
    expect_tracepath(plane, false);
}

fn datagrams_arrive_with_connection_tracking(plane: DataplaneChoice) {
    expect_datagrams(plane, true);
    expect_tracepath(plane, true);
}

mod without_tracking {
    use super::datagrams_arrive_without_connection_tracking;
    use crate::planes::on_every_plane;

    on_every_plane! {
        datagrams_arrive_without_connection_tracking,
    }
}

mod with_tracking {
    use super::datagrams_arrive_with_connection_tracking;
    use crate::planes::on_every_plane;

    on_every_plane! {
        needs adit_harness::needs::nft;
        datagrams_arrive_with_connection_tracking,
    }
}
