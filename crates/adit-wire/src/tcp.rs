//! The TCP header, RFC 9293 section 3.1, and the field that a tunnel changes in it: the maximum
//! segment size (MSS).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          Source port          |       Destination port        |
//! +-------------------------------+-------------------------------+
//! |                        Sequence number                        |
//! +---------------------------------------------------------------+
//! |                     Acknowledgment number                     |
//! +-------+-------+---------------+-------------------------------+
//! |Offset | Rsrvd | Control bits  |            Window             |
//! +-------+-------+---------------+-------------------------------+
//! |           Checksum            |        Urgent pointer         |
//! +-------------------------------+-------------------------------+
//! |                    Options, 0 to 40 bytes                     |
//! +---------------------------------------------------------------+
//! ```
//!
//! [`TcpHeader`] is the checked view of a segment. [`clamp_mss`] lowers the MSS in place. The eBPF
//! programs cannot follow options one by one and use [`mss_announced`] instead. The data planes
//! rewrite headers in place; the offsets for that are constants here and nowhere else.
//!
//! # Panics
//!
//! Nothing here panics. A [`TcpHeader`] exists only for bytes that hold the whole header.

use core::fmt;
use core::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Protocol;
use crate::checksum::{self, ChecksumState};
use crate::ipv4::Ipv4Header;
use crate::ipv6::{self, Ipv6Header};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest header: 15 words.
pub const MAX_HEADER_LEN: usize = 60;

/// Offset in bytes of the acknowledgment number in the header.
pub const ACKNOWLEDGMENT_OFFSET: usize = 8;
/// Offset in bytes of the octet with the data offset; see [`header_len_of`].
pub const DATA_OFFSET_OFFSET: usize = 12;
/// Offset in bytes of the octet with the control bits, [`TcpFlags`].
pub const FLAGS_OFFSET: usize = 13;
/// Offset in bytes of the window in the header.
pub const WINDOW_OFFSET: usize = 14;
/// Offset in bytes of the checksum in the header.
pub const CHECKSUM_OFFSET: usize = 16;
/// Offset in bytes of the urgent pointer in the header.
pub const URGENT_OFFSET: usize = 18;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;
const OPTION_SACK: u8 = 5;
const OPTION_TIMESTAMPS: u8 = 8;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fields {
    source_port: U16,
    destination_port: U16,
    sequence: U32,
    acknowledgment: U32,
    offset_reserved: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

impl Fields {
    const fn header_len(&self) -> usize {
        header_len_of(self.offset_reserved)
    }
}

/// Returns the bytes of the header, options included, by the octet at [`DATA_OFFSET_OFFSET`]: 0 to
/// 60.
#[inline]
#[must_use]
pub const fn header_len_of(data_offset: u8) -> usize {
    (data_offset >> 4) as usize * 4
}

/// Returns the sequence number in a header.
#[inline]
#[must_use]
pub const fn sequence(header: &[u8; HEADER_LEN]) -> u32 {
    u32::from_be_bytes([header[4], header[5], header[6], header[7]])
}

/// Adds `bytes` to the sequence number of the header that begins `header`. Leaves fewer than 20
/// bytes alone, and the checksum in any case.
#[inline]
pub fn advance_sequence(header: &mut [u8], bytes: u32) {
    if let Some(header) = header.first_chunk_mut::<HEADER_LEN>() {
        let advanced = sequence(header).wrapping_add(bytes);
        [header[4], header[5], header[6], header[7]] = advanced.to_be_bytes();
    }
}

/// The control bits of a segment (RFC 9293 section 3.1; CWR and ECE by RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender has no more data.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset the connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgment number is valid.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer is valid.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// ECN echo.
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// Congestion window reduced.
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// Returns true if all bits of `other` are set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: TcpFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits of both.
    #[inline]
    #[must_use]
    pub const fn union(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

/// The first check that a TCP segment fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpError {
    /// There are fewer bytes than the header needs.
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The data offset is below 20 bytes.
    DataOffset {
        /// Bytes, by the field.
        found: usize,
    },
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TcpError::Truncated { expected, found } => {
                write!(f, "TCP header cut short: {expected} bytes expected, {found} found")
            }
            TcpError::DataOffset { found } => {
                write!(f, "TCP data offset of at least 20 bytes expected, the field says {found}")
            }
        }
    }
}

impl core::error::Error for TcpError {}

/// A checked view of one TCP segment.
#[derive(Debug, Clone, Copy)]
pub struct TcpHeader<'a> {
    fields: &'a Fields,
    /// The segment. INVARIANT: at least as long as the data offset says.
    bytes: &'a [u8],
}

