//! The loaded object: programs and their maps, filled for one tunnel before anything runs.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use adit_policy::bpf::maps::{
    IS_PREEMPTIBLE, PathEntry, PeerEntry, RelayRule, Settings, UnderlayAddress, encode_owner, encode_pair,
    name, program,
};
use adit_policy::{DropReason, Owner, PeerIndex};
use adit_tunnel::{
    Path as TunnelPath, Relay, RelayTable, TableDelta, Tunnel, TunnelConfig, UnderlayAddresses,
};
use adit_wire::ecn::EcnAnomaly;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, Pod};
use ipnet::IpNet;
use zerocopy::{FromBytes, IntoBytes};

use super::error::EbpfError;
use super::path_slots::PathSlots;
use crate::capacity::Capacity;

/// Built from `crates/adit-ebpf` by `cargo xtask bpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../object/adit.bpf.o");

pub(super) const SETTINGS_LEN: usize = size_of::<Settings>();
const ENTRY_LEN: usize = size_of::<PeerEntry>();
const PATH_LEN: usize = size_of::<PathEntry>();
pub(super) const COUNTS_LEN: usize = size_of::<adit_policy::bpf::maps::PeerCounts>();
const LAST_DROP_LEN: usize = size_of::<adit_policy::bpf::maps::LastDrop>();

/// Loaded programs and the maps that change while they run.
pub(super) struct LoadedObject {
    pub(super) ebpf: Ebpf,
    settings: Array<MapData, [u8; SETTINGS_LEN]>,
    peers: Array<MapData, [u8; ENTRY_LEN]>,
    paths: Array<MapData, [u8; PATH_LEN]>,
    slots: PathSlots,
    networks: PrefixOwners,
    peer_by_outer: PeerByOuter,
    relay_pairs: RelayPairs,
    local: HashMap<MapData, [u8; 4], u32>,
    local_v6: HashMap<MapData, [u8; 16], u32>,
    other_networks: LpmTrie<MapData, [u8; 4], u32>,
    other_networks_v6: LpmTrie<MapData, [u8; 16], u32>,
    current: Settings,
    states: Vec<(PeerState, PathEntry)>,
}

/// What changes of a peer while its path stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PeerState {
    /// Bytes of the largest outer datagram.
    pub(super) path_mtu: u16,
    /// Whether the next sender is owed an ICMP answer.
    pub(super) owes_answer: bool,
    /// Whether what arrives from it is left to the host's IP stack.
    pub(super) left_to_stack: bool,
}

impl PeerState {
    /// As the tunnel has it.
    pub(super) fn of(tunnel: &Tunnel, peer: PeerIndex) -> Self {
        Self {
            path_mtu: tunnel.path_mtu(peer).mtu,
            owes_answer: tunnel.has_pending_error(peer),
            left_to_stack: tunnel.is_left_to_stack(peer),
        }
    }
}

/// The maps that hold counts.
pub(super) struct CountMaps {
    pub(super) peers: PerCpuArray<MapData, [u8; COUNTS_LEN]>,
    pub(super) drops: PerCpuArray<MapData, u64>,
    pub(super) ecn: PerCpuArray<MapData, u64>,
    /// `None` for programs that are replaced: the peers of their last drops may have other numbers.
    pub(super) last_drops: Option<PerCpuArray<MapData, [u8; LAST_DROP_LEN]>>,
}

