//! What a gateway was heard to do, and words for it. The words are the same in observations and in
//! what the rules ask for.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use adit_wire::icmpv4::{Icmpv4Error, Icmpv4Message};
use adit_wire::icmpv6::{Icmpv6Error, Icmpv6Message};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::Ipv6Packet;
use adit_wire::{Protocol, Validation};

use crate::site::Site;

/// Datagrams that the gateway has sent on each of its cables, with padding.
#[derive(Debug, Default)]
pub(crate) struct Reaction {
    pub(crate) inside: Vec<Vec<u8>>,
    pub(crate) underlay: Vec<Vec<u8>>,
}

/// An ICMP error that a host receives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) error: Icmpv4Error,
    pub(crate) by: Ipv4Addr,
    /// The length of the whole datagram in bytes.
    pub(crate) len: usize,
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message_type, code) = self.error.type_and_code();
        write!(formatter, "{message_type}/{code}")?;
        match self.error {
            Icmpv4Error::TooBig { mtu } => write!(formatter, ", MTU {mtu}"),
            Icmpv4Error::ParameterProblem { pointer, .. } => write!(formatter, ", octet {pointer}"),
            _ => Ok(()),
        }
    }
}

/// A view of a datagram, without padding.
pub(crate) fn view(datagram: &[u8]) -> Option<Ipv4Packet<'_>> {
    Ipv4Packet::parse(datagram, Validation::Datapath).ok()
}

/// The ICMP error in a datagram, if it is one.
pub(crate) fn error_in(datagram: &[u8]) -> Option<Told> {
    let packet = view(datagram)?;
    let message = (packet.protocol() == Protocol::ICMP).then(|| Icmpv4Message::parse(packet.payload()).ok());
    let error = message.flatten()?.error()?;
    Some(Told { error, by: packet.source(), len: packet.as_bytes().len() })
}

/// The same of IPv6.
pub(crate) fn view_v6(packet: &[u8]) -> Option<Ipv6Packet<'_>> {
    Ipv6Packet::parse(packet, Validation::Datapath).ok()
}

/// The ICMPv6 error in a packet, if it is one with a right checksum.
pub(crate) fn error_in_v6(packet: &[u8]) -> Option<Icmpv6Error> {
    let packet = view_v6(packet).filter(|packet| packet.next_header() == Protocol::ICMPV6)?;
    let message = Icmpv6Message::parse(packet.payload())?;
    message.error().filter(|_| message.checksum_ok(packet.source(), packet.destination()))
}

/// Words for an error, as for one of IPv4.
pub(crate) fn told_v6(error: Icmpv6Error) -> String {
    match error {
        Icmpv6Error::DestinationUnreachable { code } => format!("1/{code}"),
        Icmpv6Error::TooBig { mtu } => format!("2/0, MTU {mtu}"),
        Icmpv6Error::TimeExceeded { code } => format!("3/{code}"),
        Icmpv6Error::ParameterProblem { code, pointer } => format!("4/{code}, octet {pointer}"),
    }
}

/// Whether it is one of the messages that hosts of a link exchange (RFC 4861, RFC 2710, RFC 3810).
pub(crate) fn is_neighbor_discovery(packet: &[u8]) -> bool {
    let Some(packet) = view_v6(packet) else { return false };
    match packet.next_header() {
        Protocol::ICMPV6 => matches!(packet.payload().first(), Some(133..=137)),
        // Multicast listener reports have a router alert.
        Protocol::HOP_BY_HOP => packet.destination().is_multicast(),
        _ => false,
    }
}

impl Reaction {
    /// The outer packets to a site, over either family, their fragments too.
    pub(crate) fn outers_to(&self, site: Site) -> Vec<&[u8]> {
        let is_one = |bytes: &&Vec<u8>| match view_v6(bytes) {
            Some(packet) => {
                packet.next_header() != Protocol::ICMPV6 && packet.destination() == site.underlay_v6()
            }
            None => view(bytes).is_some_and(|packet| {
                matches!(packet.protocol(), Protocol::IPIP | Protocol::IPV6)
                    && packet.destination() == site.underlay()
            }),
        };
        self.underlay.iter().filter(is_one).map(|bytes| trimmed(bytes)).collect()
    }

    /// The ICMPv6 error that a host on the inside receives, if any.
    pub(crate) fn told_to_v6(&self, sender: Ipv6Addr) -> Option<Icmpv6Error> {
        let to_sender = |bytes: &&Vec<u8>| view_v6(bytes).is_some_and(|it| it.destination() == sender);
        self.inside.iter().filter(to_sender).find_map(|bytes| error_in_v6(bytes))
    }

    /// The packets of IPv6 that a host on the inside receives, without ICMPv6 errors.
    pub(crate) fn delivered_to_v6(&self, host: Ipv6Addr) -> Vec<&[u8]> {
        let to_host = |bytes: &&Vec<u8>| view_v6(bytes).is_some_and(|it| it.destination() == host);
        let packets = self.inside.iter().filter(to_host).filter(|bytes| error_in_v6(bytes).is_none());
        packets.map(|bytes| trimmed(bytes)).collect()
    }

    /// The outer datagrams to a site.
    pub(crate) fn sent_to(&self, site: Site) -> Vec<&[u8]> {
        let packets = self.underlay.iter().filter_map(|bytes| view(bytes));
        let to_site = |packet: &Ipv4Packet<'_>| {
            packet.protocol() == Protocol::IPIP && packet.destination() == site.underlay()
        };
        packets.filter(to_site).map(|packet| packet.as_bytes()).collect()
    }

    /// The ICMP error that a host on the inside receives, if any.
    pub(crate) fn told(&self, sender: Ipv4Addr) -> Option<Told> {
        let to_sender = |bytes: &&Vec<u8>| view(bytes).is_some_and(|packet| packet.destination() == sender);
        self.inside.iter().filter(to_sender).find_map(|bytes| error_in(bytes))
    }

    /// The ICMP error that a host on the underlay receives, if any.
    pub(crate) fn told_on_underlay(&self, sender: Ipv4Addr) -> Option<Told> {
        let to_sender = |bytes: &&Vec<u8>| view(bytes).is_some_and(|packet| packet.destination() == sender);
        self.underlay.iter().filter(to_sender).find_map(|bytes| error_in(bytes))
    }

    /// The datagrams that a host on the inside receives, without ICMP errors.
    pub(crate) fn delivered_to(&self, host: Ipv4Addr) -> Vec<&[u8]> {
        let packets = self.inside.iter().filter_map(|bytes| view(bytes));
        packets
            .filter(|packet| packet.destination() == host)
            .map(|packet| packet.as_bytes())
            .filter(|bytes| error_in(bytes).is_none())
            .collect()
    }

    /// Describes the fate of a datagram from a host on the inside to a site.
    pub(crate) fn of_datagram(&self, site: Site, sender: Ipv4Addr) -> String {
        let sent = match self.sent_to(site).len() {
            0 => "not sent",
            _ => "sent",
        };
        match self.told(sender) {
            Some(told) => format!("{sent}, told {told}"),
            None => sent.to_owned(),
        }
    }
}

/// A packet without padding.
fn trimmed(bytes: &[u8]) -> &[u8] {
    match view_v6(bytes) {
        Some(packet) => packet.as_bytes(),
        None => view(bytes).map_or(bytes, |packet| packet.as_bytes()),
    }
}
