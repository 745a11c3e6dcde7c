//! The BPF maps: their names and the layout of their values, shared by userspace and the programs.
//! Addresses are in network byte order, numbers in the machine's.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_wire::dscp::{Dscp, DscpPolicy};
use adit_wire::ecn::EcnMode;
use adit_wire::encapsulation::{OVERHEAD_V4, OVERHEAD_V6, OuterPolicy, TtlPolicy};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow_label::FlowKey;
use crate::outer::OuterAddress;
use crate::peer::{Owner, PeerIndex};

/// Names of the maps in the object. The kernel keeps 15 bytes of a map's name.
pub mod name {
    /// One [`Settings`](super::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// Inner prefix to its owner: [`encode_owner`](super::encode_owner).
    pub const PREFIX_OWNERS: &str = "PREFIX_OWNERS";
    /// Peer's [`UnderlayAddress`](super::UnderlayAddress) to peer number.
    pub const PEER_BY_OUTER: &str = "PEER_BY_OUTER";
    /// Peer number to [`PeerEntry`](super::PeerEntry).
    pub const PEERS: &str = "PEERS";
    /// Path number to [`PathEntry`](super::PathEntry).
    pub const PATHS: &str = "PATHS";
    /// The same of IPv6.
    pub const PREFIX_OWNERS6: &str = "PREFIX_OWNERS6";
    /// The gateway's own addresses, as a set.
    pub const LOCAL: &str = "LOCAL";
    /// The same of IPv6.
    pub const LOCAL6: &str = "LOCAL6";
    /// The networks that are reached through other overlays of this machine, as a set. If there
    /// are any, 255.255.255.255 is in it too, which is in nobody's network.
    pub const OTHER_NETWORKS: &str = "OTHER_NETWORKS";
    /// The networks of IPv6 that are reached through other overlays, as a set.
    pub const OTHER_NETWORKS6: &str = "OTHER_NETWORKS6";
    /// Peer number to [`PeerCounts`](super::PeerCounts), one copy per processor.
    pub const PEER_COUNTS: &str = "PEER_COUNTS";
    /// Drop reason to a count, one copy per processor.
    pub const DROPS: &str = "DROPS";
    /// Drop reason to its last drop ([`LastDrop`](super::LastDrop)), one copy per processor.
    pub const LAST_DROPS: &str = "LAST_DROPS";
    /// ECN anomaly to a count, one copy per processor.
    pub const ECN: &str = "ECN";
    /// Pairs of peer numbers, encoded by [`encode_pair`](super::encode_pair), as a set: the first
    /// may send to the second.
    pub const RELAY_PAIRS: &str = "RELAY_PAIRS";
    /// Peer number to the next identification of outer datagrams that may be fragmented.
    pub const IDENTIFICATIONS: &str = "IDENTIFICATIONS";
}

/// A byte of the programs that is set before they are loaded: not 0 if runs of them on one
/// processor may interrupt each other.
pub const IS_PREEMPTIBLE: &str = "IS_PREEMPTIBLE";

/// Longest name of a map or a program that the kernel keeps whole (`BPF_OBJ_NAME_LEN` with its
/// NUL).
const MAX_NAME_LEN: usize = 15;

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which has no iterators there")]
const _: () = {
    let names = [
        name::SETTINGS,
        name::PREFIX_OWNERS,
        name::PREFIX_OWNERS6,
        name::PEER_BY_OUTER,
        name::PEERS,
        name::PATHS,
        name::LOCAL,
        name::LOCAL6,
        name::OTHER_NETWORKS,
        name::OTHER_NETWORKS6,
        name::PEER_COUNTS,
        name::DROPS,
        name::LAST_DROPS,
        name::ECN,
        name::RELAY_PAIRS,
        name::IDENTIFICATIONS,
        program::ENCAP,
        program::DECAP,
    ];
    let mut index = 0;
    while index < names.len() {
        assert!(names[index].len() <= MAX_NAME_LEN, "the kernel would cut the name");
        index += 1;
    }
};

/// Names of the programs, as the kernel lists them.
pub mod program {
    /// Runs at the ingress of the hidden end of the tunnel interface.
    pub const ENCAP: &str = "adit_encap";
    /// Runs at the ingress of each underlay interface.
    pub const DECAP: &str = "adit_decap";
}

