//! The status of an overlay, as `adit status` shows it and the API serves it.

use std::collections::BTreeMap;

use adit_config::{Config, UnderlayAddresses};
use adit_dataplane::clock::Clock;
use adit_dataplane::kernel::limits;
use adit_tunnel::{HopCount, Instant, LearnedBy, PeerIndex, PeerTotals, Tunnel};
use adit_wire::ecn::EcnAnomaly;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::overlay::Overlay;
use crate::reconcile::desired::wants_probes;
use crate::state::drop_status::DropStatus;
use crate::state::paths::RunRecord;
pub use crate::state::peer_state::PeerState;
use crate::state::peer_state::{PeerStates, Seen};
use crate::state::unreachable::Unreachable;
use crate::state::warning::Warning;

/// The version of the shape. Members that were added later may be missing in the answer of an older
/// daemon, which runs on when the program is replaced.
pub const SCHEMA: u32 = 2;

/// An overlay as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Always 2.
    pub schema: u32,
    /// The daemon.
    #[serde(default)]
    pub daemon: DaemonState,
    /// What the daemon waits for, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// This site.
    pub site: SiteStatus,
    /// The peers, in the file's order.
    pub peers: Vec<PeerStatus>,
    /// Packets dropped since the start, by reason. Reasons that have never occurred are left out.
    pub drops: BTreeMap<String, DropStatus>,
    /// Repairs of kernel objects that others had changed, by kind. Kinds without a repair are left
    /// out.
    #[serde(default)]
    pub repairs: BTreeMap<String, u64>,
    /// The last repair of each kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub last_repairs: BTreeMap<String, LastRepair>,
    /// Invalid pairs of inner and outer ECN fields (RFC 6040 section 4.2) in received packets, by
    /// kind. Kinds that have never occurred are left out.
    #[serde(default)]
    pub ecn: BTreeMap<String, u64>,
    /// ICMP errors, by what was done about them.
    #[serde(default)]
    pub icmp: IcmpStatus,
    /// Probes of the path MTU and their answers. They are not in the traffic of any peer.
    #[serde(default)]
    pub probes: ProbeStatus,
    /// What about this machine keeps traffic from passing or the daemon from its work, and is not
    /// Adit's to change.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// The file that the configuration came from.
    #[serde(default)]
    pub file: String,
    /// The change that waits to be confirmed.
    #[serde(default)]
    pub pending: Option<PendingChange>,
}

/// The last repair of objects of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LastRepair {
    /// What was found: the object and the difference, or why a thread has ended.
    pub what: String,
    /// Seconds since then.
    pub seconds: f64,
}

/// A change that is rolled back unless it is confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PendingChange {
    /// Seconds until then.
    pub seconds_left: f64,
    /// The file whose configuration then runs.
    pub returns_to: String,
}

/// The daemon of an overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DaemonState {
    /// It runs.
    #[default]
    Running,
    /// It runs, and waits for something without which its overlay cannot come up. Nothing is sent
    /// or received.
    Waiting,
    /// It does not run, and what it made is in the kernel still, where it may forward. The next
    /// start takes it over; `adit down` removes it.
    Dead,
}

/// ICMP errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IcmpStatus {
    /// Sent to senders whose datagram was dropped here.
    pub sent: u64,
    /// Not sent although due: RFC 1122 forbids it, or the rate limit was reached.
    pub suppressed: u64,
    /// Received from inside the tunnel and relayed to the original sender.
    pub relayed: u64,
    /// Received from inside the tunnel; only the state of the peer has changed.
    pub state_changed: u64,
    /// Received about other traffic.
    pub not_ours: u64,
}

/// Probes of the path MTU (RFC 8899).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeStatus {
    /// Sent.
    pub sent: u64,
    /// Answered.
    pub answered: u64,
    /// Received from peers.
    #[serde(default)]
    pub received: u64,
    /// Answers to them.
    #[serde(default)]
    pub replied: u64,
    /// Those of the sent probes that keep firewalls and NATs on an idle path open.
    #[serde(default)]
    pub keepalives: u64,
}

