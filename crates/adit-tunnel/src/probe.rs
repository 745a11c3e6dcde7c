//! Probes of the path to a peer (RFC 8899 section 4.1). A probe is an ICMP echo request in the
//! tunnel, padded to the size that is tested, with DF set, from an address of ours to the peer's
//! underlay address. So it is of the underlay's family, whatever the hosts behind it speak. A
//! decapsulator has that address unless it is behind NAT, so its IP stack answers through the
//! tunnel, whatever the implementation of the tunnel. One behind NAT answers at an address in its
//! networks, see `probe_address.rs`.
//!
//! ```text
//!   outer: our underlay address ► peer's, DF
//!   inner: our inner address ► address of the peer, DF | echo | token round size | zeros
//! ```
//!
//! The token is a keyed hash of peer, address, round and size. Only a host that has seen the probe
//! can answer it or forge an ICMP error about it (RFC 5927 section 4), and sent probes need not be
//! remembered.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use adit_peers::Path;
use adit_policy::PROBE_IDENTIFIER;
use adit_wire::Protocol;
use adit_wire::encapsulation::{OuterHeader, OuterPolicy, overhead};
use adit_wire::icmpv4::{self, EchoKind, Icmpv4Message};
use adit_wire::icmpv6::{self, Icmpv6Message};
use adit_wire::ipv4::{self, Ipv4Packet, Ipv4Repr};
use adit_wire::ipv6::{self, Ipv6Packet, Ipv6Repr};

use crate::tagged_time::TaggedTime;
use crate::time::Instant;

/// The source addresses and the secret of a tunnel's probes.
#[derive(Debug, Clone)]
pub struct ProbeOptions {
    /// Addresses of this gateway in our own networks. Probes of a path come from the first one of
    /// the path's family, and the peer's answers go to it through the tunnel. A path without one is
    /// not probed.
    pub sources: Vec<IpAddr>,
    /// The key of the tokens.
    pub secret: RandomState,
    /// The time without a datagram to a peer after which one is sent that keeps firewalls and NATs
    /// on the path open; `None`: none is sent. A peer may have its own.
    pub keepalive: Option<Duration>,
}

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The round of probes to the peer that it belongs to.
    pub(crate) round: u32,
    /// Size of the outer datagram, in bytes.
    pub(crate) size: u16,
    /// The address of the peer that is to answer.
    pub(crate) destination: IpAddr,
}

/// An inner packet that may be a probe, or the answer to one.
pub(crate) trait ProbePacket {
    fn source(&self) -> IpAddr;
    fn destination(&self) -> IpAddr;
    /// The echo that it is; `None`: it is none, or a later fragment.
    fn echo(&self) -> Option<Echo<'_>>;
    /// Bytes of the packet, header included.
    fn len(&self) -> usize;
    /// Whether it is the first fragment of several.
    fn is_cut(&self) -> bool;
}

/// An echo request or reply, which may be cut short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Echo<'a> {
    kind: EchoKind,
    identifier: u16,
    sequence: u16,
    payload: &'a [u8],
}

impl ProbePacket for Ipv4Packet<'_> {
    fn source(&self) -> IpAddr {
        self.source().into()
    }

    fn destination(&self) -> IpAddr {
        self.destination().into()
    }

    fn echo(&self) -> Option<Echo<'_>> {
        if self.protocol() != Protocol::ICMP || !self.is_first_fragment_or_whole() {
            return None;
        }
        let message = Icmpv4Message::parse_lenient(self.payload()).ok()?;
        let kind = message.echo_kind()?;
        let (identifier, sequence) = message.echo()?;
        Some(Echo { kind, identifier, sequence, payload: message.payload() })
    }

    fn len(&self) -> usize {
        self.total_len()
    }

    fn is_cut(&self) -> bool {
        self.more_fragments()
    }
}

