//! The metrics of an overlay for Prometheus, in the text format of OpenMetrics 1.0.
//!
//! They are made from the snapshot of a [`Status`] when they are asked for; there are no counters
//! of their own. No release changes names or labels: `site`, and `peer` for a metric of a peer.

use std::fmt;
use std::sync::Arc;

use adit_tunnel::DropReason;
use adit_wire::ecn::EcnAnomaly;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::reconcile::change::Object;
use crate::state::snapshot::Snapshot;
use crate::state::status::{PeerState, PeerStatus, Probing, Status};
use crate::state::warning::WarningName;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a snapshot.
///
/// # Errors
/// Fails if a metric cannot be formatted, which does not happen for text in memory.
pub(crate) fn text(snapshot: Arc<Snapshot>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Site(snapshot)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// A sample.
#[derive(Clone, Copy, Debug)]
enum Value {
    /// A counter: it only grows.
    Count(u64),
    /// A gauge: it goes up and down.
    Level(f64),
}

impl Value {
    fn encode(self, encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => ConstCounter::new(count).encode(encoder),
            Self::Level(level) => ConstGauge::new(level).encode(encoder),
        }
    }
}

/// A metric that each peer has.
struct PeerMetric {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    /// `None` if the value is not known.
    value: fn(&PeerStatus) -> Option<Value>,
}

const PEER_METRICS: [PeerMetric; 11] = [
    PeerMetric {
        name: "adit_peer_up",
        help: "Whether the peer was heard within the last 30 seconds, by traffic or by an answered probe.",
        unit: None,
        kind: MetricType::Gauge,
        value: |peer| Some(truth(peer.state == PeerState::Up)),
    },
    PeerMetric {
        name: "adit_peer_unreachable",
        help: "Whether a router on the way says that the peer cannot be reached, or this host has no route to it.",
        unit: None,
        kind: MetricType::Gauge,
        value: |peer| Some(truth(peer.state == PeerState::Unreachable)),
    },
    PeerMetric {
        name: "adit_peer_no_answer",
        help: "Whether something was sent to the peer, and nothing has come back.",
        unit: None,
        kind: MetricType::Gauge,
        value: |peer| Some(truth(peer.state == PeerState::NoAnswer)),
    },
    PeerMetric {
        name: "adit_peer_answers_probes",
        help: "Whether the peer answers probes of the path MTU; absent where none is sent.",
        unit: None,
        kind: MetricType::Gauge,
        value: |peer| match peer.soft_state.probe {
            Probing::Off => None,
            Probing::Unanswered => Some(truth(false)),
            Probing::Answered => Some(truth(true)),
        },
    },
    PeerMetric {
        name: "adit_peer_silence",
        help: "Time since the peer was last heard; absent if it never was.",
        unit: Some(Unit::Seconds),
        kind: MetricType::Gauge,
        value: |peer| peer.last_rx_seconds.map(Value::Level),
    },
    PeerMetric {
        name: "adit_peer_path_mtu",
        help: "The largest outer datagram that reaches the peer.",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        value: |peer| Some(Value::Level(f64::from(peer.path_mtu))),
    },
    PeerMetric {
        name: "adit_peer_tx_packets",
        help: "Inner datagrams sent to the peer.",
        unit: None,
        kind: MetricType::Counter,
        value: |peer| Some(Value::Count(peer.tx.packets)),
    },
    PeerMetric {
        name: "adit_peer_tx",
        help: "Bytes of the inner datagrams sent to the peer, the outer headers left out.",
        unit: Some(Unit::Bytes),
        kind: MetricType::Counter,
        value: |peer| Some(Value::Count(peer.tx.bytes)),
    },
    PeerMetric {
        name: "adit_peer_rx_packets",
        help: "Inner datagrams received from the peer.",
        unit: None,
        kind: MetricType::Counter,
        value: |peer| Some(Value::Count(peer.rx.packets)),
    },
    PeerMetric {
        name: "adit_peer_rx",
        help: "Bytes of the inner datagrams received from the peer, the outer headers left out.",
        unit: Some(Unit::Bytes),
        kind: MetricType::Counter,
        value: |peer| Some(Value::Count(peer.rx.bytes)),
    },
    PeerMetric {
        name: "adit_peer_congestion_experienced_packets",
        help: "Datagrams from the peer whose outer header came marked: congestion experienced.",
        unit: None,
        kind: MetricType::Counter,
        value: |peer| Some(Value::Count(peer.soft_state.congestion_experienced)),
    },
];

