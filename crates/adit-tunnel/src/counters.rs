//! Counters without locks and without locked instructions, because they change with every packet:
//! each thread of a data plane writes its own shard, and a reader sums the shards.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use adit_policy::{DropReason, PeerIndex};
use adit_wire::ecn::EcnAnomaly;

use crate::last_drop::{Dropped, LastDrops, later};
use crate::time::Instant;

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    /// Adds by a load and a store. This is cheaper than an atomic addition, and correct because
    /// there is one writer.
    #[inline]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct PeerCounts {
    tx_packets: Count,
    tx_bytes: Count,
    rx_packets: Count,
    rx_bytes: Count,
    /// The time of the last datagram in milliseconds plus one (0: none has come), shifted left by
    /// 8, and its outer TTL in the lowest 8 bits.
    last_rx: AtomicU64,
    drops: Count,
    congestion_experienced: Count,
    mss_clamped: Count,
}

impl PeerCounts {
    #[inline]
    fn heard(&self, ttl: u8, now: Instant) {
        self.last_rx.store(now.as_millis().saturating_add(1) << 8 | u64::from(ttl), Relaxed);
    }
}

/// The counters of one thread.
///
/// **One writer**: calls that count (everything in this crate that takes `&Counters`) must come
/// from one thread at a time; otherwise counts are lost, and nothing worse happens. [`Totals`] may
/// read at any time.
///
/// Size: 64 bytes per peer, and 24 per drop reason.
#[derive(Debug)]
pub struct Counters {
    peers: Box<[PeerCounts]>,
    drops: [Count; DropReason::COUNT],
    last_drops: LastDrops,
    ecn: [Count; ECN_ANOMALIES],
    icmp: IcmpCounts,
    probes: ProbeCounts,
}

#[derive(Debug, Default)]
struct ProbeCounts {
    sent: Count,
    answered: Count,
    received: Count,
    replied: Count,
    keepalives: Count,
}

#[derive(Debug, Default)]
struct IcmpCounts {
    sent: Count,
    suppressed: Count,
    relayed: Count,
    state_changed: Count,
    not_ours: Count,
}

const ECN_ANOMALIES: usize = EcnAnomaly::COUNT;

impl Counters {
    /// A shard for a tunnel with `peers` peers, all zero.
    /// [`Tunnel::counters`](crate::Tunnel::counters) makes one with the right number of peers.
    pub fn new(peers: usize) -> Counters {
        Counters {
            peers: (0..peers).map(|_| PeerCounts::default()).collect(),
            drops: std::array::from_fn(|_| Count::default()),
            last_drops: LastDrops::new(),
            ecn: std::array::from_fn(|_| Count::default()),
            icmp: IcmpCounts::default(),
            probes: ProbeCounts::default(),
        }
    }

    /// What this shard's thread has exchanged with a peer.
    pub fn traffic(&self, peer: PeerIndex) -> Traffic {
        let totals = self.peers.get(peer.index()).map(PeerTotals::from);
        totals.map_or_else(Traffic::default, |totals| Traffic {
            sent: totals.tx_packets,
            last_rx: totals.last_rx,
        })
    }

    /// Counts `n` datagrams as dropped. Data planes call this for datagrams that the operating
    /// system refused and for those that they drop themselves. [`Tunnel`](crate::Tunnel) counts its
    /// own drops.
    #[inline]
    pub fn count_drop(&self, reason: DropReason, dropped: Dropped, n: u64) {
        self.last_drops.note(reason, dropped);
        if let Some(count) = self.drops.get(reason.index()) {
            count.add(n);
        }
        if let Some(peer) = dropped.peer.and_then(|peer| self.peers.get(peer.index())) {
            peer.drops.add(n);
        }
    }

    /// Counts a TCP SYN whose MSS the data plane has lowered.
    #[inline]
    pub fn count_mss_clamped(&self, peer: PeerIndex) {
        if let Some(peer) = self.peers.get(peer.index()) {
            peer.mss_clamped.add(1);
        }
    }

    #[inline]
    pub(crate) fn count_tx(&self, peer: PeerIndex, packets: u64, bytes: u64) {
        if let Some(peer) = self.peers.get(peer.index()) {
            peer.tx_packets.add(packets);
            peer.tx_bytes.add(bytes);
        }
    }

    #[inline]
    pub(crate) fn count_rx(&self, peer: PeerIndex, packets: u64, bytes: u64, ttl: u8, now: Instant) {
        if let Some(peer) = self.peers.get(peer.index()) {
            peer.rx_packets.add(packets);
            peer.rx_bytes.add(bytes);
            peer.heard(ttl, now);
        }
    }

    #[inline]
    pub(crate) fn count_congestion_experienced(&self, peer: PeerIndex, packets: u64) {
        if let Some(peer) = self.peers.get(peer.index()) {
            peer.congestion_experienced.add(packets);
        }
    }

