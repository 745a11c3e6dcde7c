//! The IPv4 header, RFC 791.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+-----------+---+-------------------------------+
//! |Version|  IHL  |   DSCP    |ECN|         Total length          |
//! +-------+-------+-----------+---+-----+-------------------------+
//! |        Identification         |0|D|M|     Fragment offset     |
//! +---------------+---------------+-----+-------------------------+
//! |  Time to live |   Protocol    |        Header checksum        |
//! +---------------+---------------+-------------------------------+
//! |                            Source                             |
//! +---------------------------------------------------------------+
//! |                          Destination                          |
//! +---------------------------------------------------------------+
//! |                    Options, 0 to 40 bytes                     |
//! +---------------------------------------------------------------+
//! ```

use core::fmt;
use core::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum;
use crate::dscp::Dscp;
use crate::ecn::Ecn;
use crate::{Protocol, Validation};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest header: 15 words.
pub const MAX_HEADER_LEN: usize = 60;
/// Bytes of the longest datagram, header included.
pub const MAX_TOTAL_LEN: usize = 65_535;

const RESERVED: u16 = 0x8000;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;

/// The fixed 20 bytes of the header, as they are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_len: U16,
    identification: U16,
    flags_offset: U16,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

impl Ipv4Header {
    /// The version field: 4, in a header that was checked.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Bytes of the header, options included, as the IHL field says: 0 to 60.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0x0f) as usize * 4
    }

    /// The whole TOS octet: DSCP and ECN.
    #[inline]
    #[must_use]
    pub const fn tos(&self) -> u8 {
        self.tos
    }

    /// Bytes of the datagram, as the total length field says.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// The identification that the fragments of a datagram share.
    #[inline]
    #[must_use]
    pub fn identification(&self) -> u16 {
        self.identification.get()
    }

    /// The flag bit that RFC 791 wants to be zero.
    #[inline]
    #[must_use]
    pub fn reserved_flag(&self) -> bool {
        self.flags_offset.get() & RESERVED != 0
    }

    /// DF.
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & DONT_FRAGMENT != 0
    }

    /// MF.
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.flags_offset.get() & MORE_FRAGMENTS != 0
    }

    /// Where this fragment's payload belongs, in bytes (the field counts units of eight).
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_offset.get() & OFFSET_MASK) << 3
    }

    /// Time to live, in hops.
    #[inline]
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// What the datagram carries.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    /// The header checksum field, in host order.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.source)
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.destination)
    }
}

/// Why bytes are not an acceptable IPv4 datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ipv4Error {
    /// Fewer bytes than the header, or the datagram, needs.
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// Not version 4.
    Version {
        /// The version field.
        found: u8,
    },
    /// A header length below 20 bytes.
    HeaderLength {
        /// Bytes, by the IHL field.
        found: usize,
    },
    /// A total length shorter than the header, or (strict) other than the bytes given.
    TotalLength {
        /// Bytes needed: the header's length, or the number of bytes given.
        expected: usize,
        /// Bytes, by the total length field.
        found: usize,
    },
    /// The header checksum does not match the header.
    Checksum {
        /// What the checksum of this header is.
        expected: u16,
        /// What the field holds.
        found: u16,
    },
    /// The flag that RFC 791 reserves is set.
    ReservedFlag,
    /// An option whose length does not fit.
    Options,
}

impl fmt::Display for Ipv4Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ipv4Error::Truncated { expected, found } => {
                write!(f, "IPv4 datagram cut short: {expected} bytes expected, {found} found")
            }
            Ipv4Error::Version { found } => write!(f, "IP version 4 expected, {found} found"),
            Ipv4Error::HeaderLength { found } => {
                write!(f, "IPv4 header of at least 20 bytes expected, its length field says {found}")
            }
            Ipv4Error::TotalLength { expected, found } => {
                write!(f, "IPv4 total length of {expected} bytes expected, the field says {found}")
            }
            Ipv4Error::Checksum { expected, found } => {
                write!(f, "IPv4 header checksum {expected:#06x} expected, {found:#06x} found")
            }
            Ipv4Error::ReservedFlag => f.write_str("the reserved IPv4 flag is set; RFC 791 wants it zero"),
            Ipv4Error::Options => f.write_str("an IPv4 option's length does not fit in the header"),
        }
    }
}

