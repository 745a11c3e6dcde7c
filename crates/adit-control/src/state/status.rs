//! What `adit status` shows, in the shape of the contract.

use std::collections::BTreeMap;

use adit_dataplane::kernel::limits;
use adit_tunnel::{Instant, LearnedBy, PathLength, PeerIndex, PeerTotals, Reachability, Tunnel};
use adit_wire::ecn::EcnAnomaly;
use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::overlay::Overlay;
use crate::state::unreachable::UnreachableCause;

/// The version of the shape. What has been added to it since may be missing in the answer of an older daemon, which
/// goes on while the program is replaced.
pub const SCHEMA: u32 = 1;

/// An overlay as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Always 1.
    pub schema: u32,
    /// This side.
    pub site: SiteStatus,
    /// The other sides, in the file's order.
    pub peers: Vec<PeerStatus>,
    /// Packets dropped since the start, by reason; reasons that never occurred are left out.
    pub drops: BTreeMap<String, u64>,
    /// What had to be repaired because somebody else had changed it, by kind; what never had to is left out.
    #[serde(default)]
    pub repairs: BTreeMap<String, u64>,
    /// Strange pairs of inner and outer ECN fields (RFC 6040 section 4.2) that came out of the tunnel; kinds that
    /// never occurred are left out.
    #[serde(default)]
    pub ecn: BTreeMap<String, u64>,
    /// What has been done about ICMP.
    #[serde(default)]
    pub icmp: IcmpStatus,
    /// What has been done to learn what the paths take.
    #[serde(default)]
    pub probes: ProbeStatus,
}

/// ICMP errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IcmpStatus {
    /// Sent to senders whose datagram was dropped here.
    pub sent: u64,
    /// Due, but not sent: nobody may be told, or too many have been.
    pub suppressed: u64,
    /// From inside the tunnel, passed on to the original sender.
    pub relayed: u64,
    /// From inside the tunnel, only taken note of.
    pub state_changed: u64,
    /// About other traffic.
    pub not_ours: u64,
}

/// Probes of the path MTU (RFC 8899).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeStatus {
    /// Sent.
    pub sent: u64,
    /// Of those, answered.
    pub answered: u64,
}

/// This side of an overlay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SiteStatus {
    /// The site's name.
    pub name: String,
    /// The outer source address.
    pub underlay: String,
    /// The interface that it was found at, where the file names that.
    #[serde(default)]
    pub underlay_interface: Option<String>,
    /// Whether the machine has that address.
    #[serde(default)]
    pub underlay_state: UnderlayState,
    /// The tunnel's interface.
    pub device: String,
    /// Which data plane forwards.
    pub dataplane: String,
    /// Why that one.
    pub dataplane_reason: String,
    /// MTU of the interface, in bytes.
    pub mtu: u16,
    /// What the data plane does not do, though the others do.
    #[serde(default)]
    pub limits: Vec<Limit>,
}

/// Something that a data plane lacks.
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
    /// Not now: nothing comes or goes until it has again.
    Missing,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its outer address.
    pub underlay: String,
    /// What is behind it.
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<Ipv4Net>,
    /// What is known of it.
    pub state: PeerState,
    /// The largest outer datagram that reaches it, in bytes.
    pub path_mtu: u16,
    /// What was sent to it.
    pub tx: Traffic,
    /// What was received from it.
    pub rx: Traffic,
    /// Seconds since it was last heard; absent if it never was.
    pub last_rx_seconds: Option<f64>,
    /// What is known of the way to it (RFC 2003 section 5).
    #[serde(default)]
    pub soft_state: SoftState,
}

/// What is known of the way to a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SoftState {
    /// Who told the path MTU.
    pub path_mtu_from: PathMtuFrom,
    /// Seconds until that is forgotten, unless it is found to be still so.
    pub path_mtu_expires_seconds: Option<f64>,
    /// Whether the peer answers probes.
    pub probe: Probing,
    /// Seconds since it last did.
    pub probe_answered_seconds: Option<f64>,
    /// The TTL that the outer header of its last datagram had left.
    pub ttl_seen: Option<u8>,
    /// Routers on the way from it, if it sends with one of the usual TTLs.
    pub hops: Option<u8>,
    /// The least outer TTL with which a datagram reaches it, if the way there is as long as the way back.
    pub ttl_needed: Option<u8>,
    /// What a router has said, if it says that the peer cannot be reached.
    pub unreachable: Option<Unreachable>,
    /// Datagrams from it that came marked: congestion experienced.
    pub congestion_experienced: u64,
}

/// Who told a path MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PathMtuFrom {
    /// Nobody: it is what the underlay's interface takes.
    #[default]
    Underlay,
    /// A router (RFC 1191).
    Router,
    /// Probes (RFC 8899).
    Probe,
}

