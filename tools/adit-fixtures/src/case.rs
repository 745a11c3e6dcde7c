//! A row of the table.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use adit_tunnel::{DropReason, PeerIndex, PeerTotals, Totals};
use adit_wire::ecn::EcnAnomaly;
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::icmpv6::Icmpv6Error;

use crate::packet::{Packet, hex};
use crate::site::{PEER_B, Setup};

/// The direction in which a packet crosses the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the host's stack through the tunnel interface.
    Encap,
    /// From the underlay.
    Decap,
}

/// The final outcome for a packet, whichever part of the data plane produces it.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// These outer datagrams leave in this order. Where DF is clear, any identification is right.
    Sent(Vec<Vec<u8>>),
    /// The host's stack receives this datagram or GSO packet.
    Delivered(Vec<u8>),
    /// Dropped without an ICMP error.
    Dropped(DropReason),
    /// Dropped, and its sender receives an ICMP error.
    Answered {
        /// Why the packet is dropped.
        reason: DropReason,
        /// The destination of the ICMP error.
        to: Ipv4Addr,
        /// The ICMP error.
        error: Icmpv4Error,
    },
    /// The same of IPv6.
    AnsweredV6 {
        /// Why the packet is dropped.
        reason: DropReason,
        /// The destination of the ICMP error.
        to: Ipv6Addr,
        /// The ICMP error.
        error: Icmpv6Error,
    },
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Sent(frames) => {
                f.write_str("sent")?;
                frames.iter().try_for_each(|frame| write!(f, "\n  {}", hex(frame)))
            }
            Outcome::Delivered(inner) => write!(f, "delivered\n  {}", hex(inner)),
            Outcome::Dropped(reason) => write!(f, "dropped: {reason}"),
            Outcome::Answered { reason, to, error } => write!(f, "dropped: {reason}; to {to}: {error:?}"),
            Outcome::AnsweredV6 { reason, to, error } => write!(f, "dropped: {reason}; to {to}: {error:?}"),
        }
    }
}

/// What the eBPF program does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Produces the whole outcome.
    Carries,
    /// Drops and counts it.
    Drops,
    /// Leaves it unchanged for userspace.
    Declines,
}

/// The counters that a packet increments, in every data plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent to a peer: datagrams, and inner bytes.
    pub tx: Option<(PeerIndex, u64, u64)>,
    /// Received from a peer: datagrams, and inner bytes.
    pub rx: Option<(PeerIndex, u64, u64)>,
    /// Dropped: the reason, the peer, datagrams.
    pub drop: Option<(DropReason, Option<PeerIndex>, u64)>,
    /// Received with an outer CE mark: the peer, datagrams.
    pub marked: Option<(PeerIndex, u64)>,
    /// An unexpected pair of ECN fields, and datagrams.
    pub anomaly: Option<(EcnAnomaly, u64)>,
    /// The peers for whose path an MSS was lowered, once for each time.
    pub clamped: Vec<PeerIndex>,
    /// ICMP errors sent to senders.
    pub icmp_sent: u64,
    /// ICMP errors that were due but must not be sent (RFC 1812 section 4.3.2.7).
    pub icmp_suppressed: u64,
}

