//! The fast path of one overlay: loaded programs as the [`Offload`] of the userspace plane.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use adit_linux::bpf::programs_are_preemptible;
use adit_linux::family::Family;
use adit_policy::PeerIndex;
use adit_policy::bpf::maps::{Form, Settings};
use adit_tunnel::{Reachability, TableDelta, Tunnel};

use super::attach::{self, Attacher, Hook};
use super::attach_point::{AttachPoint, Program};
use super::attachments::{Attachment, Attachments};
use super::counts::{CountSnapshot, Counts, PreviousMaps};
use super::error::EbpfError;
use super::loaded::{LoadedObject, PeerState, both, entry_of};
use super::options::{EbpfOptions, Persistence};
use super::pins::{PinGuard, Pins};
use crate::tunnel_interface::TunnelInterface;
use crate::userspace::offload::{Interfaces, NextHop, Offload, TrafficReader};

/// Programs that are loaded, and attached from [`Offload::open`] on.
pub(super) struct FastPath {
    object: LoadedObject,
    counts: Arc<Counts>,
    attacher: Attacher,
    pins: Option<Pins>,
    /// Where the hidden end has its program.
    encap: AttachPoint,
    interface: TunnelInterface,
    /// For each peer that is held to be unreachable: datagrams received when last looked.
    silent: HashMap<PeerIndex, u64>,
    /// Interfaces that could not be attached to, so that each is logged once.
    refused: BTreeMap<u32, String>,
    /// Underlay interfaces with a program.
    attached: Vec<u32>,
    is_open: bool,
    attachments: Arc<Attachments>,
    previous: Option<(PreviousMaps, CountSnapshot)>,
    pin_guard: PinGuard,
}

