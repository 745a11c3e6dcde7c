//! Outer datagrams that a peer or a router has fragmented. Gateway A has the tunnel. Gateway B has
//! no Adit and sends hand-made datagrams.

use std::net::{SocketAddrV4, UdpSocket};

use adit_config::DataplaneChoice;
use adit_control::Overlay;
use adit_lab::two_sites::{HOST_A, HOST_B, TwoSites, UNDERLAY_A, UNDERLAY_B, bring_up};
use adit_testbed::test_planes::with_plane;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation, fragment};

use crate::planes::on_every_plane;
use crate::support::{
    ATTEMPT_TIMEOUT, Injector, Random, config_a, drops_since, ipv4_with, mend_checksum, udp,
};

/// Bytes of UDP payload in the largest datagram that fits into another: 65,535 less two IPv4
/// headers and UDP's.
const LARGEST_PAYLOAD: usize = 65_535 - 20 - 28;

/// The network, a socket on host A, and an injector that acts as gateway B.
struct Testbed {
    _network: TwoSites,
    tunnel: Overlay,
    peer: Injector,
    receiver: UdpSocket,
    next_identification: u16,
}

impl Testbed {
    fn build(plane: DataplaneChoice) -> Self {
        let network = TwoSites::build().unwrap();
        let tunnel = bring_up(&network.gateway_a, &with_plane(&config_a("probe = false"), plane)).unwrap();
        let peer = Injector::new(&network.gateway_b, "underlayB", &network.router, "toB");
        let receiver = network
            .host_a
            .ns()
            .run(|| UdpSocket::bind(SocketAddrV4::new(HOST_A, 0)))
            .unwrap()
            .expect("a port is free");
        receiver.set_read_timeout(Some(ATTEMPT_TIMEOUT)).expect("there are timeouts");
        Self { _network: network, tunnel, peer, receiver, next_identification: 1 }
    }

    /// An outer datagram, whole, with an identification of its own.
    fn outer(&mut self, payload: &[u8]) -> Vec<u8> {
        let std::net::SocketAddr::V4(to) = self.receiver.local_addr().expect("it is bound") else {
            panic!("an IPv4 socket has an IPv4 address");
        };
        let inner = udp(HOST_B, to, payload);
        self.next_identification += 1;
        let identification = self.next_identification;
        ipv4_with(UNDERLAY_B, UNDERLAY_A, Protocol::IPIP, &inner, |outer| {
            outer.identification = identification;
        })
    }

    fn send(&mut self, fragments: impl IntoIterator<Item = Vec<u8>>) {
        for fragment in fragments {
            self.peer.add(&fragment);
        }
        self.peer.flush();
    }

    /// The next payload that host A receives, if any.
    fn received(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        match self.receiver.recv(&mut buffer) {
            Ok(len) => Some(buffer[..len].to_vec()),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                None
            }
        }
    }

    #[track_caller]
    fn expect(&self, payload: &[u8]) {
        let received =
            self.received().unwrap_or_else(|| panic!("no datagram of {} bytes arrived", payload.len()));
        assert!(
            received == payload,
            "sent {} bytes, received {} or other bytes",
            payload.len(),
            received.len()
        );
    }
}

/// Fragments of at most `max_len` bytes.
fn cut(datagram: &[u8], max_len: usize) -> Vec<Vec<u8>> {
    let packet = Ipv4Packet::parse(datagram, Validation::Strict).expect("it is a datagram");
    let pieces = fragment::fragments(&packet, max_len).expect("it may be fragmented");
    pieces.map(|piece| [piece.header(), &datagram[piece.payload()]].concat()).collect()
}

