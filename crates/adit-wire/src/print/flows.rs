//! A table of TCP connections and their first sequence numbers, from which the numbers are counted.

use core::net::Ipv6Addr;

use crate::ipv4::Ipv4Packet;
use crate::ipv6::{Ipv6Packet, extension, is_ipv6};
use crate::tcp::{TcpFlags, TcpHeader};
use crate::{Protocol, Validation};

/// Flows with the same hash share a set of this many slots.
const WAYS: usize = 4;

/// The numbers to subtract from those of a segment before they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SequenceBases {
    /// From the sequence number.
    pub sequence: u32,
    /// From the acknowledgment number.
    pub acknowledgment: u32,
    /// From the edges of selective acknowledgments.
    pub sack: u32,
}

/// One end of a connection. An IPv4 address is v4-mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    address: Ipv6Addr,
    port: u16,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    /// The lower endpoint first, so that both directions find the same flow.
    low: Endpoint,
    high: Endpoint,
    /// The first sequence numbers of the lower and of the higher endpoint.
    low_base: u32,
    high_base: u32,
    /// The table's clock when the flow was last used.
    used: u32,
}

/// A table of up to `N` TCP connections, without allocation.
///
/// When a set is full, its least recently used connection is replaced, and its numbers are shown
/// absolute once again. Costs 52 bytes for each connection and a few comparisons for each segment.
/// `N` should be a multiple of four.
#[derive(Debug, Clone)]
pub struct FlowTable<const N: usize = 256> {
    flows: [Option<Flow>; N],
    clock: u32,
}

impl<const N: usize> Default for FlowTable<N> {
    fn default() -> Self {
        FlowTable { flows: [None; N], clock: 0 }
    }
}

impl<const N: usize> FlowTable<N> {
    /// Returns an empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the innermost TCP segment of a packet, and returns the numbers to subtract.
    /// They are 0 if there is no segment, if it has no acknowledgment, or if it is the connection's
    /// first.
    pub fn observe(&mut self, packet: &[u8]) -> SequenceBases {
        let Some(Segment { source, destination, segment }) = innermost_tcp(packet) else {
            return SequenceBases::default();
        };
        if !segment.flags().contains(TcpFlags::ACK) {
            return SequenceBases::default();
        }
        let from = Endpoint { address: source, port: segment.source_port() };
        let to = Endpoint { address: destination, port: segment.destination_port() };
        let (low, high) = if from <= to { (from, to) } else { (to, from) };
        self.clock = self.clock.wrapping_add(1);
        let clock = self.clock;
        let Some(slot) = self.slot(low, high) else {
            return SequenceBases::default();
        };
        let known = slot
            .as_mut()
            .filter(|flow| (flow.low, flow.high) == (low, high))
            .filter(|_| !segment.flags().contains(TcpFlags::SYN));
        if let Some(flow) = known {
            flow.used = clock;
            let (ours, theirs) =
                if from == low { (flow.low_base, flow.high_base) } else { (flow.high_base, flow.low_base) };
            return SequenceBases { sequence: ours, acknowledgment: theirs, sack: theirs };
        }
        let ours = segment.sequence();
        let theirs = segment.acknowledgment().wrapping_sub(1);
        let (low_base, high_base) = if from == low { (ours, theirs) } else { (theirs, ours) };
        *slot = Some(Flow { low, high, low_base, high_base, used: clock });
        // tcpdump has stored the flow before it prints the options, so these are relative already.
        SequenceBases { sack: theirs, ..SequenceBases::default() }
    }

    /// Returns the slot of this flow: its own, else a free one, else the least recently used one.
    fn slot(&mut self, low: Endpoint, high: Endpoint) -> Option<&mut Option<Flow>> {
        let sets = N.div_ceil(WAYS).max(1);
        let first = hash(low, high) as usize % sets * WAYS;
        let clock = self.clock;
        let set = self.flows.get_mut(first..)?;
        set.iter_mut().take(WAYS).min_by_key(|slot| match slot {
            Some(flow) if (flow.low, flow.high) == (low, high) => (0, 0),
            None => (1, 0),
            // The clock may have wrapped, so ages are compared.
            Some(flow) => (2, u32::MAX - clock.wrapping_sub(flow.used)),
        })
    }
}

/// Spreads flows over the table. An adversary can provoke collisions, which only make numbers
/// absolute.
fn hash(low: Endpoint, high: Endpoint) -> u32 {
    let ports = u32::from(low.port) << 16 | u32::from(high.port);
    let mut hash = fold(low.address).wrapping_mul(0x9e37_79b1);
    hash = (hash ^ fold(high.address)).rotate_left(15).wrapping_mul(0x85eb_ca77);
    hash = (hash ^ ports).rotate_left(13).wrapping_mul(0xc2b2_ae3d);
    hash ^ (hash >> 16)
}

fn fold(address: Ipv6Addr) -> u32 {
    let bits = address.to_bits();
    (bits ^ bits >> 32 ^ bits >> 64 ^ bits >> 96) as u32
}

/// A TCP segment and the addresses of its packet.
struct Segment<'a> {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    segment: TcpHeader<'a>,
}

fn innermost_tcp(packet: &[u8]) -> Option<Segment<'_>> {
    let mut bytes = packet;
    for _ in 0..=super::MAX_DEPTH {
        let (source, destination, protocol, payload) =
            if is_ipv6(bytes) { payload_v6(bytes)? } else { payload_v4(bytes)? };
        match protocol {
            Protocol::TCP => {
                return Some(Segment { source, destination, segment: TcpHeader::parse(payload).ok()? });
            }
            Protocol::IPIP | Protocol::IPV6 => bytes = payload,
            _ => return None,
        }
    }
    None
}

type Addressed<'a> = (Ipv6Addr, Ipv6Addr, Protocol, &'a [u8]);

/// The payload of a datagram with its addresses. `None` for a fragment that is not the first.
fn payload_v4(bytes: &[u8]) -> Option<Addressed<'_>> {
    let packet = Ipv4Packet::parse(bytes, Validation::Lenient).ok()?;
    let (source, destination) = (packet.source().to_ipv6_mapped(), packet.destination().to_ipv6_mapped());
    packet.is_first_fragment_or_whole().then(|| (source, destination, packet.protocol(), packet.payload()))
}

/// The same behind the extension headers of a packet of IPv6.
fn payload_v6(bytes: &[u8]) -> Option<Addressed<'_>> {
    let packet = Ipv6Packet::parse(bytes, Validation::Lenient).ok()?;
    let upper = extension::walk(packet.as_bytes(), packet.next_header()).ok()?;
    let is_later_fragment = upper.fragment.is_some_and(|fragment| fragment.offset() != 0);
    let payload = packet.as_bytes().get(upper.offset..)?;
    (!is_later_fragment).then(|| (packet.source(), packet.destination(), upper.protocol, payload))
}
