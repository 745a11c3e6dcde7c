//! Counts of the programs, to be added to userspace's. They go on when programs replace those of an
//! earlier process.

use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use adit_policy::bpf::maps::{LastDrop, LastRx, PeerCounts, name};
use adit_policy::{DropReason, PeerIndex};
use adit_tunnel::{Dropped, Instant, PeerTotals, Totals, Traffic, Tunnel};
use adit_wire::ecn::EcnAnomaly;
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use zerocopy::IntoBytes;

use super::error::EbpfError;
use super::loaded::{COUNTS_LEN, CountMaps, copies, underlay_octets};

/// Counts of an overlay's programs, those of earlier processes included.
pub(super) struct Counts {
    maps: CountMaps,
    /// What replaced programs counted between the snapshot of their counts and their end.
    late: OnceLock<CountSnapshot>,
}

/// The counts of programs at one moment.
#[derive(Debug, Default)]
pub(super) struct CountSnapshot {
    peers: Vec<PeerCounts>,
    drops: Vec<u64>,
    ecn: Vec<u64>,
}

impl Counts {
    /// Makes counts that start from those of replaced programs.
    pub(super) fn new(mut maps: CountMaps, before: &CountSnapshot) -> Result<Self, EbpfError> {
        for (index, counts) in (0..).zip(&before.peers) {
            if *counts != PeerCounts::default() {
                let mut bytes = [0; COUNTS_LEN];
                bytes.copy_from_slice(counts.as_bytes());
                seed(&mut maps.peers, name::PEER_COUNTS, index, bytes, [0; COUNTS_LEN])?;
            }
        }
        for (map, name, counts) in
            [(&mut maps.drops, name::DROPS, &before.drops), (&mut maps.ecn, name::ECN, &before.ecn)]
        {
            for (index, count) in (0..).zip(counts).filter(|(_, count)| **count > 0) {
                seed(map, name, index, *count, 0)?;
            }
        }
        Ok(Self { maps, late: OnceLock::new() })
    }

    /// Adds what the replaced programs counted between two snapshots. They must have ended.
    pub(super) fn add_late(&self, before: &CountSnapshot, after: &CountSnapshot) {
        let _ = self.late.set(after.since(before));
    }

    /// Adds all counts to `totals`.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        for (index, total) in totals.peers.iter_mut().enumerate() {
            total.add(&in_totals(&of_peer(&self.maps.peers, index as u32)));
        }
        let drops = (&self.maps.drops, &mut totals.drops[..]);
        let ecn = (&self.maps.ecn, &mut totals.ecn_anomalies[..]);
        for (map, totals) in [drops, ecn] {
            for (index, total) in totals.iter_mut().enumerate() {
                *total += sum(map, index as u32);
            }
        }
        if let Some(map) = &self.maps.last_drops {
            for index in 0..DropReason::COUNT {
                for last in copies::<_, LastDrop>(map, index as u32) {
                    totals.note_last_drop(index, last_drop(&last));
                }
            }
        }
        self.add_late_to(totals);
    }

    /// Forgets the last drops, so that the next ones are told from them whatever the clock says.
    #[cfg(test)]
    pub(super) fn forget_last_drops(&mut self) {
        let Some(map) = &mut self.maps.last_drops else { return };
        for index in 0..DropReason::COUNT as u32 {
            if copies::<_, LastDrop>(map, index).iter().any(|last| last.nanoseconds > 0) {
                let zero = LastDrop::default().as_bytes().try_into().expect("it has this length");
                seed(map, name::LAST_DROPS, index, zero, zero).expect("the map has this index");
            }
        }
    }

    /// Adds the counts that are in no map, and so end with this value.
    pub(super) fn add_late_to(&self, totals: &mut Totals) {
        let Some(late) = self.late.get() else { return };
        for (total, counts) in totals.peers.iter_mut().zip(&late.peers) {
            total.add(&in_totals(counts));
        }
        for (total, count) in totals.drops.iter_mut().zip(&late.drops) {
            *total += count;
        }
        for (total, count) in totals.ecn_anomalies.iter_mut().zip(&late.ecn) {
            *total += count;
        }
    }

    /// Counts of one peer, without what replaced programs counted after their snapshot.
    pub(super) fn of(&self, peer: PeerIndex) -> PeerCounts {
        of_peer(&self.maps.peers, peer.number())
    }

    /// What the programs have exchanged with a peer.
    pub(super) fn traffic(&self, peer: PeerIndex) -> Traffic {
        let totals = in_totals(&self.of(peer));
        Traffic { sent: totals.tx_packets, last_rx: totals.last_rx }
    }
}

