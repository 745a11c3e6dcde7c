//! What the programs have counted, added to what userspace has.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use adit_policy::bpf::maps::{LastRx, PeerCounts, name};
use adit_policy::{DropReason, PeerIndex};
use adit_tunnel::{Instant, PeerTotals, Totals, Tunnel};
use adit_wire::ecn::EcnAnomaly;
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use zerocopy::IntoBytes;

use super::error::EbpfError;
use super::loaded::{COUNTS_LEN, CountMaps, copies};

/// The counts of an overlay's programs, those of earlier processes included.
pub(super) struct Counts {
    maps: CountMaps,
    /// What replaced programs counted between the reading of their counts and their end.
    late: OnceLock<CountSnapshot>,
}

/// What programs have counted.
#[derive(Debug, Default)]
pub(super) struct CountSnapshot {
    peers: Vec<PeerCounts>,
    drops: Vec<u64>,
    ecn: Vec<u64>,
}

impl Counts {
    /// Counts that go on where those of replaced programs were.
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

    /// The replaced programs have ended: what they counted meanwhile.
    pub(super) fn add_late(&self, before: &CountSnapshot, after: &CountSnapshot) {
        let _ = self.late.set(after.since(before));
    }

    /// Adds everything to `totals`.
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
        self.add_late_to(totals);
    }

    /// Adds what is in no map, and so ends with this.
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

    /// What the programs that are at work have counted for a peer, and those before them up to their reading.
    pub(super) fn of(&self, peer: PeerIndex) -> PeerCounts {
        of_peer(&self.maps.peers, peer.number())
    }
}

impl CountSnapshot {
    /// What the programs counted whose maps are pinned in `directory`; nothing where there are none. Peers
    /// are known by their underlay address: their places may have changed.
    pub(super) fn of_previous(previous: Option<&PreviousMaps>, tunnel: &Tunnel) -> Self {
        let Some(previous) = previous else { return Self::default() };
        let mut peers = vec![PeerCounts::default(); tunnel.peer_slots()];
        for (peer, config) in tunnel.peers() {
            if let (Ok(index), Some(counts)) =
                (previous.peer_by_outer.get(&config.underlay.octets(), 0), peers.get_mut(peer.index()))
            {
                *counts = of_peer(&previous.counts.peers, index);
            }
        }
        // Another version has other reasons, and so other numbers for them.
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

/// The maps of replaced programs, as far as they are looked at.
pub(super) struct PreviousMaps {
    counts: CountMaps,
    peer_by_outer: HashMap<MapData, [u8; 4], u32>,
}

impl PreviousMaps {
    /// The maps that are pinned in `directory`, if there are any that we understand.
    pub(super) fn open(directory: &Path) -> Option<Self> {
        fn map<M: TryFrom<Map>>(directory: &Path, name: &str) -> Option<M> {
            let data = MapData::from_pin(directory.join(name)).ok()?;
            M::try_from(Map::from_map_data(data).ok()?).ok()
        }
        Some(Self {
            counts: CountMaps {
                peers: map(directory, name::PEER_COUNTS)?,
                drops: map(directory, name::DROPS)?,
                ecn: map(directory, name::ECN)?,
            },
            peer_by_outer: map(directory, name::PEER_BY_OUTER)?,
        })
    }
}

/// Puts `value` into the first processor's copy. Nothing counts there yet.
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

fn in_totals(counts: &PeerCounts) -> PeerTotals {
    let last = LastRx::decode(counts.last_rx);
    let came = |last: LastRx| Duration::from_nanos(last.nanoseconds).as_millis() as u64;
    PeerTotals {
        tx_packets: counts.tx_packets,
        tx_bytes: counts.tx_bytes,
        rx_packets: counts.rx_packets,
        rx_bytes: counts.rx_bytes,
        last_rx: last.map(came).map(Instant::from_millis),
        last_ttl: last.map(|last| last.ttl),
        drops: counts.drops,
        congestion_experienced: counts.congestion_experienced,
        mss_clamped: counts.mss_clamped,
    }
}
