//! Extension headers, RFC 8200 section 4, as far as a tunnel has to read them: up to the payload,
//! a fragment header, or a tunnel encapsulation limit (RFC 2473 section 4.1.1).
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +---------------+---------------+-------------------------------+
//!  |  Next header  |    Length     |   options, or routing data    |   Length: units of 8 bytes
//!  +---------------+---------------+-------------------------------+   after the first 8
//!
//!  +---------------+---------------+-------------------------+---+-+
//!  |  Next header  |   Reserved    |     Fragment offset     |Res|M|   Fragment header
//!  +---------------+---------------+-------------------------+---+-+
//!  |                        Identification                         |
//!  +---------------------------------------------------------------+
//! ```
//!
//! Nothing here panics.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Protocol;

/// The most extension headers that are read. A packet with more counts as malformed.
pub const MAX_HEADERS: usize = 16;

/// Type of the option that limits nested encapsulation.
const ENCAPSULATION_LIMIT: u8 = 4;
/// Type of the option of one byte that fills a gap. It alone has no length octet.
const PAD1: u8 = 0;

/// The fragment header, RFC 8200 section 4.5, as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FragmentHeader {
    pub(super) next_header: u8,
    pub(super) reserved: u8,
    pub(super) offset_flags: U16,
    pub(super) identification: U32,
}

impl FragmentHeader {
    /// The header at the start of these bytes, and what follows it; `None` if they are too few.
    #[inline]
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<(&FragmentHeader, &[u8])> {
        FragmentHeader::ref_from_prefix(bytes).ok()
    }

    /// What the fragmented part begins with.
    #[inline]
    #[must_use]
    pub const fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }

    /// The offset of this fragment in the fragmented part, in bytes. The field itself counts units
    /// of eight.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> u16 {
        self.offset_flags.get() & 0xfff8
    }

    /// The flag M, "more fragments".
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.offset_flags.get() & 1 != 0
    }

    /// The identification that the fragments of a packet share.
    #[inline]
    #[must_use]
    pub fn identification(&self) -> u32 {
        self.identification.get()
    }
}

/// A tunnel encapsulation limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EncapsulationLimit {
    /// How often the packet may still be encapsulated.
    pub limit: u8,
    /// Where the limit is, in bytes from the start of the IPv6 header. A Parameter Problem points
    /// at it (RFC 2473 section 6.7).
    pub offset: usize,
}

/// What follows an IPv6 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper<'a> {
    /// The protocol of the payload. For a fragment that is not the first, it is what the fragmented
    /// part begins with, which need not be the payload.
    pub protocol: Protocol,
    /// Where the payload begins, in bytes from the start of the IPv6 header.
    pub offset: usize,
    /// The fragment header, if there is one. The walk ends at a fragment that is not the first.
    pub fragment: Option<&'a FragmentHeader>,
    /// The first encapsulation limit, if there is one.
    pub limit: Option<EncapsulationLimit>,
}

/// An extension header that ends beyond the packet, or one of too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MalformedExtension {
    /// Where it begins, in bytes from the start of the IPv6 header.
    pub offset: usize,
}

/// Walks the extension headers of a packet to its payload. `packet` begins with an IPv6 header of
/// 40 bytes, whose next header field is `first`. Costs a few comparisons for each header.
///
/// # Errors
///
/// A header ends beyond the packet, or there are more than [`MAX_HEADERS`].
#[inline]
pub fn walk(packet: &[u8], first: Protocol) -> Result<Upper<'_>, MalformedExtension> {
    let mut upper = Upper { protocol: first, offset: super::HEADER_LEN, fragment: None, limit: None };
    for _ in 0..MAX_HEADERS {
        let offset = upper.offset;
        let malformed = MalformedExtension { offset };
        let rest = packet.get(offset..).unwrap_or_default();
        match upper.protocol {
            Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::DESTINATION_OPTIONS => {
                let &[next, units, ..] = rest else { return Err(malformed) };
                let len = (usize::from(units) + 1) * 8;
                let header = rest.get(..len).ok_or(malformed)?;
                if upper.protocol == Protocol::DESTINATION_OPTIONS && upper.limit.is_none() {
                    upper.limit = find_limit(header, offset);
                }
                (upper.protocol, upper.offset) = (Protocol(next), offset + len);
            }
            Protocol::FRAGMENT => {
                let (fragment, _) = FragmentHeader::split(rest).ok_or(malformed)?;
                upper.fragment.get_or_insert(fragment);
                (upper.protocol, upper.offset) =
                    (fragment.next_header(), offset + size_of::<FragmentHeader>());
                if fragment.offset() != 0 {
                    return Ok(upper);
                }
            }
            _ => return Ok(upper),
        }
    }
    Err(MalformedExtension { offset: upper.offset })
}

/// Walks the headers between an outer header and what a tunnel carries: destination options without
/// an option that the receiver must understand, and a fragment header behind them, at which the
/// walk ends. Parameters as for [`walk`]. `None` for any other extension header, or one that is
/// malformed.
#[inline]
#[must_use]
pub fn walk_options(packet: &[u8], first: Protocol) -> Option<Upper<'_>> {
    let mut upper = Upper { protocol: first, offset: super::HEADER_LEN, fragment: None, limit: None };
    for _ in 0..MAX_HEADERS {
        let rest = packet.get(upper.offset..)?;
        match upper.protocol {
            Protocol::DESTINATION_OPTIONS => {
                let &[next, units, ..] = rest else { return None };
                let len = (usize::from(units) + 1) * 8;
                if !may_be_skipped(rest.get(..len)?) {
                    return None;
                }
                (upper.protocol, upper.offset) = (Protocol(next), upper.offset + len);
            }
            Protocol::FRAGMENT => {
                let (fragment, _) = FragmentHeader::split(rest)?;
                upper.fragment = Some(fragment);
                upper.protocol = fragment.next_header();
                upper.offset += size_of::<FragmentHeader>();
                return Some(upper);
            }
            Protocol::HOP_BY_HOP | Protocol::ROUTING => return None,
            _ => return Some(upper),
        }
    }
    None
}

/// Whether a node that knows only an encapsulation limit may skip these options: the two highest
/// bits of an option's type say so (RFC 8200 section 4.2).
fn may_be_skipped(header: &[u8]) -> bool {
    let mut offset = 2;
    while offset < header.len() {
        match header.get(offset..) {
            Some([PAD1, ..]) => offset += 1,
            Some([kind, len, ..]) if kind >> 6 == 0 => offset += usize::from(*len) + 2,
            _ => return false,
        }
    }
    offset == header.len()
}

/// Finds a limit among the options of a header that begins at `at`.
fn find_limit(header: &[u8], at: usize) -> Option<EncapsulationLimit> {
    let mut offset = 2;
    loop {
        match *header.get(offset..)? {
            [] => return None,
            [PAD1, ..] => offset += 1,
            [ENCAPSULATION_LIMIT, 1, limit, ..] => {
                return Some(EncapsulationLimit { limit, offset: at + offset + 2 });
            }
            [_, len, ..] => offset += usize::from(len) + 2,
            [_] => return None,
        }
    }
}
