//! Fragmentation, RFC 791 section 3.2. A datagram without DF that is too big for the tunnel is split
//! *before* it is encapsulated (RFC 4459 section 3.4), so that its destination reassembles it and not the
//! exit of the tunnel.

use core::fmt;
use core::ops::Range;

use crate::ipv4::{self, HEADER_LEN, Ipv4Options, Ipv4Packet, MAX_HEADER_LEN};

/// The bit of an option's type that says it belongs in every fragment.
const COPIED: u8 = 0x80;

/// Why a datagram cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FragmentError {
    /// DF is set: the sender wants to be told instead.
    DontFragment,
    /// Not even 8 bytes of payload fit behind the header.
    TooSmall {
        /// Bytes that a fragment needs at least.
        expected: usize,
        /// Bytes that a fragment may have.
        found: usize,
    },
    /// The datagram is not all there: it was parsed leniently.
    Truncated,
    /// An option whose length does not fit: which ones to copy cannot be told.
    Options,
    /// The payload would end beyond 65,535 bytes: such a fragment is an attack on its reassembler.
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

/// One fragment: a header of its own, and a range of the original's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    header: [u8; MAX_HEADER_LEN],
    header_len: u8,
    payload: Range<usize>,
}

impl Fragment {
    /// The header as it goes on the wire, with its checksum.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        self.header.get(..usize::from(self.header_len)).unwrap_or(&self.header)
    }

    /// Where this fragment's payload lies in the original datagram, counted from the datagram's first
    /// byte.
    #[must_use]
    pub fn payload(&self) -> Range<usize> {
        self.payload.clone()
    }

    /// Bytes of the fragment, header included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a fragment is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.header_len) + self.payload.len()
    }
}

/// The fragments of a datagram, in order.
#[derive(Debug, Clone)]
pub struct Fragments<'a> {
    packet: Ipv4Packet<'a>,
    max_len: usize,
    /// The header of all but the first: only the options to be copied.
    later_header: [u8; MAX_HEADER_LEN],
    later_len: usize,
    /// The first byte of the payload that was not given out yet.
    at: usize,
    done: bool,
}

/// Splits a datagram so that no fragment is longer than `max_len` bytes, header included.
///
/// All fragments keep the identification, and the place among fragments if the datagram is one already.
/// The first has all the options, the others those with the copy flag (RFC 791 section 3.1). A datagram
/// that fits gives one fragment: itself.
///
/// # Errors
///
/// [`FragmentError`]; nothing was split then.
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

/// The fixed header and the options to be copied, padded to whole words.
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
        // All but the last carry whole units of eight bytes.
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
