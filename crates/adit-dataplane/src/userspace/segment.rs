//! Segmentation: cuts a GSO packet into its datagrams, and writes their headers straight to where
//! they are sent from. It does what the kernel's segmentation does (`tcp_gso_segment`,
//! `udp_gso_segment`), as a pure function without I/O or allocation.
//!
//! Checksums of the segments stay partial: the field holds the pseudo-header's sum. Whoever sends
//! the frame completes it, a device at no cost or a caller in software.

use adit_linux::sockets::virtio_net::{Checksum, Gso, PartialChecksum, VirtioNetHeader};
use adit_wire::checksum;
use adit_wire::ipv4;
use adit_wire::ipv6;
use adit_wire::ipv6::extension;
use adit_wire::protocol::Protocol;
use adit_wire::tcp::{self, TcpFlags};
use adit_wire::udp;

/// A datagram, or a GSO packet and how to segment it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GsoPacket<'a> {
    bytes: &'a [u8],
    cut: Cut,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// One datagram, sent as it is.
    Whole {
        checksum: Option<PartialChecksum>,
    },
    Segments(Segments),
}

#[derive(Clone, Copy, Debug)]
struct Segments {
    network: Network,
    transport: Transport,
    /// Bytes before the transport header: the IPv4 header, or the IPv6 header and its extensions.
    ip_len: usize,
    /// Bytes of all headers.
    headers_len: usize,
    /// Payload bytes of each segment but the last.
    size: usize,
    count: usize,
    /// Sum of the pseudo-header without the length.
    pseudo_sum: u32,
}

#[derive(Clone, Copy, Debug)]
enum Network {
    V4 {
        /// Sum of the header without length, identification and checksum.
        header_sum: u32,
    },
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp { cwr: bool },
    Udp,
}

/// A packet that cannot be segmented: the kernel described it as something it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CannotSegment;

impl<'a> GsoPacket<'a> {
    /// The packet, from its IP header on.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads a packet of either family from the tunnel interface, with its virtio-net header.
    ///
    /// # Errors
    /// Fails if the header names a segmentation that does not fit the packet.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], header: &VirtioNetHeader) -> Result<Self, CannotSegment> {
        let is_v6 = ipv6::is_ipv6(bytes);
        let transport = match header.gso {
            Gso::None => {
                let checksum = match header.checksum {
                    Checksum::Partial(partial) => {
                        let end = usize::from(partial.start) + usize::from(partial.offset) + 2;
                        if end > bytes.len() {
                            return Err(CannotSegment);
                        }
                        Some(partial)
                    }
                    Checksum::Unknown | Checksum::Verified => None,
                };
                return Ok(Self { bytes, cut: Cut::Whole { checksum } });
            }
            Gso::TcpV4 { cwr } if !is_v6 => Transport::Tcp { cwr },
            Gso::TcpV6 { cwr } if is_v6 => Transport::Tcp { cwr },
            Gso::UdpL4 => Transport::Udp,
            Gso::TcpV4 { .. } | Gso::TcpV6 { .. } | Gso::UdpFragmentation | Gso::Unknown(_) => {
                return Err(CannotSegment);
            }
        };
        Segments::new(bytes, transport, usize::from(header.gso_size))
            .map(|segments| Self { bytes, cut: Cut::Segments(segments) })
            .ok_or(CannotSegment)
    }

    /// Number of datagrams that it becomes.
    #[inline]
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        match &self.cut {
            Cut::Whole { .. } => 1,
            Cut::Segments(segments) => segments.count,
        }
    }

    /// Bytes of the largest of them.
    #[inline]
    #[must_use]
    pub(crate) fn largest(&self) -> usize {
        match &self.cut {
            Cut::Whole { .. } => self.bytes.len(),
            Cut::Segments(segments) => segments.datagram_len(self.bytes, 0),
        }
    }

    /// Bytes of datagram number `index`.
    #[inline]
    #[must_use]
    pub(crate) fn datagram_len(&self, index: usize) -> usize {
        match &self.cut {
            Cut::Whole { .. } => self.bytes.len(),
            Cut::Segments(segments) => segments.datagram_len(self.bytes, index),
        }
    }

    /// Writes datagram number `index` to the front of `out`, which must hold [`Self::datagram_len`]
    /// bytes. Returns the checksum that is left to complete.
    #[inline]
    pub(crate) fn write(&self, index: usize, out: &mut [u8]) -> Option<PartialChecksum> {
        match &self.cut {
            Cut::Whole { checksum } => {
                out[..self.bytes.len()].copy_from_slice(self.bytes);
                *checksum
            }
            Cut::Segments(segments) => Some(segments.write(self.bytes, index, out)),
        }
    }

    /// The same with its checksum completed. Returns the length of the datagram in bytes.
    pub(crate) fn write_whole(&self, index: usize, out: &mut [u8]) -> usize {
        let len = self.datagram_len(index);
        if let Some(partial) = self.write(index, out) {
            complete_checksum(&mut out[..len], partial);
        }
        len
    }
}