impl FastPath {
    /// Loads the programs and fills their maps. An earlier process's programs go on meanwhile.
    pub(super) fn load(
        tunnel: &Tunnel,
        interface: &TunnelInterface,
        mark: u32,
        options: &EbpfOptions,
    ) -> Result<Self, EbpfError> {
        let config = tunnel.config();
        let host = interface.for_programs();
        let settings = Settings::new(both(config.underlay), host, &config.outer, config.mss_clamp)
            .with_flow_key(tunnel.flow_key())
            .with_mark(mark)
            .with_ipv6(interface.ipv6);
        tunnel.share_identifications();
        let pins = options.persistence.pins().map(Pins::of).transpose()?;
        let pin_guard = PinGuard::new(pins.as_ref());
        pins.as_ref().map(Pins::make).transpose()?;
        let new_maps = pins.as_ref().map(Pins::new_maps).transpose()?;
        let (object, maps) =
            LoadedObject::load(tunnel, settings, new_maps.as_deref(), programs_are_preemptible())?;
        let previous = pins.as_ref().and_then(|pins| PreviousMaps::open(&pins.maps()));
        let before = CountSnapshot::of_previous(previous.as_ref(), tunnel);
        let counts = Arc::new(Counts::new(maps, &before)?);
        let directory = pins.as_ref().map(|pins| pins.directory().to_owned());
        Ok(Self {
            object,
            counts,
            attacher: Attacher {
                hook: options.hook,
                pins: directory,
                keeps_filters: options.persistence == Persistence::Filters,
                tunnel: interface.hidden,
            },
            pins,
            encap: AttachPoint { program: Program::Encap, device: interface.hidden },
            interface: interface.clone(),
            silent: HashMap::new(),
            refused: BTreeMap::new(),
            attached: Vec::new(),
            is_open: false,
            attachments: Arc::default(),
            previous: previous.map(|previous| (previous, before)),
            pin_guard,
        })
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    pub(super) fn attachments(&self) -> Arc<Attachments> {
        Arc::clone(&self.attachments)
    }

    /// Marks a peer reachable if it was held to be unreachable and the programs have received from
    /// it since.
    fn note_reachable(&mut self, tunnel: &Tunnel, peer: PeerIndex) {
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

    /// Removes what an earlier process attached elsewhere: it would go on with an old
    /// configuration.
    fn settle_pins(&mut self) -> Result<(), EbpfError> {
        if let Some(pins) = &self.pins {
            let points = self.attached.iter().copied().map(decap_at).chain([self.encap]);
            let ours: Vec<PathBuf> = points.filter_map(|point| self.attacher.pin(point)).collect();
            pins.remove_others(&ours)?;
            pins.settle_maps()?;
        }
        self.pin_guard.settle();
        Ok(())
    }

    fn attach(&mut self, point: AttachPoint, device: &str) -> Result<(), EbpfError> {
        let name = point.program.name();
        let program = self.object.program(name)?;
        self.attacher.attach(program, point, device)?;
        let info = program.info().map_err(|error| EbpfError::Program { name, cause: Box::new(error) })?;
        let Attacher { hook, tunnel: handle, .. } = self.attacher;
        self.attachments.record(Attachment { point, program: info.id(), hook, handle });
        Ok(())
    }
}

/// Where an interface of the underlay has its program.
fn decap_at(device: u32) -> AttachPoint {
    AttachPoint { program: Program::Decap, device }
}

impl Offload for FastPath {
    type Error = EbpfError;

    fn is_open(&self) -> bool {
        self.is_open
    }

    fn open(&mut self, tunnel: &Tunnel, underlay: &Interfaces) -> Result<(), EbpfError> {
        // Decapsulation comes first: the answers of the other side need it.
        for (index, name) in underlay {
            self.attach(decap_at(*index), name)?;
            self.attached.push(*index);
        }
        let name = self.interface.hidden_name.clone();
        self.attach(self.encap, &name)?;
        if self.attacher.hook == Hook::Tcx {
            // An earlier process may have had no pins: its filters would take what these decline.
            attach::remove_filters(self.interface.hidden)?;
        }
        // From here on a failure leaves the pins.
        self.settle_pins()?;
        self.is_open = true;
        // The replaced programs counted until now.
        if let Some((previous, before)) = self.previous.take() {
            self.counts.add_late(&before, &CountSnapshot::of_previous(Some(&previous), tunnel));
        }
        Ok(())
    }

    fn widen(&mut self, underlay: &Interfaces) {
        for (index, name) in underlay {
            if self.attached.contains(index) || self.refused.get(index) == Some(name) {
                continue;
            }
            match self.attach(decap_at(*index), name) {
                Ok(()) => self.attached.push(*index),
                Err(error) => {
                    tracing::warn!(%error, "packets that arrive by this interface pass through userspace");
                    self.refused.insert(*index, name.clone());
                }
            }
        }
    }

    fn sync(&mut self, tunnel: &Tunnel, relays: bool) -> Result<(), EbpfError> {
        for (peer, _) in tunnel.peers() {
            self.note_reachable(tunnel, peer);
            let (_, path) = self.object.peer(peer);
            self.object.set_peer(peer, PeerState::of(tunnel, peer), path)?;
        }
        let settings = self.object.settings().with_relay(relays);
        self.object.set_settings(settings)
    }

    fn set_next_hop(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        next_hop: Option<NextHop>,
    ) -> Result<(), EbpfError> {
        let Some(path) = tunnel.path(peer).map(entry_of) else { return Ok(()) };
        let path = next_hop.map_or(path, |next_hop| path.via(next_hop.address, next_hop.device));
        self.object.set_peer(peer, PeerState::of(tunnel, peer), path)
    }

    fn set_sending(&mut self, family: Family, sends: bool) -> Result<(), EbpfError> {
        let form = match family {
            Family::V4 => Form::InIpv4,
            Family::V6 => Form::InIpv6,
        };
        let settings = self.object.settings().with_sending(form, sends);
        self.object.set_settings(settings)
    }

    fn update_peers(&mut self, tunnel: &Tunnel, steps: &TableDelta) -> Result<(), EbpfError> {
        self.object.set_host(tunnel)?;
        self.object.update_peers(tunnel, steps)?;
        for peer in &steps.removed {
            self.silent.remove(peer);
        }
        Ok(())
    }

    fn traffic(&self) -> TrafficReader {
        let counts = self.counts();
        Arc::new(move |peer| counts.traffic(peer))
    }
}
