//! The coalescer: joins consecutive datagrams of a flow into GSO packets, so that the host's stack
//! is entered once for many of them. It does what the kernel's GRO does, as a pure function: it
//! says which pieces of a buffer make a packet, and copies no payload.
//!
//! It joins only datagrams that segmentation would give back bit for bit: equal headers except for
//! length, identification, sequence number and checksum; contiguous; with verified checksums. It
//! keeps the order within a flow.

use std::ops::Range;

use adit_linux::sockets::arena::Arena;
use adit_linux::sockets::virtio_net::{Checksum, Gso, PartialChecksum, VirtioNetHeader};
use adit_wire::checksum;
use adit_wire::ipv6;
use adit_wire::protocol::Protocol;
use adit_wire::tcp::{self, TcpFlags};
use adit_wire::udp;

use super::segment::{fold, put, sum_of_words};

/// Most datagrams in one GSO packet: the kernel's limit for UDP (`UDP_MAX_SEGMENTS` of older
/// kernels), and enough for 64 KiB of TCP over Ethernet.
pub(super) const MAX_SEGMENTS: usize = 64;
const MAX_LEN: usize = 65_535;

/// Collects a batch of datagrams and gives it back as packets. It allocates only in
/// [`Coalescer::new`].
#[derive(Debug)]
pub(super) struct Coalescer {
    pieces: Vec<Piece>,
    groups: Vec<Group>,
    /// Whether the tunnel interface takes UDP GSO packets.
    udp: bool,
}

#[derive(Clone, Debug)]
struct Piece {
    datagram: Range<usize>,
    /// The next piece of the same group, or `NONE`.
    next: u32,
}

const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Group {
    first: u32,
    last: u32,
    count: u32,
    /// Bytes of the packet so far.
    len: usize,
    /// The virtio-net header of the first datagram.
    header: VirtioNetHeader,
    /// `None` if nothing can be added.
    open: Option<Flow>,
}

/// What the datagrams of a group have in common, and what the next one must begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    addresses: Addresses,
    ports: [u8; 4],
    protocol: Protocol,
    ip_len: usize,
    headers_len: usize,
    /// Payload bytes of each datagram but the last.
    size: usize,
    next_sequence: u32,
    next_id: u16,
}

/// Source and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    V4([u8; 8]),
    V6([u8; 32]),
}

impl Addresses {
    #[inline]
    fn of(bytes: &[u8]) -> Option<Self> {
        Some(if ipv6::is_ipv6(bytes) {
            Self::V6(*bytes.get(8..)?.first_chunk()?)
        } else {
            Self::V4(*bytes.get(12..)?.first_chunk()?)
        })
    }
}

/// One packet for the tunnel interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    group: usize,
    /// Its virtio-net header.
    pub(super) header: VirtioNetHeader,
    /// Number of datagrams in it.
    pub(super) datagrams: usize,
}

impl Coalescer {
    /// A coalescer with room for `batch` datagrams. `udp` says whether the tunnel interface takes
    /// UDP GSO packets.
    #[must_use]
    pub(super) fn new(batch: usize, udp: bool) -> Self {
        Self { pieces: Vec::with_capacity(batch), groups: Vec::with_capacity(batch), udp }
    }

