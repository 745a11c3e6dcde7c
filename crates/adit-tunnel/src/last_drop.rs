//! The last drop of each reason: whose datagram it was, and when.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use adit_policy::{DropReason, PeerIndex};
use adit_wire::Validation;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::Ipv6Packet;

use crate::time::Instant;

/// What is known of a dropped datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Its source: of the inner header if that was read, else of the outer one, or the router that
    /// sent an ICMP error.
    pub source: Option<IpAddr>,
    /// The peer that it was for or came from.
    pub peer: Option<PeerIndex>,
    /// When.
    pub at: Instant,
}

impl Dropped {
    /// A datagram of which nothing is known.
    pub const fn at(at: Instant) -> Dropped {
        Dropped { source: None, peer: None, at }
    }

    /// A datagram whose IP header begins `bytes`, as far as it can be read.
    pub fn datagram(bytes: &[u8], at: Instant) -> Dropped {
        let source = match bytes.first().map(|first| first >> 4) {
            Some(6) => {
                Ipv6Packet::parse(bytes, Validation::Lenient).ok().map(|packet| packet.source().into())
            }
            _ => Ipv4Packet::parse(bytes, Validation::Lenient).ok().map(|packet| packet.source().into()),
        };
        Dropped { source, peer: None, at }
    }

    /// The same, for this peer or from it.
    #[must_use]
    pub const fn of_peer(self, peer: Option<PeerIndex>) -> Dropped {
        Dropped { peer, ..self }
    }

    /// The same with this source.
    #[must_use]
    pub fn from(self, source: impl Into<IpAddr>) -> Dropped {
        Dropped { source: Some(source.into()), ..self }
    }
}

/// The last drop of one reason in one thread. A reader that comes between the writes may see a
/// mixture of two drops, both of which were among the last.
#[derive(Debug, Default)]
struct Slot {
    /// The source, an IPv4 address in its mapped form.
    source: [AtomicU64; 2],
    /// [`Slot::HAS_SOURCE`], and the peer's number plus one; 0: no peer.
    who: AtomicU64,
    /// The time in milliseconds plus one; 0: there was no drop.
    at: AtomicU64,
}

impl Slot {
    const HAS_SOURCE: u64 = 1 << 63;
}

/// The last drops of one thread, by reason.
#[derive(Debug)]
pub(crate) struct LastDrops([Slot; DropReason::COUNT]);

impl LastDrops {
    pub(crate) fn new() -> LastDrops {
        LastDrops(std::array::from_fn(|_| Slot::default()))
    }

    #[inline]
    pub(crate) fn note(&self, reason: DropReason, dropped: Dropped) {
        let Some(slot) = self.0.get(reason.index()) else { return };
        let mapped = match dropped.source {
            Some(IpAddr::V4(source)) => source.to_ipv6_mapped(),
            Some(IpAddr::V6(source)) => source,
            None => Ipv6Addr::UNSPECIFIED,
        };
        let bits = mapped.to_bits();
        for (half, bits) in slot.source.iter().zip([(bits >> 64) as u64, bits as u64]) {
            half.store(bits, Relaxed);
        }
        let peer = dropped.peer.map_or(0, |peer| u64::from(peer.number()) + 1);
        slot.who.store(if dropped.source.is_some() { peer | Slot::HAS_SOURCE } else { peer }, Relaxed);
        slot.at.store(dropped.at.as_millis().saturating_add(1), Relaxed);
    }

    pub(crate) fn get(&self, index: usize) -> Option<Dropped> {
        let slot = self.0.get(index)?;
        let at = Instant::from_millis(slot.at.load(Relaxed).checked_sub(1)?);
        let [high, low] = &slot.source;
        let bits = u128::from(high.load(Relaxed)) << 64 | u128::from(low.load(Relaxed));
        let who = slot.who.load(Relaxed);
        let source = (who & Slot::HAS_SOURCE != 0).then(|| Ipv6Addr::from_bits(bits).to_canonical());
        let peer = (who as u32).checked_sub(1).map(PeerIndex::new);
        Some(Dropped { source, peer, at })
    }
}

/// The later of two drops.
pub(crate) fn later(one: Option<Dropped>, other: Option<Dropped>) -> Option<Dropped> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.at > one.at { other } else { one }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_keeps_its_last_drop() {
        let last = LastDrops::new();
        let known = Dropped {
            source: Some([255, 255, 255, 255].into()),
            peer: Some(PeerIndex::new(0)),
            at: Instant::ZERO,
        };
        last.note(DropReason::QueueFull, Dropped::at(Instant::from_millis(9)));
        last.note(DropReason::InnerTooBig, Dropped::at(Instant::from_millis(9)));
        last.note(DropReason::InnerTooBig, known);
        assert_eq!(last.get(DropReason::InnerTooBig.index()), Some(known));
        let unknown = Dropped::at(Instant::from_millis(9));
        assert_eq!(last.get(DropReason::QueueFull.index()), Some(unknown));
        assert_eq!(last.get(DropReason::InnerTtlZero.index()), None);
        let nobody = unknown.from([0, 0, 0, 0]);
        last.note(DropReason::InnerTtlZero, nobody);
        assert_eq!(last.get(DropReason::InnerTtlZero.index()), Some(nobody), "0.0.0.0 is a source, too");
        for source in [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED] {
            let of_ipv6 = known.from(source);
            last.note(DropReason::InnerTtlZero, of_ipv6);
            assert_eq!(last.get(DropReason::InnerTtlZero.index()), Some(of_ipv6));
        }
        assert_eq!(later(Some(known), Some(unknown)), Some(unknown));
        assert_eq!(later(Some(unknown), Some(known)), Some(unknown));
        assert_eq!(later(None, Some(known)), Some(known));
        assert_eq!(later(Some(known), None), Some(known));
    }
}
