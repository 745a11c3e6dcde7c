//! The virtio-net header, which TUN devices and packet sockets put before a packet
//! (`IFF_VNET_HDR`, `PACKET_VNET_HDR`).
//!
//! It says what is known about the transport checksum, and how a GSO packet is to be segmented. The
//! layout is `struct virtio_net_hdr` of linux/virtio_net.h, in host byte order:
//!
//! ```text
//!  0       1        2             4           6            8              10
//! +-------+--------+-------------+-----------+------------+--------------+
//! | flags |  type  | headers len |  gso size | csum start |  csum offset |
//! +-------+--------+-------------+-----------+------------+--------------+
//! ```

/// Bytes of the header.
pub const LEN: usize = 10;

/// The transport checksum holds the sum of the pseudo-header only; the rest must be added.
const F_NEEDS_CSUM: u8 = 1;
/// The device has verified the checksum.
const F_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_UDP: u8 = 3;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// A flag beside a TCP type: the GSO packet carries CWR (RFC 3168: in its first segment only).
const GSO_ECN: u8 = 0x80;

/// How a GSO packet is segmented into datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// Not at all: the packet is one datagram.
    None,
    /// TCP over IPv4.
    TcpV4 {
        /// The first segment carries CWR, the others do not.
        cwr: bool,
    },
    /// TCP over IPv6.
    TcpV6 {
        /// The first segment carries CWR, the others do not.
        cwr: bool,
    },
    /// UDP datagrams of one size; the last may be shorter.
    UdpL4,
    /// UDP that IP fragments. Adit does not enable it, so the kernel does not send it.
    UdpFragmentation,
    /// A type unknown to this version.
    Unknown(u8),
}

/// The place of a partial checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Offset in bytes of the first byte that is summed, from the start of the packet.
    pub start: u16,
    /// Offset in bytes of the two bytes of the checksum, from `start`.
    pub offset: u16,
}

/// What is known about the transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: verify it before relying on it.
    Unknown,
    /// A device has verified it.
    Verified,
    /// It holds the sum of the pseudo-header only. Complete it before the packet leaves the
    /// machine.
    Partial(PartialChecksum),
}

/// The parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioNetHeader {
    /// The state of the transport checksum.
    pub checksum: Checksum,
    /// The kind of GSO packet, if it is one.
    pub gso: Gso,
    /// Bytes of all headers of a GSO packet. The kernel gives it as a hint; do not rely on it.
    pub header_len: u16,
    /// Bytes of transport payload in each datagram of a GSO packet.
    pub gso_size: u16,
}

impl VirtioNetHeader {
    /// The header of one datagram about which nothing else is known.
    pub const PLAIN: Self = Self { checksum: Checksum::Unknown, gso: Gso::None, header_len: 0, gso_size: 0 };

