//! An outer datagram that has arrived, of either family.

use std::net::IpAddr;

use adit_wire::ecn::Ecn;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::{self, Ipv6Packet, extension};
use adit_wire::{Protocol, Validation};

/// The fields of an outer header that matter here, and what follows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OuterDatagram<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// What the tunnel carries, if it carries anything.
    pub(crate) protocol: Protocol,
    pub(crate) is_fragment: bool,
    /// Hops that were left.
    pub(crate) ttl: u8,
    pub(crate) ecn: Ecn,
    /// Bytes before the inner packet: the header, and in IPv6 the destination options behind it.
    pub(crate) header_len: usize,
    pub(crate) payload: &'a [u8],
}

impl<'a> OuterDatagram<'a> {
    /// Reads the header and checks it; `None`: it is malformed, or has an option or an extension
    /// header that no tunnel writes.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8], validation: Validation) -> Option<OuterDatagram<'a>> {
        if ipv6::is_ipv6(bytes) {
            return OuterDatagram::parse_v6(bytes, validation);
        }
        let packet = Ipv4Packet::parse(bytes, validation).ok()?;
        Some(OuterDatagram {
            source: packet.source().into(),
            destination: packet.destination().into(),
            protocol: packet.protocol(),
            is_fragment: packet.is_fragment(),
            ttl: packet.ttl(),
            ecn: packet.ecn(),
            header_len: packet.header_len(),
            payload: packet.payload(),
        })
    }

    /// Linux writes an encapsulation limit into destination options (RFC 2473 section 4.1.1). It
    /// says nothing to the exit of a tunnel.
    fn parse_v6(bytes: &'a [u8], validation: Validation) -> Option<OuterDatagram<'a>> {
        let packet = Ipv6Packet::parse(bytes, validation).ok()?;
        let mut protocol = packet.next_header();
        let mut header_len = ipv6::HEADER_LEN;
        let mut is_fragment = false;
        if !matches!(protocol, Protocol::IPIP | Protocol::IPV6) {
            let upper = extension::walk_options(packet.as_bytes(), protocol)?;
            (protocol, header_len) = (upper.protocol, upper.offset);
            is_fragment = upper.fragment.is_some();
        }
        Some(OuterDatagram {
            source: packet.source().into(),
            destination: packet.destination().into(),
            protocol,
            is_fragment,
            ttl: packet.hop_limit(),
            ecn: packet.ecn(),
            header_len,
            payload: packet.as_bytes().get(header_len..)?,
        })
    }
}