impl<'a> TcpHeader<'a> {
    /// Checks the lengths of a segment, payload included. [`Self::checksum_ok`] verifies its
    /// checksum.
    ///
    /// # Errors
    ///
    /// The header does not fit in the bytes, or its data offset is below 20 bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<TcpHeader<'a>, TcpError> {
        let found = bytes.len();
        let Ok((fields, _)) = Fields::ref_from_prefix(bytes) else {
            return Err(TcpError::Truncated { expected: HEADER_LEN, found });
        };
        let header_len = fields.header_len();
        if header_len < HEADER_LEN {
            return Err(TcpError::DataOffset { found: header_len });
        }
        if header_len > found {
            return Err(TcpError::Truncated { expected: header_len, found });
        }
        Ok(TcpHeader { fields, bytes })
    }

    /// The source port.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        self.fields.source_port.get()
    }

    /// The destination port.
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        self.fields.destination_port.get()
    }

    /// The sequence number of the first byte of the payload, or of the SYN.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.fields.sequence.get()
    }

    /// The acknowledgment number; valid only with [`TcpFlags::ACK`].
    #[must_use]
    pub fn acknowledgment(&self) -> u32 {
        self.fields.acknowledgment.get()
    }

    /// The control bits.
    #[must_use]
    pub fn flags(&self) -> TcpFlags {
        TcpFlags(self.fields.flags)
    }

    /// The window field, without the window scale applied.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.fields.window.get()
    }

    /// The checksum field, in host byte order.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.fields.checksum.get()
    }

    /// The urgent pointer; valid only with [`TcpFlags::URG`].
    #[must_use]
    pub fn urgent_pointer(&self) -> u16 {
        self.fields.urgent.get()
    }

    /// Bytes of the header by the data offset, options included: 20 to 60.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.fields.header_len()
    }

    /// Returns an iterator over the options.
    #[must_use]
    pub fn options(&self) -> TcpOptions<'a> {
        TcpOptions { rest: self.bytes.get(HEADER_LEN..self.header_len()).unwrap_or_default() }
    }

    /// The bytes after the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_len()..).unwrap_or_default()
    }

    /// Returns true if the checksum of the segment is right for these addresses.
    #[must_use]
    pub fn checksum_ok(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        let Ok(len) = u16::try_from(self.bytes.len()) else {
            return false;
        };
        let sum = checksum::pseudo_header_v4(source, destination, Protocol::TCP, len);
        sum.add_bytes(self.bytes).checksum() == 0
    }
}

/// One option of a TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpOption<'a> {
    /// The end of the list; what follows is padding.
    End,
    /// Padding between options.
    NoOperation,
    /// The largest segment that the sender of the SYN can receive, in bytes of payload (RFC 9293
    /// section 3.7.1).
    MaximumSegmentSize(u16),
    /// The number of bits by which the window is shifted left (RFC 7323 section 2).
    WindowScale(u8),
    /// Selective acknowledgment may be used (RFC 2018 section 2).
    SackPermitted,
    /// Selective acknowledgment: pairs of 32-bit edges (RFC 2018 section 3).
    Sack(&'a [u8]),
    /// Timestamps (RFC 7323 section 3).
    Timestamps {
        /// The sender's clock.
        value: u32,
        /// The last value received from the other end.
        echo: u32,
    },
    /// Another option, or one of the above with a wrong length.
    Other {
        /// Its kind.
        kind: u8,
        /// The bytes after kind and length.
        data: &'a [u8],
    },
    /// An option whose length does not fit. Nothing after it can be read.
    Malformed,
}

/// An iterator over the options of a TCP header, in order. It ends after [`TcpOption::End`] and
/// [`TcpOption::Malformed`].
#[derive(Debug, Clone)]
pub struct TcpOptions<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for TcpOptions<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<TcpOption<'a>> {
        let (&kind, rest) = self.rest.split_first()?;
        if kind == OPTION_NOP {
            self.rest = rest;
            return Some(TcpOption::NoOperation);
        }
        if kind == OPTION_END {
            self.rest = &[];
            return Some(TcpOption::End);
        }
        let whole = rest.first().map_or(0, |&len| usize::from(len));
        let split = self.rest.split_at_checked(whole);
        let Some(([_, _, data @ ..], rest)) = split else {
            self.rest = &[];
            return Some(TcpOption::Malformed);
        };
        self.rest = rest;
        Some(match (kind, data) {
            (OPTION_MSS, &[a, b]) => TcpOption::MaximumSegmentSize(u16::from_be_bytes([a, b])),
            (OPTION_WINDOW_SCALE, &[shift]) => TcpOption::WindowScale(shift),
            (OPTION_SACK_PERMITTED, []) => TcpOption::SackPermitted,
            (OPTION_SACK, edges) if !edges.is_empty() && edges.len() % 8 == 0 => TcpOption::Sack(edges),
            (OPTION_TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => TcpOption::Timestamps {
                value: u32::from_be_bytes([a, b, c, d]),
                echo: u32::from_be_bytes([e, f, g, h]),
            },
            (kind, data) => TcpOption::Other { kind, data },
        })
    }
}