impl LoadedObject {
    /// Loads the programs for `tunnel` and pins the maps in a directory. No peer has a next hop
    /// yet, so the programs would decline everything.
    ///
    /// `is_preemptible`: runs of the programs on one processor may interrupt each other.
    ///
    /// Maps have the [`Capacity`] of the tunnel. Loading 100,000 networks takes some 0.1 s.
    pub(super) fn load(
        tunnel: &Tunnel,
        settings: Settings,
        pin_maps: Option<&Path>,
        is_preemptible: bool,
    ) -> Result<(Self, CountMaps), EbpfError> {
        let capacity = Capacity::with_headroom(tunnel);
        let peers = entries(capacity.peers);
        let local = entries(tunnel.local_addresses().len() + HOST_HEADROOM);
        let other_networks = entries(tunnel.other_networks().len() + HOST_HEADROOM);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(name::PREFIX_OWNERS, entries(capacity.networks))
            .map_max_entries(name::PREFIX_OWNERS6, entries(capacity.networks))
            .map_max_entries(name::PEER_BY_OUTER, entries(capacity.peers * 2))
            .map_max_entries(name::PEERS, peers)
            .map_max_entries(name::PATHS, entries(PathSlots::count_for(capacity.peers)))
            .map_max_entries(name::IDENTIFICATIONS, peers)
            .map_max_entries(name::PEER_COUNTS, peers)
            .map_max_entries(name::RELAY_PAIRS, entries(pairs_of(tunnel.config())))
            .map_max_entries(name::LOCAL, local)
            .map_max_entries(name::LOCAL6, local)
            .map_max_entries(name::OTHER_NETWORKS, other_networks)
            .map_max_entries(name::OTHER_NETWORKS6, other_networks)
            .override_global(IS_PREEMPTIBLE, &u8::from(is_preemptible), true)
            .load(OBJECT)
            .map_err(|error| EbpfError::Load(Box::new(error)))?;
        // Loaded before a map is taken out: programs find their maps by descriptor.
        for name in [program::ENCAP, program::DECAP] {
            classifier(&mut ebpf, name)?
                .load()
                .map_err(|error| EbpfError::Program { name, cause: Box::new(error) })?;
        }
        if let Some(directory) = pin_maps {
            // The compiler's own maps have names that the file system refuses.
            for (name, map) in ebpf.maps().filter(|(name, _)| !name.starts_with('.')) {
                let path = directory.join(name);
                map.pin(&path).map_err(|error| EbpfError::Pin { path, cause: Box::new(error) })?;
            }
        }
        let (networks, peer_by_outer) = fill(&mut ebpf, tunnel)?;
        let counts = CountMaps {
            peers: take(&mut ebpf, name::PEER_COUNTS)?,
            drops: take(&mut ebpf, name::DROPS)?,
            last_drops: Some(take(&mut ebpf, name::LAST_DROPS)?),
            ecn: take(&mut ebpf, name::ECN)?,
        };
        debug_assert_eq!(counts.drops.len() as usize, DropReason::COUNT);
        debug_assert_eq!(counts.ecn.len() as usize, EcnAnomaly::COUNT);
        let mut object = Self {
            settings: take(&mut ebpf, name::SETTINGS)?,
            peers: take(&mut ebpf, name::PEERS)?,
            paths: take(&mut ebpf, name::PATHS)?,
            slots: PathSlots::new(capacity.peers),
            networks,
            peer_by_outer,
            relay_pairs: RelayPairs { map: take(&mut ebpf, name::RELAY_PAIRS)?, set: BTreeSet::new() },
            local: take(&mut ebpf, name::LOCAL)?,
            local_v6: take(&mut ebpf, name::LOCAL6)?,
            other_networks: take(&mut ebpf, name::OTHER_NETWORKS)?,
            other_networks_v6: take(&mut ebpf, name::OTHER_NETWORKS6)?,
            ebpf,
            current: Settings::default(),
            states: vec![Default::default(); capacity.peers],
        };
        for (peer, path) in tunnel.paths() {
            object.set_peer(peer, PeerState::of(tunnel, peer), entry_of(path))?;
        }
        object.set_host(tunnel)?;
        object.relay_pairs.set(tunnel)?;
        object.set_settings(settings.with_relay_rule(match tunnel.relay_table() {
            RelayTable::All => RelayRule::All,
            RelayTable::Nobody => RelayRule::Nobody,
            RelayTable::Pairs(_) => RelayRule::Listed,
        }))?;
        Ok((object, counts))
    }

    pub(super) fn settings(&self) -> Settings {
        self.current
    }

    /// Writes the settings, if they are different.
    pub(super) fn set_settings(&mut self, settings: Settings) -> Result<(), EbpfError> {
        if settings != self.current {
            let mut bytes = [0; SETTINGS_LEN];
            bytes.copy_from_slice(settings.as_bytes());
            self.settings.set(0, bytes, 0).map_err(failed(name::SETTINGS))?;
            self.current = settings;
        }
        Ok(())
    }