impl core::error::Error for Ipv4Error {}

/// A checked view of one IPv4 datagram.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4Packet<'a> {
    header: &'a Ipv4Header,
    /// INVARIANT: begins with `header`; cut to the total length, and shorter only under `Lenient`.
    bytes: &'a [u8],
}

impl<'a> Ipv4Packet<'a> {
    /// Checks the bytes as far as `validation` says. Costs one pass over the header.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order of [`Ipv4Error`]. Under [`Validation::Lenient`] a total
    /// length of 0 stands for all the bytes: so does a superpacket look that its sender left to the
    /// hardware to split.
    #[inline]
    pub fn parse(bytes: &'a [u8], validation: Validation) -> Result<Ipv4Packet<'a>, Ipv4Error> {
        let found = bytes.len();
        let Ok((header, _)) = Ipv4Header::ref_from_prefix(bytes) else {
            return Err(Ipv4Error::Truncated { expected: HEADER_LEN, found });
        };
        if header.version() != 4 {
            return Err(Ipv4Error::Version { found: header.version() });
        }
        let header_len = header.header_len();
        if header_len < HEADER_LEN {
            return Err(Ipv4Error::HeaderLength { found: header_len });
        }
        let total_len = usize::from(header.total_len());
        if validation == Validation::Lenient && total_len == 0 {
            return Ok(Ipv4Packet { header, bytes });
        }
        if total_len < header_len {
            return Err(Ipv4Error::TotalLength { expected: header_len, found: total_len });
        }
        let Some(datagram) = bytes.get(..total_len) else {
            return match validation {
                Validation::Lenient => Ok(Ipv4Packet { header, bytes }),
                _ => Err(Ipv4Error::Truncated { expected: total_len, found }),
            };
        };
        let packet = Ipv4Packet { header, bytes: datagram };
        if validation == Validation::Lenient {
            return Ok(packet);
        }
        if validation == Validation::Strict && total_len != found {
            return Err(Ipv4Error::TotalLength { expected: found, found: total_len });
        }
        let remainder = checksum::checksum(packet.header());
        if remainder != 0 {
            let found = header.checksum();
            let expected = checksum::sum(packet.header()).add_word(!found).checksum();
            return Err(Ipv4Error::Checksum { expected, found });
        }
        if validation == Validation::Strict {
            if header.reserved_flag() {
                return Err(Ipv4Error::ReservedFlag);
            }
            for option in Ipv4Options::new(packet.options()) {
                option.map_err(|_| Ipv4Error::Options)?;
            }
        }
        Ok(packet)
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        self.header.source()
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        self.header.destination()
    }

    /// Time to live, in hops.
    #[inline]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.header.ttl()
    }