    pub(crate) fn count_ecn(&self, anomaly: EcnAnomaly, packets: u64) {
        if let Some(count) = self.ecn.get(anomaly.index()) {
            count.add(packets);
        }
    }

    pub(crate) fn count_icmp_sent(&self) {
        self.icmp.sent.add(1);
    }

    pub(crate) fn count_icmp_suppressed(&self) {
        self.icmp.suppressed.add(1);
    }

    pub(crate) fn count_icmp_relayed(&self) {
        self.icmp.relayed.add(1);
    }

    pub(crate) fn count_icmp_state_changed(&self) {
        self.icmp.state_changed.add(1);
    }

    pub(crate) fn count_icmp_not_ours(&self) {
        self.icmp.not_ours.add(1);
    }

    pub(crate) fn count_probe_sent(&self) {
        self.probes.sent.add(1);
    }

    pub(crate) fn count_keepalive(&self) {
        self.probes.keepalives.add(1);
    }

    pub(crate) fn count_probe_answered(&self) {
        self.probes.answered.add(1);
    }

    /// Counts a peer's probe. It shows that the peer is there, and is not traffic.
    pub(crate) fn count_probe_received(&self, peer: PeerIndex, ttl: u8, now: Instant) {
        self.probes.received.add(1);
        if let Some(peer) = self.peers.get(peer.index()) {
            peer.heard(ttl, now);
        }
    }

    pub(crate) fn count_probe_replied(&self) {
        self.probes.replied.add(1);
    }
}

/// The counts of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerTotals {
    /// Inner datagrams that the tunnel passed on towards the peer. Those that the operating system
    /// then refused are included, and also counted as drops.
    pub tx_packets: u64,
    /// Bytes of these datagrams, with inner headers and without outer headers.
    pub tx_bytes: u64,
    /// Inner datagrams from the peer that the tunnel passed on.
    pub rx_packets: u64,
    /// Bytes of these datagrams, with inner headers and without outer headers.
    pub rx_bytes: u64,
    /// The time at which the last of them came, or the last probe of the peer.
    pub last_rx: Option<Instant>,
    /// The TTL in the outer header of the last one, as it came.
    pub last_ttl: Option<u8>,
    /// Datagrams to or from the peer that were dropped, for any reason. Drops for which no peer is
    /// known are not included.
    pub drops: u64,
    /// Datagrams with Congestion Experienced in the outer header (RFC 2003 section 5.2, RFC 6040).
    pub congestion_experienced: u64,
    /// TCP SYNs whose MSS was lowered.
    pub mss_clamped: u64,
}

impl PeerTotals {
    /// Adds the counts of another shard for the same peer.
    pub fn add(&mut self, other: &PeerTotals) {
        if other.last_rx > self.last_rx {
            (self.last_rx, self.last_ttl) = (other.last_rx, other.last_ttl);
        }
        self.combine(other, u64::wrapping_add);
    }

    /// The counts since `before`, an earlier reading. `last_rx` and `last_ttl` are `None` if
    /// nothing has come since.
    #[must_use]
    pub fn since(&self, before: &PeerTotals) -> PeerTotals {
        let mut since = *self;
        since.combine(before, u64::saturating_sub);
        // A probe is not counted here, and two datagrams may come in one millisecond.
        if since.rx_packets == 0 && since.last_rx <= before.last_rx {
            (since.last_rx, since.last_ttl) = (None, None);
        }
        since
    }

    fn combine(&mut self, other: &PeerTotals, with: fn(u64, u64) -> u64) {
        for (mine, theirs) in [
            (&mut self.tx_packets, other.tx_packets),
            (&mut self.tx_bytes, other.tx_bytes),
            (&mut self.rx_packets, other.rx_packets),
            (&mut self.rx_bytes, other.rx_bytes),
            (&mut self.drops, other.drops),
            (&mut self.congestion_experienced, other.congestion_experienced),
            (&mut self.mss_clamped, other.mss_clamped),
        ] {
            *mine = with(*mine, theirs);
        }
    }
}

impl From<&PeerCounts> for PeerTotals {
    fn from(counts: &PeerCounts) -> PeerTotals {
        let last_rx = counts.last_rx.load(Relaxed);
        PeerTotals {
            tx_packets: counts.tx_packets.get(),
            tx_bytes: counts.tx_bytes.get(),
            rx_packets: counts.rx_packets.get(),
            rx_bytes: counts.rx_bytes.get(),
            last_rx: (last_rx >> 8).checked_sub(1).map(Instant::from_millis),
            last_ttl: (last_rx > 0).then_some(last_rx as u8),
            drops: counts.drops.get(),
            congestion_experienced: counts.congestion_experienced.get(),
            mss_clamped: counts.mss_clamped.get(),
        }
    }
}