impl Segments {
    fn new(bytes: &[u8], transport: Transport, size: usize) -> Option<Self> {
        if size == 0 {
            return None;
        }
        let Headers { network, ip_len, protocol, addresses } = Headers::read(bytes)?;
        let headers_len = match transport {
            Transport::Tcp { .. } if protocol == Protocol::TCP => {
                let tcp_len = tcp::header_len_of(*bytes.get(ip_len + tcp::DATA_OFFSET_OFFSET)?);
                if tcp_len < tcp::HEADER_LEN {
                    return None;
                }
                ip_len + tcp_len
            }
            Transport::Udp if protocol == Protocol::UDP => ip_len + 8,
            _ => return None,
        };
        let payload = bytes.len().checked_sub(headers_len).filter(|&payload| payload > 0)?;
        let pseudo_sum = u32::from(protocol.0) + sum_of_words(addresses);
        let count = payload.div_ceil(size);
        Some(Self { network, transport, ip_len, headers_len, size, count, pseudo_sum })
    }

    #[inline]
    fn payload_range(&self, bytes: &[u8], index: usize) -> (usize, usize) {
        let start = self.headers_len + index * self.size;
        (start, (start + self.size).min(bytes.len()))
    }

    #[inline]
    fn datagram_len(&self, bytes: &[u8], index: usize) -> usize {
        let (start, end) = self.payload_range(bytes, index);
        self.headers_len + (end - start)
    }

    #[inline]
    fn write(&self, bytes: &[u8], index: usize, out: &mut [u8]) -> PartialChecksum {
        let (start, end) = self.payload_range(bytes, index);
        let len = self.headers_len + (end - start);
        let (headers, payload) = out[..len].split_at_mut(self.headers_len);
        headers.copy_from_slice(&bytes[..self.headers_len]);
        payload.copy_from_slice(&bytes[start..end]);

        match self.network {
            Network::V4 { header_sum } => {
                let first_id = u16::from_be_bytes([bytes[4], bytes[5]]);
                let id = first_id.wrapping_add(index as u16);
                put(headers, 2, len as u16);
                put(headers, 4, id);
                put(headers, 10, !fold(header_sum + len as u32 + u32::from(id)));
            }
            Network::V6 => put(headers, 4, (len - ipv6::HEADER_LEN) as u16),
        }

        let transport_len = (len - self.ip_len) as u16;
        let pseudo = fold(self.pseudo_sum + u32::from(transport_len));
        let offset = match self.transport {
            Transport::Tcp { cwr } => {
                let header = &mut headers[self.ip_len..];
                tcp::advance_sequence(header, (index * self.size) as u32);
                let flags = &mut header[tcp::FLAGS_OFFSET];
                if index + 1 < self.count {
                    *flags &= !TcpFlags::FIN.union(TcpFlags::PSH).0;
                }
                if cwr && index > 0 {
                    *flags &= !TcpFlags::CWR.0;
                }
                tcp::CHECKSUM_OFFSET
            }
            Transport::Udp => {
                put(headers, self.ip_len + udp::LENGTH_OFFSET, transport_len);
                udp::CHECKSUM_OFFSET
            }
        };
        put(headers, self.ip_len + offset, pseudo);
        PartialChecksum { start: self.ip_len as u16, offset: offset as u16 }
    }
}

/// What the network header says.
struct Headers<'a> {
    network: Network,
    ip_len: usize,
    protocol: Protocol,
    /// Source and destination.
    addresses: &'a [u8],
}

impl<'a> Headers<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => {
                let ip_len = usize::from(bytes[0] & 0x0f) * 4;
                let header = bytes.get(..ip_len).filter(|header| header.len() >= ipv4::HEADER_LEN)?;
                // Without words 1, 2 and 5: length, identification and checksum.
                let header_sum =
                    sum_of_words(&header[..2]) + sum_of_words(&header[6..10]) + sum_of_words(&header[12..]);
                let network = Network::V4 { header_sum };
                Some(Self { network, ip_len, protocol: Protocol(header[9]), addresses: &header[12..20] })
            }
            6 => {
                let header = bytes.get(..ipv6::HEADER_LEN)?;
                let upper = extension::walk(bytes, Protocol(header[6])).ok()?;
                // The kernel segments no fragments.
                let is_whole = upper.fragment.is_none();
                let (ip_len, protocol) = (upper.offset, upper.protocol);
                is_whole.then_some(Self { network: Network::V6, ip_len, protocol, addresses: &header[8..40] })
            }
            _ => None,
        }
    }
}

pub(crate) fn sum_of_words(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

/// Completes a partial checksum in software: sums everything from its start, including the
/// pseudo-header's sum in the field.
pub(crate) fn complete_checksum(datagram: &mut [u8], partial: PartialChecksum) {
    let start = usize::from(partial.start);
    let at = start + usize::from(partial.offset);
    let Some(covered) = datagram.get(start..) else { return };
    let mut complete = checksum::checksum(covered);
    if complete == 0 && usize::from(partial.offset) == udp::CHECKSUM_OFFSET {
        // UDP: zero would mean that there is no checksum (RFC 768).
        complete = 0xffff;
    }
    if let Some(field) = datagram.get_mut(at..at + 2) {
        field.copy_from_slice(&complete.to_be_bytes());
    }
}

#[inline]
pub(crate) fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn fold(mut sum: u32) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}