fn truth(is_true: bool) -> Value {
    Value::Level(f64::from(u8::from(is_true)))
}

#[derive(Debug)]
struct Site(Arc<Snapshot>);

impl Collector for Site {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.status();
        let site = &status.site;
        let labels = [
            ("site", site.name.as_str()),
            ("underlay", &site.underlay),
            ("device", &site.device),
            ("dataplane", &site.dataplane),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        let info =
            encoder.encode_descriptor("adit_site", "What the overlay runs on.", None, MetricType::Info)?;
        Info::new(labels.map(|(name, value)| (name.to_owned(), value.to_owned()))).encode(info)?;
        self.peers(&mut encoder)?;
        let mut device_mtu = encoder.encode_descriptor(
            "adit_device_mtu",
            "MTU of the tunnel's interface.",
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?;
        let mtu = Value::Level(f64::from(site.mtu));
        mtu.encode(device_mtu.encode_family(&[("site", site.name.as_str())])?)?;

        let mut bypassed = encoder.encode_descriptor(
            "adit_programs_bypassed",
            "Whether userspace carries all of a direction though eBPF programs are loaded.",
            None,
            MetricType::Gauge,
        )?;
        for (direction, by) in [("tx", &site.carried_by.tx), ("rx", &site.carried_by.rx)] {
            let is_bypassed = !by.is_empty() && *by != site.dataplane;
            let labels = [("site", site.name.as_str()), ("direction", direction)];
            let value = Value::Level(f64::from(u8::from(is_bypassed)));
            value.encode(bypassed.encode_family(&labels)?)?;
        }

        self.warnings(&mut encoder)?;

        // Every counter is there from the start, at zero: one that appeared with its first event
        // would hide that event from a rate.
        let count = |reason: &str| status.drops.get(reason).map_or(0, |drops| drops.count);
        let drops = DropReason::ALL.map(|reason| (reason.as_str(), count(reason.as_str())));
        self.counters(&mut encoder, "adit_drops", "Packets dropped, by reason.", "reason", &drops)?;
        let repairs = Object::ALL.map(|object| (object.as_str(), of(&status.repairs, object.as_str())));
        self.counters(
            &mut encoder,
            "adit_repairs",
            "What had to be repaired because somebody else had changed it, by kind.",
            "object",
            &repairs,
        )?;
        let ecn = EcnAnomaly::ALL.map(|anomaly| (anomaly.as_str(), of(&status.ecn, anomaly.as_str())));
        self.counters(
            &mut encoder,
            "adit_ecn_anomalies",
            "Strange pairs of inner and outer ECN fields that came out of the tunnel (RFC 6040 section 4.2).",
            "anomaly",
            &ecn,
        )?;
        let icmp = [
            ("sent", status.icmp.sent),
            ("suppressed", status.icmp.suppressed),
            ("relayed", status.icmp.relayed),
            ("state-changed", status.icmp.state_changed),
            ("not-ours", status.icmp.not_ours),
        ];
        self.counters(
            &mut encoder,
            "adit_icmp_errors",
            "ICMP errors, by what was done about them.",
            "outcome",
            &icmp,
        )?;
        self.probes(&mut encoder)
    }
}

impl Site {
    fn status(&self) -> &Status {
        self.0.status()
    }