/// The site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SiteStatus {
    /// The site's name.
    pub name: String,
    /// The outer source address; the first one, if there is one of each family.
    pub underlay: String,
    /// All addresses of the site on the underlay.
    #[serde(default)]
    pub underlays: Vec<String>,
    /// The interface that has it, if the file names one.
    #[serde(default)]
    pub underlay_interface: Option<String>,
    /// Whether the machine has all of those addresses.
    #[serde(default)]
    pub underlay_state: UnderlayState,
    /// Those of them that it does not have. Nothing is sent from them.
    #[serde(default)]
    pub underlay_missing: Vec<String>,
    /// The tunnel interface.
    pub device: String,
    /// The data plane.
    pub dataplane: String,
    /// Why it was chosen, and why another one carries if one does.
    pub dataplane_reason: String,
    /// The data planes that carry at the moment. Userspace does where eBPF programs are loaded and
    /// see nothing.
    #[serde(default)]
    pub carried_by: CarriedBy,
    /// The way from one peer to another.
    #[serde(default)]
    pub relay: Relay,
    /// Chains of the host's firewall with rules that the tunnel's outer datagrams pass by.
    #[serde(default)]
    pub passed_by: Vec<String>,
    /// MTU of the tunnel interface, in bytes.
    pub mtu: u16,
    /// What the data plane cannot do, and the others can.
    #[serde(default)]
    pub limits: Vec<Limit>,
}

/// The data planes that carry at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CarriedBy {
    /// From the host to peers.
    pub tx: String,
    /// From peers to the host.
    pub rx: String,
}

/// The way from one peer to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Relay {
    /// Who carries.
    pub path: RelayPath,
    /// Why.
    pub reason: String,
}

/// Who carries from one peer to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelayPath {
    /// The host's stack, whose FORWARD rules hold.
    #[default]
    Stack,
    /// eBPF programs.
    Direct,
    /// Nobody: the file forbids it.
    Refused,
}

impl RelayPath {
    /// A phrase for people.
    #[must_use]
    pub const fn who(self) -> &'static str {
        match self {
            Self::Stack => "through the host's stack",
            Self::Direct => "direct",
            Self::Refused => "refused",
        }
    }
}

impl Relay {
    fn of(configured: &adit_tunnel::Relay, found: &adit_dataplane::RelayPath) -> Self {
        if *configured == adit_tunnel::Relay::Off {
            return Self { path: RelayPath::Refused, reason: "`tunnel.relay` is false".to_owned() };
        }
        let path = if found.is_direct { RelayPath::Direct } else { RelayPath::Stack };
        let listed = matches!(configured, adit_tunnel::Relay::Pairs(_));
        let suffix = if listed { ", for the pairs in `tunnel.relay`" } else { "" };
        Self { path, reason: format!("{}{suffix}", found.reason) }
    }
}

/// Something that a data plane cannot do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    /// In a word or two.
    pub name: String,
    /// In a sentence.
    pub what: String,
}

impl From<&limits::Limit> for Limit {
    fn from(limit: &limits::Limit) -> Self {
        Self { name: limit.name.to_owned(), what: limit.what.to_owned() }
    }
}

/// Whether the machine has its address on the underlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnderlayState {
    /// It has.
    #[default]
    Present,
    /// It has not. Nothing is sent or received until the address is back.
    Missing,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// The outer address that packets to it are sent to.
    pub underlay: String,
    /// All its outer addresses. Packets are accepted from each.
    #[serde(default)]
    pub underlays: Vec<String>,
    /// Our address that packets to it are sent from.
    #[serde(default)]
    pub underlay_source: String,
    /// The networks behind it.
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<IpNet>,
    /// Its state.
    pub state: PeerState,
    /// The largest outer datagram that reaches it, in bytes.
    pub path_mtu: u16,
    /// What was sent to it.
    pub tx: Traffic,
    /// What was received from it.
    pub rx: Traffic,
    /// Seconds since something was last received from it; `null` if nothing ever was.
    pub last_rx_seconds: Option<f64>,
    /// The policy of IPsec that covers its underlay address, if there is one. The kernel's stack
    /// then carries what is exchanged with it.
    #[serde(default)]
    pub xfrm_policy: Option<String>,
    /// What was learned about the path to it (RFC 2003 section 5).
    #[serde(default)]
    pub soft_state: SoftState,
}

