//! A one-line description of a packet, in the format of `tcpdump -n`, without allocation.
//!
//! For well-formed IPv4 and IPv6, one inside the other too, TCP, UDP, and echoes and errors of
//! ICMP, the line is exactly that of tcpdump. Other protocols and messages appear by their number.
//! The line of a packet that is cut short ends in `[|tcp]` or the like. tcpdump counts sequence
//! numbers from the start of each connection; a [`FlowTable`] remembers where connections started.
//!
//! Nothing here panics: every packet has a line.

mod flows;
mod icmp;
mod icmpv6;
mod tcp;

use core::fmt;
use core::net::IpAddr;

pub use flows::{FlowTable, SequenceBases};

use crate::ipv4::{Ipv4Error, Ipv4Packet};
use crate::ipv6::extension::{FragmentHeader, MAX_HEADERS};
use crate::ipv6::{self, Ipv6Error, Ipv6Packet};
use crate::udp::{UdpError, UdpHeader};
use crate::{Protocol, Validation};

/// The most nested IP headers that are shown. Each costs stack.
const MAX_DEPTH: usize = 8;

/// A packet of IPv4 or IPv6 whose `Display` is its line:
/// `IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1 > … (ipip-proto-4)`.
#[derive(Debug, Clone, Copy)]
pub struct Dissection<'a> {
    bytes: &'a [u8],
    bases: SequenceBases,
}

impl<'a> Dissection<'a> {
    /// Describes the packet in these bytes, which may be cut short. TCP sequence numbers are
    /// absolute.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Dissection<'a> {
        Dissection { bytes, bases: SequenceBases::default() }
    }

    /// Counts TCP sequence numbers as tcpdump does: they are absolute in the first segment of a
    /// connection with an acknowledgment (the answer to the SYN), and relative to it from then on.
    /// Call it once for each packet, in order.
    #[must_use]
    pub fn with_flow<const N: usize>(self, flows: &mut FlowTable<N>) -> Dissection<'a> {
        Dissection { bases: flows.observe(self.bytes), ..self }
    }
}

impl fmt::Display for Dissection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if ipv6::is_ipv6(self.bytes) {
            write_ipv6(f, self.bytes, self.bases, MAX_DEPTH)
        } else {
            write_ipv4(f, self.bytes, self.bases, MAX_DEPTH)
        }
    }
}

/// What follows the headers of a packet, and what its line needs of them.
#[derive(Debug, Clone, Copy)]
struct Payload<'a> {
    /// `None` behind an extension header of IPv6: the addresses are in front of that one.
    addresses: Option<(IpAddr, IpAddr)>,
    bytes: &'a [u8],
    /// Bytes by the length field, of which a capture may hold fewer.
    len: usize,
    is_fragment: bool,
}

impl Payload<'_> {
    fn write_addresses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses {
            Some((source, destination)) => write!(f, "{source} > {destination}: "),
            None => Ok(()),
        }
    }

    fn write_ports(&self, f: &mut fmt::Formatter<'_>, from: u16, to: u16) -> fmt::Result {
        match self.addresses {
            Some((source, destination)) => write!(f, "{source}.{from} > {destination}.{to}: "),
            None => write!(f, "{from} > {to}: "),
        }
    }
}

fn write_ipv4(f: &mut fmt::Formatter<'_>, bytes: &[u8], bases: SequenceBases, depth: usize) -> fmt::Result {
    let packet = match Ipv4Packet::parse(bytes, Validation::Lenient) {
        Ok(packet) => packet,
        Err(Ipv4Error::Version { found: 6 }) => return f.write_str("IP6"),
        Err(Ipv4Error::Version { found }) => return write!(f, "unknown ip {found}"),
        Err(Ipv4Error::HeaderLength { found }) => return write!(f, "IP bad-hlen {found}"),
        Err(Ipv4Error::TotalLength { found, .. }) => return write!(f, "IP bad-len {found}"),
        Err(_) => return f.write_str("IP  [|ip]"),
    };
    f.write_str("IP ")?;
    let missing = packet.total_len().saturating_sub(packet.as_bytes().len());
    if missing > 0 {
        write!(f, "truncated-ip - {missing} bytes missing! ")?;
    }
    if !packet.is_first_fragment_or_whole() {
        let protocol = packet.protocol().0;
        return write!(f, "{} > {}: ip-proto-{protocol}", packet.source(), packet.destination());
    }
    let payload = Payload {
        addresses: Some((packet.source().into(), packet.destination().into())),
        bytes: packet.payload(),
        len: packet.total_len().max(packet.as_bytes().len()).saturating_sub(packet.header_len()),
        is_fragment: packet.is_fragment(),
    };
    match packet.protocol() {
        Protocol::ICMP => {
            payload.write_addresses(f)?;
            icmp::write(f, &payload)
        }
        Protocol::IPIP if depth > 0 => {
            write_payload(f, Protocol::IPIP, &payload, bases, depth)?;
            f.write_str(" (ipip-proto-4)")
        }
        protocol => write_payload(f, protocol, &payload, bases, depth),
    }
}