    /// Empties the batch.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.groups.clear();
    }

    /// Adds the datagram that lies at `datagram` in `arena`. It must be valid.
    #[inline]
    pub(super) fn push<A: Arena + ?Sized>(
        &mut self,
        arena: &A,
        datagram: Range<usize>,
        header: VirtioNetHeader,
    ) {
        let bytes = arena.bytes(datagram.clone());
        let seen = Seen::of(bytes, &header, self.udp);
        let piece = self.pieces.len() as u32;
        self.pieces.push(Piece { datagram, next: NONE });
        let Some(seen) = seen else {
            self.close_around(bytes);
            self.start(piece, bytes.len(), header, None);
            return;
        };
        // Newest first: the open group of a flow is its last one.
        let open = self.groups.iter_mut().rev().find(|group| {
            group.open.is_some_and(|flow| {
                flow.addresses == seen.flow.addresses
                    && flow.ports == seen.flow.ports
                    && flow.protocol == seen.flow.protocol
            })
        });
        if let Some(group) = open
            && let Some(flow) = group.open
        {
            let first = arena.bytes(self.pieces[group.first as usize].datagram.clone());
            if seen.continues(bytes, &flow, first, group)
                && (group.count > 1 || verified(first, &group.header, &flow))
                && verified(bytes, &header, &seen.flow)
            {
                self.pieces[group.last as usize].next = piece;
                group.last = piece;
                group.count += 1;
                group.len += seen.payload;
                group.open =
                    (!seen.closes && seen.payload == flow.size && (group.count as usize) < MAX_SEGMENTS)
                        .then_some(Flow { size: flow.size, ..seen.flow });
                return;
            }
            // A later datagram must not be joined to the group before this one.
            group.open = None;
        }
        let open = (!seen.closes && seen.payload > 0 && seen.mergeable).then_some(seen.flow);
        self.start(piece, bytes.len(), header, open);
    }

    /// Closes the groups that a datagram without ports in sight may belong to: a fragment, or a
    /// packet of IPv6 with extension headers. What follows must not overtake it.
    #[cold]
    fn close_around(&mut self, bytes: &[u8]) {
        let Some(addresses) = Addresses::of(bytes) else { return };
        let may_belong = match (addresses, transport_of(bytes)) {
            (Addresses::V4(_), _) => is_fragment_v4(bytes),
            (Addresses::V6(_), (_, protocol)) => protocol != Protocol::ICMPV6,
        };
        let groups = self.groups.iter_mut().filter(|_| may_belong);
        for group in groups.filter(|group| group.open.is_some_and(|flow| flow.addresses == addresses)) {
            group.open = None;
        }
    }

    fn start(&mut self, piece: u32, len: usize, header: VirtioNetHeader, open: Option<Flow>) {
        self.groups.push(Group { first: piece, last: piece, count: 1, len, header, open });
    }

    /// Number of packets that the batch has become.
    #[inline]
    #[must_use]
    pub(super) fn packets(&self) -> usize {
        self.groups.len()
    }

    /// Packet number `index`. Its headers in `arena` are ready to be written.
    #[inline]
    pub(super) fn finish<A: Arena + ?Sized>(&mut self, arena: &mut A, index: usize) -> Packet {
        let group = &self.groups[index];
        let datagrams = group.count as usize;
        if datagrams == 1 {
            // Not passed on as verified: the stack would not use it.
            let checksum = match group.header.checksum {
                Checksum::Partial(partial) => Checksum::Partial(partial),
                Checksum::Unknown | Checksum::Verified => Checksum::Unknown,
            };
            return Packet { group: index, header: VirtioNetHeader { checksum, ..group.header }, datagrams };
        }
        let pushed = {
            let last = arena.bytes(self.pieces[group.last as usize].datagram.clone());
            let (ip_len, protocol) = transport_of(last);
            protocol == Protocol::TCP && last[ip_len + tcp::FLAGS_OFFSET] & TcpFlags::PSH.0 != 0
        };
        let first = arena.bytes_mut(self.pieces[group.first as usize].datagram.clone());
        let header = make_gso_header(first, group.len, pushed);
        Packet { group: index, header, datagrams }
    }

    /// The pieces of `arena` that make up the packet, in order: the whole first datagram, then the
    /// payloads of the others.
    #[inline]
    pub(super) fn pieces<'a, A: Arena + ?Sized>(
        &'a self,
        arena: &'a A,
        packet: &Packet,
    ) -> impl Iterator<Item = &'a [u8]> + Clone {
        let first = self.groups[packet.group].first;
        let head = arena.bytes(self.pieces[first as usize].datagram.clone());
        let headers_len = headers_len(head);
        let mut next = first;
        std::iter::from_fn(move || {
            if next == NONE {
                return None;
            }
            let piece = &self.pieces[next as usize];
            let bytes = arena.bytes(piece.datagram.clone());
            let payload = if next == first { bytes } else { &bytes[headers_len..] };
            next = piece.next;
            Some(payload)
        })
    }
}

/// What must be known of a TCP or UDP datagram to join it with others.
struct Seen {
    flow: Flow,
    payload: usize,
    /// Whether nothing may follow it in its GSO packet.
    closes: bool,
    /// Whether it may be part of a GSO packet.
    mergeable: bool,
}

