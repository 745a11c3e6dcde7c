//! The programs in test runs: the kernel makes a packet of some bytes, runs a program on it, and
//! returns the changed packet. Nothing leaves the host: a redirect is a verdict like any other.

use adit_fixtures::{Direction, Packet, Program, Setup};
use adit_policy::PeerIndex;
use adit_policy::bpf::maps::{HostInterface, PathEntry, Settings, program};
use adit_tunnel::{Path, TableDelta, Totals, Tunnel};
use adit_wire::ipv6::is_ipv6;
use aya::programs::{TestRun, TestRunOptions};

use super::super::counts::{CountSnapshot, Counts};
use super::super::loaded::{LoadedObject, PeerState, both, entry_of};

const ETHERNET: usize = 14;
/// Room for an added outer header, in bytes.
const GROWTH: usize = 64;
/// The loopback interface, which always exists.
pub(super) const DEVICE: u32 = 1;
/// Of the tunnel interface, in bytes.
pub(super) const MTU: u16 = 1480;
/// Of its ends.
const MAC: [u8; 6] = [2; 6];
const HIDDEN_MAC: [u8; 6] = [4; 6];

/// `struct __sk_buff`: its size, and the offsets of the GSO fields.
const CONTEXT_LEN: usize = 192;
const WIRE_LEN_AT: usize = 160;
const GSO_SEGS_AT: usize = 164;
const GSO_SIZE_AT: usize = 176;

/// Programs loaded for a gateway.
pub(super) struct Programs {
    object: LoadedObject,
    counts: Counts,
    peers: usize,
}

/// What a program did.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) verdict: Program,
    /// The packet afterwards, from its first IPv4 header on.
    pub(super) bytes: Vec<u8>,
}

impl Programs {
    pub(super) fn load(tunnel: &Tunnel, setup: &Setup) -> Programs {
        Self::load_for(tunnel, setup, false)
    }

    /// Loads the programs as on a kernel where runs may interrupt each other, or not.
    pub(super) fn load_for(tunnel: &Tunnel, setup: &Setup, is_preemptible: bool) -> Programs {
        let (object, maps) = LoadedObject::load(tunnel, settings(tunnel, setup), None, is_preemptible)
            .expect("the programs load");
        let counts = Counts::new(maps, &CountSnapshot::default()).expect("nothing to take over");
        let mut programs = Programs { object, counts, peers: setup.paths.len() };
        programs.take_over(tunnel, setup);
        programs
    }

    /// Takes over what may differ between gateways with the same peers and networks: how outer
    /// headers are written, and what is known of the paths.
    pub(super) fn take_over(&mut self, tunnel: &Tunnel, setup: &Setup) {
        let before = self.object.settings();
        let mut settings = settings(tunnel, setup).with_relay_rule(before.relay_rule());
        settings.generation = before.generation;
        self.object.set_settings(settings).expect("the settings can be written");
        for ((peer, ends), path) in tunnel.paths().zip(&setup.paths) {
            let device = if path.known { DEVICE } else { 0 };
            let entry = on_link(ends, device);
            let state = PeerState::of(tunnel, peer);
            self.object.set_peer(peer, state, entry).expect("there is room for every peer");
        }
    }

    /// Changes the peers. New ones are on the link.
    pub(super) fn update_peers(&mut self, tunnel: &Tunnel, steps: &TableDelta) {
        self.object.update_peers(tunnel, steps).expect("there is room");
        for (peer, path) in &steps.added {
            let state = PeerState { path_mtu: 1500, ..PeerState::default() };
            self.object.set_peer(*peer, state, on_link(*path, DEVICE)).expect("there is room");
        }
    }

    /// See [`LoadedObject::begin_change`].
    pub(super) fn begin_change(&mut self) {
        self.object.begin_change().expect("there are generations left");
    }

    /// See [`LoadedObject::end_change`].
    pub(super) fn end_change(&mut self) {
        self.object.end_change().expect("there are generations left");
    }