/// What is exchanged with one peer, as far as the prober needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// The number of inner datagrams that were passed on towards the peer.
    pub sent: u64,
    /// The time of the last datagram from it; `None`: none has come.
    pub last_rx: Option<Instant>,
}

impl Traffic {
    /// What two threads, or a thread and a fast path, have exchanged together.
    #[must_use]
    pub fn plus(self, other: Traffic) -> Traffic {
        Traffic { sent: self.sent.wrapping_add(other.sent), last_rx: self.last_rx.max(other.last_rx) }
    }
}

/// Counts of path MTU probes (RFC 8899) and of their answers. None of them is in [`PeerTotals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProbeTotals {
    /// Probes sent.
    pub sent: u64,
    /// Probes that were answered.
    pub answered: u64,
    /// Probes of peers that were received.
    pub received: u64,
    /// Answers to them that were passed on; each fragment of one is counted.
    pub replied: u64,
    /// Those of the sent probes that keep firewalls and NATs on an idle path open.
    pub keepalives: u64,
}

/// Counts of ICMP messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IcmpTotals {
    /// Errors for senders whose datagram the encapsulator dropped.
    pub sent: u64,
    /// Errors that were not sent: either none may be sent about the datagram (RFC 1122 section
    /// 3.2.2), or the rate limit was reached.
    pub suppressed: u64,
    /// Errors from inside the tunnel that were relayed to the original sender.
    pub relayed: u64,
    /// Errors from inside the tunnel that only changed the soft state.
    pub state_changed: u64,
    /// ICMP messages that do not concern the tunnel: echoes, and errors about other traffic.
    pub not_ours: u64,
}

/// The sum of all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// The counts of each peer, by [`PeerIndex`].
    pub peers: Vec<PeerTotals>,
    /// Drops, by [`DropReason::index`]. [`Totals::drops_of`] and [`Totals::drops_by_reason`] are
    /// easier to use.
    pub drops: [u64; DropReason::COUNT],
    /// The last drop of each reason, in the same order.
    pub last_drops: [Option<Dropped>; DropReason::COUNT],
    /// Unexpected pairs of inner and outer ECN (RFC 6040 section 4.2), in the order of
    /// [`EcnAnomaly::ALL`].
    pub ecn_anomalies: [u64; ECN_ANOMALIES],
    /// ICMP messages.
    pub icmp: IcmpTotals,
    /// Path MTU probes.
    pub probes: ProbeTotals,
}

impl Default for Totals {
    /// No peers, and all counts zero.
    fn default() -> Totals {
        Totals {
            peers: Vec::new(),
            drops: [0; DropReason::COUNT],
            last_drops: [None; DropReason::COUNT],
            ecn_anomalies: [0; ECN_ANOMALIES],
            icmp: IcmpTotals::default(),
            probes: ProbeTotals::default(),
        }
    }
}

