//! Counters that never decrease. A kernel counter starts again from zero when somebody removes its
//! table or interface; this adds up what it counted before. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use adit_linux::family::Family;
use adit_linux::netlink::LinkStatistics;
use adit_linux::nftables::Counted;
use adit_tunnel::{DropReason, Instant, PeerTotals, Totals};
use adit_wire::encapsulation::overhead;

/// A count that may start again from zero.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    now: u64,
    /// What was counted before it last started.
    lost: u64,
}

impl Count {
    /// Takes a new value, and returns true if the counter has grown.
    fn note(&mut self, now: u64) -> bool {
        if now < self.now {
            self.lost += self.now;
        }
        let has_grown = now > self.now;
        self.now = now;
        has_grown
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct PeerCounts {
    tx_packets: Count,
    tx_bytes: Count,
    rx_packets: Count,
    rx_bytes: Count,
    last_rx: Option<Instant>,
    /// Whether it has been read before.
    is_known: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MonotonicCounters {
    /// By the peer and its underlay address: it is counted at each of them for itself.
    peers: BTreeMap<(usize, IpAddr), PeerCounts>,
    /// By the reason and the family of the table.
    drops: BTreeMap<(usize, Family), Count>,
    devices: BTreeMap<u32, LinkStatistics>,
    /// Drops on interfaces that are gone.
    gone: BTreeMap<usize, u64>,
}

impl MonotonicCounters {
    /// Takes the counters of the table of a family.
    pub(super) fn note_drops(&mut self, family: Family, counters: &BTreeMap<String, Counted>) {
        for (name, counted) in counters {
            if let Some(reason) = DropReason::from_name(name) {
                self.drops.entry((reason.index(), family)).or_default().note(counted.packets);
            }
        }
    }

    /// Takes the count of a peer at one of its underlay addresses. The kernel does not say when a
    /// peer last sent, but growth since the last look does.
    pub(super) fn note_traffic(
        &mut self,
        peer: usize,
        address: IpAddr,
        is_received: bool,
        counted: Counted,
        now: Instant,
    ) {
        let counts = self.peers.entry((peer, address)).or_default();
        // The kernel counts outer datagrams.
        let bytes = counted.bytes.saturating_sub(counted.packets * overhead(address) as u64);
        if is_received {
            let is_news = counts.rx_packets.note(counted.packets) && counts.is_known;
            counts.rx_bytes.note(bytes);
            counts.is_known = true;
            if is_news {
                counts.last_rx = Some(now);
            }
        } else {
            counts.tx_packets.note(counted.packets);
            counts.tx_bytes.note(bytes);
        }
    }

    pub(super) fn note_devices(&mut self, now: BTreeMap<u32, LinkStatistics>) {
        for (device, statistics) in &self.devices {
            if !now.contains_key(device) {
                for (reason, count) in drops_of(statistics) {
                    *self.gone.entry(reason.index()).or_default() += count;
                }
            }
        }
        self.devices = now;
    }

    /// All counts, for a tunnel of this many peers.
    pub(super) fn totals(&self, peers: usize) -> Totals {
        let mut totals = self.sum(peers, |count| count.now + count.lost);
        for (reason, count) in self.devices.values().flat_map(drops_of) {
            add_drops(&mut totals, reason.index(), count);
        }
        for ((number, _), counts) in &self.peers {
            if let Some(peer) = totals.peers.get_mut(*number) {
                peer.last_rx = peer.last_rx.max(counts.last_rx);
            }
        }
        totals
    }

    /// The part of them that the kernel no longer counts.
    pub(super) fn lost(&self, peers: usize) -> Totals {
        self.sum(peers, |count| count.lost)
    }

    fn sum(&self, peers: usize, of: impl Fn(Count) -> u64) -> Totals {
        let mut totals = Totals { peers: vec![PeerTotals::default(); peers], ..Totals::default() };
        for ((number, _), counts) in &self.peers {
            let Some(peer) = totals.peers.get_mut(*number) else { continue };
            peer.tx_packets += of(counts.tx_packets);
            peer.tx_bytes += of(counts.tx_bytes);
            peer.rx_packets += of(counts.rx_packets);
            peer.rx_bytes += of(counts.rx_bytes);
        }
        for (reason, count) in &self.gone {
            add_drops(&mut totals, *reason, *count);
        }
        for ((reason, _), count) in &self.drops {
            add_drops(&mut totals, *reason, of(*count));
        }
        totals
    }
}

fn add_drops(totals: &mut Totals, reason: usize, count: u64) {
    if let Some(drops) = totals.drops.get_mut(reason) {
        *drops += count;
    }
}

/// Drop reasons of the driver's own counters.
fn drops_of(statistics: &LinkStatistics) -> [(DropReason, u64); 4] {
    [
        (DropReason::EcnViolation, statistics.rx_frame_errors),
        (DropReason::UnderlayNoRoute, statistics.tx_carrier_errors),
        (DropReason::NestedEncapsulation, statistics.collisions),
        (DropReason::UnderlaySendFailed, statistics.tx_dropped),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 1, 2));

    fn counted(packets: u64) -> Counted {
        Counted { packets, bytes: packets * 120 }
    }

    #[test]
    fn counts_exclude_outer_headers_and_never_decrease() {
        let mut counters = MonotonicCounters::default();
        let mut look = |received, now| {
            counters.note_traffic(0, PEER, true, counted(received), now);
            (counters.totals(2), counters.lost(2))
        };
        let (first, _) = look(7, at(1));
        assert_eq!(
            (first.peers[0].rx_packets, first.peers[0].rx_bytes, first.peers[0].last_rx),
            (7, 700, None)
        );
        assert_eq!(first.peers[1], PeerTotals::default());
        let (more, lost) = look(9, at(2));
        assert_eq!((more.peers[0].rx_packets, more.peers[0].last_rx), (9, Some(at(2))));
        assert_eq!(lost.peers[0].rx_packets, 0);
        // Somebody has removed the table.
        let (after, lost) = look(1, at(3));
        assert_eq!((after.peers[0].rx_packets, after.peers[0].rx_bytes), (10, 1000));
        assert_eq!(lost.peers[0].rx_packets, 9);
    }

    #[test]
    fn a_peer_with_two_addresses_and_both_tables_count_together() {
        let mut counters = MonotonicCounters::default();
        let v6 = "2001:db8::2".parse().expect("an address");
        for (address, bytes) in [(PEER, 120), (v6, 140)] {
            let counted = Counted { packets: 2, bytes: 2 * bytes };
            counters.note_traffic(0, address, false, counted, at(1));
        }
        let peer = counters.totals(1).peers[0];
        assert_eq!((peer.tx_packets, peer.tx_bytes), (4, 400), "the overhead is that of each family");
        let name = DropReason::InnerSourceIsOwn.as_str().to_owned();
        for (family, count) in [(Family::V4, 5), (Family::V6, 3), (Family::V6, 4)] {
            counters.note_drops(family, &BTreeMap::from([(name.clone(), counted(count))]));
        }
        assert_eq!(counters.totals(0).drops_of(DropReason::InnerSourceIsOwn), 9);
        assert_eq!(counters.lost(0).dropped(), 0);
    }

    #[test]
    fn drops_include_those_of_the_table_and_of_the_driver() {
        let mut counters = MonotonicCounters::default();
        let name = DropReason::OuterSourceUnknown.as_str().to_owned();
        counters
            .note_drops(Family::V4, &BTreeMap::from([(name, counted(3)), ("mine".to_owned(), counted(1))]));
        let statistics = LinkStatistics { rx_frame_errors: 2, ..LinkStatistics::default() };
        counters.note_devices(BTreeMap::from([(5, statistics)]));
        let drops = |counters: &MonotonicCounters, reason| counters.totals(0).drops_of(reason);
        assert_eq!(drops(&counters, DropReason::OuterSourceUnknown), 3);
        assert_eq!(drops(&counters, DropReason::EcnViolation), 2);
        assert_eq!(counters.lost(0).dropped(), 0);
        // Another interface has replaced it.
        counters.note_devices(BTreeMap::from([(6, statistics)]));
        assert_eq!(drops(&counters, DropReason::EcnViolation), 4);
        assert_eq!(counters.lost(0).dropped(), 2);
    }
}
