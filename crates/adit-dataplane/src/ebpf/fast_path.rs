//! The programs of one overlay, kept in step with the tunnel and with the underlay.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use adit_linux::sysctl;
use adit_policy::PeerIndex;
use adit_policy::bpf::maps::{PeerEntry, Settings};
use adit_tunnel::{Reachability, TableDelta, Tunnel};
use aya::programs::TcAttachType;

use super::EbpfOptions;
use super::attach::{AttachPoint, Attacher};
use super::counts::{CountSnapshot, Counts, PreviousMaps};
use super::error::EbpfError;
use super::loaded::LoadedObject;
use super::pins::{PinGuard, Pins};

/// How a peer is reached: by which interface, and over whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NextHop {
    /// The interface's index.
    pub(crate) device: u32,
    /// The next hop; the peer's own address where it is on the link.
    pub(crate) next_hop: Ipv4Addr,
}

/// Programs that are loaded, and attached from [`FastPath::open`] on.
pub(crate) struct FastPath {
    object: LoadedObject,
    counts: Arc<Counts>,
    attacher: Attacher,
    device: AttachPoint,
    device_name: String,
    /// What the programs count of peers that are held to be out of reach, when it was last looked.
    silent: HashMap<PeerIndex, u64>,
    /// Interfaces that could not be attached to, so as to say it once.
    refused: BTreeMap<u32, String>,
    attached: Vec<u32>,
    before: Option<(PreviousMaps, CountSnapshot)>,
    pin_guard: PinGuard,
}

/// The tunnel's device has no link header.
const INNER_OFFSET: u32 = 0;

impl FastPath {
    /// Loads the programs and fills their maps; an earlier process's go on meanwhile.
    pub(super) fn load(
        tunnel: &Tunnel,
        device: u32,
        device_name: &str,
        options: &EbpfOptions,
    ) -> Result<Self, EbpfError> {
        let config = tunnel.config();
        let settings = Settings::new(config.underlay, device, &config.outer, config.mss_clamp);
        tunnel.share_identifications();
        let pins = options.pins.as_deref().map(Pins::of).transpose()?;
        let pin_guard = PinGuard::of(pins.as_ref());
        pins.as_ref().map(Pins::make).transpose()?;
        let fresh = pins.as_ref().map(Pins::fresh_maps).transpose()?;
        let (object, maps) = LoadedObject::load(tunnel, settings, INNER_OFFSET, fresh.as_deref())?;
        let old = pins.as_ref().and_then(|pins| PreviousMaps::open(&pins.maps()));
        let before = CountSnapshot::of_old(old.as_ref(), tunnel);
        let counts = Arc::new(Counts::new(maps, &before)?);
        Ok(Self {
            object,
            counts,
            attacher: Attacher { hook: options.hook, pins, tunnel: device },
            device: AttachPoint { kind: TcAttachType::Egress, device },
            device_name: device_name.to_owned(),
            silent: HashMap::new(),
            refused: BTreeMap::new(),
            attached: Vec::new(),
            before: old.map(|old| (old, before)),
            pin_guard,
        })
    }

    /// Whether the programs are at work.
    pub(crate) fn is_open(&self) -> bool {
        !self.attached.is_empty()
    }

