//! Fragmentation, RFC 791 section 3.2.
//!
//! The tunnel fragments a datagram without DF that is too big *before* it encapsulates it (RFC 4459
//! section 3.4), so that the destination reassembles it, and not the decapsulator.
//!
//! ```text
//!  datagram   | header | options | payload                             |
//!
//!  first      | header | options | payload, a multiple of 8 |
//!  later      | header | copied options | rest of the payload |
//! ```
//!
//! [`fragments`] checks first and then iterates. Nothing here allocates or panics: a [`Fragment`]
//! has a header of its own and the range of the payload in the original bytes.

use core::fmt;
use core::ops::Range;

use crate::ipv4::{self, HEADER_LEN, Ipv4Options, Ipv4Packet, MAX_HEADER_LEN};

/// The flag in an option's type that requires a copy in every fragment (RFC 791 section 3.1).
const COPIED: u8 = 0x80;

/// Why a datagram cannot be fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FragmentError {
    /// DF is set: its sender expects an ICMP error instead.
    DontFragment,
    /// Fewer than 8 bytes of payload fit behind the header.
    TooSmall {
        /// Bytes that a fragment needs at least.
        expected: usize,
        /// Bytes that a fragment may have.
        found: usize,
    },
    /// The datagram is shorter than its total length: it was parsed leniently.
    Truncated,
    /// An option's length does not fit, so the options to copy cannot be determined.
    Options,
    /// The payload would end beyond 65,535 bytes. Such a fragment is an attack on the reassembling
    /// host.
    Offset,
}

impl fmt::Display for FragmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            FragmentError::DontFragment => f.write_str("the datagram must not be fragmented: DF is set"),
            FragmentError::TooSmall { expected, found } => {
                write!(f, "a fragment needs at least {expected} bytes, {found} are allowed")
            }
            FragmentError::Truncated => f.write_str("the datagram is shorter than its total length"),
            FragmentError::Options => f.write_str("an IPv4 option's length does not fit in the header"),
            FragmentError::Offset => f.write_str("the fragment would end beyond 65535 bytes"),
        }
    }
}

impl core::error::Error for FragmentError {}

/// One fragment: a header of its own, and a range of the original bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    header: [u8; MAX_HEADER_LEN],
    header_len: u8,
    payload: Range<usize>,
}

impl Fragment {
    /// Returns the header as it is on the wire, checksum included.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        self.header.get(..usize::from(self.header_len)).unwrap_or(&self.header)
    }

    /// Returns the range of this fragment's payload in the bytes of the original datagram.
    #[must_use]
    pub fn payload(&self) -> Range<usize> {
        self.payload.clone()
    }

    /// Returns the length of the fragment in bytes, header included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a fragment is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.header_len) + self.payload.len()
    }
}

/// An iterator over the fragments of a datagram, in order.
#[derive(Debug, Clone)]
pub struct Fragments<'a> {
    packet: Ipv4Packet<'a>,
    max_len: usize,
    /// The header of all fragments but the first, with the copied options only.
    later_header: [u8; MAX_HEADER_LEN],
    later_len: usize,
    /// The offset in the datagram of the next fragment's payload.
    at: usize,
    done: bool,
}

/// Fragments a datagram so that no fragment is longer than `max_len` bytes, header included.
///
/// All fragments keep the identification. A datagram that is a fragment itself keeps its offset and
/// MF. The first fragment has all options, the others those with the copied flag (RFC 791
/// section 3.1). A datagram that fits gives one fragment.
///
/// # Errors
///
/// The datagram cannot be fragmented; [`FragmentError`] says why.
pub fn fragments<'a>(packet: &Ipv4Packet<'a>, max_len: usize) -> Result<Fragments<'a>, FragmentError> {
    let len = packet.as_bytes().len();
    if packet.total_len() != len {
        return Err(FragmentError::Truncated);
    }
    if len > max_len {
        if packet.dont_fragment() {
            return Err(FragmentError::DontFragment);
        }
        let expected = packet.header_len() + 8;
        if max_len < expected {
            return Err(FragmentError::TooSmall { expected, found: max_len });
        }
    }
    if usize::from(packet.fragment_offset()) + len > ipv4::MAX_TOTAL_LEN {
        return Err(FragmentError::Offset);
    }
    let (later_header, later_len) = later_header(packet).ok_or(FragmentError::Options)?;
    let at = packet.header_len();
    Ok(Fragments { packet: *packet, max_len, later_header, later_len, at, done: false })
}

/// Returns the fixed header and the copied options, padded to whole words, and their length.
/// `None` if an option is malformed.
fn later_header(packet: &Ipv4Packet<'_>) -> Option<([u8; MAX_HEADER_LEN], usize)> {
    let mut header = [0; MAX_HEADER_LEN];
    header.get_mut(..HEADER_LEN)?.copy_from_slice(packet.header().get(..HEADER_LEN)?);
    let mut len = HEADER_LEN;
    for option in Ipv4Options::new(packet.options()) {
        let option = option.ok()?;
        if option.first()? & COPIED != 0 {
            header.get_mut(len..len + option.len())?.copy_from_slice(option);
            len += option.len();
        }
    }
    Some((header, len.next_multiple_of(4)))
}

impl Iterator for Fragments<'_> {
    type Item = Fragment;

    fn next(&mut self) -> Option<Fragment> {
        if self.done {
            return None;
        }
        let first_len = self.packet.header_len();
        let mut header = self.later_header;
        let mut header_len = self.later_len;
        if self.at == first_len {
            header_len = first_len;
            header.get_mut(..header_len)?.copy_from_slice(self.packet.header());
        }
        let end = self.packet.as_bytes().len();
        let rest = end - self.at;
        let room = self.max_len.saturating_sub(header_len);
        // All fragments but the last carry a multiple of eight bytes.
        let taken = if rest <= room { rest } else { room & !7 };
        self.done = taken == rest;
        let offset = usize::from(self.packet.fragment_offset()) + self.at - first_len;
        ipv4::write_fragment_fields(
            header.get_mut(..header_len)?,
            (header_len + taken) as u16,
            offset as u16,
            !self.done || self.packet.more_fragments(),
        )?;
        let payload = self.at..self.at + taken;
        self.at = payload.end;
        Some(Fragment { header, header_len: header_len as u8, payload })
    }
}