fn fragments_of_the_outer_datagram_are_reassembled(plane: DataplaneChoice) {
    let mut testbed = Testbed::build(plane);
    let mut random = Random::seeded(3);
    // The smallest fragments, cuts inside the inner headers, usual and odd sizes, and the largest
    // datagram that fits into another, 65,515 bytes.
    let sizes = [
        (1, 28),
        (64, 28),
        (64, 36),
        (500, 52),
        (1400, 576),
        (1452, 1400),
        (9_001, 1500),
        (LARGEST_PAYLOAD, 1500),
    ];
    for (size, max_len) in sizes {
        let payload = random.bytes(size);
        let whole = testbed.outer(&payload);
        let in_order = cut(&whole, max_len);
        assert!(in_order.len() > 1);
        testbed.send(in_order);
        testbed.expect(&payload);

        let whole = testbed.outer(&payload);
        testbed.send(cut(&whole, max_len).into_iter().rev());
        testbed.expect(&payload);

        let whole = testbed.outer(&payload);
        let mut shuffled = cut(&whole, max_len);
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, random.within(0..at + 1));
        }
        testbed.send(shuffled);
        testbed.expect(&payload);
    }
    let totals = testbed.tunnel.plane().totals();
    assert_eq!((totals.dropped(), totals.peers[0].rx_packets), (0, 24), "{totals:?}");
}

fn interleaved_fragments_of_two_datagrams_are_reassembled(plane: DataplaneChoice) {
    let mut testbed = Testbed::build(plane);
    let (one, two) = (vec![1; 1300], vec![2; 1300]);
    let (first, second) = (testbed.outer(&one), testbed.outer(&two));
    let mixed = cut(&first, 500).into_iter().zip(cut(&second, 500)).flat_map(|(a, b)| [a, b]);
    testbed.send(mixed);
    testbed.expect(&one);
    testbed.expect(&two);
}

/// RFC 815, RFC 5722 (for IPv4 too, since Linux 4.20): overlapping fragments are discarded, and no
/// changed datagram is delivered.
fn incomplete_and_overlapping_fragments_harm_nothing(plane: DataplaneChoice) {
    let mut testbed = Testbed::build(plane);
    let before = testbed.tunnel.plane().totals();
    let payload = vec![0xab; 1000];
    for turn in 0..200 {
        let whole = testbed.outer(&payload);
        let mut pieces = cut(&whole, 200);
        // A datagram lacks its first, its last, or a middle fragment.
        pieces.remove([0, pieces.len() - 1, 2][turn % 3]);
        testbed.send(pieces);
    }
    for turn in 0..200 {
        let whole = testbed.outer(&payload);
        let mut pieces = cut(&whole, 200);
        // A forged fragment overlaps the end of one piece and the start of the next, which arrives
        // after it. (The kernel ignores fragments of received ranges as duplicates.)
        let next = turn % 3 + 1;
        let mut forged = pieces[next].clone();
        forged[20..].fill(0xcd);
        let offset = u16::from_be_bytes([forged[6], forged[7]]) - 1 - (turn as u16 % 2);
        forged[6..8].copy_from_slice(&offset.to_be_bytes());
        mend_checksum(&mut forged);
        pieces.insert(next, forged);
        testbed.send(pieces);
    }
    // A complete datagram after all of them shows that the queues are empty and reassembly still
    // works.
    let sentinel = b"the end".to_vec();
    let whole = testbed.outer(&sentinel);
    testbed.send([whole]);
    let mut delivered = 0;
    loop {
        let received = testbed.received().expect("the last datagram is delivered");
        if received == sentinel {
            break;
        }
        assert!(received == payload, "a datagram was delivered with the bytes of an overlapping fragment");
        delivered += 1;
    }
    assert_eq!(delivered, 0, "datagrams with overlapping pieces were delivered");
    let whole = testbed.outer(&payload);
    testbed.send(cut(&whole, 200));
    testbed.expect(&payload);
    let after = testbed.tunnel.plane().totals();
    assert_eq!(
        drops_since(&before, &after),
        [],
        "the tunnel received fragments that the kernel had not reassembled"
    );
}

on_every_plane! {
    fragments_of_the_outer_datagram_are_reassembled,
    interleaved_fragments_of_two_datagrams_are_reassembled,
    incomplete_and_overlapping_fragments_harm_nothing,
}
