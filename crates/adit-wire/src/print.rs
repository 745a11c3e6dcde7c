//! A one-line description of a datagram, in the format of `tcpdump -n`, without allocation.
//!
//! For well-formed IPv4 in IPv4, TCP, UDP and ICMP the line is exactly that of tcpdump. Other
//! protocols appear by their number. The line of a datagram that is cut short ends in `[|tcp]` or
//! the like. tcpdump counts sequence numbers from the start of each connection; a [`FlowTable`]
//! remembers where connections started.
//!
//! Nothing here panics: every datagram has a line.

mod flows;
mod icmp;
mod tcp;

use core::fmt;

pub use flows::{FlowTable, SequenceBases};

use crate::ipv4::{Ipv4Error, Ipv4Packet};
use crate::udp::{UdpError, UdpHeader};
use crate::{Protocol, Validation};

/// The most nested IP headers that are shown. Each costs stack.
const MAX_DEPTH: usize = 8;

/// An IPv4 datagram whose `Display` is its line:
/// `IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1 > … (ipip-proto-4)`.
#[derive(Debug, Clone, Copy)]
pub struct Dissection<'a> {
    bytes: &'a [u8],
    bases: SequenceBases,
}

impl<'a> Dissection<'a> {
    /// Describes the datagram in these bytes, which may be cut short. TCP sequence numbers are
    /// absolute.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Dissection<'a> {
        Dissection { bytes, bases: SequenceBases::default() }
    }

    /// Counts TCP sequence numbers as tcpdump does: they are absolute in the first segment of a
    /// connection with an acknowledgment (the answer to the SYN), and relative to it from then on.
    /// Call it once for each datagram, in order.
    #[must_use]
    pub fn with_flow<const N: usize>(self, flows: &mut FlowTable<N>) -> Dissection<'a> {
        Dissection { bases: flows.observe(self.bytes), ..self }
    }
}

impl fmt::Display for Dissection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ip(f, self.bytes, self.bases, MAX_DEPTH)
    }
}

fn write_ip(f: &mut fmt::Formatter<'_>, bytes: &[u8], bases: SequenceBases, depth: usize) -> fmt::Result {
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
    match packet.protocol() {
        Protocol::TCP => tcp::write(f, &packet, bases),
        Protocol::UDP => write_udp(f, &packet),
        protocol => {
            write!(f, "{} > {}: ", packet.source(), packet.destination())?;
            match protocol {
                Protocol::ICMP => icmp::write(f, &packet),
                Protocol::IPIP if depth > 0 => {
                    write_ip(f, packet.payload(), bases, depth - 1)?;
                    f.write_str(" (ipip-proto-4)")
                }
                Protocol(number) => write!(f, " ip-proto-{number} {}", payload_len(&packet)),
            }
        }
    }
}

/// Returns the bytes after the header by the length field, of which a capture may hold fewer.
fn payload_len(packet: &Ipv4Packet<'_>) -> usize {
    packet.total_len().max(packet.as_bytes().len()).saturating_sub(packet.header_len())
}

fn write_udp(f: &mut fmt::Formatter<'_>, packet: &Ipv4Packet<'_>) -> fmt::Result {
    let (source, destination) = (packet.source(), packet.destination());
    let payload = packet.payload();
    let &[a, b, c, d, e, g, _, _, ..] = payload else {
        return write!(f, "{source} > {destination}:  [|udp]");
    };
    let (from, to) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    write!(f, "{source}.{from} > {destination}.{to}: ")?;
    // By the length field: a fragment or a short capture has fewer bytes.
    let length = u16::from_be_bytes([e, g]);
    match UdpHeader::parse(payload) {
        Err(UdpError::Length { found }) => write!(f, "truncated-udplength {found}"),
        Err(UdpError::Truncated { expected, .. })
            if expected > payload_len(packet) && !packet.is_fragment() =>
        {
            write!(f, "UDP, bad length {} > {}", expected - 8, payload_len(packet) - 8)
        }
        _ => write!(f, "UDP, length {}", length.saturating_sub(8)),
    }
}
