//! Linux, tools/testing/selftests/net/gro.c (`ipip`) and bpf's test_tc_tunnel.sh: merging and
//! segmentation must not be visible from outside. Hand-made segments arrive unchanged.
//! Streams of small and large writes arrive complete.

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::two_sites::{HOST_A, HOST_B, TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_wire::ipv4::Ipv4Repr;
use adit_wire::{Protocol, checksum};

use crate::planes::{bring_up_on, on_every_plane};
use crate::support::stream::Stream;
use crate::support::{Injector, Random, drops_since, ipv4_with, mend_checksum, wait_until};

const PAYLOAD: usize = 100;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A segment from host B to host A, of a connection that does not exist.
#[derive(Clone)]
struct Segment {
    port: u16,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    window: u16,
    urgent: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
    ip: Ipv4Repr,
    ip_options: Vec<u8>,
    is_damaged: bool,
}

impl Segment {
    /// The segment as one datagram.
    fn bytes(&self) -> Vec<u8> {
        let words = 5 + self.options.len() / 4;
        let mut tcp = Vec::new();
        tcp.extend(4000u16.to_be_bytes());
        tcp.extend(self.port.to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([(words as u8) << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 2]);
        tcp.extend(self.urgent.to_be_bytes());
        tcp.extend(&self.options);
        tcp.extend(&self.payload);
        let len = tcp.len() as u16;
        let sum = checksum::pseudo_header_v4(HOST_B, HOST_A, Protocol::TCP, len).add_bytes(&tcp).checksum();
        tcp[16..18].copy_from_slice(&(sum ^ u16::from(self.is_damaged)).to_be_bytes());
        let datagram = ipv4_with(HOST_B, HOST_A, Protocol::TCP, &tcp, |ip| {
            (ip.ttl, ip.tos, ip.identification) = (self.ip.ttl, self.ip.tos, self.ip.identification);
            ip.dont_fragment = self.ip.dont_fragment;
        });
        let mut whole = [&datagram[..20], &self.ip_options, &datagram[20..]].concat();
        whole[0] = 0x45 + (self.ip_options.len() / 4) as u8;
        let total = whole.len() as u16;
        whole[2..4].copy_from_slice(&total.to_be_bytes());
        mend_checksum(&mut whole);
        whole
    }
}

/// Successive segments of one size, which a receiver may merge.
fn run(random: &mut Random, port: u16, count: usize) -> Vec<Segment> {
    let segment = |number: usize, payload| Segment {
        port,
        sequence: 1_000_000 + (number * PAYLOAD) as u32,
        acknowledged: 7,
        flags: ACK,
        window: 500,
        urgent: 0,
        options: Vec::new(),
        payload,
        ip: Ipv4Repr {
            source: HOST_B,
            destination: HOST_A,
            protocol: Protocol::TCP,
            ttl: 64,
            tos: 0,
            identification: 100 + number as u16,
            dont_fragment: false,
            payload_len: 0,
        },
        ip_options: Vec::new(),
        is_damaged: false,
    };
    (0..count).map(|number| segment(number, random.bytes(PAYLOAD))).collect()
}

/// The cases of gro.c, each in a connection of its own. Each one changes five segments that could
/// be merged.
fn cases(random: &mut Random) -> Vec<(&'static str, Vec<Segment>)> {
    let mut port = 5000;
    let mut case = |name, change: &dyn Fn(&mut Vec<Segment>)| {
        port += 1;
        let mut segments = run(random, port, 5);
        change(&mut segments);
        (name, segments)
    };
    let timestamp = |value: u32| {
        let value = value.to_be_bytes();
        [&[1, 1, 8, 10][..], &value, &[0, 0, 0, 9]].concat()
    };
    vec![
        case("data: all of a size", &|_| {}),
        case("data: the last is shorter", &|all| all[4].payload.truncate(33)),
        case("data: the last is longer", &|all| all[4].payload.extend([7; 33])),
        case("data: one in between is shorter", &|all| {
            all[2].payload.truncate(99);
            all[3].sequence -= 1;
            all[4].sequence -= 1;
        }),
        case("data: of one byte", &|all| {
            for (number, segment) in (0..).zip(all) {
                segment.payload.truncate(1);
                segment.sequence = 50 + number;
            }
        }),
        case("ack: without data", &|all| {
            for segment in all {
                segment.payload.clear();
                segment.sequence = 1_000_000;
            }
        }),
        case("ack: one acknowledges more", &|all| all[3].acknowledged = 8),
        case("flags: PSH at the end", &|all| all[4].flags |= PSH),
        case("flags: PSH in between", &|all| all[2].flags |= PSH),
        case("flags: SYN", &|all| all[2].flags = 0x02),
        case("flags: FIN", &|all| all[4].flags |= 0x01),
        case("flags: RST", &|all| all[2].flags |= 0x04),
        case("flags: URG", &|all| (all[2].flags, all[2].urgent) = (ACK | 0x20, 5)),
        case("flags: CWR", &|all| all[2].flags |= 0x80),
        case("flags: CWR first", &|all| all[0].flags |= 0x80),
        case("flags: ECE", &|all| all[2].flags |= 0x40),
        case("tcp: a gap", &|all| all[2].sequence += 1000),
        case("tcp: the same twice", &|all| all[3] = all[2].clone()),
        case("tcp: in another order", &|all| all.swap(1, 3)),
        case("tcp: the sequence number wraps", &|all| {
            for (number, segment) in (0..).zip(all) {
                segment.sequence = (u32::MAX - 150).wrapping_add(number * PAYLOAD as u32);
            }
        }),
        case("tcp: a wrong checksum", &|all| all[2].is_damaged = true),
        case("tcp: another window", &|all| all[2].window = 501),
        case("tcp: timestamps", &|all| all.iter_mut().for_each(|segment| segment.options = timestamp(5))),
        case("tcp: another timestamp", &|all| {
            all.iter_mut().for_each(|segment| segment.options = timestamp(5));
            all[3].options = timestamp(6);
        }),
        case("tcp: options on one alone", &|all| all[2].options = timestamp(5)),
        case("ip: another TTL", &|all| all[2].ip.ttl = 63),
        case("ip: another DSCP", &|all| all[2].ip.tos = 0x28),
        case("ip: another ECN", &|all| all[2].ip.tos = 0x01),
        case("ip: congestion", &|all| {
            all.iter_mut().for_each(|segment| segment.ip.tos = 0x02);
            all[2].ip.tos = 0x03;
        }),
        case("ip: identifications with a gap", &|all| all[3].ip.identification += 9),
        case("ip: one identification for all", &|all| {
            all.iter_mut().for_each(|segment| segment.ip.identification = 100);
        }),
        case("ip: DF, identifications that grow", &|all| {
            all.iter_mut().for_each(|segment| segment.ip.dont_fragment = true);
        }),
        case("ip: DF, one identification for all", &|all| {
            for segment in all {
                (segment.ip.dont_fragment, segment.ip.identification) = (true, 0);
            }
        }),
        case("ip: DF on one alone", &|all| all[2].ip.dont_fragment = true),
        case("ip: options", &|all| {
            all.iter_mut().for_each(|segment| segment.ip_options = vec![1, 1, 1, 1]);
        }),
    ]
}

/// A datagram after gateway A has forwarded it.
fn forwarded(datagram: &[u8]) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    bytes[8] -= 1;
    mend_checksum(&mut bytes);
    without_meaningless_id(&bytes)
}

/// Clears the identification of a datagram with DF, which has no meaning (RFC 6864 section 4.1).
/// The userspace plane renumbers the datagrams that it merges and segments.
fn without_meaningless_id(datagram: &[u8]) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    if bytes[6] & 0x40 != 0 {
        bytes[4..6].fill(0);
        mend_checksum(&mut bytes);
    }
    bytes
}

