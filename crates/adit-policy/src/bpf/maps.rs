//! What userspace and the kernel's programs tell each other: the values of the BPF maps, byte for byte.
//! Addresses are in network byte order, numbers in the machine's.

use core::net::Ipv4Addr;

use adit_wire::dscp::{Dscp, DscpPolicy};
use adit_wire::ecn::EcnMode;
use adit_wire::encapsulation::{OuterPolicy, TtlPolicy};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::peer::{Owner, PeerIndex};

/// The maps, by the names that the object has for them.
pub mod name {
    /// One [`Settings`](super::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// Inner prefix to whose it is: [`encode_owner`](super::encode_owner).
    pub const PREFIX_OWNERS: &str = "PREFIX_OWNERS";
    /// Outer address to peer number.
    pub const PEER_BY_OUTER: &str = "PEER_BY_OUTER";
    /// Peer number to [`PeerEntry`](super::PeerEntry).
    pub const PEERS: &str = "PEERS";
    /// The gateway's own addresses.
    pub const LOCAL: &str = "LOCAL";
    /// Peer number to [`PeerCounts`](super::PeerCounts), a copy a processor.
    pub const PEER_COUNTS: &str = "PEER_COUNTS";
    /// Drop reason to a count, a copy a processor.
    pub const DROPS: &str = "DROPS";
    /// ECN anomaly to a count, a copy a processor.
    pub const ECN: &str = "ECN";
    /// Peer number to the next identification of outer datagrams that may be fragmented.
    pub const IDENTIFICATIONS: &str = "IDENTIFICATIONS";
}

/// The programs, by the names that the kernel lists them under.
pub mod program {
    /// At the egress of the tunnel's device.
    pub const ENCAP: &str = "adit_encap";
    /// At the ingress of an interface of the underlay.
    pub const DECAP: &str = "adit_decap";
}

/// What holds for the whole tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Our address on the underlay.
    pub underlay: [u8; 4],
    /// The index of the tunnel's device.
    pub device: u32,
    flags: u32,
    ttl: u8,
    dscp: u8,
    padding: [u8; 2],
    /// Of the networks: programs look up anew what they remember of another one.
    pub generation: u32,
}

const TTL_INHERIT: u32 = 1;
const DSCP_FIXED: u32 = 1 << 1;
const ECN_COMPATIBILITY: u32 = 1 << 2;
const DONT_FRAGMENT: u32 = 1 << 3;
const MSS_CLAMP: u32 = 1 << 4;
const RELAY: u32 = 1 << 5;

impl Settings {
    /// The settings of a tunnel; it does not relay until [`Settings::with_relay`].
    #[must_use]
    pub fn new(underlay: Ipv4Addr, device: u32, policy: &OuterPolicy, mss_clamp: bool) -> Settings {
        let mut settings = Settings { underlay: underlay.octets(), device, ..Settings::default() };
        match policy.ttl {
            TtlPolicy::Fixed(ttl) => settings.ttl = ttl,
            TtlPolicy::Inherit => settings.flags |= TTL_INHERIT,
        }
        if let DscpPolicy::Fixed(dscp) = policy.dscp {
            settings.dscp = dscp.value();
            settings.flags |= DSCP_FIXED;
        }
        if policy.ecn == EcnMode::Compatibility {
            settings.flags |= ECN_COMPATIBILITY;
        }
        if policy.df {
            settings.flags |= DONT_FRAGMENT;
        }
        if mss_clamp {
            settings.flags |= MSS_CLAMP;
        }
        settings
    }

    /// The same, with or without passing on datagrams from one peer to another.
    #[must_use]
    pub const fn with_relay(mut self, relay: bool) -> Settings {
        self.flags = if relay { self.flags | RELAY } else { self.flags & !RELAY };
        self
    }

    /// The same for networks that have been changed.
    #[must_use]
    pub const fn with_next_generation(mut self) -> Settings {
        self.generation = self.generation.wrapping_add(1);
        self
    }

    /// How outer headers are written.
    #[inline(always)]
    #[must_use]
    pub fn policy(&self) -> OuterPolicy {
        OuterPolicy {
            ttl: if self.has(TTL_INHERIT) { TtlPolicy::Inherit } else { TtlPolicy::Fixed(self.ttl) },
            dscp: match Dscp::new(self.dscp) {
                Some(dscp) if self.has(DSCP_FIXED) => DscpPolicy::Fixed(dscp),
                _ => DscpPolicy::Inherit,
            },
            ecn: if self.has(ECN_COMPATIBILITY) { EcnMode::Compatibility } else { EcnMode::Normal },
            df: self.has(DONT_FRAGMENT),
        }
    }

