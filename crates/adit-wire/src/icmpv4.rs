//! ICMP for IPv4, RFC 792, with the next-hop MTU of RFC 1191 and the length attribute of RFC 4884.
//!
//! An error message:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |     Type      |     Code      |           Checksum            |
//! +---------------+---------------+-------------------------------+
//! |  0 or pointer |  0 or length  |       0 or next-hop MTU       |
//! +---------------+---------------+-------------------------------+
//! |     The first bytes of the datagram in question: the quote    |
//! +---------------------------------------------------------------+
//! ```
//!
//! [`Icmpv4Message`] is the view of a message, and [`Quote`] that of the datagram in an error.
//! [`build_error`] and [`build_echo`] write messages. [`may_answer`] decides whether an error may
//! be sent.
//!
//! # Panics
//!
//! Nothing here panics. An [`Icmpv4Message`] exists only for at least 8 bytes.

use core::fmt;
use core::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ipv4::{self, Ipv4Packet, Ipv4Repr};
use crate::{Protocol, Validation, checksum};

/// Bytes of a message's header.
pub const HEADER_LEN: usize = 8;

/// Bytes of the longest error datagram (RFC 1812 section 4.3.2.3): every host accepts this length.
pub const MAX_ERROR_LEN: usize = 576;

/// The TOS of an error: precedence 6, internetwork control (RFC 1812 section 4.3.2.5).
pub const ERROR_TOS: u8 = 0xc0;

/// The time to live of an error, in hops.
const ERROR_TTL: u8 = 64;

/// Values of the type field.
pub mod types {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 3;
    /// Source quench; deprecated by RFC 6633.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Codes of Destination Unreachable (RFC 792; from 6 on RFC 1122 section 3.2.2.1 and RFC 1812
/// section 5.2.7.1).
pub mod unreachable {
    /// The network is unreachable.
    pub const NET: u8 = 0;
    /// The host is unreachable.
    pub const HOST: u8 = 1;
    /// The host does not support the protocol.
    pub const PROTOCOL: u8 = 2;
    /// No process listens on the port.
    pub const PORT: u8 = 3;
    /// The datagram is too big and DF is set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// The source route failed.
    pub const SOURCE_ROUTE_FAILED: u8 = 5;
    /// Communication with the destination network is administratively prohibited.
    pub const NETWORK_PROHIBITED: u8 = 9;
    /// Communication with the destination host is administratively prohibited.
    pub const HOST_PROHIBITED: u8 = 10;
    /// Communication administratively prohibited.
    pub const PROHIBITED: u8 = 13;
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fields {
    message_type: u8,
    code: u8,
    checksum: U16,
    rest: [u8; 4],
}

/// An error message without its quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Icmpv4Error {
    /// Type 3, all codes but 4; see [`mod@unreachable`].
    DestinationUnreachable {
        /// The code. Code 4 is [`Icmpv4Error::TooBig`].
        code: u8,
    },
    /// Type 3 code 4: fragmentation needed and DF set.
    TooBig {
        /// Bytes of the longest datagram that passes (RFC 1191); 0 from a router that does not
        /// implement it.
        mtu: u16,
    },
    /// Type 4. It is recognised, but neither sent nor acted upon (RFC 6633).
    SourceQuench,
    /// Type 5.
    Redirect {
        /// 0 to 3: for the network or the host, with or without the TOS.
        code: u8,
        /// The better next hop.
        gateway: Ipv4Addr,
    },
    /// Type 11.
    TimeExceeded {
        /// 0: in transit; 1: in reassembly.
        code: u8,
    },
    /// Type 12.
    ParameterProblem {
        /// 0: the pointer shows where; 1: a required option is missing; 2: bad length.
        code: u8,
        /// Offset in bytes into the quoted datagram.
        pointer: u8,
    },
}

impl Icmpv4Error {
    /// Returns the type and the code.
    #[must_use]
    pub const fn type_and_code(self) -> (u8, u8) {
        match self {
            Icmpv4Error::DestinationUnreachable { code } => (types::DESTINATION_UNREACHABLE, code),
            Icmpv4Error::TooBig { .. } => (types::DESTINATION_UNREACHABLE, unreachable::FRAGMENTATION_NEEDED),
            Icmpv4Error::SourceQuench => (types::SOURCE_QUENCH, 0),
            Icmpv4Error::Redirect { code, .. } => (types::REDIRECT, code),
            Icmpv4Error::TimeExceeded { code } => (types::TIME_EXCEEDED, code),
            Icmpv4Error::ParameterProblem { code, .. } => (types::PARAMETER_PROBLEM, code),
        }
    }

