//! The tunnel: configuration, peers and their soft state.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use adit_peers::{Keepalive, Path, Peer};
use adit_policy::{DropReason, FlowKey, IdRange, Owner, OwnerLookup, PeerIndex, PeerLookup};
use adit_wire::encapsulation::{OuterPolicy, TtlPolicy, overhead};
use adit_wire::icmpv4::{self, Icmpv4Error};
use adit_wire::ipv4::{self, Ipv4Packet};
use adit_wire::ipv6;
use adit_wire::tcp::{self, TcpFlags};
use adit_wire::{Protocol, Validation};
use ipnet::IpNet;

use crate::config::{TunnelConfig, TunnelError};
use crate::counters::Counters;
use crate::icmp_reply::Reply;
use crate::other_overlays::OtherOverlays;
use crate::outer::OuterDatagram;
use crate::path_mtu::{PATH_MTU_FLOOR, PathMtu};
use crate::peers::PeerTable;
use crate::probe::{Probe, ProbeOptions};
use crate::probe_address::ProbeAddress;
use crate::relay::RelayTable;
use crate::route_state::RouteState;
use crate::soft_state::{IcmpLimit, Reachability, SoftState};
use crate::time::Instant;

/// A tunnel with any number of peers.
///
/// The host's own forwarding comes before the tunnel. It has decremented the inner TTL if the
/// datagram was forwarded, and not if it was sent from here, as RFC 2003 section 3.1 requires. So
/// the tunnel never changes the inner TTL. The decapsulator does not either, because the host
/// forwards again there.
///
/// All threads share it. Nothing here is locked, and the common path of a datagram writes only to
/// the caller's own [`Counters`].
#[derive(Debug)]
pub struct Tunnel {
    pub(crate) config: TunnelConfig,
    pub(crate) table: PeerTable,
    /// By [`PeerIndex`].
    pub(crate) slots: Vec<Slot>,
    /// Which of them reach each other.
    pub(crate) relay: RelayTable,
    /// For answers about datagrams that belong to no peer.
    pub(crate) icmp: Arc<IcmpLimit>,
    pub(crate) shares_identifications: Arc<AtomicBool>,
    pub(crate) others: Arc<OtherOverlays>,
    /// Random: whoever is not on the path must not guess it.
    pub(crate) secret: RandomState,
    /// The key of the flow labels of IPv6.
    pub(crate) flow_key: FlowKey,
}

/// What a tunnel has to know of the machine it runs on, and what changes while it runs.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// As in [`TunnelConfig`].
    pub local_addresses: Vec<IpAddr>,
    /// As in [`TunnelConfig`].
    pub probe: Option<ProbeOptions>,
    /// The networks that are reached through other overlays of the machine.
    pub other_networks: Vec<IpNet>,
}

/// Soft state that outlives a restart (RFC 2003 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// The path MTU.
    pub path_mtu: PathMtu,
    /// Whether the peer is reachable.
    pub reachability: Reachability,
}

/// The place of a peer, which keeps its number.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) peer: Arc<Peer>,
    /// Shared with the tunnels that this one was made from and that are made from it, so that a
    /// peer has one soft state. `None`: the peer was removed.
    pub(crate) state: Option<Arc<PeerState>>,
}

#[derive(Debug)]
pub(crate) struct PeerState {
    pub(crate) soft: SoftState,
    pub(crate) path: Path,
    pub(crate) probe_address: ProbeAddress,
    /// Limits of the errors that routers with unlisted addresses send to the peer, and from it.
    pub(crate) router_errors_out: IcmpLimit,
    pub(crate) router_errors_in: IcmpLimit,
    /// See [`Tunnel::leave_to_stack`].
    pub(crate) left_to_stack: AtomicBool,
    pub(crate) route: RouteState,
}

