//! Packets of the table, written field by field, so that no expectation comes from the code under
//! test.

use std::fmt;
use std::net::Ipv4Addr;

use adit_wire::Protocol;
use adit_wire::checksum::{self, Sum};
use adit_wire::ipv4::{HEADER_LEN, Ipv4Repr};

use crate::site::{A, HOST_A, HOST_B};

/// What a gateway receives in one piece, starting at the IPv4 header.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// A datagram or a GSO packet, possibly followed by padding.
    pub bytes: Vec<u8>,
    /// For a GSO packet, the payload bytes of each datagram but the last; `None` for one datagram.
    pub gso_size: Option<u16>,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.bytes))?;
        self.gso_size.map_or(Ok(()), |size| write!(f, ", GSO size {size}"))
    }
}

/// Formats bytes as 16-bit words in hexadecimal. Of a long packet it shows only the headers.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 120;
    let mut text = String::new();
    for pair in bytes[..bytes.len().min(SHOWN)].chunks(2) {
        text.extend(pair.iter().map(|byte| format!("{byte:02x}")));
        text.push(' ');
    }
    if bytes.len() > SHOWN {
        text.push_str("... ");
    }
    text + &format!("({} bytes)", bytes.len())
}

impl From<Vec<u8>> for Packet {
    fn from(bytes: Vec<u8>) -> Packet {
        Packet { bytes, gso_size: None }
    }
}

impl From<Datagram> for Packet {
    fn from(datagram: Datagram) -> Packet {
        datagram.build().into()
    }
}

/// A builder of one datagram.
#[derive(Debug, Clone)]
pub struct Datagram {
    repr: Ipv4Repr,
    options: Vec<u8>,
    /// More fragments, and the offset in bytes.
    fragment: (bool, u16),
    payload: Vec<u8>,
}

/// UDP from host A to host B, 100 bytes with headers, TTL 63, DF clear.
#[must_use]
pub fn a_to_b() -> Datagram {
    udp(HOST_A, HOST_B, 100)
}

/// UDP of `len` bytes with headers and a correct checksum.
#[must_use]
pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, len: usize) -> Datagram {
    transport(source, destination, Protocol::UDP, udp_segment(len - HEADER_LEN))
}

/// A UDP datagram of `len` bytes, its header included, without a checksum.
pub(crate) fn udp_segment(len: usize) -> Vec<u8> {
    let mut segment = [4000u16.to_be_bytes(), 4242u16.to_be_bytes()].concat();
    segment.extend((len as u16).to_be_bytes());
    segment.extend([0; 2]);
    segment.extend((0..len - 8).map(|n| (n % 251) as u8));
    segment
}

/// A TCP segment with these flags, options (a multiple of four bytes) and payload, and a correct
/// checksum.
#[must_use]
pub fn tcp(source: Ipv4Addr, destination: Ipv4Addr, flags: u8, options: &[u8], payload: &[u8]) -> Datagram {
    transport(source, destination, Protocol::TCP, tcp_segment(0x1234_5678, flags, options, payload))
}