    const fn rest(self) -> [u8; 4] {
        match self {
            Icmpv4Error::TooBig { mtu } => {
                let [high, low] = mtu.to_be_bytes();
                [0, 0, high, low]
            }
            Icmpv4Error::Redirect { gateway, .. } => gateway.octets(),
            Icmpv4Error::ParameterProblem { pointer, .. } => [pointer, 0, 0, 0],
            Icmpv4Error::DestinationUnreachable { .. }
            | Icmpv4Error::SourceQuench
            | Icmpv4Error::TimeExceeded { .. } => [0; 4],
        }
    }
}

/// The first check that an ICMP message fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Icmpv4ParseError {
    /// There are fewer bytes than the header needs.
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The checksum does not match the message.
    Checksum {
        /// The checksum of this message.
        expected: u16,
        /// The field's value.
        found: u16,
    },
}

impl fmt::Display for Icmpv4ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Icmpv4ParseError::Truncated { expected, found } => {
                write!(f, "ICMP message cut short: {expected} bytes expected, {found} found")
            }
            Icmpv4ParseError::Checksum { expected, found } => {
                write!(f, "ICMP checksum {expected:#06x} expected, {found:#06x} found")
            }
        }
    }
}

impl core::error::Error for Icmpv4ParseError {}

/// A view of one ICMP message.
#[derive(Debug, Clone, Copy)]
pub struct Icmpv4Message<'a> {
    fields: &'a Fields,
    bytes: &'a [u8],
}

