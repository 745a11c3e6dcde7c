//! A table of TCP connections and their first sequence numbers, from which the numbers are counted.

use core::net::Ipv4Addr;

use crate::ipv4::Ipv4Packet;
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

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    address: Ipv4Addr,
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
/// absolute once again. Costs 40 bytes for each connection and a few comparisons for each segment.
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

    /// Records the innermost TCP segment of an IPv4 datagram, and returns the numbers to subtract.
    /// They are 0 if there is no segment, if it has no acknowledgment, or if it is the connection's
    /// first.
    pub fn observe(&mut self, datagram: &[u8]) -> SequenceBases {
        let Some((packet, segment)) = innermost_tcp(datagram) else {
            return SequenceBases::default();
        };
        if !segment.flags().contains(TcpFlags::ACK) {
            return SequenceBases::default();
        }
        let from = Endpoint { address: packet.source(), port: segment.source_port() };
        let to = Endpoint { address: packet.destination(), port: segment.destination_port() };
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
    let mut hash = low.address.to_bits().wrapping_mul(0x9e37_79b1);
    hash = (hash ^ high.address.to_bits()).rotate_left(15).wrapping_mul(0x85eb_ca77);
    hash = (hash ^ ports).rotate_left(13).wrapping_mul(0xc2b2_ae3d);
    hash ^ (hash >> 16)
}

fn innermost_tcp(datagram: &[u8]) -> Option<(Ipv4Packet<'_>, TcpHeader<'_>)> {
    let mut bytes = datagram;
    for _ in 0..=super::MAX_DEPTH {
        let packet = Ipv4Packet::parse(bytes, Validation::Lenient).ok()?;
        if !packet.is_first_fragment_or_whole() {
            return None;
        }
        match packet.protocol() {
            Protocol::TCP => return Some((packet, TcpHeader::parse(packet.payload()).ok()?)),
            Protocol::IPIP => bytes = packet.payload(),
            _ => return None,
        }
    }
    None
}