    /// The state and the path of a peer, as the programs have them.
    pub(super) fn peer(&self, peer: PeerIndex) -> (PeerState, PathEntry) {
        self.states.get(peer.index()).copied().unwrap_or_default()
    }

    /// Writes what is different of a peer. A new path is written first, and the store of the peer's
    /// word then switches to it. Waits some milliseconds if so many have switched that there is no
    /// room for another path before all programs that run now have ended.
    pub(super) fn set_peer(
        &mut self,
        peer: PeerIndex,
        state: PeerState,
        path: PathEntry,
    ) -> Result<(), EbpfError> {
        let current = self.peer(peer);
        let Some(mut slot) = self.slots.of(peer).filter(|_| current != (state, path)) else { return Ok(()) };
        let is_new = current.1 != path;
        if is_new {
            let Some(free) = self.slots.free(adit_linux::bpf::wait_for_programs) else { return Ok(()) };
            slot = free;
            let mut bytes = [0; PATH_LEN];
            bytes.copy_from_slice(path.as_bytes());
            self.paths.set(slot, bytes, 0).map_err(failed(name::PATHS))?;
        }
        let PeerState { path_mtu, owes_answer, left_to_stack } = state;
        let entry = PeerEntry {
            path: slot,
            path_mtu,
            owes_answer: owes_answer.into(),
            left_to_stack: left_to_stack.into(),
        };
        let mut bytes = [0; ENTRY_LEN];
        bytes.copy_from_slice(entry.as_bytes());
        self.peers.set(peer.number(), bytes, 0).map_err(failed(name::PEERS))?;
        if is_new {
            self.slots.change(peer);
        }
        if let Some(known) = self.states.get_mut(peer.index()) {
            *known = (state, path);
        }
        Ok(())
    }

    /// Changes the peers under running programs. A peer's entry exists before anything leads to it,
    /// and what leads to it goes before the entry does. So a datagram meets a peer as it was, as it
    /// will be, or not at all, and peers that stay are not touched. New peers have no next hop yet.
    ///
    /// A program may look up an inner source before a step and the outer one after it, so it leaves
    /// to userspace what it refuses meanwhile.
    pub(super) fn update_peers(&mut self, tunnel: &Tunnel, steps: &TableDelta) -> Result<(), EbpfError> {
        for &(peer, path) in &steps.added {
            let state = PeerState { path_mtu: tunnel.path_mtu(peer).mtu, ..PeerState::default() };
            self.set_peer(peer, state, entry_of(path))?;
        }
        self.begin_change()?;
        // Assigned before others are withdrawn, so that an address always has an owner when a
        // longer prefix replaces a shorter one or the reverse.
        for &(network, peer) in &steps.assigned {
            self.networks.insert(network, Owner::Peer(peer))?;
        }
        for &(address, peer) in &steps.sources_assigned {
            self.peer_by_outer
                .insert(underlay_octets(address), peer.number(), 0)
                .map_err(failed(name::PEER_BY_OUTER))?;
        }
        for network in &steps.withdrawn {
            self.networks.remove(*network)?;
        }
        self.relay_pairs.set(tunnel)?;
        self.end_change()?;
        for &address in &steps.sources_withdrawn {
            self.peer_by_outer.remove(&underlay_octets(address)).map_err(failed(name::PEER_BY_OUTER))?;
        }
        for &peer in &steps.removed {
            let (state, path) = self.peer(peer);
            self.set_peer(peer, state, path.without_next_hop())?;
        }
        Ok(())
    }

    /// From here on programs leave to userspace what they refuse.
    pub(super) fn begin_change(&mut self) -> Result<(), EbpfError> {
        // A change that failed has not ended.
        if Settings::is_change(self.current.generation) { Ok(()) } else { self.next_generation() }
    }

    /// From here on programs refuse again, and ignore their cached lookups.
    pub(super) fn end_change(&mut self) -> Result<(), EbpfError> {
        self.next_generation()
    }

    fn next_generation(&mut self) -> Result<(), EbpfError> {
        let next = self.current.with_next_generation().ok_or(EbpfError::GenerationsUsedUp)?;
        self.set_settings(next)
    }