    /// Whether the MSS of TCP SYNs is lowered to the path.
    #[inline(always)]
    #[must_use]
    pub const fn mss_clamp(&self) -> bool {
        self.has(MSS_CLAMP)
    }

    /// Whether datagrams from one peer to another are passed on by the programs.
    #[inline(always)]
    #[must_use]
    pub const fn relay(&self) -> bool {
        self.has(RELAY)
    }

    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// What there is to know of a peer: two words, each written at once, so that no program sees half of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct PeerEntry {
    /// Its address on the underlay.
    pub underlay: [u8; 4],
    /// The next hop towards it; its own address where it is on the link.
    pub next_hop: [u8; 4],
    /// The interface towards it; 0: userspace sends.
    pub device: u32,
    /// Bytes of the largest outer datagram on the path.
    pub path_mtu: u16,
    /// Not 0: the next datagram's sender is owed an answer, so userspace takes it. A program that hears the peer
    /// clears it.
    pub owes_answer: u16,
}

/// What has been counted for a peer, on one processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PeerCounts {
    /// Inner datagrams sent to it.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Inner datagrams received from it.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// When the last of them came, and with which outer TTL: see [`LastRx`]; 0: never.
    pub last_rx: u64,
    /// Datagrams dropped.
    pub drops: u64,
    /// Datagrams that came marked: congestion experienced.
    pub congestion_experienced: u64,
    /// TCP SYNs whose MSS was lowered.
    pub mss_clamped: u64,
}

impl PeerCounts {
    /// With what another processor has counted.
    #[must_use]
    pub fn plus(self, other: PeerCounts) -> PeerCounts {
        PeerCounts { last_rx: self.last_rx.max(other.last_rx), ..self.combined(&other, u64::wrapping_add) }
    }

    /// Without what had been counted `before`.
    #[must_use]
    pub fn since(&self, before: &PeerCounts) -> PeerCounts {
        self.combined(before, u64::saturating_sub)
    }

    fn combined(&self, other: &PeerCounts, with: fn(u64, u64) -> u64) -> PeerCounts {
        PeerCounts {
            tx_packets: with(self.tx_packets, other.tx_packets),
            tx_bytes: with(self.tx_bytes, other.tx_bytes),
            rx_packets: with(self.rx_packets, other.rx_packets),
            rx_bytes: with(self.rx_bytes, other.rx_bytes),
            last_rx: self.last_rx,
            drops: with(self.drops, other.drops),
            congestion_experienced: with(self.congestion_experienced, other.congestion_experienced),
            mss_clamped: with(self.mss_clamped, other.mss_clamped),
        }
    }
}

/// When a datagram came, and the TTL of its outer header, in one word that grows with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRx {
    /// Nanoseconds of `CLOCK_MONOTONIC`, some milliseconds early.
    pub nanoseconds: u64,
    /// Hops that the outer header had left.
    pub ttl: u8,
}

impl LastRx {
    const TTL: u64 = 0xff;

    /// As the map has it. The time loses 256 ns.
    #[inline(always)]
    #[must_use]
    pub const fn encode(self) -> u64 {
        self.nanoseconds & !LastRx::TTL | self.ttl as u64
    }

    /// What [`LastRx::encode`] wrote; `None`: nothing has come yet.
    #[must_use]
    pub const fn decode(word: u64) -> Option<LastRx> {
        if word == 0 {
            return None;
        }
        Some(LastRx { nanoseconds: word & !LastRx::TTL, ttl: (word & LastRx::TTL) as u8 })
    }
}

const OURS: u32 = u32::MAX;

/// Whose a network is, as the map has it.
#[must_use]
pub const fn encode_owner(owner: Owner) -> u32 {
    match owner {
        Owner::Ours => OURS,
        Owner::Peer(peer) => peer.number(),
    }
}

/// What [`encode_owner`] wrote.
#[inline(always)]
#[must_use]
pub const fn decode_owner(word: u32) -> Owner {
    if word == OURS { Owner::Ours } else { Owner::Peer(PeerIndex::new(word)) }
}