    /// What the datagram carries.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.header.protocol()
    }

    /// The whole TOS octet: DSCP and ECN.
    #[inline]
    #[must_use]
    pub fn tos(&self) -> u8 {
        self.header.tos()
    }

    /// The differentiated services code point.
    #[inline]
    #[must_use]
    pub fn dscp(&self) -> Dscp {
        Dscp::from_tos(self.header.tos())
    }

    /// The ECN field.
    #[inline]
    #[must_use]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_tos(self.header.tos())
    }

    /// The identification that the fragments of a datagram share.
    #[inline]
    #[must_use]
    pub fn identification(&self) -> u16 {
        self.header.identification()
    }

    /// DF.
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.header.dont_fragment()
    }

    /// MF.
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.header.more_fragments()
    }

    /// Where this fragment's payload belongs, in bytes.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        self.header.fragment_offset()
    }

    /// Whether this is one of several fragments, the first included.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.more_fragments() || self.fragment_offset() != 0
    }

    /// Whether the payload begins with the transport header.
    #[inline]
    #[must_use]
    pub fn is_first_fragment_or_whole(&self) -> bool {
        self.fragment_offset() == 0
    }

    /// Bytes of the header by its IHL field, 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header.header_len()
    }

    /// Bytes of the datagram by its total length field. Under [`Validation::Lenient`] there may be fewer
    /// in [`Self::as_bytes`], or more when the field is 0.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> usize {
        usize::from(self.header.total_len())
    }

    /// The fixed part of the header.
    #[inline]
    #[must_use]
    pub fn fixed_header(&self) -> &'a Ipv4Header {
        self.header
    }

    /// The options, padding included; empty for most datagrams.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.header().get(HEADER_LEN..).unwrap_or_default()
    }

    /// What follows the header.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_len()..).unwrap_or_default()
    }

    /// The header, options included (as much of it as there is, under [`Validation::Lenient`]).
    #[inline]
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        self.bytes.get(..self.header_len()).unwrap_or(self.bytes)
    }

    /// Exactly the datagram, without bytes after it (as much of it as there is, under
    /// [`Validation::Lenient`]).
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// An option whose length does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MalformedOption;

/// The options of a header, each with its type and length octets; padding is not among them.
#[derive(Debug, Clone)]
pub(crate) struct Ipv4Options<'a> {
    rest: &'a [u8],
}

impl<'a> Ipv4Options<'a> {
    pub(crate) fn new(options: &'a [u8]) -> Ipv4Options<'a> {
        Ipv4Options { rest: options }
    }
}

impl<'a> Iterator for Ipv4Options<'a> {
    type Item = Result<&'a [u8], MalformedOption>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.rest {
                [] | [OPTION_END, ..] => return None,
                [OPTION_NOP, ref rest @ ..] => self.rest = rest,
                [_, len, ..] if len >= 2 => {
                    let Some((option, rest)) = self.rest.split_at_checked(usize::from(len)) else {
                        break;
                    };
                    self.rest = rest;
                    return Some(Ok(option));
                }
                _ => break,
            }
        }
        self.rest = &[];
        Some(Err(MalformedOption))
    }
}

/// What Adit writes into a header without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Repr {
    /// The source address.
    pub source: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
    /// What the datagram carries.
    pub protocol: Protocol,
    /// Time to live, in hops.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// The identification that the fragments of a datagram share.
    pub identification: u16,
    /// DF.
    pub dont_fragment: bool,
    /// Bytes after the header, 65,515 at most.
    pub payload_len: u16,
}

impl Ipv4Repr {
    /// What a parsed header says; its options and its place among fragments are not kept.
    #[must_use]
    pub fn of(packet: &Ipv4Packet<'_>) -> Ipv4Repr {
        Ipv4Repr {
            source: packet.source(),
            destination: packet.destination(),
            protocol: packet.protocol(),
            ttl: packet.ttl(),
            tos: packet.tos(),
            identification: packet.identification(),
            dont_fragment: packet.dont_fragment(),
            payload_len: packet.header.total_len().saturating_sub(packet.header_len() as u16),
        }
    }

    /// The 20 bytes of the header, with their checksum. A `payload_len` above 65,515 has no total
    /// length; it is written as the greatest there is.
    #[inline]
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut header = Ipv4Header {
            version_ihl: 0x45,
            tos: self.tos,
            total_len: U16::new(self.payload_len.saturating_add(HEADER_LEN as u16)),
            identification: U16::new(self.identification),
            flags_offset: U16::new(if self.dont_fragment { DONT_FRAGMENT } else { 0 }),
            ttl: self.ttl,
            protocol: self.protocol.0,
            checksum: U16::ZERO,
            source: self.source.octets(),
            destination: self.destination.octets(),
        };
        let bytes: [u8; HEADER_LEN] = zerocopy::transmute!(header);
        header.checksum = U16::new(checksum_of_fixed(&bytes));
        zerocopy::transmute!(header)
    }
}