    /// Writes what the programs know of this machine, as far as it is different: its addresses, and
    /// the networks of other overlays.
    pub(super) fn set_host(&mut self, tunnel: &Tunnel) -> Result<(), EbpfError> {
        let (mut v4, mut v6) = (HashSet::new(), HashSet::new());
        for address in tunnel.config().underlay.iter().chain(tunnel.local_addresses().iter().copied()) {
            match address {
                IpAddr::V4(address) => v4.insert(address.octets()),
                IpAddr::V6(address) => v6.insert(address.octets()),
            };
        }
        set_addresses(&mut self.local, &v4, name::LOCAL)?;
        set_addresses(&mut self.local_v6, &v6, name::LOCAL6)?;
        let (mut v4, mut v6) = (HashSet::new(), HashSet::new());
        for network in tunnel.other_networks() {
            let len = u32::from(network.prefix_len());
            match network.network() {
                IpAddr::V4(address) => v4.insert((len, address.octets())),
                IpAddr::V6(address) => v6.insert((len, address.octets())),
            };
        }
        if !tunnel.other_networks().is_empty() {
            v4.insert((32, Ipv4Addr::BROADCAST.octets()));
        }
        set_prefixes(&mut self.other_networks, &v4, name::OTHER_NETWORKS)?;
        set_prefixes(&mut self.other_networks_v6, &v6, name::OTHER_NETWORKS6)
    }

    pub(super) fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, EbpfError> {
        classifier(&mut self.ebpf, name)
    }
}

/// Entries of a map: at least one.
fn entries(count: usize) -> u32 {
    u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

type PeerByOuter = HashMap<MapData, [u8; 16], u32>;

/// The owners of the networks of both families.
struct PrefixOwners {
    v4: LpmTrie<MapData, [u8; 4], u32>,
    v6: LpmTrie<MapData, [u8; 16], u32>,
}

impl PrefixOwners {
    fn take(ebpf: &mut Ebpf) -> Result<Self, EbpfError> {
        Ok(Self { v4: take(ebpf, name::PREFIX_OWNERS)?, v6: take(ebpf, name::PREFIX_OWNERS6)? })
    }

    fn insert(&mut self, network: IpNet, owner: Owner) -> Result<(), EbpfError> {
        let (len, owner) = (u32::from(network.prefix_len()), encode_owner(owner));
        match network.network() {
            IpAddr::V4(first) => self.v4.insert(&Key::new(len, first.octets()), owner, 0),
            IpAddr::V6(first) => self.v6.insert(&Key::new(len, first.octets()), owner, 0),
        }
        .map_err(failed(Self::name_for(network)))
    }

    fn remove(&mut self, network: IpNet) -> Result<(), EbpfError> {
        let len = u32::from(network.prefix_len());
        match network.network() {
            IpAddr::V4(first) => self.v4.remove(&Key::new(len, first.octets())),
            IpAddr::V6(first) => self.v6.remove(&Key::new(len, first.octets())),
        }
        .map_err(failed(Self::name_for(network)))
    }

    fn name_for(network: IpNet) -> &'static str {
        match network {
            IpNet::V4(_) => name::PREFIX_OWNERS,
            IpNet::V6(_) => name::PREFIX_OWNERS6,
        }
    }
}

/// Addresses, and networks of other overlays, that may come before everything is loaded anew.
const HOST_HEADROOM: usize = 1024;

/// Brings a set of addresses up to date.
fn set_addresses<A: Pod + Eq + Hash>(
    map: &mut HashMap<MapData, A, u32>,
    wanted: &HashSet<A>,
    name: &'static str,
) -> Result<(), EbpfError> {
    let there: HashSet<A> = map.keys().flatten().collect();
    for address in wanted.difference(&there) {
        map.insert(address, 1, 0).map_err(failed(name))?;
    }
    for address in there.difference(wanted) {
        map.remove(address).map_err(failed(name))?;
    }
    Ok(())
}