impl Seen {
    #[inline]
    fn of(bytes: &[u8], header: &VirtioNetHeader, udp: bool) -> Option<Self> {
        let addresses = Addresses::of(bytes)?;
        if matches!(addresses, Addresses::V4(_)) && is_fragment_v4(bytes) {
            // The first one has the ports.
            return None;
        }
        // Packets of IPv6 with extension headers are rare, and are left alone.
        let (ip_len, protocol) = transport_of(bytes);
        let transport = bytes.get(ip_len..)?;
        let (headers_len, sequence, closes, mergeable) = match protocol {
            Protocol::TCP => {
                let fixed = transport.first_chunk::<{ tcp::HEADER_LEN }>()?;
                let tcp_len = tcp::header_len_of(fixed[tcp::DATA_OFFSET_OFFSET]);
                if tcp_len < tcp::HEADER_LEN {
                    // Malformed: it has no payload that could be joined.
                    return None;
                }
                let flags = TcpFlags(fixed[tcp::FLAGS_OFFSET]);
                let plain = flags.0 & !TcpFlags::PSH.union(TcpFlags::ECE).0 == TcpFlags::ACK.0;
                let sequence = tcp::sequence(fixed);
                (ip_len + tcp_len, sequence, flags.contains(TcpFlags::PSH), plain)
            }
            Protocol::UDP => {
                let fixed = transport.first_chunk::<8>()?;
                let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
                let whole = len == transport.len();
                let summed = fixed[6] != 0 || fixed[7] != 0;
                (ip_len + 8, 0, false, udp && whole && summed)
            }
            _ => return None,
        };
        let payload = bytes.len().checked_sub(headers_len)?;
        let whole = matches!(header.gso, Gso::None);
        let flow = Flow {
            addresses,
            ports: *transport.first_chunk()?,
            protocol,
            ip_len,
            headers_len,
            size: payload,
            next_sequence: sequence.wrapping_add(payload as u32),
            next_id: u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(1),
        };
        Some(Self { flow, payload, closes, mergeable: mergeable && whole })
    }

    /// Whether the datagram `bytes` can follow in the group that `flow` describes and whose first
    /// datagram is `first`.
    #[inline]
    fn continues(&self, bytes: &[u8], flow: &Flow, first: &[u8], group: &Group) -> bool {
        let Flow { ip_len, headers_len, .. } = *flow;
        self.mergeable
            && self.payload > 0
            && self.payload <= flow.size
            && group.len + self.payload <= MAX_LEN
            && self.flow.headers_len == headers_len
            && self.flow.ip_len == ip_len
            && match flow.addresses {
                Addresses::V4(_) => {
                    let dont_fragment = bytes[6] & 0x40 != 0;
                    let id = u16::from_be_bytes([bytes[4], bytes[5]]);
                    // An atomic datagram's identification has no meaning (RFC 6864); others must
                    // count up.
                    (dont_fragment || id == flow.next_id)
                        // Version, TOS; flags, TTL, protocol; options.
                        && bytes[..2] == first[..2]
                        && bytes[6..10] == first[6..10]
                        && bytes[20..ip_len] == first[20..ip_len]
                }
                // Version, traffic class, flow label; next header, hop limit.
                Addresses::V6(_) => bytes[..4] == first[..4] && bytes[6..8] == first[6..8],
            }
            && match flow.protocol {
                Protocol::TCP => {
                    let ours = &bytes[ip_len..headers_len];
                    let theirs = &first[ip_len..headers_len];
                    let same = |from: usize, to: usize| ours[from..to] == theirs[from..to];
                    ours.first_chunk().map(tcp::sequence) == Some(flow.next_sequence)
                        // Acknowledgement and data offset; flags but PSH; window; urgent and
                        // options.
                        && same(tcp::ACKNOWLEDGMENT_OFFSET, tcp::FLAGS_OFFSET)
                        && (ours[tcp::FLAGS_OFFSET] ^ theirs[tcp::FLAGS_OFFSET]) & !TcpFlags::PSH.0 == 0
                        && same(tcp::WINDOW_OFFSET, tcp::CHECKSUM_OFFSET)
                        && same(tcp::URGENT_OFFSET, ours.len())
                }
                _ => true,
            }
    }
}

