//! A row of the table.

use std::fmt;
use std::net::Ipv4Addr;

use adit_tunnel::{DropReason, PeerIndex, PeerTotals, Totals};
use adit_wire::ecn::EcnAnomaly;
use adit_wire::icmpv4::Icmpv4Error;

use crate::packet::{Packet, hex};
use crate::site::{PEER_B, Setup};

/// Where a packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the host's stack, to the tunnel's device.
    Into,
    /// From the underlay.
    OutOf,
}

/// What becomes of a packet in the end, whoever does it.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// These outer datagrams leave, in this order. Where DF is clear, their identification is free.
    Sent(Vec<Vec<u8>>),
    /// The host's stack gets this datagram, or superpacket.
    Delivered(Vec<u8>),
    /// Nobody hears of it.
    Dropped(DropReason),
    /// Dropped, and its sender is told.
    Answered {
        /// Why.
        reason: DropReason,
        /// Who is told.
        to: Ipv4Addr,
        /// What.
        error: Icmpv4Error,
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
        }
    }
}

/// What the kernel's program does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// All of it, to the outcome.
    Carries,
    /// Drops and counts it.
    Drops,
    /// Leaves it to userspace, as it came.
    Declines,
}

/// What is counted, by whichever plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent to a peer: datagrams, and inner bytes.
    pub tx: Option<(PeerIndex, u64, u64)>,
    /// Received from a peer: datagrams, and inner bytes.
    pub rx: Option<(PeerIndex, u64, u64)>,
    /// Dropped: the reason, whose, datagrams.
    pub drop: Option<(DropReason, Option<PeerIndex>, u64)>,
    /// Came marked with congestion experienced: from whom, datagrams.
    pub marked: Option<(PeerIndex, u64)>,
    /// A strange pair of ECN fields, and datagrams.
    pub anomaly: Option<(EcnAnomaly, u64)>,
    /// On the way to or from whom an MSS was lowered; twice where it was lowered twice.
    pub clamped: Vec<PeerIndex>,
    /// ICMP errors sent to senders.
    pub icmp_sent: u64,
    /// ICMP errors that were due and may not be sent.
    pub icmp_suppressed: u64,
}

impl Counts {
    /// As a tunnel of `peers` peers has them, without the times.
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
    /// What it is about; of its own.
    pub name: String,
    /// What the gateway knows.
    pub setup: Setup,
    /// Where the packet comes from.
    pub way: Way,
    /// The packet.
    pub packet: Packet,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Who does that.
    pub program: Program,
    /// What is counted.
    pub counts: Counts,
    /// Why it cannot be put before a whole gateway, if it cannot.
    pub not_end_to_end: Option<&'static str>,
}

/// A row without its right-hand side.
#[derive(Debug)]
pub(crate) struct Draft {
    name: String,
    setup: Setup,
    way: Way,
    packet: Packet,
}

/// A packet on its way into the tunnel.
pub(crate) fn into(name: impl Into<String>, packet: impl Into<Packet>) -> Draft {
    Draft { name: name.into(), setup: Setup::default(), way: Way::Into, packet: packet.into() }
}

/// A packet on its way out of the tunnel.
pub(crate) fn out_of(name: impl Into<String>, packet: impl Into<Packet>) -> Draft {
    Draft { name: name.into(), setup: Setup::default(), way: Way::OutOf, packet: packet.into() }
}

impl Draft {
    /// On a gateway that knows something else than usual.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Setup)) -> Draft {
        change(&mut self.setup);
        self
    }

    fn case(self, outcome: Outcome, program: Program, counts: Counts) -> Case {
        let Draft { name, setup, way, packet } = self;
        Case { name, setup, way, packet, outcome, program, counts, not_end_to_end: None }
    }

    /// One datagram leaves for a peer, by the program's hand.
    pub(crate) fn sends(self, peer: PeerIndex, outer: impl Into<Packet>) -> Case {
        self.sends_all(peer, vec![outer.into().bytes])
    }

    /// As many datagrams as it stands for leave for a peer, by the program's hand.
    pub(crate) fn sends_all(self, peer: PeerIndex, outers: Vec<Vec<u8>>) -> Case {
        let (segments, bytes) = (outers.len() as u64, self.packet.bytes.len() as u64);
        let counts = match self.way {
            Way::Into => Counts { tx: Some((peer, segments, bytes)), ..Counts::default() },
            Way::OutOf => {
                let inner = bytes - 20;
                let (rx, tx) = (Some((PEER_B, segments, inner)), Some((peer, segments, inner)));
                Counts { rx, tx, ..Counts::default() }
            }
        };
        self.case(Outcome::Sent(outers), Program::Carries, counts)
    }

    /// The host gets this from peer b, by the program's hand.
    pub(crate) fn delivers(self, inner: impl Into<Packet>) -> Case {
        let inner = inner.into().bytes;
        let rx = Some((PEER_B, 1, inner.len() as u64));
        self.case(Outcome::Delivered(inner), Program::Carries, Counts { rx, ..Counts::default() })
    }

    /// It is dropped, by the program.
    pub(crate) fn drops(self, reason: DropReason, peer: Option<PeerIndex>) -> Case {
        let drop = Some((reason, peer, 1));
        self.case(Outcome::Dropped(reason), Program::Drops, Counts { drop, ..Counts::default() })
    }

    /// It is dropped, and its sender told: by userspace.
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
}

impl Case {
    /// The program leaves it to userspace.
    pub(crate) fn declined(mut self) -> Case {
        self.program = Program::Declines;
        self
    }

    /// Something else is counted too, or instead.
    pub(crate) fn counting(mut self, change: impl FnOnce(&mut Counts)) -> Case {
        change(&mut self.counts);
        self
    }

    /// It cannot be put before a whole gateway.
    pub(crate) fn not_end_to_end(mut self, why: &'static str) -> Case {
        self.not_end_to_end = Some(why);
        self
    }
}
