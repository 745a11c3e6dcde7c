//! Agreement between a program and the userspace plane about a packet.

use std::net::IpAddr;

use adit_fixtures::packet::{hex, mend};
use adit_fixtures::{Direction, Outcome, Packet, Program, Setup};
use adit_tunnel::{Instant, PeerTotals, Totals};
use adit_wire::encapsulation::OuterHeader;
use adit_wire::ipv4::{self, Ipv4Header, Ipv4Packet};
use adit_wire::ipv6::{self, Ipv6Header, Ipv6Packet, is_ipv6};
use adit_wire::{Protocol, Validation};
use zerocopy::FromBytes;

use super::gateway::{Gateway, cut, described};
use super::programs::{Programs, Ran};
use crate::userspace::segment::GsoPacket;

/// What became of a packet.
#[derive(Debug)]
pub(super) struct Seen {
    /// The outcome.
    pub(super) outcome: Outcome,
    /// What the program did.
    pub(super) program: Program,
    /// What both counted.
    pub(super) totals: Totals,
}

/// The families of a packet inside and outside, such as `6in4`.
pub(super) fn combination(setup: &Setup, direction: Direction, packet: &Packet) -> String {
    let family = |is_v6| if is_v6 { 6 } else { 4 };
    let inner = match direction {
        Direction::Encap => &packet.bytes[..],
        Direction::Decap => {
            let header_len = if is_ipv6(&packet.bytes) { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
            packet.bytes.get(header_len..).unwrap_or_default()
        }
    };
    let outer = match (direction, setup.config.underlay.iter().count()) {
        (Direction::Decap, _) => family(is_ipv6(&packet.bytes)).to_string(),
        (Direction::Encap, 1) => family(setup.config.underlay.first().is_ipv6()).to_string(),
        // As the peer has it.
        (Direction::Encap, _) => "4 or 6".to_owned(),
    };
    format!("{}in{outer}", family(is_ipv6(inner)))
}

/// Runs a program on a packet, and userspace on what the program declines. Compares the result with
/// that of userspace alone.
///
/// # Errors
/// Fails if they disagree; the error says how.
pub(super) fn compare(
    programs: &mut Programs,
    setup: &Setup,
    direction: Direction,
    packet: &Packet,
) -> Result<Seen, String> {
    let alone = Gateway::new(setup);
    let expected = normal(alone.run(direction, packet));
    programs.restore();
    let before = programs.totals();
    let ran = programs.run(direction, packet)?;
    let by_program = programs.totals().since(&before);
    let (found, by_userspace) = follow(setup, direction, packet, &ran)?;
    let mut totals = by_program.clone();
    totals.add(&by_userspace);
    let totals = timeless(totals);
    let wanted = timeless(alone.totals());
    let tell = |what: &str| {
        format!(
            "{direction:?}: {what}\npacket {packet:?}\nthe program {:?}, leaving {}\n\
             userspace alone: {expected:?}\nthe two together: {found:?}\n\
             counted by userspace alone {wanted:?}\ncounted by the two {totals:?}",
            ran.verdict,
            hex(&ran.bytes)
        )
    };
    if found != expected {
        return Err(tell("the outcomes differ"));
    }
    if totals != wanted {
        return Err(tell("the counts differ"));
    }
    let lowered = by_program.peers.iter().any(|peer| peer.mss_clamped > 0);
    // The kernel gives a test run's GSO packet no type, and so refuses to change its length. The
    // program has then written only the ECN mark that the packet would have left with, and
    // userspace would write the same.
    let refused = packet.gso_size.is_some() && direction == Direction::Decap;
    let untouched = ran.bytes == packet.bytes || lowered || refused;
    if ran.verdict == Program::Declines && !untouched {
        return Err(tell("a declined packet was changed"));
    }
    let counted = PeerTotals { mss_clamped: 0, ..PeerTotals::default() };
    let silent = by_program.dropped() == 0
        && by_program.ecn_anomalies.iter().all(|count| *count == 0)
        && by_program.peers.iter().all(|peer| PeerTotals { mss_clamped: 0, ..*peer } == counted);
    if ran.verdict == Program::Declines && !silent {
        return Err(tell("a declined packet was counted"));
    }
    Ok(Seen { outcome: expected, program: ran.verdict, totals })
}

/// The outcome of a packet that a program has seen, and what userspace counts of it.
fn follow(
    setup: &Setup,
    direction: Direction,
    packet: &Packet,
    ran: &Ran,
) -> Result<(Outcome, Totals), String> {
    let gateway = Gateway::new(setup);
    let outcome = match ran.verdict {
        Program::Declines => {
            gateway.run(direction, &Packet { bytes: ran.bytes.clone(), gso_size: packet.gso_size })
        }
        Program::Drops => Outcome::Dropped(dropped_for(setup, direction, packet)),
        Program::Carries => carried(setup, direction, packet.gso_size, &ran.bytes)?,
    };
    Ok((normal(outcome), gateway.totals()))
}

/// A program says why only in its counters, which are compared separately.
fn dropped_for(setup: &Setup, direction: Direction, packet: &Packet) -> adit_tunnel::DropReason {
    match Gateway::new(setup).run(direction, packet) {
        Outcome::Dropped(reason) => reason,
        _ => adit_tunnel::DropReason::QueueFull,
    }
}

/// The outcome of a packet that a program has redirected: delivered to us, or sent to a peer.
fn carried(
    setup: &Setup,
    direction: Direction,
    gso_size: Option<u16>,
    bytes: &[u8],
) -> Result<Outcome, String> {
    let broken = |error: &dyn std::fmt::Display| {
        format!("{direction:?}: what was carried is broken: {error}: {}", hex(bytes))
    };
    let (packet, header_len, source): (&[u8], usize, IpAddr) = if is_ipv6(bytes) {
        let whole = Ipv6Packet::parse(bytes, Validation::Datapath).map_err(|error| broken(&error))?;
        (whole.as_bytes(), ipv6::HEADER_LEN, whole.source().into())
    } else {
        let whole = Ipv4Packet::parse(bytes, Validation::Datapath).map_err(|error| broken(&error))?;
        (whole.as_bytes(), ipv4::HEADER_LEN, whole.source().into())
    };
    if direction == Direction::Decap && !setup.config.underlay.contains(source) {
        return Ok(Outcome::Delivered(packet.to_vec()));
    }
    // The kernel segments a GSO packet, and writes lengths and identifications as we do.
    let (outer, inner) = packet.split_at(header_len);
    let gso_packet = GsoPacket::new(inner, &described(inner, gso_size))
        .map_err(|_| format!("{direction:?}: what was carried cannot be cut: {}", hex(bytes)))?;
    if direction == Direction::Encap && packet.len() != bytes.len() {
        return Err(format!("{direction:?}: something follows what was carried: {}", hex(bytes)));
    }
    if gso_size.is_none() {
        return Ok(Outcome::Sent(vec![packet.to_vec()]));
    }
    let template = template(setup, outer, inner).ok_or("no outer header has that length")?;
    if template.as_bytes() != outer {
        return Err(format!("{direction:?}: an unexpected outer header: {}", hex(bytes)));
    }
    Ok(Outcome::Sent(cut(&gso_packet, &template, |_| {})))
}

/// The outer header that belongs before these inner bytes. It takes from the given one the
/// addresses, and the identification or the flow label.
fn template(setup: &Setup, outer: &[u8], inner: &[u8]) -> Option<OuterHeader> {
    let policy = &setup.config.outer;
    let (protocol, tos, ttl, df) = if is_ipv6(inner) {
        (Protocol::IPV6, inner[0] << 4 | inner[1] >> 4, inner[7], true)
    } else {
        (Protocol::IPIP, inner[1], inner[8], inner[6] & 0x40 != 0)
    };
    if is_ipv6(outer) {
        let header = Ipv6Header::read_from_bytes(outer).ok()?;
        let (from, to, label) = (header.source(), header.destination(), header.flow_label());
        return OuterHeader::v6(policy, from, to, protocol, tos, ttl, label, inner.len());
    }
    let header = Ipv4Header::read_from_bytes(outer).ok()?;
    let (from, to, id) = (header.source(), header.destination(), header.identification());
    OuterHeader::v4(policy, from, to, protocol, tos, ttl, df, inner.len(), id)
}

/// The outcome without what may differ: identifications of outer datagrams that may be fragmented.
pub(super) fn normal(outcome: Outcome) -> Outcome {
    let Outcome::Sent(mut frames) = outcome else { return outcome };
    for frame in &mut frames {
        if !is_ipv6(frame) && frame[6] & 0x40 == 0 {
            frame[4..6].fill(0);
            mend(frame);
        }
    }
    Outcome::Sent(frames)
}

/// Totals without times: the kernel's clock says one and the test's clock the other. The TTLs stay.
fn timeless(mut totals: Totals) -> Totals {
    for peer in &mut totals.peers {
        assert_eq!(peer.last_rx.is_some(), peer.rx_packets > 0, "when it came is noted, or nothing came");
        peer.last_rx = None;
    }
    for last in totals.last_drops.iter_mut().flatten() {
        last.at = Instant::ZERO;
    }
    totals
}