    /// Datagrams that the programs have sent to a peer.
    pub(crate) fn sent(&self, peer: PeerIndex) -> u64 {
        self.counts.of(peer).tx_packets
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Sets how a peer is reached; `None` leaves it to userspace, and so to the kernel's routing.
    pub(crate) fn set_next_hop(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        way: Option<NextHop>,
    ) -> Result<(), EbpfError> {
        let entry = PeerEntry {
            underlay: tunnel.peer(peer).underlay.octets(),
            next_hop: way.map_or([0; 4], |way| way.next_hop.octets()),
            device: way.map_or(0, |way| way.device),
            ..PeerEntry::default()
        };
        self.set_entry(tunnel, peer, entry)
    }

    /// Writes a peer's entry with what the tunnel knows now.
    fn set_entry(&mut self, tunnel: &Tunnel, peer: PeerIndex, way: PeerEntry) -> Result<(), EbpfError> {
        let path_mtu = tunnel.path_mtu(peer).mtu;
        let owes_answer = tunnel.has_pending_error(peer).into();
        self.object.set_peer(peer, PeerEntry { path_mtu, owes_answer, ..way })
    }

    /// Brings path MTU, owed answers and forwarding up to date, and tells the tunnel of peers that were
    /// out of reach and have been heard. A comparison a peer.
    pub(crate) fn sync(&mut self, tunnel: &Tunnel) -> Result<(), EbpfError> {
        for (peer, _) in tunnel.peers() {
            self.listen(tunnel, peer);
            self.set_entry(tunnel, peer, self.object.peer(peer))?;
        }
        let forwards = format!("net/ipv4/conf/{}/forwarding", self.device_name);
        let relay = sysctl::read(&forwards).is_ok_and(|value| value.trim() == "1");
        let settings = self.object.settings().with_relay(relay);
        self.object.set_settings(settings)
    }

    fn listen(&mut self, tunnel: &Tunnel, peer: PeerIndex) {
        if tunnel.reachability(peer) == Reachability::Assumed && !tunnel.has_pending_error(peer) {
            self.silent.remove(&peer);
            return;
        }
        let received = self.counts.of(peer).rx_packets;
        if *self.silent.entry(peer).or_insert(received) != received {
            tunnel.mark_reachable(peer);
            self.silent.remove(&peer);
        }
    }

    /// Peers come, go and change. Those that come have no way yet.
    pub(crate) fn update_peers(&mut self, tunnel: &Tunnel, steps: &TableDelta) -> Result<(), EbpfError> {
        self.object.update_peers(tunnel, steps)?;
        for (peer, _) in &steps.removed {
            self.silent.remove(peer);
        }
        Ok(())
    }

    /// Puts the programs to work: at the tunnel's device, and at these interfaces of the underlay.
    pub(crate) fn open(
        &mut self,
        tunnel: &Tunnel,
        underlay: &BTreeMap<u32, String>,
    ) -> Result<(), EbpfError> {
        // The way out first: what the other side answers must find it.
        for (index, name) in underlay {
            self.attach(AttachPoint { kind: TcAttachType::Ingress, device: *index }, name)?;
            self.attached.push(*index);
        }
        let name = self.device_name.clone();
        self.attach(self.device, &name)?;
        if let Some(pins) = &self.attacher.pins {
            let places = self
                .attached
                .iter()
                .map(|device| AttachPoint { kind: TcAttachType::Ingress, device: *device });
            let ours: Vec<PathBuf> =
                places.chain([self.device]).map(|place| self.attacher.pin(pins, place)).collect();
            // What an earlier process attached elsewhere would go on by what was true for it.
            pins.remove_others(&ours)?;
            pins.settle_maps()?;
        }
        self.pin_guard.settle();
        // What replaced programs counted to their end.
        if let Some((old, before)) = self.before.take() {
            self.counts.add_late(&before, &CountSnapshot::of_old(Some(&old), tunnel));
        }
        Ok(())
    }

    /// Attaches to interfaces of the underlay that it is not attached to yet. One that refuses is said
    /// once: what comes in by it goes through userspace.
    pub(crate) fn widen(&mut self, underlay: &BTreeMap<u32, String>) {
        for (index, name) in underlay {
            if self.attached.contains(index) || self.refused.get(index) == Some(name) {
                continue;
            }
            match self.attach(AttachPoint { kind: TcAttachType::Ingress, device: *index }, name) {
                Ok(()) => self.attached.push(*index),
                Err(error) => {
                    tracing::warn!(%error, "what comes in by this interface goes through userspace");
                    self.refused.insert(*index, name.clone());
                }
            }
        }
    }

    fn attach(&mut self, place: AttachPoint, device: &str) -> Result<(), EbpfError> {
        let program = self.object.program(place.program())?;
        self.attacher.attach(program, place, device)
    }
}