impl Slot {
    pub(crate) fn new(peer: Arc<Peer>, path: Path, underlay_mtu: u16) -> Slot {
        let state = PeerState {
            soft: SoftState::new(underlay_mtu),
            path,
            probe_address: ProbeAddress::default(),
            router_errors_out: IcmpLimit::new(),
            router_errors_in: IcmpLimit::new(),
            left_to_stack: AtomicBool::new(false),
            route: RouteState::default(),
        };
        Slot { peer, state: Some(Arc::new(state)) }
    }
}

impl PeerState {
    /// Bytes that encapsulation adds to a packet to this peer.
    #[inline]
    pub(crate) fn overhead(&self) -> usize {
        overhead(self.path.destination)
    }
}

impl Tunnel {
    /// Checks the configuration and makes the tunnel. The path MTU of every peer is at first that
    /// of the underlay. Linear in the number of networks.
    ///
    /// # Errors
    ///
    /// An underlay address is a peer's or lies in a peer's network; a peer has none of a family of
    /// ours; the outer TTL is 0; there are more than `u32::MAX` peers.
    pub fn new(config: TunnelConfig) -> Result<Tunnel, TunnelError> {
        if u32::try_from(config.peers.len()).is_err() {
            return Err(TunnelError::TooManyPeers { found: config.peers.len() });
        }
        if config.outer.ttl == TtlPolicy::Fixed(0) {
            return Err(TunnelError::TtlZero);
        }
        let peers = config.peers.with_site_underlay(config.underlay)?;
        let config = TunnelConfig { peers, ..config };
        let mut table = PeerTable::new();
        for network in config.peers.site_networks() {
            table.insert_network(*network, Owner::Ours);
        }
        for address in &config.reachable_addresses {
            table.insert_network(IpNet::from(IpAddr::from(*address)), Owner::Ours);
        }
        let mut slots = Vec::with_capacity(config.peers.len());
        for (number, peer) in (0..).zip(&config.peers) {
            let index = PeerIndex::new(number);
            for address in peer.underlay.iter() {
                table.insert_underlay(address, index);
            }
            for network in &peer.networks {
                table.insert_network(*network, Owner::Peer(index));
            }
            slots.push(Slot::new(Arc::clone(peer), peer.path_from(config.underlay)?, config.underlay_mtu));
        }
        let peers = (0..).map(PeerIndex::new).zip(config.peers.iter().map(|peer| &**peer));
        let relay = RelayTable::new(&config.relay, peers);
        let secret = RandomState::new();
        Ok(Tunnel {
            config,
            table,
            slots,
            relay,
            icmp: Arc::new(IcmpLimit::new()),
            shares_identifications: Arc::new(AtomicBool::new(false)),
            others: Arc::default(),
            flow_key: FlowKey([secret.hash_one(0u8), secret.hash_one(1u8)]),
            secret,
        })
    }

    /// The key of the flow labels of IPv6, which programs in the kernel write too.
    pub fn flow_key(&self) -> FlowKey {
        self.flow_key
    }

    /// The tunnel with another key of flow labels.
    #[must_use]
    pub fn with_flow_key(self, flow_key: FlowKey) -> Tunnel {
        Tunnel { flow_key, ..self }
    }

    /// The tunnel on a machine that has changed. Peers keep their numbers and share their soft
    /// state with this tunnel.
    ///
    /// Cost: a copy of the tables.
    #[must_use]
    pub fn on_host(&self, facts: HostFacts) -> Tunnel {
        let HostFacts { local_addresses, probe, other_networks } = facts;
        Tunnel {
            config: TunnelConfig { local_addresses, probe, ..self.config.clone() },
            table: self.table.clone(),
            slots: self.slots.clone(),
            relay: self.relay.clone(),
            icmp: Arc::clone(&self.icmp),
            shares_identifications: Arc::clone(&self.shares_identifications),
            others: Arc::new(OtherOverlays::new(other_networks)),
            secret: self.secret.clone(),
            flow_key: self.flow_key,
        }
    }

