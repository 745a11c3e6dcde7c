//! What `adit status` shows, in the shape of the contract.

use std::collections::BTreeMap;

use adit_tunnel::{PeerIndex, Reachability};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::overlay::Overlay;

/// The version of the shape.
pub const SCHEMA: u32 = 1;

/// An overlay as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// This side.
    pub site: SiteStatus,
    /// The other sides, in the file's order.
    pub peers: Vec<PeerStatus>,
    /// Packets dropped since the start, by reason; reasons that never occurred are left out.
    pub drops: BTreeMap<String, u64>,
}

/// This side of an overlay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// The site's name.
    pub name: String,
    /// The outer source address.
    pub underlay: String,
    /// The tunnel's interface.
    pub device: String,
    /// Which data plane forwards.
    pub dataplane: String,
    /// Why that one.
    pub dataplane_reason: String,
    /// MTU of the interface, in bytes.
    pub mtu: u16,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its outer address.
    pub underlay: String,
    /// What is behind it.
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
}

/// What is known of a peer. Nothing is sent to find out: a tunnel without traffic is `idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Heard within the last [`HEARD_WITHIN_MS`].
    Up,
    /// Nothing heard lately.
    Idle,
    /// A router on the way says that it cannot be reached.
    Unreachable,
}

/// How long after a packet a peer still counts as up, in milliseconds.
pub const HEARD_WITHIN_MS: u64 = 30_000;

/// Inner datagrams and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
        let totals = plane.totals();
        let now = plane.now();
        let peers = config
            .peers
            .iter()
            .enumerate()
            .map(|(number, peer)| {
                let index = PeerIndex::new(number as u32);
                let counts = totals.peers.get(number).copied().unwrap_or_default();
                let silent = counts.last_rx.map(|heard| now.since(heard));
                let unreachable =
                    matches!(plane.tunnel().reachability(index), Reachability::Unreachable { .. });
                PeerStatus {
                    name: peer.name.to_string(),
                    underlay: peer.underlay.to_string(),
                    networks: peer.networks.clone(),
                    state: match silent {
                        _ if unreachable => PeerState::Unreachable,
                        Some(silent) if silent.as_millis() < u128::from(HEARD_WITHIN_MS) => PeerState::Up,
                        _ => PeerState::Idle,
                    },
                    path_mtu: plane.tunnel().path_mtu(index).mtu,
                    tx: Traffic { packets: counts.tx_packets, bytes: counts.tx_bytes },
                    rx: Traffic { packets: counts.rx_packets, bytes: counts.rx_bytes },
                    last_rx_seconds: silent.map(|silent| silent.as_secs_f64()),
                }
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
                underlay: config.site.underlay.to_string(),
                device: overlay.desired().device.clone(),
                dataplane: plane.kind().to_string(),
                dataplane_reason: overlay.plane_reason().to_owned(),
                mtu: overlay.desired().mtu,
            },
            peers,
            drops,
        }
    }
}
