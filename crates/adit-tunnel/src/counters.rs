//! Counters without a lock or a locked instruction: every thread of a data plane writes a shard of its
//! own, and whoever wants to know sums the shards.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use adit_policy::{DropReason, PeerIndex};
use adit_wire::ecn::EcnAnomaly;

use crate::time::Instant;

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    /// A load and a store, which is cheaper than an atomic addition and right for a single writer.
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
    /// Milliseconds plus one, so that 0 is never.
    last_rx: AtomicU64,
    drops: Count,
    congestion_experienced: Count,
    mss_clamped: Count,
}

/// The counters of one thread. **One writer**: calls that count (everything in this crate that takes
/// `&Counters`) must come from one thread at a time, or counts are lost (nothing worse). Reading by
/// [`Totals`] is free at any time.
///
/// 64 bytes a peer.
#[derive(Debug)]
pub struct Counters {
    peers: Box<[PeerCounts]>,
    drops: [Count; DropReason::COUNT],
    ecn: [Count; ECN_ANOMALIES],
    icmp: IcmpCounts,
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
    /// A shard, all zero, for a tunnel of `peers` peers; better [`Tunnel::counters`](crate::Tunnel::counters).
    pub fn new(peers: usize) -> Counters {
        Counters {
            peers: (0..peers).map(|_| PeerCounts::default()).collect(),
            drops: std::array::from_fn(|_| Count::default()),
            ecn: std::array::from_fn(|_| Count::default()),
            icmp: IcmpCounts::default(),
        }
    }

    /// Counts `n` datagrams as dropped. Data planes call this for what the operating system refused
    /// and for what they drop themselves; what [`Tunnel`](crate::Tunnel) drops it has counted already.
    #[inline]
    pub fn count_drop(&self, reason: DropReason, peer: Option<PeerIndex>, n: u64) {
        if let Some(count) = self.drops.get(reason.index()) {
            count.add(n);
        }
        if let Some(peer) = peer.and_then(|peer| self.peers.get(peer.index())) {
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
    pub(crate) fn count_rx(&self, peer: PeerIndex, packets: u64, bytes: u64, now: Instant) {
        if let Some(peer) = self.peers.get(peer.index()) {
            peer.rx_packets.add(packets);
            peer.rx_bytes.add(bytes);
            peer.last_rx.store(now.as_millis().saturating_add(1), Relaxed);
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
}

/// What has been counted for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerTotals {
    /// Inner datagrams that the tunnel let pass towards the peer. What the operating system then
    /// refused is among them, and counted as a drop too.
    pub tx_packets: u64,
    /// Their bytes, inner headers included, outer headers not.
    pub tx_bytes: u64,
    /// Inner datagrams from the peer that the tunnel let pass.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// When the last of them came.
    pub last_rx: Option<Instant>,
    /// Datagrams dropped on the way to or from the peer, for any reason (where the peer is known).
    pub drops: u64,
    /// Datagrams whose outer header said congestion experienced (RFC 2003 section 5.2, RFC 6040).
    pub congestion_experienced: u64,
    /// TCP SYNs whose MSS was lowered.
    pub mss_clamped: u64,
}

impl PeerTotals {
    fn add(&mut self, counts: &PeerCounts) {
        self.tx_packets += counts.tx_packets.get();
        self.tx_bytes += counts.tx_bytes.get();
        self.rx_packets += counts.rx_packets.get();
        self.rx_bytes += counts.rx_bytes.get();
        self.drops += counts.drops.get();
        self.congestion_experienced += counts.congestion_experienced.get();
        self.mss_clamped += counts.mss_clamped.get();
        let last_rx = counts.last_rx.load(Relaxed).checked_sub(1).map(Instant::from_millis);
        self.last_rx = self.last_rx.max(last_rx);
    }
}

/// What has been done about ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IcmpTotals {
    /// Errors to be sent to senders whose datagram was dropped at our entrance.
    pub sent: u64,
    /// Those not sent: one about which no error may be sent (RFC 1122 section 3.2.2), or one too many.
    pub suppressed: u64,
    /// Errors from inside the tunnel passed on to the original sender.
    pub relayed: u64,
    /// Errors from inside the tunnel that only changed the soft state.
    pub state_changed: u64,
    /// ICMP messages that are none of the tunnel's business (echo, errors about other traffic).
    pub not_ours: u64,
}

/// The sum over all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// By [`PeerIndex`].
    pub peers: Vec<PeerTotals>,
    /// By [`DropReason::index`]; [`Totals::drops_of`] and [`Totals::drops_by_reason`] are easier.
    pub drops: [u64; DropReason::COUNT],
    /// Strange pairs of inner and outer ECN (RFC 6040 section 4.2), in the order of [`EcnAnomaly::ALL`].
    pub ecn_anomalies: [u64; ECN_ANOMALIES],
    /// ICMP.
    pub icmp: IcmpTotals,
}

impl Totals {
    /// Sums shards of one tunnel. The writers go on meanwhile: each number is right at some moment
    /// during the call, not all at the same one.
    pub fn sum<'a>(shards: impl IntoIterator<Item = &'a Counters>) -> Totals {
        let mut totals = Totals {
            peers: Vec::new(),
            drops: [0; DropReason::COUNT],
            ecn_anomalies: [0; ECN_ANOMALIES],
            icmp: IcmpTotals::default(),
        };
        for shard in shards {
            if totals.peers.len() < shard.peers.len() {
                totals.peers.resize(shard.peers.len(), PeerTotals::default());
            }
            totals.peers.iter_mut().zip(&shard.peers).for_each(|(total, counts)| total.add(counts));
            totals.drops.iter_mut().zip(&shard.drops).for_each(|(total, count)| *total += count.get());
            totals.ecn_anomalies.iter_mut().zip(&shard.ecn).for_each(|(total, count)| *total += count.get());
            totals.icmp.sent += shard.icmp.sent.get();
            totals.icmp.suppressed += shard.icmp.suppressed.get();
            totals.icmp.relayed += shard.icmp.relayed.get();
            totals.icmp.state_changed += shard.icmp.state_changed.get();
            totals.icmp.not_ours += shard.icmp.not_ours.get();
        }
        totals
    }