/// The checksum of 20 bytes. Ten additions without a loop: a verifier and a register allocator both
/// like that better than the general function.
#[inline]
fn checksum_of_fixed(bytes: &[u8; HEADER_LEN]) -> u16 {
    let mut sum = checksum::Sum::ZERO;
    let (words, _) = bytes.as_chunks::<2>();
    for word in words {
        sum = sum.add_word(u16::from_be_bytes(*word));
    }
    sum.checksum()
}

/// Changes the ECN field of the datagram that begins the bytes and adjusts its checksum (RFC 1624).
/// `None` if there are fewer than 20 bytes; the header is taken to be valid.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) -> Option<()> {
    let tos = *packet.get(1)?;
    set_tos(packet, (tos & !0b11) | ecn.bits())
}

/// Changes the TOS octet, DSCP and ECN; otherwise as [`set_ecn`].
#[inline]
pub fn set_tos(packet: &mut [u8], tos: u8) -> Option<()> {
    let header = packet.first_chunk_mut::<HEADER_LEN>()?;
    let old = u16::from_be_bytes([header[0], header[1]]);
    header[1] = tos;
    let new = u16::from_be_bytes([header[0], header[1]]);
    adjust_checksum(header, old, new);
    Some(())
}

/// Changes the time to live; otherwise as [`set_ecn`].
#[inline]
pub fn set_ttl(packet: &mut [u8], ttl: u8) -> Option<()> {
    let header = packet.first_chunk_mut::<HEADER_LEN>()?;
    let old = u16::from_be_bytes([header[8], header[9]]);
    header[8] = ttl;
    let new = u16::from_be_bytes([header[8], header[9]]);
    adjust_checksum(header, old, new);
    Some(())
}

/// Writes total length and identification into a header with a valid checksum.
#[inline]
pub(crate) fn set_length_and_id(header: &mut [u8; HEADER_LEN], total_len: u16, identification: u16) {
    let old = u16::from_be_bytes([header[2], header[3]]);
    [header[2], header[3]] = total_len.to_be_bytes();
    adjust_checksum(header, old, total_len);
    let old = u16::from_be_bytes([header[4], header[5]]);
    [header[4], header[5]] = identification.to_be_bytes();
    adjust_checksum(header, old, identification);
}

#[inline]
fn adjust_checksum(header: &mut [u8; HEADER_LEN], old: u16, new: u16) {
    let before = u16::from_be_bytes([header[10], header[11]]);
    [header[10], header[11]] = checksum::update(before, old, new).to_be_bytes();
}

/// Writes the fields by which a fragment differs and a full checksum into a header of 20 to 60 bytes.
pub(crate) fn write_fragment_fields(
    header: &mut [u8],
    total_len: u16,
    offset: u16,
    more_fragments: bool,
) -> Option<()> {
    let header_len = header.len();
    let fixed = header.first_chunk_mut::<HEADER_LEN>()?;
    fixed[0] = 0x40 | (header_len / 4) as u8;
    [fixed[2], fixed[3]] = total_len.to_be_bytes();
    let kept = u16::from_be_bytes([fixed[6], fixed[7]]) & !(OFFSET_MASK | MORE_FRAGMENTS);
    let flag = if more_fragments { MORE_FRAGMENTS } else { 0 };
    [fixed[6], fixed[7]] = (kept | flag | (offset >> 3)).to_be_bytes();
    [fixed[10], fixed[11]] = [0, 0];
    let sum = checksum::checksum(header);
    let fixed = header.first_chunk_mut::<HEADER_LEN>()?;
    [fixed[10], fixed[11]] = sum.to_be_bytes();
    Some(())
}