/// Brings a set of prefixes up to date: lengths and addresses.
fn set_prefixes<A: Pod + Eq + Hash>(
    map: &mut LpmTrie<MapData, A, u32>,
    wanted: &HashSet<(u32, A)>,
    name: &'static str,
) -> Result<(), EbpfError> {
    let there: HashSet<(u32, A)> = map.keys().flatten().map(|key| (key.prefix_len(), key.data())).collect();
    for &(len, address) in wanted.difference(&there) {
        map.insert(&Key::new(len, address), 1, 0).map_err(failed(name))?;
    }
    for &(len, address) in there.difference(wanted) {
        map.remove(&Key::new(len, address)).map_err(failed(name))?;
    }
    Ok(())
}

/// The pairs of peers that reach each other, if only listed ones do.
struct RelayPairs {
    map: HashMap<MapData, u64, u32>,
    set: BTreeSet<u64>,
}

impl RelayPairs {
    /// Brings the map up to date. The file lists the pairs, so there are never more than at first.
    fn set(&mut self, tunnel: &Tunnel) -> Result<(), EbpfError> {
        let pairs: BTreeSet<u64> = match tunnel.relay_table() {
            RelayTable::Pairs(pairs) => pairs.iter().map(|(from, to)| encode_pair(*from, *to)).collect(),
            RelayTable::All | RelayTable::Nobody => BTreeSet::new(),
        };
        for pair in self.set.difference(&pairs) {
            self.map.remove(pair).map_err(failed(name::RELAY_PAIRS))?;
        }
        for pair in pairs.difference(&self.set) {
            self.map.insert(pair, 1, 0).map_err(failed(name::RELAY_PAIRS))?;
        }
        self.set = pairs;
        Ok(())
    }
}

/// Entries that the listed pairs take, one for each direction.
fn pairs_of(config: &TunnelConfig) -> usize {
    if let Relay::Pairs(pairs) = &config.relay { pairs.len() * 2 } else { 0 }
}

fn fill(ebpf: &mut Ebpf, tunnel: &Tunnel) -> Result<(PrefixOwners, PeerByOuter), EbpfError> {
    let config = tunnel.config();
    let mut networks = PrefixOwners::take(ebpf)?;
    let mut peer_by_outer: PeerByOuter = take(ebpf, name::PEER_BY_OUTER)?;
    for network in config.peers.site_networks() {
        networks.insert(*network, Owner::Ours)?;
    }
    for address in &config.reachable_addresses {
        networks.insert(IpAddr::from(*address).into(), Owner::Ours)?;
    }
    for (index, peer) in tunnel.peers() {
        for network in &peer.networks {
            networks.insert(*network, Owner::Peer(index))?;
        }
        for address in peer.underlay.iter() {
            peer_by_outer
                .insert(underlay_octets(address), index.number(), 0)
                .map_err(failed(name::PEER_BY_OUTER))?;
        }
    }
    Ok((networks, peer_by_outer))
}

/// Our addresses as the programs have them: the only one twice.
pub(super) fn both(addresses: UnderlayAddresses) -> [IpAddr; 2] {
    let first = addresses.first();
    [first, addresses.iter().nth(1).unwrap_or(first)]
}

/// A path whose next hop is not known.
pub(super) fn entry_of(path: TunnelPath) -> PathEntry {
    PathEntry::new(path.source, path.destination)
}

/// An underlay address as the key of a map.
pub(super) fn underlay_octets(address: IpAddr) -> [u8; 16] {
    UnderlayAddress::new(address).octets()
}

fn failed(name: &'static str) -> impl Fn(aya::maps::MapError) -> EbpfError {
    move |error| EbpfError::Map { name, cause: Box::new(error) }
}

fn take<M: TryFrom<Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, EbpfError> {
    let map = ebpf.take_map(name).ok_or(EbpfError::Missing(name))?;
    M::try_from(map).map_err(failed(name))
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, EbpfError> {
    let program = ebpf.program_mut(name).ok_or(EbpfError::Missing(name))?;
    program.try_into().map_err(|error| EbpfError::Program { name, cause: Box::new(error) })
}

/// The copies of all processors, read as `T`.
pub(super) fn copies<V: Pod + IntoBytes + zerocopy::Immutable, T: FromBytes>(
    map: &PerCpuArray<MapData, V>,
    index: u32,
) -> Vec<T> {
    let values = map.get(&index, 0).ok();
    let values = values.iter().flat_map(|values| values.iter());
    values.filter_map(|value| T::read_from_bytes(value.as_bytes()).ok()).collect()
}
