//! ICMP for IPv6, RFC 4443, with the length attribute of RFC 4884.
//!
//! An error message:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |     Type      |     Code      |           Checksum            |
//! +---------------+---------------+-------------------------------+
//! |               0, MTU or pointer; or length, 0                 |
//! +---------------------------------------------------------------+
//! |      The first bytes of the packet in question: the quote     |
//! +---------------------------------------------------------------+
//! ```
//!
//! [`Icmpv6Message`] is the view of a message. [`build_error`] and [`build_echo`] write messages.
//! [`may_answer`] decides whether an error may be sent. The checksum covers the addresses of the
//! packet, so parsing and writing need them.
//!
//! # Panics
//!
//! Nothing here panics. An [`Icmpv6Message`] exists only for at least 8 bytes.

use core::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::icmpv4::EchoKind;
use crate::ipv6::{self, Ipv6Packet, Ipv6Repr, extension};
use crate::{Protocol, Validation, checksum};

/// Bytes of a message's header.
pub const HEADER_LEN: usize = 8;

/// Bytes of the longest error packet: it must not exceed the minimum MTU (RFC 4443 section 2.4 c).
pub const MAX_ERROR_LEN: usize = ipv6::MIN_MTU as usize;

/// The hop limit of an error, in hops.
const ERROR_HOP_LIMIT: u8 = 64;

/// Values of the type field. Those below 128 are errors.
pub mod types {
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Redirect, RFC 4861: no error by its number, but none may be sent about it.
    pub const REDIRECT: u8 = 137;
}

/// Whether a type is that of an error (RFC 4443 section 2.1).
#[inline]
#[must_use]
pub const fn is_error(message_type: u8) -> bool {
    message_type < types::ECHO_REQUEST
}

/// Codes of Destination Unreachable (RFC 4443 section 3.1).
pub mod unreachable {
    /// There is no route to the destination.
    pub const NO_ROUTE: u8 = 0;
    /// Communication with the destination is administratively prohibited.
    pub const PROHIBITED: u8 = 1;
    /// The destination is beyond the scope of the source address.
    pub const BEYOND_SCOPE: u8 = 2;
    /// The address is unreachable.
    pub const ADDRESS: u8 = 3;
    /// No process listens on the port.
    pub const PORT: u8 = 4;
    /// The source address failed the ingress or egress policy.
    pub const SOURCE_POLICY: u8 = 5;
    /// The route to the destination rejects packets.
    pub const REJECT_ROUTE: u8 = 6;
}

/// Codes of Parameter Problem (RFC 4443 section 3.4).
pub mod parameter {
    /// A header field is wrong.
    pub const HEADER_FIELD: u8 = 0;
    /// The type in a next header field is not known.
    pub const NEXT_HEADER: u8 = 1;
    /// An option is not known.
    pub const OPTION: u8 = 2;
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
pub enum Icmpv6Error {
    /// Type 1; see [`mod@unreachable`].
    DestinationUnreachable {
        /// The code.
        code: u8,
    },
    /// Type 2.
    TooBig {
        /// Bytes of the longest packet that passes. Hosts discard an MTU below 1280 (RFC 8201
        /// section 4).
        mtu: u32,
    },
    /// Type 3.
    TimeExceeded {
        /// 0: in transit; 1: in reassembly.
        code: u8,
    },
    /// Type 4; see [`parameter`].
    ParameterProblem {
        /// The code.
        code: u8,
        /// Offset in bytes into the quoted packet.
        pointer: u32,
    },
}

impl Icmpv6Error {
    /// Returns the type and the code.
    #[must_use]
    pub const fn type_and_code(self) -> (u8, u8) {
        match self {
            Icmpv6Error::DestinationUnreachable { code } => (types::DESTINATION_UNREACHABLE, code),
            Icmpv6Error::TooBig { .. } => (types::PACKET_TOO_BIG, 0),
            Icmpv6Error::TimeExceeded { code } => (types::TIME_EXCEEDED, code),
            Icmpv6Error::ParameterProblem { code, .. } => (types::PARAMETER_PROBLEM, code),
        }
    }

    const fn rest(self) -> [u8; 4] {
        match self {
            Icmpv6Error::TooBig { mtu: word } | Icmpv6Error::ParameterProblem { pointer: word, .. } => {
                word.to_be_bytes()
            }
            Icmpv6Error::DestinationUnreachable { .. } | Icmpv6Error::TimeExceeded { .. } => [0; 4],
        }
    }
}

/// A view of one ICMP message.
#[derive(Debug, Clone, Copy)]
pub struct Icmpv6Message<'a> {
    fields: &'a Fields,
    bytes: &'a [u8],
}