/// Settings of the whole tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Our addresses on the underlay. Both are the same if there is one.
    underlay: [UnderlayAddress; 2],
    /// The key of the flow labels of IPv6.
    pub flow_key: FlowKey,
    /// How datagrams get to the host.
    pub interface: HostInterface,
    flags: u32,
    ttl: u8,
    dscp: u8,
    padding: [u8; 2],
    /// The firewall mark of what is sent; 0 leaves each packet its own.
    pub mark: u32,
    /// Generation of the prefixes and the outer sources, odd while they change. Programs ignore
    /// cached lookups of another generation.
    pub generation: u32,
}

/// An address of the underlay: 16 bytes, and an IPv4 address in its mapped form
/// (`::ffff:0:0/96`). Two words are compared at once, and 16 bytes one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct UnderlayAddress {
    /// In network byte order, as they lie in memory.
    words: [u64; 2],
}

/// What comes before an IPv4 address in the second half of its mapped form.
const MAPPED: u64 = 0xffff << 32;

impl UnderlayAddress {
    /// An address of either family.
    #[must_use]
    pub const fn new(address: IpAddr) -> UnderlayAddress {
        match address {
            IpAddr::V4(address) => UnderlayAddress::v4(address),
            IpAddr::V6(address) => UnderlayAddress::v6(address),
        }
    }

    /// An address of IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: Ipv4Addr) -> UnderlayAddress {
        UnderlayAddress { words: [0, (MAPPED | address.to_bits() as u64).to_be()] }
    }

    /// An address of IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn v6(address: Ipv6Addr) -> UnderlayAddress {
        let bits = address.to_bits();
        UnderlayAddress { words: [((bits >> 64) as u64).to_be(), (bits as u64).to_be()] }
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        zerocopy::transmute!(self.words)
    }

    /// The IPv4 address in it; of an IPv6 address, its last four bytes.
    #[inline(always)]
    #[must_use]
    pub const fn last_v4(self) -> Ipv4Addr {
        let [_, last] = self.words;
        Ipv4Addr::from_bits(u64::from_be(last) as u32)
    }

    /// The IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn as_v6(self) -> Ipv6Addr {
        let [first, last] = self.words;
        Ipv6Addr::from_bits((u64::from_be(first) as u128) << 64 | u64::from_be(last) as u128)
    }

    const fn is_v4(self) -> bool {
        let [first, last] = self.words;
        first == 0 && u64::from_be(last) & !0xffff_ffff == MAPPED
    }
}

impl OuterAddress for UnderlayAddress {
    #[inline(always)]
    fn of_v4(address: Ipv4Addr) -> Option<UnderlayAddress> {
        Some(UnderlayAddress::v4(address))
    }

    /// A mapped address inside is none of an underlay of IPv4.
    #[inline(always)]
    fn of_v6(address: Ipv6Addr) -> Option<UnderlayAddress> {
        let address = UnderlayAddress::v6(address);
        if address.is_v4() { None } else { Some(address) }
    }
}

/// Which peers reach each other through this site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayRule {
    /// All.
    All,
    /// None.
    Nobody,
    /// The pairs in the map [`name::RELAY_PAIRS`].
    Listed,
}

/// A pair of peers as the word in the map.
#[inline(always)]
#[must_use]
pub const fn encode_pair(from: PeerIndex, to: PeerIndex) -> u64 {
    (from.number() as u64) << 32 | to.number() as u64
}

/// The veth pair by which the host sends into the tunnel and receives from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostInterface {
    /// Index of the hidden end: what leaves by it arrives at the host by the visible end.
    pub hidden: u32,
    /// Index of the visible end; 0 if it is in another network namespace.
    pub visible: u32,
    /// Bytes of the largest datagram that the visible end accepts from the hidden one. A GSO packet
    /// may be larger.
    pub max_datagram: u32,
    /// The Ethernet addresses of what leaves by the hidden end: those of the visible and of the
    /// hidden end.
    pub addresses: [u8; 12],
}

/// Bytes by which a veth accepts frames beyond its MTU, for a VLAN tag.
const VETH_SLACK: u32 = 4;