/// In IPv6 a probe is never fragmented: it is too long for the path, or whole.
impl ProbePacket for Ipv6Packet<'_> {
    fn source(&self) -> IpAddr {
        self.source().into()
    }

    fn destination(&self) -> IpAddr {
        self.destination().into()
    }

    fn echo(&self) -> Option<Echo<'_>> {
        let message =
            Icmpv6Message::parse(self.payload()).filter(|_| self.next_header() == Protocol::ICMPV6)?;
        let kind = message.echo_kind()?;
        let (identifier, sequence) = message.echo()?;
        Some(Echo { kind, identifier, sequence, payload: message.payload() })
    }

    fn len(&self) -> usize {
        self.total_len()
    }

    fn is_cut(&self) -> bool {
        false
    }
}

const TTL: u8 = 64;
/// Bytes of token, round and size.
const PAYLOAD: usize = 8 + 4 + 2;
/// Bytes of the header of an echo, which is the same in both families.
const ECHO_HEADER: usize = icmpv4::HEADER_LEN;

/// Size of the smallest probe in bytes, outer header included, on an underlay with this address.
pub(crate) const fn min_size(underlay: IpAddr) -> u16 {
    let inner_header = match underlay {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    };
    (overhead(underlay) + inner_header + ECHO_HEADER + PAYLOAD) as u16
}

/// The smallest size that a search asks for. On an underlay of IPv6 the smallest probe is larger.
pub(crate) const MIN_SIZE: u16 = 62;

impl ProbeOptions {
    /// The address that probes of a path to `destination` come from.
    pub fn source_towards(&self, destination: IpAddr) -> Option<IpAddr> {
        self.sources.iter().copied().find(|source| source.is_ipv4() == destination.is_ipv4())
    }

    /// Whether probes come from an address.
    pub(crate) fn is_source(&self, address: IpAddr) -> bool {
        self.source_towards(address) == Some(address)
    }

    /// Writes a probe into `out`, outer header first, and returns its length, which is
    /// `probe.size`. `None`: `out` is too short for it, the size is too small for a probe, or the
    /// addresses are not all of one family.
    pub(crate) fn write(
        &self,
        policy: &OuterPolicy,
        Path { source: underlay, destination: peer }: Path,
        probe: Probe,
        out: &mut [u8],
    ) -> Option<usize> {
        let source = self.source_towards(peer)?;
        let size = usize::from(probe.size);
        let packet = out.get_mut(..size)?;
        let smallest = usize::from(min_size(underlay));
        // The payload is built apart, because the message and its checksum are built from it.
        let mut payload = vec![0; PAYLOAD + size.checked_sub(smallest)?];
        for (to, from) in payload.iter_mut().zip(self.payload(peer, probe)) {
            *to = from;
        }
        let inner_len = size - overhead(underlay);
        let sequence = probe.round as u16;
        match (underlay, peer, source, probe.destination) {
            (IpAddr::V4(from), IpAddr::V4(to), IpAddr::V4(source), IpAddr::V4(destination)) => {
                let outer = OuterHeader::v4(policy, from, to, Protocol::IPIP, 0, TTL, true, inner_len, 0)?;
                let inner = Ipv4Repr {
                    source,
                    destination,
                    protocol: Protocol::ICMP,
                    ttl: TTL,
                    tos: 0,
                    identification: 0,
                    dont_fragment: true,
                    payload_len: (inner_len - ipv4::HEADER_LEN) as u16,
                };
                let message = headers(packet, &outer, &inner.emit())?;
                icmpv4::build_echo(message, PROBE_IDENTIFIER, sequence, &payload, EchoKind::Request)?;
            }
            (IpAddr::V6(from), IpAddr::V6(to), IpAddr::V6(source), IpAddr::V6(destination)) => {
                let outer = OuterHeader::v6(policy, from, to, Protocol::IPV6, 0, TTL, 0, inner_len)?;
                let inner = Ipv6Repr {
                    source,
                    destination,
                    next_header: Protocol::ICMPV6,
                    hop_limit: TTL,
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len: (inner_len - ipv6::HEADER_LEN) as u16,
                };
                let message = headers(packet, &outer, &inner.emit())?;
                let ends = (source, destination);
                icmpv6::build_echo(message, ends, PROBE_IDENTIFIER, sequence, &payload, EchoKind::Request)?;
            }
            _ => return None,
        }
        Some(size)
    }