/// What was learned about the path to a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SoftState {
    /// The source of the path MTU.
    pub path_mtu_from: PathMtuFrom,
    /// Seconds until the path MTU expires unless it is confirmed.
    pub path_mtu_expires_seconds: Option<f64>,
    /// Whether the peer answers probes.
    pub probe: Probing,
    /// Seconds since it last answered one.
    pub probe_answered_seconds: Option<f64>,
    /// The address inside the tunnel that probes are sent to: its underlay address, or another for
    /// a gateway behind NAT. `null` if none was sent.
    #[serde(default)]
    pub probe_address: Option<String>,
    /// Why probes cannot find out what the path takes, if they should and cannot.
    #[serde(default)]
    pub not_probed: Option<String>,
    /// The TTL of the outer header of the last datagram that was received from it.
    pub ttl_seen: Option<u8>,
    /// Hops from it, if it sends with one of the usual TTLs.
    pub hops: Option<u8>,
    /// The smallest outer TTL that reaches it, if the paths in both directions have the same
    /// length.
    pub ttl_needed: Option<u8>,
    /// Why the peer is unreachable, if it is.
    pub unreachable: Option<Unreachable>,
    /// Datagrams received from it with the ECN mark for congestion experienced.
    pub congestion_experienced: u64,
}

/// The source of a path MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PathMtuFrom {
    /// The MTU of the underlay's interface.
    #[default]
    Underlay,
    /// The ICMP error of a router (RFC 1191).
    Router,
    /// Probes (RFC 8899).
    Probe,
}

/// Whether a peer answers probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Probing {
    /// No probes are sent: the configuration says so, or this gateway has no address in
    /// `site.networks`.
    #[default]
    Off,
    /// It has answered none of the last search for the path MTU, or none yet.
    Unanswered,
    /// It answers.
    Answered,
}

impl SoftState {
    fn of(tunnel: &Tunnel, peer: PeerIndex, counts: &PeerTotals, wants_probes: bool, now: Instant) -> Self {
        let not_probed = match tunnel.probing(peer) {
            Some(_) if tunnel.is_silent(peer) => Some("it answers no probe"),
            None if wants_probes => Some("no address here lies in site.networks"),
            _ => None,
        };
        let path_mtu = tunnel.path_mtu(peer);
        let answered = tunnel.probe_answered(peer);
        let way = counts.last_ttl.map(HopCount::of_ttl);
        Self {
            path_mtu_from: match path_mtu.learned {
                None => PathMtuFrom::Underlay,
                Some(LearnedBy::Router) => PathMtuFrom::Router,
                Some(LearnedBy::Probe) => PathMtuFrom::Probe,
            },
            path_mtu_expires_seconds: path_mtu.expires.map(|at| at.since(now).as_secs_f64()),
            probe: match answered {
                _ if tunnel.probing(peer).is_none() => Probing::Off,
                None => Probing::Unanswered,
                Some(_) if tunnel.is_silent(peer) => Probing::Unanswered,
                Some(_) => Probing::Answered,
            },
            probe_answered_seconds: answered.map(|at| now.since(at).as_secs_f64()),
            probe_address: tunnel.probe_address(peer).map(|address| address.to_string()),
            not_probed: not_probed.map(str::to_owned),
            ttl_seen: counts.last_ttl,
            hops: way.map(|way| way.hops),
            ttl_needed: way.map(|way| way.ttl_needed()),
            unreachable: Unreachable::of(tunnel, peer, now),
            congestion_experienced: counts.congestion_experienced,
        }
    }
}

