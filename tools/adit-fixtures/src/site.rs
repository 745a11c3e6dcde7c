//! Addresses of the table: gateway A of the two-site network between its own network and two peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_tunnel::{PathOptions, Peer, PeerIndex, PeerSet, TunnelConfig};
use adit_wire::encapsulation::OuterPolicy;

/// The gateway's underlay address.
pub const A: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
/// The underlay address of peer b.
pub const B: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
/// The underlay address of peer c.
pub const C: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 3);
/// A router inside the tunnel.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 254);
/// The gateway's own inner address.
pub const INSIDE_A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 1);
/// A host behind the gateway.
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 10);
/// A host behind peer b.
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 10);
/// A host behind peer c.
pub const HOST_C: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 10);
/// An address in no configured network, inner or outer.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// The gateway's address on an underlay of IPv6.
pub const UNDERLAY_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xa, 0, 0, 0, 1);
/// That of peer b.
pub const UNDERLAY_B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xb, 0, 0, 0, 1);
/// That of peer c.
pub const UNDERLAY_C6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xb, 0, 0, 0, 3);
/// The key of the flow labels in the table.
pub const FLOW_KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// The gateway's own inner address of IPv6.
pub const INSIDE_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x17, 0, 0, 0, 0, 1);
/// A host behind the gateway.
pub const HOST_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x17, 0, 0, 0, 0, 0x10);
/// A host behind peer b.
pub const HOST_B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x199, 0, 0, 0, 0, 0x10);
/// A host behind peer c.
pub const HOST_C6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 0x10);
/// An address in no configured network.
pub const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7);

/// The peer at [`B`].
pub const PEER_B: PeerIndex = PeerIndex::new(0);
/// The peer at [`C`].
pub const PEER_C: PeerIndex = PeerIndex::new(1);

/// What a gateway knows before a packet arrives.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The tunnel's configuration.
    pub config: TunnelConfig,
    /// What is known of the path to each peer, by [`PeerIndex`].
    pub paths: Vec<Path>,
    /// Whether the host forwards, so that peers reach each other through it.
    pub forwards: bool,
}

/// What is known of the path to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Bytes of the largest outer datagram that the path takes.
    pub mtu: u16,
    /// An earlier sender could not receive the error that the peer's host is unreachable, so the
    /// next sender receives it.
    pub owed: bool,
    /// The kernel knows the next hop, so the program may send.
    pub known: bool,
}

impl Path {
    /// A path that takes `mtu` bytes, with a known next hop and no pending error.
    #[must_use]
    pub const fn of(mtu: u16) -> Path {
        Path { mtu, owed: false, known: true }
    }
}

impl Default for Setup {
    /// A gateway with networks of IPv4.
    fn default() -> Setup {
        Setup::with_networks(
            &["172.16.17.0/24"],
            &["192.168.199.0/24"],
            &["192.168.200.0/24"],
            vec![INSIDE_A.into()],
        )
    }
}

impl Setup {
    /// A gateway with networks of both families.
    #[must_use]
    pub fn with_ipv6() -> Setup {
        Setup::with_networks(
            &["172.16.17.0/24", "2001:db8:17::/64"],
            &["192.168.199.0/24", "2001:db8:199::/64"],
            &["192.168.200.0/24", "2001:db8:200::/64"],
            vec![INSIDE_A.into(), INSIDE_A6.into()],
        )
    }

    fn with_networks(ours: &[&str], of_b: &[&str], of_c: &[&str], local_addresses: Vec<IpAddr>) -> Setup {
        let parsed = |networks: &[&str]| -> Vec<_> {
            networks.iter().map(|network| network.parse().expect("a network")).collect()
        };
        let mut peers = PeerSet::new(Some(A.into()), parsed(ours)).expect("a site without conflicts");
        for (name, underlay, networks) in [("b", B, of_b), ("c", C, of_c)] {
            let networks = parsed(networks);
            let peer = Peer {
                name: name.parse().expect("a name"),
                underlay: underlay.into(),
                networks,
                path: PathOptions::default(),
            };
            peers.insert(peer).expect("a peer without conflicts");
        }
        let config = TunnelConfig {
            underlay: A.into(),
            peers,
            outer: OuterPolicy::default(),
            mss_clamp: true,
            relay: adit_tunnel::Relay::default(),
            mtu_floor: adit_tunnel::DEFAULT_MTU_FLOOR,
            underlay_mtu: 1500,
            local_addresses,
            reachable_addresses: Vec::new(),
            probe: None,
        };
        Setup { config, paths: vec![Path::of(1500); 2], forwards: true }
    }
}