/// Whether a peer answers probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Probing {
    /// None is sent: it is configured so, or this gateway has no address inside `site.networks`.
    #[default]
    Off,
    /// It has not answered any.
    Unanswered,
    /// It has.
    Answered,
}

/// A peer that is held to be out of reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unreachable {
    /// In the router's words.
    pub cause: UnreachableCause,
    /// Seconds since it said so last.
    pub since_seconds: f64,
}

impl SoftState {
    fn of(tunnel: &Tunnel, peer: PeerIndex, counts: &PeerTotals, now: Instant) -> Self {
        let path_mtu = tunnel.path_mtu(peer);
        let answered = tunnel.probe_answered(peer);
        let way = counts.last_ttl.map(PathLength::of_ttl);
        Self {
            path_mtu_from: match path_mtu.learned {
                None => PathMtuFrom::Underlay,
                Some(LearnedBy::Router) => PathMtuFrom::Router,
                Some(LearnedBy::Probe) => PathMtuFrom::Probe,
            },
            path_mtu_expires_seconds: path_mtu.expires.map(|at| at.since(now).as_secs_f64()),
            probe: match answered {
                _ if tunnel.config().probe.is_none() => Probing::Off,
                None => Probing::Unanswered,
                Some(_) => Probing::Answered,
            },
            probe_answered_seconds: answered.map(|at| now.since(at).as_secs_f64()),
            ttl_seen: counts.last_ttl,
            hops: way.map(|way| way.hops),
            ttl_needed: way.map(|way| way.ttl_needed()),
            unreachable: match tunnel.reachability(peer) {
                Reachability::Assumed => None,
                Reachability::Unreachable { cause, since } => {
                    Some(Unreachable { cause: cause.into(), since_seconds: now.since(since).as_secs_f64() })
                }
            },
            congestion_experienced: counts.congestion_experienced,
        }
    }
}

/// What is known of a peer. Nothing is sent to find out: a tunnel without traffic is `idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Heard within the last 30 seconds.
    Up,
    /// Nothing heard lately.
    Idle,
    /// A router on the way says that it cannot be reached.
    Unreachable,
}

/// How long after a packet a peer still counts as up, in milliseconds.
pub const HEARD_WITHIN_MS: u64 = 30_000;

/// Inner datagrams and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// Datagrams.
    pub packets: u64,
    /// Bytes of them, the outer headers left out.
    pub bytes: u64,
}

impl Status {
    /// Looks at an overlay.
    #[must_use]
    pub fn of(overlay: &Overlay) -> Self {
        let config = overlay.config();
        let plane = overlay.plane();
        let tunnel = plane.tunnel();
        let totals = overlay.totals();
        let now = plane.now();
        let peers = config
            .peers
            .iter()
            .filter_map(|peer| {
                let index = tunnel.lookup_outer(peer.underlay)?;
                let counts = totals.peers.get(index.index()).copied().unwrap_or_default();
                // An answered probe is word from the peer, if no traffic.
                let heard = counts.last_rx.max(tunnel.probe_answered(index));
                let silent = heard.map(|heard| now.since(heard));
                let soft_state = SoftState::of(&tunnel, index, &counts, now);
                Some(PeerStatus {
                    name: peer.name.to_string(),
                    underlay: peer.underlay.to_string(),
                    networks: peer.networks.clone(),
                    state: match silent {
                        _ if soft_state.unreachable.is_some() => PeerState::Unreachable,
                        Some(silent) if silent.as_millis() < u128::from(HEARD_WITHIN_MS) => PeerState::Up,
                        _ => PeerState::Idle,
                    },
                    path_mtu: tunnel.path_mtu(index).mtu,
                    tx: Traffic { packets: counts.tx_packets, bytes: counts.tx_bytes },
                    rx: Traffic { packets: counts.rx_packets, bytes: counts.rx_bytes },
                    last_rx_seconds: silent.map(|silent| silent.as_secs_f64()),
                    soft_state,
                })
            })
            .collect();
        let drops = totals
            .drops_by_reason()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.as_str().to_owned(), count))
            .collect();
        Self {
            schema: SCHEMA,
            site: SiteStatus {
                name: config.site.name.to_string(),
                underlay: overlay.desired().underlay.to_string(),
                underlay_interface: config.site.underlay.interface().map(ToString::to_string),
                underlay_state: match overlay.is_underlay_missing() {
                    true => UnderlayState::Missing,
                    false => UnderlayState::Present,
                },
                device: overlay.desired().device.clone(),
                dataplane: plane.kind().to_string(),
                dataplane_reason: overlay.plane_reason().to_owned(),
                mtu: overlay.desired().mtu,
                limits: overlay.limits().iter().map(Limit::from).collect(),
            },
            peers,
            drops,
            repairs: overlay
                .repairs()
                .iter()
                .map(|(object, count)| (object.as_str().to_owned(), *count))
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
            probes: ProbeStatus { sent: totals.probes.sent, answered: totals.probes.answered },
        }
    }
}
