//! Where TCP connections began, so that their sequence numbers can be shown from there.

use core::net::Ipv4Addr;

use crate::ipv4::Ipv4Packet;
use crate::tcp::{TcpFlags, TcpHeader};
use crate::{Protocol, Validation};

/// Flows whose hashes agree share this many places.
const WAYS: usize = 4;

/// What to subtract from the numbers of one segment before they are shown.
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
struct End {
    address: Ipv4Addr,
    port: u16,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    /// The lower end, so that both directions find the same flow.
    low: End,
    high: End,
    /// The first sequence number of what the lower, and the higher, end sends.
    low_base: u32,
    high_base: u32,
    /// When it was last used, by the table's own count.
    used: u32,
}

/// Remembers up to `N` TCP connections, without allocating; when full, the one that was used least
/// recently among a few is forgotten, and its numbers are shown absolute once again. Costs 40 bytes a
/// connection and a few comparisons a segment. `N` is best a multiple of four.
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
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the innermost TCP segment of an IPv4 datagram and says from where to count its numbers.
    /// All zero when there is none, when it acknowledges nothing, and when it is the connection's first.
    pub fn observe(&mut self, datagram: &[u8]) -> SequenceBases {
        let Some((packet, segment)) = innermost_tcp(datagram) else {
            return SequenceBases::default();
        };
        if !segment.flags().contains(TcpFlags::ACK) {
            return SequenceBases::default();
        }
        let from = End { address: packet.source(), port: segment.source_port() };
        let to = End { address: packet.destination(), port: segment.destination_port() };
        let (low, high) = if from <= to { (from, to) } else { (to, from) };
        self.clock = self.clock.wrapping_add(1);
        let clock = self.clock;
        let Some(place) = self.place(low, high) else {
            return SequenceBases::default();
        };
        let known = place
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
        *place = Some(Flow { low, high, low_base, high_base, used: clock });
        // tcpdump has the flow by the time it comes to the options, so these are relative already.
        SequenceBases { sack: theirs, ..SequenceBases::default() }
    }

    /// Where this flow is, or is to be: its own place, else a free one, else the least recently used.
    fn place(&mut self, low: End, high: End) -> Option<&mut Option<Flow>> {
        let sets = N.div_ceil(WAYS).max(1);
        let first = hash(low, high) as usize % sets * WAYS;
        let clock = self.clock;
        let set = self.flows.get_mut(first..)?;
        set.iter_mut().take(WAYS).min_by_key(|place| match place {
            Some(flow) if (flow.low, flow.high) == (low, high) => (0, 0),
            None => (1, 0),
            // The count may have wrapped, so the age is what is compared.
            Some(flow) => (2, u32::MAX - clock.wrapping_sub(flow.used)),
        })
    }
}

/// Spreads flows over the table. Not for an adversary: the worst it can do is absolute numbers.
fn hash(low: End, high: End) -> u32 {
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