    /// The networks that are reached through other overlays of this machine.
    pub fn other_networks(&self) -> &[IpNet] {
        self.others.networks()
    }

    /// A shard of counters for one thread that works with this tunnel.
    pub fn counters(&self) -> Counters {
        Counters::new(self.slots.len())
    }

    /// Takes over path MTU, reachability and rate limits of the peers that `previous` sent to at
    /// the same underlay address, so that a changed configuration does not forget what was learned.
    pub fn inherit(&self, previous: &Tunnel) {
        for peer in self.states() {
            let old = previous.table.lookup_outer(peer.path.destination);
            let old = old.and_then(|old| previous.peer_state(old));
            if let Some(old) = old.filter(|old| old.path.destination == peer.path.destination) {
                peer.soft.inherit(&old.soft);
            }
        }
    }

    /// The configuration of the tunnel, with its peers as they are now.
    pub fn config(&self) -> &TunnelConfig {
        &self.config
    }

    /// A peer. One that was removed is as it was last.
    ///
    /// # Panics
    ///
    /// If the index is not of this tunnel.
    #[expect(
        clippy::indexing_slicing,
        reason = "documented; every index that this tunnel gives out is in range"
    )]
    pub fn peer(&self, peer: PeerIndex) -> &Peer {
        &self.slots[peer.index()].peer
    }

    /// All peers with their numbers, in ascending order.
    pub fn peers(&self) -> impl Iterator<Item = (PeerIndex, &Peer)> {
        let slots = (0..).map(PeerIndex::new).zip(&self.slots);
        slots.filter(|(_, slot)| slot.state.is_some()).map(|(index, slot)| (index, &*slot.peer))
    }

    /// Which peers reach each other through this site.
    pub fn relay_table(&self) -> &RelayTable {
        &self.relay
    }

    /// How many numbers have been given to peers, removed ones included: every number is below.
    pub fn peer_slots(&self) -> usize {
        self.slots.len()
    }

    fn states(&self) -> impl Iterator<Item = &PeerState> {
        self.slots.iter().filter_map(|slot| slot.state.as_deref())
    }

    /// The peer that an inner destination is behind.
    pub fn lookup_inner(&self, address: Ipv4Addr) -> Option<PeerIndex> {
        self.table.lookup_inner(address)
    }

    /// The owner of the longest prefix around an inner address.
    pub(crate) fn owner_of(&self, address: IpAddr) -> Option<Owner> {
        match address {
            IpAddr::V4(address) => self.table.owner(address),
            IpAddr::V6(address) => self.table.owner_v6(address),
        }
    }

    /// Whether this gateway has an address: one of its own inner ones, or an underlay address.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.is_local(address),
            IpAddr::V6(address) => self.is_local(address),
        }
    }

    /// The path that packets to a peer take. `None`: it is not of this tunnel.
    pub fn path(&self, peer: PeerIndex) -> Option<Path> {
        Some(self.peer_state(peer)?.path)
    }

    /// All paths with the numbers of their peers, in ascending order.
    pub fn paths(&self) -> impl Iterator<Item = (PeerIndex, Path)> + Clone {
        let slots = (0..).map(PeerIndex::new).zip(&self.slots);
        slots.filter_map(|(index, slot)| Some((index, slot.state.as_ref()?.path)))
    }

    /// The peer with an underlay address.
    pub fn lookup_outer(&self, address: IpAddr) -> Option<PeerIndex> {
        self.table.lookup_outer(address)
    }

    /// The path MTU to a peer, as of the last [`Tunnel::on_deadline`]. The underlay's MTU if the
    /// peer is not of this tunnel.
    pub fn path_mtu(&self, peer: PeerIndex) -> PathMtu {
        let unknown = PathMtu { mtu: self.config.underlay_mtu, learned: None, expires: None };
        self.peer_state(peer).map_or(unknown, |peer| peer.soft.path_mtu.get())
    }

    /// The MTU of the underlay's interface towards a peer, in bytes, as it was set last.
    pub fn underlay_mtu(&self, peer: PeerIndex) -> u16 {
        self.peer_state(peer).map_or(self.config.underlay_mtu, |peer| peer.soft.path_mtu.underlay())
    }

    /// Whether the peer is reachable, as far as is known.
    pub fn reachability(&self, peer: PeerIndex) -> Reachability {
        self.peer_state(peer).map_or(Reachability::Assumed, |peer| peer.soft.reachability())
    }

    /// Records whether the host has a route to a peer. The data plane that looks routes up calls it
    /// after each look.
    pub fn set_has_route(&self, peer: PeerIndex, has_route: bool, now: Instant) {
        if let Some(peer) = self.peer_state(peer) {
            peer.route.set(has_route, now);
        }
    }

    /// Since when the host has no route to a peer; `None`: it has one, as far as is known.
    pub fn without_route_since(&self, peer: PeerIndex) -> Option<Instant> {
        self.peer_state(peer)?.route.missing_since()
    }

    /// The time of the peer's last answer to a probe; `None`: never.
    pub fn probe_answered(&self, peer: PeerIndex) -> Option<Instant> {
        self.peer_state(peer)?.soft.answers.last()
    }

    /// The address inside the tunnel that a peer is probed at; `None`: no probe was sent yet.
    pub fn probe_address(&self, peer: PeerIndex) -> Option<IpAddr> {
        self.peer_state(peer)?.probe_address.probed()
    }

    /// Whether a peer has answered none of the probes of the last search, so that nothing is known
    /// of its path.
    pub fn is_silent(&self, peer: PeerIndex) -> bool {
        self.peer_state(peer).is_some_and(|peer| peer.probe_address.is_silent())
    }

    /// The interval of a peer's keepalives; `None`: none are sent.
    pub(crate) fn keepalive(&self, peer: PeerIndex) -> Option<Duration> {
        match self.slots.get(peer.index())?.peer.path.keepalive {
            Keepalive::Default => self.config.probe.as_ref()?.keepalive,
            Keepalive::Off => None,
            Keepalive::After(interval) => Some(interval),
        }
    }

    /// The soft state of a peer that a restart should keep; `None`: nothing was learned.
    pub fn remember(&self, peer: PeerIndex) -> Option<Remembered> {
        let remembered = Remembered { path_mtu: self.path_mtu(peer), reachability: self.reachability(peer) };
        let is_news =
            remembered.path_mtu.learned.is_some() || remembered.reachability != Reachability::Assumed;
        is_news.then_some(remembered)
    }

    /// Restores what [`Tunnel::remember`] returned before a restart. Times are of the same clock.
    pub fn recall(&self, peer: PeerIndex, remembered: Remembered, now: Instant) {
        let Some(peer) = self.peer_state(peer) else { return };
        peer.soft.path_mtu.recall(remembered.path_mtu, now);
        if let Reachability::Unreachable { error, router, since } = remembered.reachability {
            peer.soft.recall_unreachable(error, router, since);
        }
    }

    /// Sets the MTU of the underlay's interface towards a peer, in bytes. Less than 88 is taken as
    /// 88.
    pub fn set_underlay_mtu(&self, peer: PeerIndex, mtu: u16) {
        if let Some(peer) = self.peer_state(peer) {
            peer.soft.path_mtu.set_underlay(mtu);
        }
    }

    /// The time of the next [`Tunnel::on_deadline`]. Cost: linear in the number of peers. It is for
    /// the loop that waits, not for every packet.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.states().filter_map(|peer| peer.soft.path_mtu.deadline()).min()
    }

    /// Forgets expired soft state. A late call is harmless: expired state is not used.
    pub fn on_deadline(&self, now: Instant) {
        self.states().for_each(|peer| peer.soft.path_mtu.expire(now));
    }

    pub(crate) fn write_probe(&self, peer: PeerIndex, probe: Probe, out: &mut [u8]) -> Option<usize> {
        let path = self.peer_state(peer)?.path;
        self.config.probe.as_ref()?.write(self.outer_policy(), path, probe, out)
    }

    /// How the path to a peer is probed; `None`: not at all.
    pub fn probing(&self, peer: PeerIndex) -> Option<&ProbeOptions> {
        let path = self.path(peer)?;
        self.config.probe.as_ref().filter(|options| options.source_towards(path.destination).is_some())
    }

    /// The smallest path MTU in bytes that a router may set for a path.
    pub(crate) fn mtu_floor(&self, path: Path) -> u16 {
        let least = match path.destination {
            IpAddr::V4(_) => PATH_MTU_FLOOR,
            IpAddr::V6(_) => ipv6::MIN_MTU,
        };
        self.config.mtu_floor.max(least)
    }

    /// Bytes that encapsulation adds to a packet to a peer; 0 if it is not of this tunnel.
    pub fn overhead(&self, peer: PeerIndex) -> usize {
        self.peer_state(peer).map_or(0, PeerState::overhead)
    }

    pub(crate) fn outer_policy(&self) -> &OuterPolicy {
        &self.config.outer
    }

    #[inline]
    pub(crate) fn peer_state(&self, peer: PeerIndex) -> Option<&PeerState> {
        self.slots.get(peer.index())?.state.as_deref()
    }

    /// Returns true if an error waits for the sender of the next datagram to a peer (RFC 2003
    /// section 4). A fast path has to leave that datagram to [`Tunnel::encapsulate`].
    pub fn has_pending_error(&self, peer: PeerIndex) -> bool {
        self.peer_state(peer).is_some_and(|peer| peer.soft.has_pending())
    }

    /// Marks a peer as reachable: a datagram came from it on a fast path.
    pub fn mark_reachable(&self, peer: PeerIndex) {
        if let Some(peer) = self.peer_state(peer) {
            peer.soft.mark_reachable();
        }
    }

    /// Leaves a peer's datagrams to the host's IP stack, or takes them back. The stack applies the
    /// policies of IPsec: only what it has let pass is then accepted from the peer
    /// ([`Outer::policy_checked`](crate::Outer)), and no data plane may send to it in another way.
    pub fn leave_to_stack(&self, peer: PeerIndex, is_left: bool) {
        if let Some(peer) = self.peer_state(peer) {
            peer.left_to_stack.store(is_left, Relaxed);
        }
    }

    /// Whether a peer's datagrams are left to the host's IP stack.
    pub fn is_left_to_stack(&self, peer: PeerIndex) -> bool {
        self.peer_state(peer).is_some_and(|peer| peer.left_to_stack.load(Relaxed))
    }

    /// Whether the outer header of a datagram says that a peer sends it to us.
    pub fn is_from_peer(&self, outer: &[u8]) -> bool {
        OuterDatagram::parse(outer, Validation::Datapath)
            .and_then(|outer| adit_policy::outer_sender(self, outer.source, outer.destination))
            .is_some()
    }

    /// An identification for the fragments of an outer packet of IPv6: hard to guess, and rarely
    /// that of another packet to the peer (RFC 7739 section 5).
    pub fn fragment_identification(&self, peer: PeerIndex) -> u32 {
        let count = self.peer_state(peer).map_or(0, |peer| peer.soft.count_fragmented());
        self.secret.hash_one((peer, count)) as u32
    }

    /// Leaves the lower half of the identifications to programs in the kernel, which send to the
    /// same peers from now on (RFC 6864 section 4).
    pub fn share_identifications(&self) {
        self.shares_identifications.store(true, Relaxed);
    }

    /// The identifications that this tunnel writes; `None`: all.
    pub(crate) fn half(&self) -> Option<IdRange> {
        self.shares_identifications.load(Relaxed).then_some(IdRange::Upper)
    }

    /// The gateway's own addresses, of which the underlay addresses may be missing.
    pub fn local_addresses(&self) -> &[IpAddr] {
        &self.config.local_addresses
    }

    /// The error to send about an inner datagram; `Err`: none may be sent, and why. Takes a token
    /// of the peer, or of the tunnel.
    pub(crate) fn answer(
        &self,
        peer: Option<PeerIndex>,
        packet: &Ipv4Packet<'_>,
        error: Icmpv4Error,
        now: Instant,
    ) -> Result<Reply, DropReason> {
        if !icmpv4::may_answer(packet) {
            return Err(DropReason::IcmpNotAnswerable);
        }
        self.take_icmp_token(peer, now)?;
        Ok(Reply::V4 { destination: packet.source(), error })
    }

    /// The rate limit of errors, per peer and for all others.
    pub(crate) fn take_icmp_token(&self, peer: Option<PeerIndex>, now: Instant) -> Result<(), DropReason> {
        let is_allowed = match peer.and_then(|peer| self.peer_state(peer)) {
            Some(peer) => peer.soft.may_send_icmp(now),
            None => self.icmp.take(now),
        };
        if is_allowed { Ok(()) } else { Err(DropReason::IcmpRateLimited) }
    }

    /// The MSS to clamp to, if this is a TCP SYN: what is left of the path MTU after both IP
    /// headers and TCP's own, without options (RFC 9293 section 3.7.1).
    #[inline]
    pub(crate) fn max_mss(&self, state: &PeerState, packet: &Ipv4Packet<'_>, mtu: u16) -> Option<u16> {
        let tcp = self.config.mss_clamp && packet.protocol() == Protocol::TCP;
        if !tcp || !packet.is_first_fragment_or_whole() {
            return None;
        }
        mss_of_syn(packet.payload(), state.overhead() + ipv4::HEADER_LEN, mtu)
    }
}