    fn peers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for metric in &PEER_METRICS {
            let mut family =
                encoder.encode_descriptor(metric.name, metric.help, metric.unit.as_ref(), metric.kind)?;
            for peer in &self.status().peers {
                if let Some(value) = (metric.value)(peer) {
                    let labels = [("site", self.status().site.name.as_str()), ("peer", peer.name.as_str())];
                    value.encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    /// How many warnings there are of each name, also of those that there are none of.
    fn warnings(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Warnings that hold at present, as in the status, by name.";
        let mut family = encoder.encode_descriptor("adit_warnings", help, None, MetricType::Gauge)?;
        for name in WarningName::ALL {
            let count = self.status().warnings.iter().filter(|warning| warning.name == name).count();
            let labels = [("site", self.status().site.name.as_str()), ("warning", name.as_str())];
            Value::Level(count as f64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Probes and their answers, by direction: what is in no counter of a peer.
    fn probes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let probes = &self.status().probes;
        let help = "Probes of the path MTU (RFC 8899) and their answers, which no other counter holds.";
        let mut family = encoder.encode_descriptor("adit_probes", help, None, MetricType::Counter)?;
        for (direction, kind, count) in [
            ("tx", "probe", probes.sent.saturating_sub(probes.keepalives)),
            ("rx", "answer", probes.answered),
            ("rx", "probe", probes.received),
            ("tx", "answer", probes.replied),
            ("tx", "keepalive", probes.keepalives),
        ] {
            let site = self.status().site.name.as_str();
            let labels = [("site", site), ("direction", direction), ("kind", kind)];
            Value::Count(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A counter for each value of a label.
    fn counters(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        label: &str,
        counts: &[(&str, u64)],
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for &(value, count) in counts {
            let labels = [("site", self.status().site.name.as_str()), (label, value)];
            Value::Count(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn of(counts: &std::collections::BTreeMap<String, u64>, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::daemon_status::DaemonStatus;
    use crate::state::drop_status::DropStatus;
    use crate::state::sample;
    use crate::state::status::ProbeStatus;
    use crate::state::warning::Warning;

    #[test]
    fn metrics_have_their_names_labels_and_values() {
        let mut status = sample::status();
        status.drops.insert("queue-full".to_owned(), DropStatus { count: 7, last: None });
        status.probes = ProbeStatus { sent: 10, answered: 5, received: 4, replied: 3, keepalives: 2 };
        for about in ["lan", "ipipA"] {
            status.warnings.push(Warning {
                name: WarningName::ForwardingOff,
                about: about.to_owned(),
                what: "forwarding is off".to_owned(),
            });
        }
        let text = text(Arc::new(Snapshot::new(status, &DaemonStatus::default()))).unwrap();
        for line in [
            "adit_peer_up{site=\"a\",peer=\"b\"} 1.0",
            "adit_peer_unreachable{site=\"a\",peer=\"b\"} 0.0",
            "adit_peer_no_answer{site=\"a\",peer=\"b\"} 0.0",
            "adit_peer_path_mtu_bytes{site=\"a\",peer=\"b\"} 1500.0",
            "adit_peer_silence_seconds{site=\"a\",peer=\"b\"} 0.5",
            "adit_peer_tx_bytes_total{site=\"a\",peer=\"b\"} 300",
            "adit_peer_rx_packets_total{site=\"a\",peer=\"b\"} 2",
            "adit_drops_total{site=\"a\",reason=\"queue-full\"} 7",
            "adit_drops_total{site=\"a\",reason=\"inner-too-big\"} 0",
            "adit_probes_total{site=\"a\",direction=\"tx\",kind=\"probe\"} 8",
            "adit_probes_total{site=\"a\",direction=\"rx\",kind=\"answer\"} 5",
            "adit_probes_total{site=\"a\",direction=\"tx\",kind=\"keepalive\"} 2",
            "adit_probes_total{site=\"a\",direction=\"rx\",kind=\"probe\"} 4",
            "adit_probes_total{site=\"a\",direction=\"tx\",kind=\"answer\"} 3",
            "adit_warnings{site=\"a\",warning=\"forwarding-off\"} 2.0",
            "adit_warnings{site=\"a\",warning=\"repair-fails\"} 0.0",
            "# TYPE adit_site info",
        ] {
            assert!(text.lines().any(|there| there == line), "no `{line}` in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn a_metric_without_a_value_is_left_out() {
        let mut status = sample::status();
        status.peers[0].last_rx_seconds = None;
        status.peers[0].soft_state.probe = Probing::Off;
        let text = text(Arc::new(Snapshot::new(status, &DaemonStatus::default()))).unwrap();
        for name in ["adit_peer_silence_seconds{", "adit_peer_answers_probes{"] {
            assert!(!text.contains(name), "{text}");
        }
    }
}