impl HostInterface {
    /// A pair whose ends have these indices and link-layer addresses. `visible` is `None` if that
    /// end is in another network namespace. `mtu` is the visible end's, in bytes.
    #[must_use]
    pub fn new(hidden: u32, visible: Option<u32>, mtu: u16, mac: [u8; 6], hidden_mac: [u8; 6]) -> Self {
        let mut addresses = [0; 12];
        for (to, from) in addresses.iter_mut().zip(mac.into_iter().chain(hidden_mac)) {
            *to = from;
        }
        let max_datagram = u32::from(mtu) + VETH_SLACK;
        Self { hidden, visible: visible.unwrap_or(0), max_datagram, addresses }
    }
}

const TTL_INHERIT: u32 = 1;
const DSCP_FIXED: u32 = 1 << 1;
const ECN_COMPATIBILITY: u32 = 1 << 2;
const DONT_FRAGMENT: u32 = 1 << 3;
const MSS_CLAMP: u32 = 1 << 4;
const RELAY: u32 = 1 << 5;
const SILENT_IN_IPV4: u32 = 1 << 6;
const RELAY_NOBODY: u32 = 1 << 7;
const RELAY_LISTED: u32 = 1 << 8;
const CARRIES_IPV6: u32 = 1 << 9;
const SILENT_IN_IPV6: u32 = 1 << 10;

impl Settings {
    /// Settings of a tunnel that does not relay; see [`Settings::with_relay`]. Give the only
    /// underlay address twice.
    #[must_use]
    pub fn new(
        underlay: [IpAddr; 2],
        interface: HostInterface,
        policy: &OuterPolicy,
        mss_clamp: bool,
    ) -> Settings {
        let underlay = underlay.map(UnderlayAddress::new);
        let mut settings = Settings { underlay, interface, ..Settings::default() };
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

    /// The same settings with the key of the flow labels.
    #[must_use]
    pub const fn with_flow_key(mut self, flow_key: FlowKey) -> Settings {
        self.flow_key = flow_key;
        self
    }

    /// The same settings, for an interface with or without IPv6.
    #[must_use]
    pub const fn with_ipv6(mut self, ipv6: bool) -> Settings {
        self.flags = if ipv6 { self.flags | CARRIES_IPV6 } else { self.flags & !CARRIES_IPV6 };
        self
    }

    /// Whether protocol 41 belongs to the tunnel.
    #[inline(always)]
    #[must_use]
    pub const fn carries_ipv6(&self) -> bool {
        self.flags & CARRIES_IPV6 != 0
    }

    /// The same settings, with or without relaying between peers.
    #[must_use]
    pub const fn with_relay(mut self, relay: bool) -> Settings {
        self.flags = if relay { self.flags | RELAY } else { self.flags & !RELAY };
        self
    }

    /// The same settings, in which all peers, none or only listed pairs reach each other.
    #[must_use]
    pub const fn with_relay_rule(mut self, rule: RelayRule) -> Settings {
        self.flags &= !(RELAY_NOBODY | RELAY_LISTED);
        self.flags |= match rule {
            RelayRule::All => 0,
            RelayRule::Nobody => RELAY_NOBODY,
            RelayRule::Listed => RELAY_LISTED,
        };
        self
    }

    /// Which peers reach each other.
    #[inline(always)]
    #[must_use]
    pub const fn relay_rule(&self) -> RelayRule {
        if self.has(RELAY_NOBODY) {
            RelayRule::Nobody
        } else if self.has(RELAY_LISTED) {
            RelayRule::Listed
        } else {
            RelayRule::All
        }
    }

    /// The same settings with a firewall mark for what is sent; 0 is none.
    #[must_use]
    pub const fn with_mark(mut self, mark: u32) -> Settings {
        self.mark = mark;
        self
    }

    /// The same settings, with or without permission to send in this form. Without it the programs
    /// leave everything that they would send so to userspace.
    #[must_use]
    pub const fn with_sending(mut self, form: Form, sends: bool) -> Settings {
        let silent = silent_in(form);
        self.flags = if sends { self.flags & !silent } else { self.flags | silent };
        self
    }

    /// Whether an address is one of ours.
    #[inline(always)]
    #[must_use]
    pub fn is_our_underlay(&self, address: UnderlayAddress) -> bool {
        let [first, second] = self.underlay;
        address == first || address == second
    }

    /// The same settings with the next generation, at the begin and at the end of a change of the
    /// prefixes. `None`: all have been used, and one that comes again would make old cached lookups
    /// valid.
    #[must_use]
    pub const fn with_next_generation(mut self) -> Option<Settings> {
        self.generation += 1;
        if self.generation >> GENERATION_BITS == 0 { Some(self) } else { None }
    }

    /// Returns true if the prefixes and the outer sources change in this generation. A packet then
    /// may meet one half of the change.
    #[inline(always)]
    #[must_use]
    pub const fn is_change(generation: u32) -> bool {
        generation % 2 == 1
    }

    /// How to write outer headers.
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

    /// Whether to lower the MSS of TCP SYNs to the path.
    #[inline(always)]
    #[must_use]
    pub const fn mss_clamp(&self) -> bool {
        self.has(MSS_CLAMP)
    }

    /// Whether the programs relay datagrams from one peer to another.
    #[inline(always)]
    #[must_use]
    pub const fn relay(&self) -> bool {
        self.has(RELAY)
    }

    /// Whether the programs may send in this form.
    #[inline(always)]
    #[must_use]
    pub const fn sends(&self, form: Form) -> bool {
        !self.has(silent_in(form))
    }

    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

#[inline(always)]
const fn silent_in(form: Form) -> u32 {
    match form {
        Form::InIpv4 => SILENT_IN_IPV4,
        Form::InIpv6 => SILENT_IN_IPV6,
    }
}

/// What the programs know of a peer: one word of 8 bytes. Userspace writes it at once and a program
/// reads it at once, so a packet is sent by the old path or by the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct PeerEntry {
    /// The number of the path in use.
    pub path: u32,
    /// Path MTU: bytes of the largest outer datagram.
    pub path_mtu: u16,
    /// Not 0 if the next sender is owed an ICMP answer, which userspace sends. A program clears it
    /// when it receives from the peer.
    pub owes_answer: u8,
    /// Not 0 if what arrives from the peer is left to the host's IP stack, which applies its
    /// policies of IPsec.
    pub left_to_stack: u8,
}

/// How the gateway of a peer is reached. An entry never changes while a peer's word names it, nor
/// while a program may have read such a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct PathEntry {
    /// Our address.
    pub source: UnderlayAddress,
    /// The peer's.
    pub destination: UnderlayAddress,
    /// The next hop; the peer's own address if it is on the link.
    pub next_hop: UnderlayAddress,
    /// Index of the interface towards the next hop; 0 leaves sending to userspace.
    pub device: u32,
    form: u32,
}