impl Totals {
    /// Sums the shards of one tunnel. The writers continue meanwhile: each number is exact at some
    /// moment during the call, but not all at the same moment.
    pub fn sum<'a>(shards: impl IntoIterator<Item = &'a Counters>) -> Totals {
        let mut totals = Totals::default();
        for shard in shards {
            totals.add(&Totals::of(shard));
        }
        totals
    }

    fn of(shard: &Counters) -> Totals {
        Totals {
            peers: shard.peers.iter().map(PeerTotals::from).collect(),
            drops: std::array::from_fn(|index| shard.drops.get(index).map_or(0, Count::get)),
            last_drops: std::array::from_fn(|index| shard.last_drops.get(index)),
            ecn_anomalies: std::array::from_fn(|index| shard.ecn.get(index).map_or(0, Count::get)),
            icmp: IcmpTotals {
                sent: shard.icmp.sent.get(),
                suppressed: shard.icmp.suppressed.get(),
                relayed: shard.icmp.relayed.get(),
                state_changed: shard.icmp.state_changed.get(),
                not_ours: shard.icmp.not_ours.get(),
            },
            probes: ProbeTotals {
                sent: shard.probes.sent.get(),
                answered: shard.probes.answered.get(),
                received: shard.probes.received.get(),
                replied: shard.probes.replied.get(),
                keepalives: shard.probes.keepalives.get(),
            },
        }
    }

    /// Adds the counts of another source for the same tunnel.
    pub fn add(&mut self, other: &Totals) {
        if self.peers.len() < other.peers.len() {
            self.peers.resize(other.peers.len(), PeerTotals::default());
        }
        self.peers.iter_mut().zip(&other.peers).for_each(|(mine, theirs)| mine.add(theirs));
        for (index, theirs) in other.last_drops.iter().enumerate() {
            self.note_last_drop(index, *theirs);
        }
        self.combine(other, u64::wrapping_add);
    }

    /// The counts since `before`, an earlier reading of the same tunnel, and the last drop of each
    /// reason that has been counted since.
    #[must_use]
    pub fn since(&self, before: &Totals) -> Totals {
        let mut since = self.clone();
        since.peers.iter_mut().zip(&before.peers).for_each(|(mine, before)| *mine = mine.since(before));
        since.combine(before, u64::saturating_sub);
        for (last, count) in since.last_drops.iter_mut().zip(since.drops) {
            *last = last.filter(|_| count > 0);
        }
        since
    }

    /// Takes in a drop of the reason with this index, if it is later than the last one known.
    pub fn note_last_drop(&mut self, index: usize, dropped: Option<Dropped>) {
        if let Some(last) = self.last_drops.get_mut(index) {
            *last = later(*last, dropped);
        }
    }

    /// Combines all counts except those of peers.
    fn combine(&mut self, other: &Totals, with: fn(u64, u64) -> u64) {
        let each = |mine: &mut u64, theirs: u64| *mine = with(*mine, theirs);
        self.drops.iter_mut().zip(other.drops).for_each(|(mine, theirs)| each(mine, theirs));
        self.ecn_anomalies.iter_mut().zip(other.ecn_anomalies).for_each(|(mine, theirs)| each(mine, theirs));
        each(&mut self.icmp.sent, other.icmp.sent);
        each(&mut self.icmp.suppressed, other.icmp.suppressed);
        each(&mut self.icmp.relayed, other.icmp.relayed);
        each(&mut self.icmp.state_changed, other.icmp.state_changed);
        each(&mut self.icmp.not_ours, other.icmp.not_ours);
        each(&mut self.probes.sent, other.probes.sent);
        each(&mut self.probes.answered, other.probes.answered);
        each(&mut self.probes.received, other.probes.received);
        each(&mut self.probes.replied, other.probes.replied);
        each(&mut self.probes.keepalives, other.probes.keepalives);
    }

    /// The number of drops for one reason.
    pub fn drops_of(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.index()).copied().unwrap_or(0)
    }

    /// Every reason with its count, zero counts included.
    pub fn drops_by_reason(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.drops)
    }

    /// The number of all drops.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// The count of one kind of ECN anomaly.
    pub fn ecn_anomalies_of(&self, anomaly: EcnAnomaly) -> u64 {
        self.ecn_anomalies.get(anomaly.index()).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_of_the_shards() {
        let (one, two) = (Counters::new(2), Counters::new(2));
        let peer = PeerIndex::new(1);
        one.count_tx(peer, 3, 3000);
        two.count_tx(peer, 1, 100);
        one.count_rx(peer, 1, 10, 61, Instant::from_millis(7));
        two.count_rx(peer, 1, 10, 62, Instant::from_millis(5));
        let at = |millis| Dropped::at(Instant::from_millis(millis));
        two.count_drop(DropReason::QueueFull, at(8).of_peer(Some(peer)), 4);
        one.count_drop(DropReason::OuterMalformed, at(1), 1);
        two.count_drop(DropReason::OuterMalformed, at(3), 1);
        one.count_mss_clamped(peer);
        let totals = Totals::sum([&one, &two]);
        assert_eq!(totals.peers[0], PeerTotals::default());
        let expected = PeerTotals {
            tx_packets: 4,
            tx_bytes: 3100,
            rx_packets: 2,
            rx_bytes: 20,
            last_rx: Some(Instant::from_millis(7)),
            last_ttl: Some(61),
            drops: 4,
            congestion_experienced: 0,
            mss_clamped: 1,
        };
        assert_eq!(totals.peers[1], expected);
        assert_eq!(totals.since(&Totals::default()), totals);
        assert_eq!(totals.since(&totals).peers, [PeerTotals::default(); 2]);
        assert_eq!(totals.since(&totals).last_drops, [None; DropReason::COUNT]);
        assert_eq!(totals.drops_of(DropReason::QueueFull), 4);
        assert_eq!(totals.dropped(), 6);
        assert_eq!(totals.last_drops[DropReason::QueueFull.index()], Some(at(8).of_peer(Some(peer))));
        assert_eq!(totals.last_drops[DropReason::OuterMalformed.index()], Some(at(3)), "the later one");
        assert_eq!(totals.drops_by_reason().filter(|(_, n)| *n > 0).count(), 2);
    }

    #[test]
    fn a_peer_out_of_range_loses_only_its_own_count() {
        let counters = Counters::new(0);
        counters.count_tx(PeerIndex::new(9), 1, 1);
        let dropped = Dropped::at(Instant::ZERO).of_peer(Some(PeerIndex::new(9)));
        counters.count_drop(DropReason::QueueFull, dropped, 1);
        assert_eq!(Totals::sum([&counters]).dropped(), 1);
    }
}