    /// The probe that an inner packet answers; `None`: it answers none.
    pub(crate) fn answered(&self, peer: IpAddr, packet: &impl ProbePacket) -> Option<Probe> {
        let is_back = self.is_source(packet.destination());
        is_back.then(|| self.read(peer, packet.source(), packet, EchoKind::Reply)).flatten()
    }

    /// The probe that `packet`, an inner packet quoted by a router, is; `None`: it is none of ours.
    pub(crate) fn quoted(&self, peer: IpAddr, packet: &impl ProbePacket) -> Option<Probe> {
        let is_ours = self.is_source(packet.source());
        is_ours.then(|| self.read(peer, packet.destination(), packet, EchoKind::Request)).flatten()
    }

    /// The probe of `destination` that `packet` is, or is the answer to.
    fn read(
        &self,
        peer: IpAddr,
        destination: IpAddr,
        packet: &impl ProbePacket,
        kind: EchoKind,
    ) -> Option<Probe> {
        // An answer may come in fragments, and a quote may be cut short. The token is sufficient.
        let echo = packet.echo().filter(|echo| echo.kind == kind)?;
        let payload: [u8; PAYLOAD] = *echo.payload.first_chunk()?;
        let [.., a, b, c, d, e, f] = payload;
        let probe =
            Probe { round: u32::from_be_bytes([a, b, c, d]), size: u16::from_be_bytes([e, f]), destination };
        (payload == self.payload(peer, probe)).then_some(probe)
    }

    fn payload(&self, peer: IpAddr, probe: Probe) -> [u8; PAYLOAD] {
        let token = self.secret.hash_one((peer, probe.destination, probe.round, probe.size));
        let mut payload = [0; PAYLOAD];
        let fields = [&token.to_be_bytes()[..], &probe.round.to_be_bytes(), &probe.size.to_be_bytes()];
        for (to, from) in payload.iter_mut().zip(fields.iter().copied().flatten()) {
            *to = *from;
        }
        payload
    }
}

/// Writes the headers of a probe, and returns the room for the echo behind them.
fn headers<'p>(packet: &'p mut [u8], outer: &OuterHeader, inner: &[u8]) -> Option<&'p mut [u8]> {
    let (outer_room, rest) = packet.split_at_mut_checked(outer.len())?;
    let (inner_room, message) = rest.split_at_mut_checked(inner.len())?;
    outer_room.copy_from_slice(outer.as_bytes());
    inner_room.copy_from_slice(inner);
    Some(message)
}

/// Whether an inner packet has the form of a probe, or of an answer. Another gateway's token cannot
/// be checked, and need not be: this only decides what counts the packet.
pub(crate) fn has_form(packet: &impl ProbePacket, kind: EchoKind) -> bool {
    let Some(echo) = packet.echo().filter(|echo| echo.kind == kind) else { return false };
    let Some([.., a, b, c, d, e, f]) = echo.payload.first_chunk::<PAYLOAD>().copied() else {
        return false;
    };
    let (round, size) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]));
    (echo.identifier, echo.sequence) == (PROBE_IDENTIFIER, round as u16)
        && (packet.is_cut() || usize::from(size) == packet.len() + overhead(packet.source()))
}

/// The probes that a peer has answered. Receiving threads write it, and the prober reads it.
#[derive(Debug)]
pub(crate) struct Answers {
    /// The newest answered round, and the largest answered size in it.
    best: AtomicU64,
    /// The time of the last answer.
    last: AtomicU64,
}

impl Answers {
    pub(crate) fn new() -> Answers {
        Answers { best: AtomicU64::new(0), last: AtomicU64::new(TaggedTime::NONE.0) }
    }