fn write_ipv6(f: &mut fmt::Formatter<'_>, bytes: &[u8], bases: SequenceBases, depth: usize) -> fmt::Result {
    let packet = match Ipv6Packet::parse(bytes, Validation::Lenient) {
        Ok(packet) => packet,
        Err(Ipv6Error::Version { found }) => return write!(f, "IP6 version error: {found} != 6"),
        Err(_) => return f.write_str("IP6  [|ip6]"),
    };
    f.write_str("IP6 ")?;
    let missing = packet.total_len().saturating_sub(packet.as_bytes().len());
    if missing > 0 {
        write!(f, "truncated-ip6 - {missing} bytes missing!")?;
    }
    let mut payload = Payload {
        addresses: Some((packet.source().into(), packet.destination().into())),
        bytes: packet.payload(),
        len: packet.total_len().max(packet.as_bytes().len()).saturating_sub(ipv6::HEADER_LEN),
        is_fragment: false,
    };
    let mut protocol = packet.next_header();
    for _ in 0..MAX_HEADERS {
        let Some(next) = write_extension(f, protocol, &mut payload)? else { break };
        if next.is_last {
            return Ok(());
        }
        protocol = next.protocol;
    }
    match protocol {
        Protocol::ICMPV6 => {
            payload.write_addresses(f)?;
            icmpv6::write(f, &payload)
        }
        protocol => write_payload(f, protocol, &payload, bases, depth),
    }
}

/// What an extension header says comes next.
struct Next {
    protocol: Protocol,
    /// Whether the line ends here: in a fragment that is not the first.
    is_last: bool,
}

/// Writes an extension header and removes it from the payload. `None` if there is none, or if it is
/// cut short.
fn write_extension(
    f: &mut fmt::Formatter<'_>,
    protocol: Protocol,
    payload: &mut Payload<'_>,
) -> Result<Option<Next>, fmt::Error> {
    let &[next, units, ..] = payload.bytes else { return Ok(None) };
    let mut next = Next { protocol: Protocol(next), is_last: false };
    let header_len = match protocol {
        Protocol::HOP_BY_HOP | Protocol::DESTINATION_OPTIONS => (usize::from(units) + 1) * 8,
        Protocol::FRAGMENT => size_of::<FragmentHeader>(),
        _ => return Ok(None),
    };
    let Some(rest) = payload.bytes.get(header_len..) else { return Ok(None) };
    payload.write_addresses(f)?;
    let len = payload.len.saturating_sub(header_len);
    match (protocol, FragmentHeader::split(payload.bytes)) {
        (Protocol::FRAGMENT, Some((fragment, _))) => {
            write!(f, "frag ({}|{len})", fragment.offset())?;
            next.is_last = fragment.offset() != 0;
            payload.is_fragment = true;
            f.write_str(if next.is_last { "" } else { " " })?;
        }
        (Protocol::HOP_BY_HOP, _) => f.write_str("HBH ")?,
        _ => f.write_str("DSTOPT ")?,
    }
    *payload = Payload { addresses: None, bytes: rest, len, ..*payload };
    Ok(Some(next))
}

/// Writes what packets of both families carry.
fn write_payload(
    f: &mut fmt::Formatter<'_>,
    protocol: Protocol,
    payload: &Payload<'_>,
    bases: SequenceBases,
    depth: usize,
) -> fmt::Result {
    match protocol {
        Protocol::TCP => tcp::write(f, payload, bases),
        Protocol::UDP => write_udp(f, payload),
        protocol => {
            payload.write_addresses(f)?;
            match protocol {
                Protocol::IPIP if depth > 0 => write_ipv4(f, payload.bytes, bases, depth - 1),
                Protocol::IPV6 if depth > 0 => write_ipv6(f, payload.bytes, bases, depth - 1),
                Protocol(number) => write!(f, " ip-proto-{number} {}", payload.len),
            }
        }
    }
}

fn write_udp(f: &mut fmt::Formatter<'_>, payload: &Payload<'_>) -> fmt::Result {
    let &[a, b, c, d, e, g, _, _, ..] = payload.bytes else {
        payload.write_addresses(f)?;
        return f.write_str(" [|udp]");
    };
    payload.write_ports(f, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))?;
    // By the length field: a fragment or a short capture has fewer bytes.
    let length = u16::from_be_bytes([e, g]);
    match UdpHeader::parse(payload.bytes) {
        Err(UdpError::Length { found }) => write!(f, "truncated-udplength {found}"),
        Err(UdpError::Truncated { expected, .. }) if expected > payload.len && !payload.is_fragment => {
            write!(f, "UDP, bad length {} > {}", expected - 8, payload.len - 8)
        }
        _ => write!(f, "UDP, length {}", length.saturating_sub(8)),
    }
}
