//! The two-site network seen from gateway A, with a third site, and builders of its packets.
#![allow(dead_code, unreachable_pub, reason = "each test file uses the part that it needs")]

pub mod forging;

use std::net::{Ipv4Addr, Ipv6Addr};

use adit_tunnel::{
    Counters, Decapsulated, DropReason, Encapsulated, Inner, Instant, Origin, Outer, PathOptions, Peer,
    PeerIndex, PeerSet, Reply, Totals, Tunnel, TunnelConfig, UnderlayIcmp,
};
use adit_wire::Protocol;
use adit_wire::encapsulation::OuterPolicy;
use adit_wire::icmpv4::{self, Icmpv4Error};
use adit_wire::ipv4::Ipv4Repr;
use adit_wire::ipv6::{self, Ipv6Repr};

/// Our underlay address and those of the peers.
pub const A: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
pub const C: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 3);
/// A router inside the tunnel.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 1);
/// The gateway's own inner address, and a host in each site.
pub const GATEWAY_A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 1);
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 9);
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 9);
pub const HOST_C: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 9);
/// Nobody's.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

pub const PEER_B: PeerIndex = PeerIndex::new(0);
pub const PEER_C: PeerIndex = PeerIndex::new(1);

pub fn config() -> TunnelConfig {
    TunnelConfig {
        underlay: A.into(),
        peers: peer_set(A, "172.16.17.0/24", &[("b", B, "192.168.199.0/24"), ("c", C, "192.168.200.0/24")]),
        outer: OuterPolicy::default(),
        mss_clamp: true,
        relay: adit_tunnel::Relay::default(),
        mtu_floor: adit_tunnel::DEFAULT_MTU_FLOOR,
        underlay_mtu: 1500,
        local_addresses: vec![GATEWAY_A.into()],
        reachable_addresses: Vec::new(),
        probe: None,
    }
}

/// The peers of a site, each with its underlay address and one network.
pub fn peer_set(underlay: Ipv4Addr, network: &str, peers: &[(&str, Ipv4Addr, &str)]) -> PeerSet {
    let network = network.parse().expect("a network");
    let mut set = PeerSet::new(Some(underlay.into()), [network]).expect("a site without conflicts");
    for (name, underlay, network) in peers {
        let peer = Peer {
            name: name.parse().expect("a name"),
            underlay: (*underlay).into(),
            networks: vec![network.parse().expect("a network")],
            path: PathOptions::default(),
        };
        set.insert(peer).expect("a peer without conflicts");
    }
    set
}

/// A tunnel with one shard of counters and a clock that the test turns.
pub struct Gateway {
    pub tunnel: Tunnel,
    pub counters: Counters,
    pub now: Instant,
}

impl Gateway {
    pub fn new(config: TunnelConfig) -> Gateway {
        let tunnel = Tunnel::new(config).expect("the configuration is good");
        let counters = tunnel.counters();
        Gateway { tunnel, counters, now: Instant::from_millis(1_000_000) }
    }

    pub fn encapsulate(&self, bytes: &[u8]) -> Encapsulated {
        self.encapsulate_from(bytes, Origin::Unknown)
    }

    pub fn encapsulate_from(&self, bytes: &[u8], origin: Origin) -> Encapsulated {
        self.tunnel.encapsulate(&Inner::datagram(bytes, origin), self.now, &self.counters)
    }

    pub fn decapsulate(&self, bytes: &[u8]) -> Decapsulated {
        self.tunnel.decapsulate(&Outer::datagram(bytes), self.now, &self.counters)
    }

    pub fn icmp(&self, packet: &[u8]) -> UnderlayIcmp {
        self.tunnel.on_underlay_icmp(packet, self.now, &self.counters)
    }

    pub fn totals(&self) -> Totals {
        Totals::sum([&self.counters])
    }

    /// The reasons counted so far, each with its count.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        self.totals().drops_by_reason().filter(|(_, n)| *n > 0).collect()
    }

    /// The outer datagram for an inner one that must pass.
    pub fn outer(&self, inner: &[u8]) -> Vec<u8> {
        match self.encapsulate(inner) {
            Encapsulated::Forward { outer, .. } | Encapsulated::ForwardInFragments { outer, .. } => {
                [outer.as_bytes(), inner].concat()
            }
            other => panic!("expected Forward, found {other:?}"),
        }
    }
}

impl Default for Gateway {
    fn default() -> Gateway {
        Gateway::new(config())
    }
}

/// A datagram to be.
#[derive(Clone)]
pub struct Datagram {
    pub repr: Ipv4Repr,
    pub payload: Vec<u8>,
}