    /// Records an answer.
    pub(crate) fn note(&self, probe: Probe, now: Instant) {
        self.last.store(TaggedTime::new(probe.size, now).0, Relaxed);
        let word = u64::from(probe.round) << 16 | u64::from(probe.size);
        let _ = self.best.fetch_update(Relaxed, Relaxed, |best| {
            let newer = probe.round.wrapping_sub((best >> 16) as u32).cast_signed();
            (newer > 0 || newer == 0 && word > best).then_some(word)
        });
    }

    /// The largest answered size of a round; 0: none yet.
    pub(crate) fn best(&self, round: u32) -> u16 {
        let best = self.best.load(Relaxed);
        if (best >> 16) as u32 == round { best as u16 } else { 0 }
    }

    /// The time of the last answer; `None`: no probe was answered yet.
    pub(crate) fn last(&self) -> Option<Instant> {
        let last = TaggedTime(self.last.load(Relaxed));
        (last != TaggedTime::NONE).then_some(last.at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_wire::Validation;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const US: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 1));
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 2));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 3));
    const US_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1));
    const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2));
    const PATH: Path = Path { source: US, destination: PEER };
    const PROBE: Probe = Probe { round: 7, size: 1400, destination: PEER };

    fn options() -> ProbeOptions {
        ProbeOptions { sources: vec![[172, 16, 17, 1].into()], secret: RandomState::new(), keepalive: None }
    }

    fn written(options: &ProbeOptions, probe: Probe) -> Vec<u8> {
        let mut out = vec![0xff; 65_535];
        let policy = OuterPolicy { df: false, ..OuterPolicy::default() };
        let len = options.write(&policy, PATH, probe, &mut out).expect("there is room");
        out.truncate(len);
        out
    }

    #[test]
    fn rfc8899_s4_1_a_probe_is_an_ordinary_echo_with_df_of_exactly_its_size() {
        let options = options();
        let bytes = written(&options, PROBE);
        let outer = Ipv4Packet::parse(&bytes, Validation::Datapath).expect("an IPv4 datagram");
        assert_eq!((outer.total_len(), outer.protocol()), (1400, Protocol::IPIP));
        assert!(outer.dont_fragment(), "DF is set even if the tunnel's policy leaves it clear");
        let inner = Ipv4Packet::parse(outer.payload(), Validation::Datapath).expect("an IPv4 datagram");
        assert_eq!((options.sources[0], PEER), (inner.source().into(), inner.destination().into()));
        assert_eq!(inner.total_len(), 1380);
        assert!(inner.dont_fragment());
        let message = Icmpv4Message::parse(inner.payload()).expect("the checksum is right");
        assert_eq!(message.echo(), Some((PROBE_IDENTIFIER, 7)));
        assert_eq!(options.quoted(PEER, &inner), Some(PROBE));
        assert_eq!(options.answered(PEER, &inner), None, "a request is not an answer");
    }

    #[test]
    fn rfc5927_s4_an_answer_without_the_token_is_refused() {
        let options = options();
        let mut bytes = written(&options, PROBE);
        // The addresses change their places.
        let (source, destination) = (bytes[32..36].to_vec(), bytes[36..40].to_vec());
        bytes[32..36].copy_from_slice(&destination);
        bytes[36..40].copy_from_slice(&source);
        bytes[40] = icmpv4::types::ECHO_REPLY;
        let read = |bytes: &[u8], peer| {
            let inner = Ipv4Packet::parse(&bytes[20..], Validation::Lenient).expect("an IPv4 header");
            options.answered(peer, &inner)
        };
        assert_eq!(read(&bytes, PEER), Some(PROBE));
        assert_eq!(read(&bytes, OTHER), None, "an answer of another peer");
        for at in 48..62 {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert_eq!(read(&forged, PEER), None, "byte {at} belongs to the checked payload");
        }
        assert_eq!(read(&bytes[..61], PEER), None, "an answer that is cut short");
        assert_eq!(read(&bytes[..62], PEER), Some(PROBE), "a first fragment is enough");
    }

    #[test]
    fn a_size_below_62_bytes_is_no_probe() {
        let mut out = [0; 100];
        let write = |size, out: &mut [u8]| {
            options().write(&OuterPolicy::default(), PATH, Probe { size, ..PROBE }, out)
        };
        assert_eq!(write(61, &mut out), None);
        assert_eq!(write(62, &mut out), Some(62));
        assert_eq!(write(101, &mut out), None, "the buffer is too short");
    }

    #[test]
    fn rfc8899_s4_1_over_ipv6_a_probe_is_an_echo_of_ipv6() {
        let source: IpAddr = "2001:db8:a::1".parse().expect("an address");
        let options = ProbeOptions { sources: vec![US, source], ..options() };
        let path = Path { source: US_V6, destination: PEER_V6 };
        let probe = Probe { destination: PEER_V6, ..PROBE };
        let mut out = vec![0xff; 65_535];
        let write = |probe, out: &mut [u8]| options.write(&OuterPolicy::default(), path, probe, out);
        assert_eq!(write(probe, &mut out), Some(1400));
        let outer = Ipv6Packet::parse(&out[..1400], Validation::Strict).expect("a packet");
        assert_eq!((outer.next_header(), outer.hop_limit()), (Protocol::IPV6, 64));
        let inner = Ipv6Packet::parse(outer.payload(), Validation::Strict).expect("a packet");
        assert_eq!((source, PEER_V6), (inner.source().into(), inner.destination().into()));
        let message = Icmpv6Message::parse(inner.payload()).expect("a message");
        assert!(message.checksum_ok(inner.source(), inner.destination()));
        assert_eq!(options.quoted(PEER_V6, &inner), Some(probe));
        assert!(has_form(&inner, EchoKind::Request) && !has_form(&inner, EchoKind::Reply));
        // The answer: the addresses change their places.
        let mut answer = outer.payload().to_vec();
        let (to, from) = (answer[8..24].to_vec(), answer[24..40].to_vec());
        answer[8..24].copy_from_slice(&from);
        answer[24..40].copy_from_slice(&to);
        answer[40] = icmpv6::types::ECHO_REPLY;
        let read = |bytes: &[u8], peer| {
            let inner = Ipv6Packet::parse(bytes, Validation::Lenient).expect("a header");
            options.answered(peer, &inner)
        };
        assert_eq!(read(&answer, PEER_V6), Some(probe));
        assert_eq!(read(&answer, US_V6), None, "an answer of another peer");
        for at in 48..62 {
            let mut forged = answer.clone();
            forged[at] ^= 1;
            assert_eq!(read(&forged, PEER_V6), None, "byte {at} belongs to the checked payload");
        }
        assert_eq!(write(Probe { size: 101, ..probe }, &mut out), None, "too small");
        assert_eq!(write(Probe { size: 102, ..probe }, &mut out), Some(102));
        assert_eq!(write(Probe { destination: PEER, ..probe }, &mut out), None, "of another family");
    }

    #[test]
    fn the_largest_answer_of_the_newest_round_counts() {
        let answers = Answers::new();
        let now = Instant::from_millis(5);
        assert_eq!((answers.best(1), answers.last()), (0, None));
        answers.note(Probe { round: 1, size: 1300, ..PROBE }, now);
        answers.note(Probe { round: 1, size: 1200, ..PROBE }, now);
        assert_eq!((answers.best(1), answers.last()), (1300, Some(now)));
        answers.note(Probe { round: 2, size: 576, ..PROBE }, now);
        answers.note(Probe { round: 1, size: 1500, ..PROBE }, now);
        assert_eq!((answers.best(2), answers.best(1)), (576, 0), "an answer from an older round is ignored");
        answers.note(Probe { round: u32::MAX, size: 9000, ..PROBE }, now);
        assert_eq!(answers.best(2), 576, "a round that is much older");
    }
}