/// The MSS that the path leaves if `segment` is a SYN, behind IP headers of so many bytes.
#[inline]
pub(crate) fn mss_of_syn(segment: &[u8], ip_headers: usize, mtu: u16) -> Option<u16> {
    let flags = TcpFlags(*segment.get(tcp::FLAGS_OFFSET)?);
    let headers = (ip_headers + tcp::HEADER_LEN) as u16;
    flags.contains(TcpFlags::SYN).then(|| mtu.saturating_sub(headers))
}

impl PeerLookup for Tunnel {
    type Underlay = IpAddr;

    #[inline]
    fn is_our_underlay(&self, address: IpAddr) -> bool {
        self.config.underlay.contains(address)
    }

    #[inline]
    fn peer_by_underlay(&self, address: IpAddr) -> Option<PeerIndex> {
        self.table.lookup_outer(address)
    }

    #[inline]
    fn may_relay(&self, from: PeerIndex, to: PeerIndex) -> bool {
        self.relay.allows(from, to)
    }
}

impl OwnerLookup<Ipv6Addr> for Tunnel {
    #[inline]
    fn owner(&self, inner: Ipv6Addr) -> Option<Owner> {
        self.table.owner_v6(inner)
    }

    /// The kernel delivers to its own addresses by itself.
    #[inline]
    fn is_local(&self, address: Ipv6Addr) -> bool {
        let address = address.into();
        self.config.underlay.contains(address) || self.config.local_addresses.contains(&address)
    }
}

impl OwnerLookup<Ipv4Addr> for Tunnel {
    #[inline]
    fn owner(&self, inner: Ipv4Addr) -> Option<Owner> {
        self.table.owner(inner)
    }

    #[inline]
    fn is_local(&self, address: Ipv4Addr) -> bool {
        let address = address.into();
        self.config.underlay.contains(address) || self.config.local_addresses.contains(&address)
    }
}