/// The datagrams for a port in the order of arrival.
fn of_port(frames: &[Frame], port: u16) -> Vec<Vec<u8>> {
    let is_for_port = |bytes: &&[u8]| {
        let header = usize::from(bytes[0] & 0x0f) * 4;
        bytes[9] == 6
            && bytes[12..16] == HOST_B.octets()
            && bytes.get(header + 2..header + 4) == Some(&port.to_be_bytes()[..])
    };
    let whole = |bytes: &[u8]| {
        without_meaningless_id(&bytes[..usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))])
    };
    frames.iter().filter_map(Frame::ipv4).filter(is_for_port).map(whole).collect()
}

/// `gro.sh -t ipip`: all cases at once, interleaved and one after the other. Each connection's
/// segments arrive unchanged and in order.
fn crafted_segments_arrive_unchanged(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_on(&network, plane);
    // Without offloads the tap sees what a wire would carry.
    network.gateway_a.run(|| adit_linux::ethtool::disable_transmit_offloads("dummyA")).unwrap();
    let mut peer = Injector::new(&network.router, "toA", &network.gateway_a, "underlayA");
    let outer = |segment: &Segment| {
        ipv4_with(UNDERLAY_B, UNDERLAY_A, Protocol::IPIP, &segment.bytes(), |outer| {
            outer.tos = segment.ip.tos
        })
    };
    let mut random = Random::seeded(41);
    for is_interleaved in [false, true] {
        let cases = cases(&mut random);
        let count: usize = cases.iter().map(|(_, segments)| segments.len()).sum();
        let before = tunnels.a.plane().totals();
        let tap = Tap::start(&network.host_a, "eth0").unwrap();
        if is_interleaved {
            for number in 0..5 {
                cases.iter().for_each(|(_, segments)| peer.add(&outer(&segments[number])));
            }
        } else {
            cases.iter().flat_map(|(_, segments)| segments).for_each(|segment| peer.add(&outer(segment)));
        }
        peer.flush();
        let received = || tunnels.a.plane().totals().peers[0].rx_packets - before.peers[0].rx_packets;
        wait_until("the tunnel has received all segments", || received() == count as u64);
        // A sentinel after all of them.
        let sentinel = run(&mut random, 6000, 1);
        peer.send(&outer(&sentinel[0]));
        wait_until("the tunnel has received the sentinel", || received() == count as u64 + 1);
        let frames = tap.finish();
        for (name, segments) in &cases {
            let sent: Vec<Vec<u8>> = segments.iter().map(|segment| forwarded(&segment.bytes())).collect();
            let received_segments = of_port(&frames, segments[0].port);
            assert!(received_segments == sent, "{name}: sent {sent:02x?}, received {received_segments:02x?}");
        }
        assert_eq!(drops_since(&before, &tunnels.a.plane().totals()), []);
    }
}

/// test_tc_tunnel.sh (`ipip`): writes of 100 bytes, and of 2,000 bytes, which exceed a segment. The
/// hashes of the sent and the received bytes are equal.
fn streams_of_small_and_large_writes_arrive_unchanged(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_on(&network, plane);
    let (a, b) = (&network.host_a, &network.host_b);
    for (write, len) in [(100, 200_000), (2000, 4_000_000), (1, 1000)] {
        for (ends, address) in [((a, b), HOST_B), ((b, a), HOST_A)] {
            let stream = Stream { seed: len as u64, len, write, nodelay: true };
            let (sent, received) = stream.send(ends, address);
            assert_eq!(sent, received, "{write} bytes a write, to {address}");
        }
    }
    for tunnel in [&tunnels.a, &tunnels.b] {
        assert_eq!(tunnel.plane().totals().dropped(), 0);
    }
}

on_every_plane! {
    crafted_segments_arrive_unchanged,
    streams_of_small_and_large_writes_arrive_unchanged,
}