    /// Drops for one reason.
    pub fn drops_of(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.index()).copied().unwrap_or(0)
    }

    /// Every reason with its count, those that are zero included.
    pub fn drops_by_reason(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.drops)
    }

    /// All drops.
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
    fn shards_are_summed() {
        let (one, two) = (Counters::new(2), Counters::new(2));
        let peer = PeerIndex::new(1);
        one.count_tx(peer, 3, 3000);
        two.count_tx(peer, 1, 100);
        one.count_rx(peer, 1, 10, Instant::from_millis(7));
        two.count_rx(peer, 1, 10, Instant::from_millis(5));
        two.count_drop(DropReason::QueueFull, Some(peer), 4);
        one.count_drop(DropReason::OuterMalformed, None, 1);
        one.count_mss_clamped(peer);
        let totals = Totals::sum([&one, &two]);
        assert_eq!(totals.peers[0], PeerTotals::default());
        let expected = PeerTotals {
            tx_packets: 4,
            tx_bytes: 3100,
            rx_packets: 2,
            rx_bytes: 20,
            last_rx: Some(Instant::from_millis(7)),
            drops: 4,
            congestion_experienced: 0,
            mss_clamped: 1,
        };
        assert_eq!(totals.peers[1], expected);
        assert_eq!(totals.drops_of(DropReason::QueueFull), 4);
        assert_eq!(totals.dropped(), 5);
        assert_eq!(totals.drops_by_reason().filter(|(_, n)| *n > 0).count(), 2);
    }

    #[test]
    fn a_peer_out_of_range_loses_a_count_and_nothing_else() {
        let counters = Counters::new(0);
        counters.count_tx(PeerIndex::new(9), 1, 1);
        counters.count_drop(DropReason::QueueFull, Some(PeerIndex::new(9)), 1);
        assert_eq!(Totals::sum([&counters]).dropped(), 1);
    }
}