/// What stands before the inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A header of IPv4.
    InIpv4,
    /// A header of IPv6.
    InIpv6,
}

impl Form {
    /// Bytes that it adds to a packet.
    #[inline(always)]
    #[must_use]
    pub const fn overhead(self) -> usize {
        match self {
            Form::InIpv4 => OVERHEAD_V4,
            Form::InIpv6 => OVERHEAD_V6,
        }
    }
}

const IN_IPV6: u32 = 1;

impl PathEntry {
    /// A path between two addresses of one family, whose next hop is not known.
    #[must_use]
    pub const fn new(source: IpAddr, destination: IpAddr) -> PathEntry {
        PathEntry {
            source: UnderlayAddress::new(source),
            destination: UnderlayAddress::new(destination),
            next_hop: UnderlayAddress { words: [0; 2] },
            device: 0,
            form: if destination.is_ipv6() { IN_IPV6 } else { 0 },
        }
    }

    /// The same path, whose next hop is not known any more.
    #[must_use]
    pub const fn without_next_hop(mut self) -> PathEntry {
        self.next_hop = UnderlayAddress { words: [0; 2] };
        self.device = 0;
        self
    }

    /// The same path by this next hop and interface.
    #[must_use]
    pub const fn via(mut self, next_hop: IpAddr, device: u32) -> PathEntry {
        self.next_hop = UnderlayAddress::new(next_hop);
        self.device = device;
        self
    }

    /// What it puts before a packet.
    #[inline(always)]
    #[must_use]
    pub const fn form(&self) -> Form {
        if self.form == IN_IPV6 { Form::InIpv6 } else { Form::InIpv4 }
    }
}

/// Counts of one peer on one processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PeerCounts {
    /// Inner datagrams sent to the peer.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Inner datagrams received from the peer.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Time and outer TTL of the last received datagram, encoded by [`LastRx`]; 0 if none has
    /// arrived.
    pub last_rx: u64,
    /// Datagrams dropped.
    pub drops: u64,
    /// Received datagrams marked Congestion Experienced.
    pub congestion_experienced: u64,
    /// TCP SYNs whose MSS was lowered.
    pub mss_clamped: u64,
}