impl<'a> Icmpv4Message<'a> {
    /// Parses a whole message, the payload of an IPv4 datagram, and verifies its checksum. Costs
    /// one pass over the bytes.
    ///
    /// # Errors
    ///
    /// There are fewer than 8 bytes, or the checksum is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Icmpv4Message<'a>, Icmpv4ParseError> {
        let message = Icmpv4Message::parse_lenient(bytes)?;
        if message.checksum_ok() {
            return Ok(message);
        }
        let found = message.checksum();
        let expected = checksum::sum(bytes).add_word(!found).checksum();
        Err(Icmpv4ParseError::Checksum { expected, found })
    }

    /// Parses a message that may be cut short or a first fragment. The checksum is not verified.
    ///
    /// # Errors
    ///
    /// There are fewer than 8 bytes ([`Icmpv4ParseError::Truncated`]).
    pub fn parse_lenient(bytes: &'a [u8]) -> Result<Icmpv4Message<'a>, Icmpv4ParseError> {
        match Fields::ref_from_prefix(bytes) {
            Ok((fields, _)) => Ok(Icmpv4Message { fields, bytes }),
            Err(_) => Err(Icmpv4ParseError::Truncated { expected: HEADER_LEN, found: bytes.len() }),
        }
    }

    /// The type; see [`types`].
    #[must_use]
    pub fn message_type(&self) -> u8 {
        self.fields.message_type
    }

    /// The code, whose meaning depends on the type.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.fields.code
    }

    /// The checksum field, in host byte order.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.fields.checksum.get()
    }

    /// Returns true if the checksum of the message is right.
    #[must_use]
    pub fn checksum_ok(&self) -> bool {
        checksum::checksum(self.bytes) == 0
    }

    /// The bytes after the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Whether it is an echo request or reply; `None` for other types.
    #[must_use]
    pub fn echo_kind(&self) -> Option<EchoKind> {
        match self.fields.message_type {
            types::ECHO_REQUEST => Some(EchoKind::Request),
            types::ECHO_REPLY => Some(EchoKind::Reply),
            _ => None,
        }
    }

    /// Identifier and sequence number of an echo request or reply; `None` for other types.
    #[must_use]
    pub fn echo(&self) -> Option<(u16, u16)> {
        let [a, b, c, d] = self.fields.rest;
        self.echo_kind().map(|_| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// The error that this message reports; `None` for a query and for a type that is not in RFC
    /// 792.
    #[must_use]
    pub fn error(&self) -> Option<Icmpv4Error> {
        let [a, b, c, d] = self.fields.rest;
        let code = self.fields.code;
        Some(match self.fields.message_type {
            types::DESTINATION_UNREACHABLE if code == unreachable::FRAGMENTATION_NEEDED => {
                Icmpv4Error::TooBig { mtu: u16::from_be_bytes([c, d]) }
            }
            types::DESTINATION_UNREACHABLE => Icmpv4Error::DestinationUnreachable { code },
            types::SOURCE_QUENCH => Icmpv4Error::SourceQuench,
            types::REDIRECT => Icmpv4Error::Redirect { code, gateway: Ipv4Addr::new(a, b, c, d) },
            types::TIME_EXCEEDED => Icmpv4Error::TimeExceeded { code },
            types::PARAMETER_PROBLEM => Icmpv4Error::ParameterProblem { code, pointer: a },
            _ => return None,
        })
    }

    /// The datagram that an error quotes; `None` if this is no error, or if the quote does not
    /// begin with an IPv4 header.
    #[must_use]
    pub fn quote(&self) -> Option<Quote<'a>> {
        self.error()?;
        let payload = self.payload();
        // RFC 4884 section 4: if extensions may follow, octet 5 is the length of the quote in
        // 32-bit words. A length beyond the message means that the message was cut short.
        let quoted = match self.fields.message_type {
            types::DESTINATION_UNREACHABLE | types::TIME_EXCEEDED | types::PARAMETER_PROBLEM => {
                match usize::from(self.fields.rest[1]) * 4 {
                    0 => payload,
                    length => payload.get(..length).unwrap_or(payload),
                }
            }
            _ => payload,
        };
        Ipv4Packet::parse(quoted, Validation::Lenient).ok().map(|packet| Quote { packet })
    }
}

/// The datagram that an ICMP error is about. It is usually cut short. Extensions (RFC 4884) are not
/// part of it.
#[derive(Debug, Clone, Copy)]
pub struct Quote<'a> {
    packet: Ipv4Packet<'a>,
}

impl<'a> Quote<'a> {
    /// The view of the datagram. Its checksum was not verified.
    #[must_use]
    pub fn packet(&self) -> Ipv4Packet<'a> {
        self.packet
    }

    /// The quoted bytes of the datagram, without padding. They begin [`HEADER_LEN`] bytes into the
    /// ICMP message.
    #[must_use]
    pub fn datagram(&self) -> &'a [u8] {
        self.packet.as_bytes()
    }

    /// The quoted bytes after its header. RFC 792 requires at least 8, but there may be fewer. In a
    /// quoted outer datagram they are the inner datagram.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.packet.payload()
    }
}