    /// Restores what packets may have changed: that a sender is owed an answer.
    pub(super) fn restore(&mut self) {
        self.counts.forget_last_drops();
        for peer in (0..self.peers as u32).map(PeerIndex::new) {
            let (state, path) = self.object.peer(peer);
            if state.owes_answer {
                // An equal state would not be written.
                let another = PeerState { owes_answer: false, ..state };
                for state in [another, state] {
                    self.object.set_peer(peer, state, path).expect("there is room for every peer");
                }
            }
        }
    }

    /// Counts since the programs were loaded.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        totals.peers.resize(self.peers, adit_tunnel::PeerTotals::default());
        self.counts.add_to(&mut totals);
        totals
    }

    /// Runs the program of that direction on a packet.
    ///
    /// # Errors
    /// Fails if the kernel makes no packet of the bytes.
    pub(super) fn run(&mut self, direction: Direction, packet: &Packet) -> Result<Ran, String> {
        let name = match direction {
            Direction::Encap => program::ENCAP,
            Direction::Decap => program::DECAP,
        };
        let frame = [&link_header(&packet.bytes)[..], &packet.bytes].concat();
        let context = packet.gso_size.map(|size| context(&frame, size));
        let mut out = vec![0; frame.len() + GROWTH];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.data_out = Some(&mut out);
        options.ctx_in = context.as_ref().map(|context| &context[..]);
        let program = self.object.program(name).expect("it is loaded");
        let result = program.test_run(options);
        let result = result.map_err(|error| format!("{direction:?}: no test run of {packet:?}: {error}"))?;
        out.truncate(result.data_size_out as usize);
        let verdict = match result.return_value as i32 {
            -1 => Program::Declines,
            2 => Program::Drops,
            7 => Program::Carries,
            other => panic!("an answer that the programs do not know: {other}"),
        };
        // Only what has lost its outer header goes to the host, through the pair.
        let mut header = link_header(&packet.bytes);
        if verdict == Program::Carries && out.len() < frame.len() {
            header = link_header(&out[ETHERNET..]);
            header[..6].copy_from_slice(&MAC);
            header[6..12].copy_from_slice(&HIDDEN_MAC);
        }
        assert_eq!(out[..ETHERNET], header, "the link header");
        Ok(Ran { verdict, bytes: out.split_off(ETHERNET) })
    }
}

fn settings(tunnel: &Tunnel, setup: &Setup) -> Settings {
    let config = tunnel.config();
    let interface = HostInterface::new(DEVICE, Some(DEVICE), MTU, MAC, HIDDEN_MAC);
    Settings::new(both(config.underlay), interface, &config.outer, config.mss_clamp)
        .with_flow_key(tunnel.flow_key())
        .with_relay(setup.forwards)
        .with_ipv6(config.peers.has_ipv6())
}

/// The path to a peer on the link of an interface; 0 is none.
fn on_link(path: Path, device: u32) -> PathEntry {
    entry_of(path).via(path.destination, device)
}

/// An Ethernet header for this host: the loopback interface's address is all zeros. It says IPv6
/// where the kernel believes that.
fn link_header(bytes: &[u8]) -> [u8; ETHERNET] {
    const IPV6_HEADER_LEN: usize = 40;
    let ipv6 = bytes.len() >= IPV6_HEADER_LEN && is_ipv6(bytes);
    let mut header = [0; ETHERNET];
    header[12..].copy_from_slice(if ipv6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
    header
}

fn context(frame: &[u8], gso_size: u16) -> [u8; CONTEXT_LEN] {
    let mut context = [0; CONTEXT_LEN];
    let mut set = |at: usize, value: u32| context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    set(WIRE_LEN_AT, frame.len() as u32);
    set(GSO_SEGS_AT, 2);
    set(GSO_SIZE_AT, gso_size.into());
    context
}