impl<'a> Icmpv6Message<'a> {
    /// Parses a message, the payload of an IPv6 packet, which may be cut short or a first fragment.
    /// The checksum is not verified. Returns `None` if there are fewer than 8 bytes.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Icmpv6Message<'a>> {
        let (fields, _) = Fields::ref_from_prefix(bytes).ok()?;
        Some(Icmpv6Message { fields, bytes })
    }

    /// Returns true if the checksum of the whole message is right in a packet between these
    /// addresses. Costs one pass over the bytes.
    #[must_use]
    pub fn checksum_ok(&self, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
        let pseudo =
            checksum::pseudo_header_v6(source, destination, Protocol::ICMPV6, self.bytes.len() as u32);
        pseudo.add_bytes(self.bytes).checksum() == 0
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

    /// The error that this message reports; `None` for any other message.
    #[must_use]
    pub fn error(&self) -> Option<Icmpv6Error> {
        let word = u32::from_be_bytes(self.fields.rest);
        let code = self.fields.code;
        Some(match self.fields.message_type {
            types::DESTINATION_UNREACHABLE => Icmpv6Error::DestinationUnreachable { code },
            types::PACKET_TOO_BIG => Icmpv6Error::TooBig { mtu: word },
            types::TIME_EXCEEDED => Icmpv6Error::TimeExceeded { code },
            types::PARAMETER_PROBLEM => Icmpv6Error::ParameterProblem { code, pointer: word },
            _ => return None,
        })
    }

    /// The packet that an error quotes. It is usually cut short, and extensions (RFC 4884) are not
    /// part of it. `None` if this is no error, or if the quote does not begin with an IPv6 header.
    #[must_use]
    pub fn quote(&self) -> Option<Ipv6Packet<'a>> {
        let payload = self.payload();
        // RFC 4884 section 4: octet 4 is the length of the quote in 64-bit words, if extensions
        // follow. A length beyond the message means that the message was cut short.
        let quoted = match self.error()? {
            Icmpv6Error::DestinationUnreachable { .. } | Icmpv6Error::TimeExceeded { .. } => {
                match usize::from(self.fields.rest[0]) * 8 {
                    0 => payload,
                    length => payload.get(..length).unwrap_or(payload),
                }
            }
            Icmpv6Error::TooBig { .. } | Icmpv6Error::ParameterProblem { .. } => payload,
        };
        Ipv6Packet::parse(quoted, Validation::Lenient).ok()
    }
}

/// Writes an IPv6 packet with an ICMP error about `offending`, and returns its length in bytes.
///
/// The error quotes as much of the offending packet as fits in 1280 bytes (RFC 4443 section 2.4 c),
/// but no bytes after its payload length. Ask [`may_answer`] first.
pub fn build_error(
    out: &mut [u8; MAX_ERROR_LEN],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    error: Icmpv6Error,
    offending: &[u8],
) -> usize {
    let packet = match Ipv6Packet::parse(offending, Validation::Lenient) {
        Ok(packet) => packet.as_bytes(),
        Err(_) => offending,
    };
    let (header, message) = out.split_at_mut(ipv6::HEADER_LEN);
    let (icmp_header, room) = message.split_at_mut(HEADER_LEN);
    let quoted = packet.len().min(room.len());
    for (to, from) in room.iter_mut().zip(packet) {
        *to = *from;
    }
    let (message_type, code) = error.type_and_code();
    let quote = room.get(..quoted).unwrap_or_default();
    let fields = complete(message_type, code, error.rest(), source, destination, quote);
    icmp_header.copy_from_slice(fields.as_bytes());
    let payload_len = HEADER_LEN + quoted;
    let repr = Ipv6Repr {
        source,
        destination,
        next_header: Protocol::ICMPV6,
        hop_limit: ERROR_HOP_LIMIT,
        traffic_class: 0,
        flow_label: 0,
        payload_len: payload_len as u16,
    };
    header.copy_from_slice(&repr.emit());
    ipv6::HEADER_LEN + payload_len
}

/// Returns a message's header with its checksum.
fn complete(
    message_type: u8,
    code: u8,
    rest: [u8; 4],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    payload: &[u8],
) -> Fields {
    let mut fields = Fields { message_type, code, checksum: U16::ZERO, rest };
    let len = (HEADER_LEN + payload.len()) as u32;
    let pseudo = checksum::pseudo_header_v6(source, destination, Protocol::ICMPV6, len);
    fields.checksum = U16::new(pseudo.add_bytes(fields.as_bytes()).add_bytes(payload).checksum());
    fields
}

/// Returns true if this ICMP error may be sent about a packet (RFC 4443 section 2.4 e).
///
/// None may about an ICMP error, a redirect, a packet whose type was cut off, or one whose source
/// is not a single host: unspecified, loopback or multicast. About a packet to a multicast address
/// only Packet Too Big and Parameter Problem 2 may. Unlike over IPv4, about a fragment that is not
/// the first one may: its payload cannot be seen, and hosts ignore such a quote.
#[must_use]
pub fn may_answer(packet: &Ipv6Packet<'_>, error: Icmpv6Error) -> bool {
    let source = packet.source();
    if source.is_unspecified() || source.is_multicast() || source.is_loopback() {
        return false;
    }
    let is_for_groups = matches!(
        error,
        Icmpv6Error::TooBig { .. } | Icmpv6Error::ParameterProblem { code: parameter::OPTION, .. }
    );
    if packet.destination().is_multicast() && !is_for_groups {
        return false;
    }
    let Ok(upper) = extension::walk(packet.as_bytes(), packet.next_header()) else { return true };
    let is_later_fragment = upper.fragment.is_some_and(|fragment| fragment.offset() != 0);
    if upper.protocol != Protocol::ICMPV6 || is_later_fragment {
        return true;
    }
    let message_type = packet.as_bytes().get(upper.offset);
    message_type.is_some_and(|&kind| kind >= 128 && kind != types::REDIRECT)
}

/// Writes an echo message without an IPv6 header, for a packet between these addresses, and returns
/// its length in bytes. `None` if `out` is too short.
pub fn build_echo(
    out: &mut [u8],
    (source, destination): (Ipv6Addr, Ipv6Addr),
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
    let fields = complete(message_type, 0, [a, b, c, d], source, destination, payload);
    header.copy_from_slice(fields.as_bytes());
    room.copy_from_slice(payload);
    Some(message.len())
}