/// Writes an IPv4 datagram with an ICMP error about `offending`, and returns its length in bytes.
///
/// The error quotes as much of the offending datagram as fits in 576 bytes (RFC 1812 section
/// 4.3.2.3), but no bytes after its total length. TOS is [`ERROR_TOS`], TTL is 64, and DF is clear.
/// With a `source` of 0.0.0.0 the kernel chooses the source when a raw socket sends it. Ask
/// [`may_answer`] first.
pub fn build_error(
    out: &mut [u8; MAX_ERROR_LEN],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    error: Icmpv4Error,
    offending: &[u8],
) -> usize {
    let datagram = match Ipv4Packet::parse(offending, Validation::Lenient) {
        Ok(packet) => packet.as_bytes(),
        Err(_) => offending,
    };
    let (header, message) = out.split_at_mut(ipv4::HEADER_LEN);
    let (icmp_header, room) = message.split_at_mut(HEADER_LEN);
    let quoted = datagram.len().min(room.len());
    for (to, from) in room.iter_mut().zip(datagram) {
        *to = *from;
    }
    let (message_type, code) = error.type_and_code();
    let mut fields = Fields { message_type, code, checksum: U16::ZERO, rest: error.rest() };
    let quote = room.get(..quoted).unwrap_or_default();
    fields.checksum = U16::new(checksum::sum(fields.as_bytes()).add_bytes(quote).checksum());
    icmp_header.copy_from_slice(fields.as_bytes());
    let payload_len = HEADER_LEN + quoted;
    let repr = Ipv4Repr {
        source,
        destination,
        protocol: Protocol::ICMP,
        ttl: ERROR_TTL,
        tos: ERROR_TOS,
        identification: 0,
        dont_fragment: false,
        payload_len: payload_len as u16,
    };
    header.copy_from_slice(&repr.emit());
    ipv4::HEADER_LEN + payload_len
}

/// Returns true if an ICMP error may be sent about a datagram (RFC 1122 section 3.2.2, RFC 1812
/// section 4.3.2.7).
///
/// It may not about an ICMP error, a fragment other than the first, a datagram to a multicast or
/// broadcast address, or one whose source is not a single host: zero, loopback, broadcast,
/// multicast or class E. The broadcast address of a subnet is not recognised. An ICMP type that is
/// not known to be a query counts as an error, and so does a type that was cut off.
#[must_use]
pub fn may_answer(packet: &Ipv4Packet<'_>) -> bool {
    let destination = packet.destination();
    if destination.is_multicast() || destination.is_broadcast() || packet.fragment_offset() != 0 {
        return false;
    }
    let [first, ..] = packet.source().octets();
    if first == 0 || first == 127 || first >= 224 {
        return false;
    }
    if packet.protocol() == Protocol::ICMP {
        return packet.payload().first().is_some_and(|&message_type| is_query(message_type));
    }
    true
}

/// Returns true for the types of the errors in RFC 792.
#[must_use]
pub const fn is_error(message_type: u8) -> bool {
    matches!(
        message_type,
        types::DESTINATION_UNREACHABLE
            | types::SOURCE_QUENCH
            | types::REDIRECT
            | types::TIME_EXCEEDED
            | types::PARAMETER_PROBLEM
    )
}

/// Returns true for queries and their answers: RFC 792, RFC 950, RFC 1256 and RFC 8335.
const fn is_query(message_type: u8) -> bool {
    matches!(message_type, 0 | 8..=10 | 13..=18 | 42 | 43)
}

/// The two echo messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EchoKind {
    /// Type 8, in IPv6 type 128.
    Request,
    /// Type 0, in IPv6 type 129.
    Reply,
}

/// Writes an echo message without an IPv4 header, and returns its length in bytes. `None` if `out`
/// is too short.
pub fn build_echo(
    out: &mut [u8],
    identifier: u16,
    sequence: u16,
    payload: &[u8],
    kind: EchoKind,
) -> Option<usize> {
    let message = out.get_mut(..HEADER_LEN.checked_add(payload.len())?)?;
    let (header, room) = message.split_at_mut_checked(HEADER_LEN)?;
    let message_type = match kind {
        EchoKind::Request => types::ECHO_REQUEST,
        EchoKind::Reply => types::ECHO_REPLY,
    };
    let [a, b] = identifier.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    let mut fields = Fields { message_type, code: 0, checksum: U16::ZERO, rest: [a, b, c, d] };
    fields.checksum = U16::new(checksum::sum(fields.as_bytes()).add_bytes(payload).checksum());
    header.copy_from_slice(fields.as_bytes());
    room.copy_from_slice(payload);
    Some(message.len())
}