/// A TCP segment with this sequence number, without a checksum.
pub(crate) fn tcp_segment(sequence: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut segment = [4000u16.to_be_bytes(), 80u16.to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend(0x8765_4321u32.to_be_bytes());
    segment.extend([(5 + options.len() as u8 / 4) << 4, flags]);
    segment.extend(500u16.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.extend(payload);
    segment
}

/// A datagram of a transport protocol, with its checksum.
pub(crate) fn transport(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: Protocol,
    segment: Vec<u8>,
) -> Datagram {
    let pseudo = checksum::pseudo_header_v4(source, destination, protocol, segment.len() as u16);
    bare(source, destination, protocol, with_checksum(protocol, segment, pseudo))
}

/// A segment with its checksum, which covers a pseudo-header too.
pub(crate) fn with_checksum(protocol: Protocol, mut segment: Vec<u8>, pseudo: Sum) -> Vec<u8> {
    let at = match protocol {
        Protocol::TCP => 16,
        Protocol::UDP => 6,
        _ => 2,
    };
    let sum = pseudo.add_bytes(&segment).checksum();
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// A datagram of any protocol: TTL 63, DF clear.
#[must_use]
pub fn bare(source: Ipv4Addr, destination: Ipv4Addr, protocol: Protocol, payload: Vec<u8>) -> Datagram {
    let repr = Ipv4Repr {
        source,
        destination,
        protocol,
        ttl: 63,
        tos: 0,
        identification: 0x1234,
        dont_fragment: false,
        payload_len: 0,
    };
    Datagram { repr, options: Vec::new(), fragment: (false, 0), payload }
}

/// An outer datagram as gateway A writes it by default: TTL 64, DF, identification 0.
#[must_use]
pub fn ours(to: Ipv4Addr, inner: impl Into<Packet>) -> Datagram {
    bare(A, to, Protocol::IPIP, inner.into().bytes).ttl(64).df(true).id(0)
}

/// An outer datagram as another gateway sends it to gateway A: TTL 61, DF.
#[must_use]
pub fn theirs(from: Ipv4Addr, inner: impl Into<Packet>) -> Datagram {
    bare(from, A, Protocol::IPIP, inner.into().bytes).ttl(61).df(true).id(0x77)
}

impl Datagram {
    /// Sets the time to live.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Datagram {
        self.repr.ttl = ttl;
        self
    }

    /// Sets the type of service: DSCP and ECN.
    #[must_use]
    pub fn tos(mut self, tos: u8) -> Datagram {
        self.repr.tos = tos;
        self
    }

    /// Sets or clears DF.
    #[must_use]
    pub fn df(mut self, df: bool) -> Datagram {
        self.repr.dont_fragment = df;
        self
    }

    /// Sets the identification.
    #[must_use]
    pub fn id(mut self, identification: u16) -> Datagram {
        self.repr.identification = identification;
        self
    }

    /// Sets the destination. A transport checksum stays unchanged.
    #[must_use]
    pub fn to(mut self, destination: Ipv4Addr) -> Datagram {
        self.repr.destination = destination;
        self
    }

    /// Sets the source. A transport checksum stays unchanged.
    #[must_use]
    pub fn from(mut self, source: Ipv4Addr) -> Datagram {
        self.repr.source = source;
        self
    }

    /// Sets the protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Datagram {
        self.repr.protocol = protocol;
        self
    }

    /// Sets the IPv4 options, a multiple of four bytes.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Datagram {
        self.options = options.to_vec();
        self
    }

    /// Sets the bytes after the header.
    #[must_use]
    pub fn payload(mut self, payload: Vec<u8>) -> Datagram {
        self.payload = payload;
        self
    }

    /// The fragment with `len` bytes of the payload, starting `offset` bytes into it.
    #[must_use]
    pub fn piece(mut self, offset: usize, len: usize) -> Datagram {
        let more = offset + len < self.payload.len();
        self.payload = self.payload[offset..offset + len].to_vec();
        self.fragment = (more, offset as u16);
        self
    }

    /// Marks the datagram as a fragment that starts `offset` bytes into another datagram.
    #[must_use]
    pub fn fragment(mut self, more: bool, offset: usize) -> Datagram {
        self.fragment = (more, offset as u16);
        self
    }

    /// The finished bytes, with a correct header checksum.
    #[must_use]
    pub fn build(mut self) -> Vec<u8> {
        self.repr.payload_len = (self.options.len() + self.payload.len()) as u16;
        let mut bytes = [&self.repr.emit()[..], &self.options, &self.payload].concat();
        bytes[0] = 0x45 + self.options.len() as u8 / 4;
        let (more, offset) = self.fragment;
        bytes[6] |= if more { 0x20 } else { 0 } | (offset >> 11) as u8;
        bytes[7] = (offset >> 3) as u8;
        mend(&mut bytes);
        bytes
    }

    /// The same as a GSO packet for segments of `size` bytes of payload each.
    #[must_use]
    pub fn cut_at(self, size: u16) -> Packet {
        Packet { bytes: self.build(), gso_size: Some(size) }
    }
}

/// Overwrites bytes at offset `at` and corrects the header checksum.
#[must_use]
pub fn rewritten(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    mend(&mut bytes);
    bytes
}

/// Corrects the header checksum, over the header length that the packet states, as far as it has
/// bytes.
pub fn mend(bytes: &mut [u8]) {
    let len = (usize::from(bytes[0] & 0x0f) * 4).clamp(HEADER_LEN, bytes.len());
    bytes[10..12].fill(0);
    let sum = checksum::checksum(&bytes[..len]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}