impl Counts {
    /// The same counters in the form of a tunnel with `peers` peers, without timestamps.
    #[must_use]
    pub fn totals(&self, peers: usize) -> Totals {
        let mut totals = Totals::default();
        totals.peers.resize(peers, PeerTotals::default());
        if let Some((peer, packets, bytes)) = self.tx {
            totals.peers[peer.index()].tx_packets = packets;
            totals.peers[peer.index()].tx_bytes = bytes;
        }
        if let Some((peer, packets, bytes)) = self.rx {
            totals.peers[peer.index()].rx_packets = packets;
            totals.peers[peer.index()].rx_bytes = bytes;
        }
        if let Some((reason, peer, datagrams)) = self.drop {
            totals.drops[reason.index()] = datagrams;
            if let Some(peer) = peer {
                totals.peers[peer.index()].drops = datagrams;
            }
        }
        if let Some((peer, datagrams)) = self.marked {
            totals.peers[peer.index()].congestion_experienced = datagrams;
        }
        if let Some((anomaly, datagrams)) = self.anomaly {
            totals.ecn_anomalies[anomaly.index()] = datagrams;
        }
        for peer in &self.clamped {
            totals.peers[peer.index()].mss_clamped += 1;
        }
        totals.icmp.sent = self.icmp_sent;
        totals.icmp.suppressed = self.icmp_suppressed;
        totals
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Case {
    /// A description, unique in the table.
    pub name: String,
    /// What the gateway knows before the packet arrives.
    pub setup: Setup,
    /// The direction in which the packet crosses the gateway.
    pub direction: Direction,
    /// The packet.
    pub packet: Packet,
    /// What becomes of it.
    pub outcome: Outcome,
    /// The eBPF program's part in that.
    pub program: Program,
    /// What is counted.
    pub counts: Counts,
    /// Why the case cannot run on a whole gateway, if it cannot.
    pub not_end_to_end: Option<&'static str>,
}

/// A row without its expectations.
#[derive(Debug)]
pub(crate) struct Draft {
    name: String,
    setup: Setup,
    direction: Direction,
    packet: Packet,
}

/// A packet to encapsulate.
pub(crate) fn encap(name: impl Into<String>, packet: impl Into<Packet>) -> Draft {
    Draft { name: name.into(), setup: Setup::default(), direction: Direction::Encap, packet: packet.into() }
}

/// An IPv6 packet to encapsulate, at a gateway with networks of both families.
pub(crate) fn encap_v6(name: impl Into<String>, packet: impl Into<Packet>) -> Draft {
    Draft { setup: Setup::with_ipv6(), ..encap(name, packet) }
}

/// A packet to decapsulate, at a gateway with networks of both families.
pub(crate) fn decap_v6(name: impl Into<String>, packet: impl Into<Packet>) -> Draft {
    Draft { setup: Setup::with_ipv6(), ..decap(name, packet) }
}

/// A packet to decapsulate.
pub(crate) fn decap(name: impl Into<String>, packet: impl Into<Packet>) -> Draft {
    Draft { name: name.into(), setup: Setup::default(), direction: Direction::Decap, packet: packet.into() }
}

impl Draft {
    /// Changes what the gateway knows from the default.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Setup)) -> Draft {
        change(&mut self.setup);
        self
    }

    fn case(self, outcome: Outcome, program: Program, counts: Counts) -> Case {
        let Draft { name, setup, direction, packet } = self;
        Case { name, setup, direction, packet, outcome, program, counts, not_end_to_end: None }
    }

    /// The program sends one datagram to a peer.
    pub(crate) fn sends(self, peer: PeerIndex, outer: impl Into<Packet>) -> Case {
        self.sends_all(peer, vec![outer.into().bytes])
    }

    /// The program sends every datagram of the packet to a peer.
    pub(crate) fn sends_all(self, peer: PeerIndex, outers: Vec<Vec<u8>>) -> Case {
        let (segments, bytes) = (outers.len() as u64, self.packet.bytes.len() as u64);
        let counts = match self.direction {
            Direction::Encap => Counts { tx: Some((peer, segments, bytes)), ..Counts::default() },
            Direction::Decap => {
                let inner = bytes - 20;
                let (rx, tx) = (Some((PEER_B, segments, inner)), Some((peer, segments, inner)));
                Counts { rx, tx, ..Counts::default() }
            }
        };
        self.case(Outcome::Sent(outers), Program::Carries, counts)
    }

    /// The program delivers this to the host, counted as received from peer b.
    pub(crate) fn delivers(self, inner: impl Into<Packet>) -> Case {
        let inner = inner.into().bytes;
        let rx = Some((PEER_B, 1, inner.len() as u64));
        self.case(Outcome::Delivered(inner), Program::Carries, Counts { rx, ..Counts::default() })
    }

    /// The program drops it.
    pub(crate) fn drops(self, reason: DropReason, peer: Option<PeerIndex>) -> Case {
        let drop = Some((reason, peer, 1));
        self.case(Outcome::Dropped(reason), Program::Drops, Counts { drop, ..Counts::default() })
    }

    /// Userspace drops it and sends an ICMP error to its sender.
    pub(crate) fn answers(
        self,
        reason: DropReason,
        peer: Option<PeerIndex>,
        to: Ipv4Addr,
        error: Icmpv4Error,
    ) -> Case {
        let counts = Counts { drop: Some((reason, peer, 1)), icmp_sent: 1, ..Counts::default() };
        self.case(Outcome::Answered { reason, to, error }, Program::Declines, counts)
    }

    /// The same of IPv6.
    pub(crate) fn answers_v6(
        self,
        reason: DropReason,
        peer: Option<PeerIndex>,
        to: Ipv6Addr,
        error: Icmpv6Error,
    ) -> Case {
        let counts = Counts { drop: Some((reason, peer, 1)), icmp_sent: 1, ..Counts::default() };
        self.case(Outcome::AnsweredV6 { reason, to, error }, Program::Declines, counts)
    }
}

impl Case {
    /// The program leaves it to userspace, which produces the same outcome.
    pub(crate) fn declined(mut self) -> Case {
        self.program = Program::Declines;
        self
    }

    /// Changes what is counted from the default for the outcome.
    pub(crate) fn counting(mut self, change: impl FnOnce(&mut Counts)) -> Case {
        change(&mut self.counts);
        self
    }

    /// Excludes the case from runs on a whole gateway.
    pub(crate) fn not_end_to_end(mut self, why: &'static str) -> Case {
        self.not_end_to_end = Some(why);
        self
    }
}
