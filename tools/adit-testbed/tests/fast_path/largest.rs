//! Inner datagrams of 65,515 bytes, the largest that fit into an outer one, in both directions with
//! every byte compared.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::host::Host;
use adit_lab::two_sites::{HOST_A, HOST_B, TwoSites};

use crate::planes::{bring_up_on, on_every_plane};
use crate::support::{ANSWER_TIMEOUT, Random, drops_since};

/// 65,535 less the outer header.
const LARGEST: usize = 65_515;
/// The IPv4 and the UDP header.
const HEADERS: usize = 28;
/// The largest MTU of a veth: one outer datagram of 65,535 bytes.
const CABLE_MTU: u32 = 65_535;
const ROUNDS: usize = 20;

/// A socket on a host.
fn bind(host: &Host, address: Ipv4Addr) -> UdpSocket {
    let socket = host.ns().run(|| UdpSocket::bind(SocketAddrV4::new(address, 0))).unwrap();
    let socket = socket.expect("a port is free");
    socket.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("there are timeouts");
    socket
}

/// Sends datagrams of the largest size and just below it in both directions, and compares them all.
fn exchange(network: &TwoSites) {
    let (a, b) = (bind(&network.host_a, HOST_A), bind(&network.host_b, HOST_B));
    let mut random = Random::seeded(13);
    let mut buffer = vec![0; 65_536];
    for round in 0..ROUNDS {
        for (from, to) in [(&a, &b), (&b, &a)] {
            let payload = random.bytes(LARGEST - HEADERS - round % 10);
            let to_address = to.local_addr().expect("it is bound");
            assert_eq!(from.send_to(&payload, to_address).expect("it is sent"), payload.len());
            let (len, _) = to.recv_from(&mut buffer).expect("it arrives");
            assert!(buffer[..len] == payload, "sent {} bytes, received {len} or other bytes", payload.len());
        }
    }
}

/// The hosts fragment the datagrams, and each fragment goes through the tunnel by itself.
fn the_largest_datagrams_arrive_in_inner_fragments(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_on(&network, plane);
    exchange(&network);
    for tunnel in [&tunnels.a, &tunnels.b] {
        assert_eq!(tunnel.plane().totals().dropped(), 0);
    }
}

/// Unfragmented over cables that take 65,535 bytes: the outer datagram has the maximum length.
fn the_largest_datagrams_arrive_unfragmented(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    network.set_cable_mtus(CABLE_MTU).unwrap();
    let tunnels = bring_up_on(&network, plane);
    let tap = Tap::start(&network.router, "toB").unwrap();
    let before = [&tunnels.a, &tunnels.b].map(|tunnel| tunnel.plane().totals());
    exchange(&network);
    let frames = tap.finish();
    let largest = frames.iter().filter_map(Frame::ipv4).filter(|bytes| bytes[9] == 4).map(<[u8]>::len).max();
    assert_eq!(largest, Some(LARGEST + 20), "the outer datagram left unfragmented");
    for (tunnel, before) in [&tunnels.a, &tunnels.b].into_iter().zip(&before) {
        assert_eq!(drops_since(before, &tunnel.plane().totals()), []);
    }
}

on_every_plane! {
    the_largest_datagrams_arrive_in_inner_fragments,
    the_largest_datagrams_arrive_unfragmented,
}