/// UDP, 100 bytes in all, TTL 63, DF clear.
pub fn datagram(source: Ipv4Addr, destination: Ipv4Addr) -> Datagram {
    let repr = Ipv4Repr {
        source,
        destination,
        protocol: Protocol::UDP,
        ttl: 63,
        tos: 0,
        identification: 0x1234,
        dont_fragment: false,
        payload_len: 0,
    };
    Datagram { repr, payload: Vec::new() }.len(100)
}

/// What A's host sends to B's host.
pub fn a_to_b() -> Datagram {
    datagram(HOST_A, HOST_B)
}

impl Datagram {
    pub fn len(mut self, total: usize) -> Datagram {
        self.payload = (0..total - 20).map(|n| (n % 251) as u8).collect();
        self
    }

    pub fn ttl(mut self, ttl: u8) -> Datagram {
        self.repr.ttl = ttl;
        self
    }

    pub fn tos(mut self, tos: u8) -> Datagram {
        self.repr.tos = tos;
        self
    }

    pub fn df(mut self, df: bool) -> Datagram {
        self.repr.dont_fragment = df;
        self
    }

    pub fn protocol(mut self, protocol: Protocol) -> Datagram {
        self.repr.protocol = protocol;
        self
    }

    pub fn payload(mut self, payload: Vec<u8>) -> Datagram {
        self.payload = payload;
        self
    }

    pub fn build(mut self) -> Vec<u8> {
        self.repr.payload_len = u16::try_from(self.payload.len()).expect("at most 65,515 bytes");
        [self.repr.emit().as_slice(), &self.payload].concat()
    }

    /// Inside an outer header from `from` to `to`.
    pub fn inside(self, from: Ipv4Addr, to: Ipv4Addr) -> Datagram {
        wrap(from, to, self.build())
    }
}

pub fn wrap(from: Ipv4Addr, to: Ipv4Addr, inner: Vec<u8>) -> Datagram {
    datagram(from, to).protocol(Protocol::IPIP).payload(inner)
}

/// Changes header bytes of a datagram and mends the checksum.
pub fn rewrite(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes[10..12].fill(0);
    let header_len = usize::from(bytes[0] & 0xf) * 4;
    let sum = adit_wire::checksum::checksum(&bytes[..header_len]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An ICMP error from a router to us about `offending`, of which it quotes `quoted` bytes.
pub fn icmp(error: Icmpv4Error, offending: &[u8], quoted: usize) -> Vec<u8> {
    let mut out = [0; icmpv4::MAX_ERROR_LEN];
    let quote = &offending[..quoted.min(offending.len())];
    let len = icmpv4::build_error(&mut out, ROUTER, A, error, quote);
    out[..len].to_vec()
}

pub fn unreachable(code: u8) -> Icmpv4Error {
    Icmpv4Error::DestinationUnreachable { code }
}

/// A TCP SYN without options, in a datagram.
pub fn syn(source: Ipv4Addr, destination: Ipv4Addr) -> Datagram {
    let mut tcp = vec![0u8; 24];
    tcp[12] = 6 << 4;
    tcp[13] = 0x02;
    tcp[20..24].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    datagram(source, destination).protocol(Protocol::TCP).payload(tcp)
}

/// The sender that an error of IPv4 is for, and the error.
pub fn of_v4(reply: &Reply) -> (Ipv4Addr, Icmpv4Error) {
    match *reply {
        Reply::V4 { destination, error } => (destination, error),
        Reply::V6 { .. } => panic!("{reply:?}"),
    }
}

/// A host with IPv6 in each site.
pub const A6: &str = "2001:db8:a::9";
pub const B6: &str = "2001:db8:b::9";
pub const C6: &str = "2001:db8:c::9";

pub fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// A packet of UDP over IPv6, of this length in all.
pub fn packet_v6(source: &str, destination: &str, len: usize) -> Vec<u8> {
    packet_v6_with(source, destination, len, |_| {})
}

pub fn packet_v6_with(
    source: &str,
    destination: &str,
    len: usize,
    change: impl FnOnce(&mut Ipv6Repr),
) -> Vec<u8> {
    let mut repr = Ipv6Repr {
        source: v6(source),
        destination: v6(destination),
        next_header: Protocol::UDP,
        hop_limit: 63,
        traffic_class: 0xb8,
        flow_label: 0x12345,
        payload_len: (len - ipv6::HEADER_LEN) as u16,
    };
    change(&mut repr);
    [&repr.emit()[..], &vec![7; len - ipv6::HEADER_LEN]].concat()
}

/// A packet of IPv6 in a datagram of protocol 41, with DF.
pub fn wrap_v6(source: Ipv4Addr, destination: Ipv4Addr, inner: Vec<u8>) -> Vec<u8> {
    let mut outer = datagram(source, destination).df(true);
    (outer.repr.protocol, outer.payload) = (Protocol::IPV6, inner);
    outer.build()
}