impl PeerCounts {
    /// The sum of this and another processor's counts.
    #[must_use]
    pub fn plus(self, other: PeerCounts) -> PeerCounts {
        PeerCounts { last_rx: self.last_rx.max(other.last_rx), ..self.combined(&other, u64::wrapping_add) }
    }

    /// The difference to an earlier state.
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

/// Arrival time and outer TTL of a datagram, in one word that grows with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRx {
    /// Nanoseconds of `CLOCK_MONOTONIC`. The coarse clock makes it some milliseconds early.
    pub nanoseconds: u64,
    /// TTL of the outer header on arrival.
    pub ttl: u8,
}

impl LastRx {
    const TTL: u64 = 0xff;

    /// The word in the map. The TTL replaces the lowest 8 bits of the time, which is 256 ns.
    #[inline(always)]
    #[must_use]
    pub const fn encode(self) -> u64 {
        self.nanoseconds & !LastRx::TTL | self.ttl as u64
    }

    /// Decodes a word of [`LastRx::encode`]; `None` if no datagram has arrived.
    #[must_use]
    pub const fn decode(word: u64) -> Option<LastRx> {
        if word == 0 {
            return None;
        }
        Some(LastRx { nanoseconds: word & !LastRx::TTL, ttl: (word & LastRx::TTL) as u8 })
    }
}

/// The last drop of one reason on one processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LastDrop {
    /// Nanoseconds of `CLOCK_MONOTONIC`, the coarse clock; 0 if nothing was dropped.
    pub nanoseconds: u64,
    /// The inner source, an IPv4 address in its mapped form (`::ffff:0:0/96`).
    pub source: [u8; 16],
    peer: u32,
    padding: u32,
}

impl LastDrop {
    /// A drop of a datagram for a peer or from it, if one is known.
    #[inline(always)]
    #[must_use]
    pub const fn new(nanoseconds: u64, source: [u8; 16], peer: Option<PeerIndex>) -> LastDrop {
        let peer = match peer {
            Some(peer) => peer.number().wrapping_add(1),
            None => 0,
        };
        LastDrop { nanoseconds, source, peer, padding: 0 }
    }

    /// The peer, if one is known.
    #[must_use]
    pub fn peer(&self) -> Option<PeerIndex> {
        self.peer.checked_sub(1).map(PeerIndex::new)
    }
}

/// Bits of a generation of the prefixes: a word of the programs' cache has room for so many.
pub const GENERATION_BITS: u32 = 22;

const OURS: u32 = u32::MAX;

/// An owner as the word in the map.
#[must_use]
pub const fn encode_owner(owner: Owner) -> u32 {
    match owner {
        Owner::Ours => OURS,
        Owner::Peer(peer) => peer.number(),
    }
}

/// Decodes a word of [`encode_owner`].
#[inline(always)]
#[must_use]
pub const fn decode_owner(word: u32) -> Owner {
    if word == OURS { Owner::Ours } else { Owner::Peer(PeerIndex::new(word)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_underlay_is_16_bytes_in_network_order() {
        let v4 = Ipv4Addr::new(10, 1, 1, 2);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0xff, 2);
        let [of_v4, of_v6] = [IpAddr::V4(v4), IpAddr::V6(v6)].map(UnderlayAddress::new);
        assert_eq!(of_v4.octets(), v4.to_ipv6_mapped().octets());
        assert_eq!(of_v6.octets(), v6.octets());
        assert_eq!((of_v4.last_v4(), of_v6.as_v6()), (v4, v6));
        // Inside, a mapped address is no address of the underlay.
        assert_eq!(UnderlayAddress::of_v6(v4.to_ipv6_mapped()), None);
        assert_eq!(UnderlayAddress::of_v6(v6), Some(of_v6));
        assert_eq!(UnderlayAddress::of_v4(v4), Some(of_v4));
    }

    #[test]
    fn no_generation_comes_twice() {
        let settings = Settings { generation: (1 << GENERATION_BITS) - 2, ..Settings::default() };
        let last = settings.with_next_generation();
        assert_eq!(last.map(|last| last.generation), Some((1 << GENERATION_BITS) - 1));
        assert_eq!(last.and_then(|last| last.with_next_generation()), None);
    }
}