/// Whether the transport checksum is right, according to the device or by summing.
fn verified(bytes: &[u8], header: &VirtioNetHeader, flow: &Flow) -> bool {
    match header.checksum {
        Checksum::Partial(partial) => {
            let offset =
                if flow.protocol == Protocol::TCP { tcp::CHECKSUM_OFFSET } else { udp::CHECKSUM_OFFSET };
            usize::from(partial.start) == flow.ip_len && usize::from(partial.offset) == offset
        }
        Checksum::Verified => true,
        Checksum::Unknown => {
            let transport = &bytes[flow.ip_len..];
            let pseudo = pseudo_sum(bytes, transport.len());
            // Over data whose checksum is right, the complement of the sum is the complement of the
            // pseudo-header's. So together they are all ones.
            fold(u32::from(!checksum::checksum(transport)) + u32::from(pseudo)) == 0xffff
        }
    }
}

fn pseudo_sum(bytes: &[u8], transport_len: usize) -> u16 {
    let (_, protocol) = transport_of(bytes);
    let addresses = if ipv6::is_ipv6(bytes) { &bytes[8..40] } else { &bytes[12..20] };
    fold(u32::from(protocol.0) + transport_len as u32 + sum_of_words(addresses))
}

#[inline]
fn is_fragment_v4(bytes: &[u8]) -> bool {
    matches!(bytes, [_, _, _, _, _, _, high, low, ..] if u16::from_be_bytes([*high, *low]) & 0x3fff != 0)
}

/// Bytes before what the network header carries, and the protocol of that.
#[inline]
fn transport_of(bytes: &[u8]) -> (usize, Protocol) {
    match bytes {
        [first, _, _, _, _, _, next, ..] if first >> 4 == 6 => (ipv6::HEADER_LEN, Protocol(*next)),
        [first, _, _, _, _, _, _, _, _, protocol, ..] => (usize::from(first & 0x0f) * 4, Protocol(*protocol)),
        _ => (bytes.len(), Protocol(0)),
    }
}

fn headers_len(bytes: &[u8]) -> usize {
    let (ip_len, protocol) = transport_of(bytes);
    match protocol {
        Protocol::TCP => bytes
            .get(ip_len + tcp::DATA_OFFSET_OFFSET)
            .map_or(ip_len, |octet| ip_len + tcp::header_len_of(*octet)),
        Protocol::UDP => ip_len + udp::HEADER_LEN,
        _ => ip_len,
    }
}

/// Rewrites the first datagram's headers into those of a GSO packet of `len` bytes.
fn make_gso_header(first: &mut [u8], len: usize, pushed: bool) -> VirtioNetHeader {
    let (ip_len, protocol) = transport_of(first);
    let headers_len = headers_len(first);
    let size = first.len() - headers_len;
    let is_v6 = ipv6::is_ipv6(first);
    if is_v6 {
        put(first, 4, (len - ip_len) as u16);
    } else {
        put(first, 2, len as u16);
        put(first, 10, 0);
        let header_checksum = checksum::checksum(&first[..ip_len]);
        put(first, 10, header_checksum);
    }
    let transport_len = len - ip_len;
    let pseudo = pseudo_sum(first, transport_len);
    let (gso, offset) = if protocol == Protocol::TCP {
        if pushed {
            first[ip_len + tcp::FLAGS_OFFSET] |= TcpFlags::PSH.0;
        }
        let gso = if is_v6 { Gso::TcpV6 { cwr: false } } else { Gso::TcpV4 { cwr: false } };
        (gso, tcp::CHECKSUM_OFFSET)
    } else {
        put(first, ip_len + udp::LENGTH_OFFSET, transport_len as u16);
        (Gso::UdpL4, udp::CHECKSUM_OFFSET)
    };
    put(first, ip_len + offset, pseudo);
    VirtioNetHeader {
        checksum: Checksum::Partial(PartialChecksum { start: ip_len as u16, offset: offset as u16 }),
        gso,
        header_len: headers_len as u16,
        gso_size: size as u16,
    }
}