/// Inner datagrams and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// Datagrams.
    pub packets: u64,
    /// Their bytes, without the outer headers.
    pub bytes: u64,
}

/// Addresses as text, in their order.
fn texts(addresses: &UnderlayAddresses) -> impl Iterator<Item = String> + use<> {
    addresses.iter().map(|address| address.to_string())
}

impl Status {
    /// The status of an overlay that cannot come up yet, because of `why`. `file` is the file that
    /// it is to run.
    pub(crate) fn waiting(config: &Config, file: &str, why: String) -> Self {
        let addresses = config.site.underlay.addresses();
        let underlays: Vec<String> = addresses.iter().flat_map(texts).collect();
        let mut status = Self::without_daemon(config.site.name.as_str(), config.site.device.as_str());
        status.daemon = DaemonState::Waiting;
        status.waiting_for = Some(why);
        status.site.underlay = underlays.first().cloned().unwrap_or_default();
        status.site.underlays = underlays;
        status.site.underlay_interface = config.site.underlay.interface().map(ToString::to_string);
        "nothing is sent or received yet".clone_into(&mut status.site.dataplane_reason);
        file.clone_into(&mut status.file);
        status
    }

    /// The status of an overlay whose daemon is dead. `dataplane` is what it has left, and `reason`
    /// says what that does.
    pub(crate) fn dead(name: &str, record: &RunRecord, dataplane: &str, reason: &str) -> Self {
        let mut status = Self::without_daemon(name, &record.device);
        dataplane.clone_into(&mut status.site.dataplane);
        reason.clone_into(&mut status.site.dataplane_reason);
        status.file = record.file.as_ref().map_or(String::new(), |file| file.display().to_string());
        status
    }

    /// What is known of an overlay that nobody serves.
    fn without_daemon(name: &str, device: &str) -> Self {
        Self {
            schema: SCHEMA,
            daemon: DaemonState::Dead,
            waiting_for: None,
            site: SiteStatus {
                name: name.to_owned(),
                underlay: String::new(),
                underlays: Vec::new(),
                underlay_interface: None,
                underlay_state: UnderlayState::Missing,
                underlay_missing: Vec::new(),
                device: device.to_owned(),
                dataplane: String::new(),
                dataplane_reason: String::new(),
                carried_by: CarriedBy::default(),
                relay: Relay::default(),
                passed_by: Vec::new(),
                mtu: 0,
                limits: Vec::new(),
            },
            peers: Vec::new(),
            drops: BTreeMap::new(),
            repairs: BTreeMap::new(),
            last_repairs: BTreeMap::new(),
            ecn: BTreeMap::new(),
            icmp: IcmpStatus::default(),
            probes: ProbeStatus::default(),
            warnings: Vec::new(),
            file: String::new(),
            pending: None,
        }
    }

    /// The status of an overlay now. It costs tens of milliseconds with 10,000 peers, for which the
    /// overlay stays locked.
    #[must_use]
    pub fn of(overlay: &mut Overlay) -> Self {
        let mut states = std::mem::take(overlay.peer_states());
        let status = Self::with(&mut states, overlay);
        states.finish();
        *overlay.peer_states() = states;
        status
    }