impl CountSnapshot {
    /// Takes the counts of the programs to be replaced; all zero if there are none. It finds peers
    /// by their underlay address, since their numbers may have changed.
    pub(super) fn of_previous(previous: Option<&PreviousMaps>, tunnel: &Tunnel) -> Self {
        let Some(previous) = previous else { return Self::default() };
        let mut peers = vec![PeerCounts::default(); tunnel.peer_slots()];
        for (peer, config) in tunnel.peers() {
            let mut addresses = config.underlay.iter();
            let number =
                addresses.find_map(|address| previous.peer_by_outer.get(&underlay_octets(address), 0).ok());
            if let (Some(number), Some(counts)) = (number, peers.get_mut(peer.index())) {
                *counts = of_peer(&previous.counts.peers, number);
            }
        }
        // Another version of Adit may number its drop reasons differently.
        let is_known = previous.counts.drops.len() as usize == DropReason::COUNT;
        let drops = (0..DropReason::COUNT as u32)
            .filter(|_| is_known)
            .map(|index| sum(&previous.counts.drops, index));
        Self {
            peers,
            drops: drops.collect(),
            ecn: (0..EcnAnomaly::COUNT as u32).map(|index| sum(&previous.counts.ecn, index)).collect(),
        }
    }

    fn since(&self, before: &Self) -> Self {
        let words = |after: &[u64], before: &[u64]| {
            after.iter().zip(before).map(|(after, before)| after.saturating_sub(*before)).collect()
        };
        Self {
            peers: self.peers.iter().zip(&before.peers).map(|(after, before)| after.since(before)).collect(),
            drops: words(&self.drops, &before.drops),
            ecn: words(&self.ecn, &before.ecn),
        }
    }
}

/// The maps of an earlier process's programs that hold counts.
pub(super) struct PreviousMaps {
    counts: CountMaps,
    peer_by_outer: HashMap<MapData, [u8; 16], u32>,
}

impl PreviousMaps {
    /// Opens the maps pinned in `directory`; `None` if there are none that this version
    /// understands.
    pub(super) fn open(directory: &Path) -> Option<Self> {
        fn map<M: TryFrom<Map>>(directory: &Path, name: &str) -> Option<M> {
            let data = MapData::from_pin(directory.join(name)).ok()?;
            M::try_from(Map::from_map_data(data).ok()?).ok()
        }
        Some(Self {
            counts: CountMaps {
                peers: map(directory, name::PEER_COUNTS)?,
                drops: map(directory, name::DROPS)?,
                last_drops: None,
                ecn: map(directory, name::ECN)?,
            },
            peer_by_outer: map(directory, name::PEER_BY_OUTER)?,
        })
    }
}

/// Writes `value` to the first processor's copy. Nothing may count there yet.
fn seed<V: Pod>(
    map: &mut PerCpuArray<MapData, V>,
    name: &'static str,
    index: u32,
    value: V,
    zero: V,
) -> Result<(), EbpfError> {
    let processors =
        nr_cpus().map_err(|(what, source)| EbpfError::File { what: "read", path: what.into(), source })?;
    let mut values = vec![zero; processors];
    if let Some(first) = values.first_mut() {
        *first = value;
    }
    PerCpuValues::try_from(values)
        .map_err(aya::maps::MapError::from)
        .and_then(|values| map.set(index, values, 0))
        .map_err(|error| EbpfError::Map { name, cause: Box::new(error) })
}

fn sum(map: &PerCpuArray<MapData, u64>, index: u32) -> u64 {
    copies::<u64, u64>(map, index).into_iter().sum()
}

fn of_peer(map: &PerCpuArray<MapData, [u8; COUNTS_LEN]>, index: u32) -> PeerCounts {
    copies::<_, PeerCounts>(map, index).into_iter().fold(PeerCounts::default(), PeerCounts::plus)
}

/// The last drop on one processor; `None` if there was none.
fn last_drop(last: &LastDrop) -> Option<Dropped> {
    let at = (last.nanoseconds > 0).then(|| instant(last.nanoseconds))?;
    Some(Dropped::at(at).from(Ipv6Addr::from(last.source).to_canonical()).of_peer(last.peer()))
}

fn instant(nanoseconds: u64) -> Instant {
    Instant::from_millis(Duration::from_nanos(nanoseconds).as_millis() as u64)
}

fn in_totals(counts: &PeerCounts) -> PeerTotals {
    let last = LastRx::decode(counts.last_rx);
    PeerTotals {
        tx_packets: counts.tx_packets,
        tx_bytes: counts.tx_bytes,
        rx_packets: counts.rx_packets,
        rx_bytes: counts.rx_bytes,
        last_rx: last.map(|last| instant(last.nanoseconds)),
        last_ttl: last.map(|last| last.ttl),
        drops: counts.drops,
        congestion_experienced: counts.congestion_experienced,
        mss_clamped: counts.mss_clamped,
    }
}
