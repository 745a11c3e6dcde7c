//! What a gateway was heard to do, and words for it. The words are the same in observations and in
//! what the rules ask for.

use std::fmt;
use std::net::Ipv4Addr;

use adit_wire::icmpv4::{Icmpv4Error, Icmpv4Message};
use adit_wire::ipv4::Ipv4Packet;
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

impl Reaction {
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