/// Lowers the maximum segment size of a TCP SYN to `max_mss` bytes. Returns the old value, or
/// `None` if there was nothing to lower.
///
/// `packet` is a datagram whose header was checked. Of IPv4 only a first fragment or a whole
/// datagram has the option; of IPv6 only a packet without extension headers is looked at. The value
/// is never raised. The TCP checksum is adjusted (RFC 1624) unless it is
/// [`ChecksumState::Partial`]. For a datagram that is not a SYN it costs a few comparisons.
#[inline]
pub fn clamp_mss(packet: &mut [u8], max_mss: u16, checksum: ChecksumState) -> Option<u16> {
    if ipv6::is_ipv6(packet) {
        let (header, _) = Ipv6Header::ref_from_prefix(packet).ok()?;
        let end = (ipv6::HEADER_LEN + usize::from(header.payload_len())).min(packet.len());
        let is_tcp = header.next_header() == Protocol::TCP;
        return clamp_segment(packet.get_mut(ipv6::HEADER_LEN..end).filter(|_| is_tcp)?, max_mss, checksum);
    }
    let (header, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
    if header.version() != 4 || header.protocol() != Protocol::TCP || header.fragment_offset() != 0 {
        return None;
    }
    let tcp = header.header_len();
    let end = usize::from(header.total_len()).min(packet.len());
    clamp_segment(packet.get_mut(tcp..end)?, max_mss, checksum)
}

#[inline]
fn clamp_segment(segment: &mut [u8], max_mss: u16, state: ChecksumState) -> Option<u16> {
    let (fields, _) = Fields::ref_from_prefix(segment).ok()?;
    if !TcpFlags(fields.flags).contains(TcpFlags::SYN) {
        return None;
    }
    let header = segment.get_mut(..fields.header_len())?;
    let mut before = None;
    let mut at = HEADER_LEN;
    // A receiver may use any of several MSS options, so all are lowered. The first is returned.
    // Each round consumes at least one of the at most 40 bytes of options.
    while let Some(&kind) = header.get(at) {
        if kind == OPTION_NOP {
            at += 1;
            continue;
        }
        if kind == OPTION_END {
            break;
        }
        let Some(&len) = header.get(at + 1) else { break };
        if len < 2 {
            break;
        }
        if kind == OPTION_MSS && len == 4 {
            let old = lower_word(header, at + 2, max_mss, state);
            before = before.or(old);
        }
        at += usize::from(len);
    }
    before
}

/// Where the options of a SYN announce a maximum segment size, as far as [`mss_announced`] can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MssAnnounced {
    /// No option does.
    Nowhere,
    /// The first option alone does, with this many bytes at [`MSS_VALUE_OFFSET`]. Every stack in
    /// use writes it first.
    First(u16),
    /// Another option may do, or several.
    Elsewhere,
}

/// Offset in bytes of the value of an MSS option that is the first option.
pub const MSS_VALUE_OFFSET: usize = HEADER_LEN + 2;

/// Looks for MSS options in a TCP header that is padded with zeros. Compares pairs of bytes at
/// fixed offsets, because the kernel's verifier cannot follow a loop from option to option.
#[inline(always)]
#[must_use]
pub fn mss_announced(header: &[u8; MAX_HEADER_LEN]) -> MssAnnounced {
    // The pair may also be part of another option's value. Then userspace clamps.
    let is_pair = |at: usize| matches!(header.get(at..at + 2), Some(&[OPTION_MSS, 4]));
    // The value of the first option is skipped.
    let is_first = is_pair(HEADER_LEN);
    let is_elsewhere = (HEADER_LEN + 4..MAX_HEADER_LEN - 1).any(is_pair);
    if is_elsewhere || !is_first && (HEADER_LEN + 1..HEADER_LEN + 4).any(is_pair) {
        return MssAnnounced::Elsewhere;
    }
    match header.get(HEADER_LEN..HEADER_LEN + 4) {
        Some(&[OPTION_MSS, 4, high, low]) => MssAnnounced::First(u16::from_be_bytes([high, low])),
        _ => MssAnnounced::Nowhere,
    }
}

/// Lowers the big-endian word at an offset that may be odd, and returns its old value. `None` if it
/// is not above `max`.
#[inline]
fn lower_word(header: &mut [u8], at: usize, max: u16, state: ChecksumState) -> Option<u16> {
    let field = header.get_mut(at..)?.first_chunk_mut::<2>()?;
    let old = u16::from_be_bytes(*field);
    if old <= max {
        return None;
    }
    *field = max.to_be_bytes();
    if state == ChecksumState::Complete {
        let sum = header.get_mut(CHECKSUM_OFFSET..)?.first_chunk_mut::<2>()?;
        let before = u16::from_be_bytes(*sum);
        // At an odd offset the two bytes of the value are in two words, and each in the other half.
        // They add the value with its bytes swapped to the sum (RFC 1071 section 2.B).
        let after = if at.is_multiple_of(2) {
            checksum::update(before, old, max)
        } else {
            checksum::update(before, old.swap_bytes(), max.swap_bytes())
        };
        *sum = after.to_be_bytes();
    }
    Some(old)
}