    /// Reads the header. Any ten bytes are valid.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &[u8; LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let checksum = if bytes[0] & F_NEEDS_CSUM != 0 {
            Checksum::Partial(PartialChecksum { start: word(6), offset: word(8) })
        } else if bytes[0] & F_DATA_VALID != 0 {
            Checksum::Verified
        } else {
            Checksum::Unknown
        };
        let cwr = bytes[1] & GSO_ECN != 0;
        let gso = match bytes[1] & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::TcpV4 { cwr },
            GSO_TCPV6 => Gso::TcpV6 { cwr },
            GSO_UDP_L4 => Gso::UdpL4,
            GSO_UDP => Gso::UdpFragmentation,
            other => Gso::Unknown(other),
        };
        Self { checksum, gso, header_len: word(2), gso_size: word(4) }
    }

    /// Writes the header.
    #[inline]
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        match self.checksum {
            Checksum::Unknown => {}
            Checksum::Verified => bytes[0] = F_DATA_VALID,
            Checksum::Partial(partial) => {
                bytes[0] = F_NEEDS_CSUM;
                bytes[6..8].copy_from_slice(&partial.start.to_ne_bytes());
                bytes[8..10].copy_from_slice(&partial.offset.to_ne_bytes());
            }
        }
        let ecn = |cwr: bool| if cwr { GSO_ECN } else { 0 };
        bytes[1] = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 { cwr } => GSO_TCPV4 | ecn(cwr),
            Gso::TcpV6 { cwr } => GSO_TCPV6 | ecn(cwr),
            Gso::UdpL4 => GSO_UDP_L4,
            Gso::UdpFragmentation => GSO_UDP,
            Gso::Unknown(other) => other,
        };
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        bytes
    }

    /// Returns the header for the packet with `bytes` more bytes in front, by which its offsets are
    /// higher.
    #[inline]
    #[must_use]
    pub fn with_front(&self, bytes: u16) -> Self {
        let checksum = match self.checksum {
            Checksum::Partial(partial) => {
                Checksum::Partial(PartialChecksum { start: partial.start.saturating_add(bytes), ..partial })
            }
            known => known,
        };
        let header_len = match self.gso {
            Gso::None => self.header_len,
            _ => self.header_len.saturating_add(bytes),
        };
        Self { checksum, header_len, ..*self }
    }

    /// Returns the header for the packet without its first `bytes` bytes: its offsets are lower by
    /// that. `None` if the checksum starts in the bytes that are cut off.
    #[inline]
    #[must_use]
    pub fn without_front(&self, bytes: u16) -> Option<Self> {
        let checksum = match self.checksum {
            Checksum::Partial(partial) => {
                Checksum::Partial(PartialChecksum { start: partial.start.checked_sub(bytes)?, ..partial })
            }
            known => known,
        };
        Some(Self { checksum, header_len: self.header_len.saturating_sub(bytes), ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_reads_back_the_same() {
        let checksums = [
            Checksum::Unknown,
            Checksum::Verified,
            Checksum::Partial(PartialChecksum { start: 34, offset: 16 }),
        ];
        let kinds = [
            Gso::None,
            Gso::TcpV4 { cwr: false },
            Gso::TcpV4 { cwr: true },
            Gso::TcpV6 { cwr: true },
            Gso::UdpL4,
            Gso::UdpFragmentation,
            Gso::Unknown(77),
        ];
        for checksum in checksums {
            for gso in kinds {
                let header = VirtioNetHeader { checksum, gso, header_len: 52, gso_size: 1428 };
                assert_eq!(VirtioNetHeader::from_bytes(&header.to_bytes()), header);
            }
        }
    }

    #[test]
    fn the_layout_is_that_of_struct_virtio_net_hdr() {
        let header = VirtioNetHeader {
            checksum: Checksum::Partial(PartialChecksum { start: 20, offset: 16 }),
            gso: Gso::TcpV4 { cwr: true },
            header_len: 52,
            gso_size: 1428,
        };
        let mut expected = vec![1u8, 0x81];
        for word in [52u16, 1428, 20, 16] {
            expected.extend(word.to_ne_bytes());
        }
        assert_eq!(header.to_bytes().as_slice(), expected);
    }

    #[test]
    fn bytes_in_front_move_every_offset_and_can_be_cut_off_again() {
        let header = VirtioNetHeader {
            checksum: Checksum::Partial(PartialChecksum { start: 20, offset: 16 }),
            gso: Gso::TcpV4 { cwr: false },
            header_len: 52,
            gso_size: 1428,
        };
        let moved = header.with_front(14);
        assert_eq!(moved.checksum, Checksum::Partial(PartialChecksum { start: 34, offset: 16 }));
        assert_eq!((moved.header_len, moved.gso_size), (66, 1428));
        assert_eq!(moved.without_front(14), Some(header));
        assert_eq!(VirtioNetHeader::PLAIN.with_front(14), VirtioNetHeader::PLAIN);
    }

    #[test]
    fn cutting_the_front_moves_the_checksum_and_never_cuts_into_it() {
        let header = VirtioNetHeader {
            checksum: Checksum::Partial(PartialChecksum { start: 54, offset: 6 }),
            ..VirtioNetHeader::PLAIN
        };
        assert_eq!(
            header.without_front(34).map(|cut| cut.checksum),
            Some(Checksum::Partial(PartialChecksum { start: 20, offset: 6 }))
        );
        assert_eq!(header.without_front(55), None);
    }
}
