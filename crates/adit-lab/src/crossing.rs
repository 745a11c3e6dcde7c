//! What a capture on the underlay shows: packets of the tunnel in both directions, and no private
//! address outside.

use std::net::IpAddr;

use adit_wire::Protocol;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::Ipv6Packet;
use adit_wire::print::{Dissection, FlowTable};
use adit_wire::validation::Validation;

use crate::capture::Frame;
use crate::checks::{Check, check, yes};
use crate::two_sites::{
    HOST_A, HOST_A6, HOST_B, HOST_B6, INSIDE_A, INSIDE_B, ROUTER, UNDERLAY_A, UNDERLAY_A6, UNDERLAY_B,
    UNDERLAY_B6, is_underlay_v6,
};

/// Traffic that must cross the underlay inside the tunnel, there and back.
#[derive(Clone, Copy, Debug)]
pub struct Crossing {
    /// The stable name of its check.
    name: &'static str,
    /// Source and destination outside.
    outer: (IpAddr, IpAddr),
    /// Source and destination inside.
    inner: (IpAddr, IpAddr),
    /// What the inner packets carry.
    protocol: Protocol,
}

/// The request for a page, in IPv4.
pub const HTTP: Crossing = Crossing {
    name: "capture",
    outer: (IpAddr::V4(UNDERLAY_A), IpAddr::V4(UNDERLAY_B)),
    inner: (IpAddr::V4(INSIDE_A), IpAddr::V4(INSIDE_B)),
    protocol: Protocol::TCP,
};

/// Pings of IPv6 in IPv4.
pub const PING_6IN4: Crossing = Crossing {
    name: "capture-6in4",
    outer: HTTP.outer,
    inner: (IpAddr::V6(HOST_A6), IpAddr::V6(HOST_B6)),
    protocol: Protocol::ICMPV6,
};

/// Pings of IPv4 in IPv6.
pub const PING_4IN6: Crossing = Crossing {
    name: "capture-4in6",
    outer: (IpAddr::V6(UNDERLAY_A6), IpAddr::V6(UNDERLAY_B6)),
    inner: (IpAddr::V4(HOST_A), IpAddr::V4(HOST_B)),
    protocol: Protocol::ICMP,
};

/// Pings of IPv6 in IPv6.
pub const PING_6IN6: Crossing = Crossing { name: "capture-6in6", outer: PING_4IN6.outer, ..PING_6IN4 };

impl Crossing {
    /// Checks that it was captured in both directions, and that no private address is visible
    /// outside.
    #[must_use]
    pub fn check(&self, frames: &[Frame]) -> Check {
        let has = |crossing: &Crossing| frames.iter().any(|frame| crossing.is_in(frame));
        let (there, back) = (has(self), has(&self.reversed()));
        let private = frames.iter().filter_map(packet).filter(|packet| !is_underlay(packet.source)).count();
        let ((from, to), (inner_from, inner_to)) = (self.outer, self.inner);
        check(
            self.name,
            there && back && private == 0,
            format!(
                "{} frames on the underlay; {inner_from} > {inner_to} inside {from} > {to}: {}, reverse: {}; \
                 datagrams with a private outer address: {private}",
                frames.len(),
                yes(there),
                yes(back),
            ),
        )
    }

    /// Its packets in tcpdump's format, one line for each.
    #[must_use]
    pub fn lines(&self, frames: &[Frame]) -> Vec<String> {
        let mut flows = FlowTable::<16>::new();
        let back = self.reversed();
        frames
            .iter()
            .filter(|frame| self.is_in(frame) || back.is_in(frame))
            .filter_map(|frame| {
                let bytes = frame.ipv4().or(frame.ipv6())?;
                let line = Dissection::new(bytes).with_flow(&mut flows);
                Some(format!("{} {line}", clock(frame.time)))
            })
            .collect()
    }

    fn reversed(&self) -> Crossing {
        let swap = |(from, to)| (to, from);
        Crossing { outer: swap(self.outer), inner: swap(self.inner), ..*self }
    }

    /// Whether a frame is one of its packets in this direction.
    fn is_in(&self, frame: &Frame) -> bool {
        let Some(outer) = packet(frame) else { return false };
        let inner = match outer.protocol {
            Protocol::IPIP => packet_v4(outer.payload, Validation::Strict),
            Protocol::IPV6 => packet_v6(outer.payload, Validation::Strict),
            _ => None,
        };
        inner.is_some_and(|inner| {
            (outer.source, outer.destination) == self.outer
                && (inner.source, inner.destination, inner.protocol)
                    == (self.inner.0, self.inner.1, self.protocol)
        })
    }
}

/// A packet of either family.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    payload: &'a [u8],
}

/// The packet in a frame, as the underlay sees it.
fn packet(frame: &Frame) -> Option<Packet<'_>> {
    match (frame.ipv4(), frame.ipv6()) {
        (Some(bytes), _) => packet_v4(bytes, Validation::Datapath),
        (None, Some(bytes)) => packet_v6(bytes, Validation::Datapath),
        (None, None) => None,
    }
}

fn packet_v4(bytes: &[u8], validation: Validation) -> Option<Packet<'_>> {
    let packet = Ipv4Packet::parse(bytes, validation).ok()?;
    let (source, destination) = (packet.source().into(), packet.destination().into());
    Some(Packet { source, destination, protocol: packet.protocol(), payload: packet.payload() })
}

fn packet_v6(bytes: &[u8], validation: Validation) -> Option<Packet<'_>> {
    let packet = Ipv6Packet::parse(bytes, validation).ok()?;
    let (source, destination) = (packet.source().into(), packet.destination().into());
    Some(Packet { source, destination, protocol: packet.next_header(), payload: packet.payload() })
}

fn is_underlay(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => [UNDERLAY_A, UNDERLAY_B, ROUTER].contains(&address),
        IpAddr::V6(address) => is_underlay_v6(address),
    }
}

/// The time of day in UTC with microseconds.
fn clock(time: std::time::SystemTime) -> String {
    let since = time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let day = since.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:06}", day / 3600, day / 60 % 60, day % 60, since.subsec_micros())
}