    fn with(states: &mut PeerStates, overlay: &Overlay) -> Self {
        let config = overlay.config();
        let plane = overlay.plane();
        let tunnel = plane.tunnel();
        let host_rules = plane.host_rules();
        let totals = overlay.totals();
        // After the totals, which it is judged by.
        let carried = plane.carried_by();
        let now = plane.now();
        let peers = config
            .peers
            .iter()
            .filter_map(|peer| {
                let index = tunnel.lookup_outer(peer.underlay.first())?;
                let path = tunnel.path(index)?;
                let counts = totals.peers.get(index.index()).copied().unwrap_or_default();
                // An answered probe shows that the peer is up without being traffic.
                let heard = counts.last_rx.max(tunnel.probe_answered(index));
                let silent = heard.map(|heard| now.since(heard));
                let soft_state = SoftState::of(&tunnel, index, &counts, wants_probes(config), now);
                let seen = Seen {
                    sent: counts.tx_packets,
                    heard,
                    answers_probes: soft_state.probe == Probing::Answered,
                    is_unreachable: soft_state.unreachable.is_some(),
                    is_silenced: overlay.missing_underlay().contains(&path.source),
                };
                Some(PeerStatus {
                    name: peer.name.to_string(),
                    underlay: path.destination.to_string(),
                    underlays: texts(&peer.underlay).collect(),
                    underlay_source: path.source.to_string(),
                    networks: peer.networks.clone(),
                    state: states.look(path.destination, config.peers.len(), seen, now),
                    path_mtu: tunnel.path_mtu(index).mtu,
                    tx: Traffic { packets: counts.tx_packets, bytes: counts.tx_bytes },
                    rx: Traffic { packets: counts.rx_packets, bytes: counts.rx_bytes },
                    last_rx_seconds: silent.map(|silent| silent.as_secs_f64()),
                    xfrm_policy: host_rules.policies.get(&index).cloned(),
                    soft_state,
                })
            })
            .collect();
        let drops = totals
            .drops_by_reason()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| {
                let last = totals.last_drops.get(reason.index()).copied().flatten();
                (reason.as_str().to_owned(), DropStatus::new(count, last, &tunnel, now))
            })
            .collect();
        Self {
            schema: SCHEMA,
            daemon: DaemonState::Running,
            waiting_for: None,
            site: SiteStatus {
                name: config.site.name.to_string(),
                underlay: overlay.desired().underlay.first().to_string(),
                underlays: texts(&overlay.desired().underlay).collect(),
                underlay_interface: config.site.underlay.interface().map(ToString::to_string),
                underlay_state: match overlay.missing_underlay() {
                    [] => UnderlayState::Present,
                    _ => UnderlayState::Missing,
                },
                underlay_missing: overlay.missing_underlay().iter().map(ToString::to_string).collect(),
                device: overlay.desired().device.clone(),
                dataplane: plane.kind().to_string(),
                dataplane_reason: match &carried.reason {
                    Some(reason) => format!("{}; userspace carries: {reason}", overlay.plane_reason()),
                    None => overlay.plane_reason().to_owned(),
                },
                carried_by: CarriedBy { tx: carried.tx.to_string(), rx: carried.rx.to_string() },
                relay: Relay::of(&config.site.tunnel.relay, &host_rules.relay),
                passed_by: host_rules.passed_by.clone(),
                mtu: overlay.desired().mtu,
                limits: overlay.limits().iter().map(Limit::from).collect(),
            },
            peers,
            drops,
            repairs: overlay
                .repairs()
                .iter()
                .map(|(object, repairs)| (object.as_str().to_owned(), repairs.count))
                .collect(),
            last_repairs: overlay
                .repairs()
                .iter()
                .map(|(object, repairs)| {
                    let seconds = Clock.now().since(repairs.at).as_secs_f64();
                    (object.as_str().to_owned(), LastRepair { what: repairs.what.clone(), seconds })
                })
                .collect(),
            ecn: EcnAnomaly::ALL
                .into_iter()
                .map(|anomaly| (anomaly.as_str().to_owned(), totals.ecn_anomalies_of(anomaly)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            icmp: IcmpStatus {
                sent: totals.icmp.sent,
                suppressed: totals.icmp.suppressed,
                relayed: totals.icmp.relayed,
                state_changed: totals.icmp.state_changed,
                not_ours: totals.icmp.not_ours,
            },
            probes: ProbeStatus {
                sent: totals.probes.sent,
                answered: totals.probes.answered,
                received: totals.probes.received,
                replied: totals.probes.replied,
                keepalives: totals.probes.keepalives,
            },
            warnings: overlay.warnings(),
            file: String::new(),
            pending: None,
        }
    }
}
