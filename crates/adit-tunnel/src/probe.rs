//! Probes of the path to a peer (RFC 8899 section 4.1). A probe is an ICMP echo request in the
//! tunnel, padded to the size that is tested, with DF set, from an address of ours to the peer's
//! underlay address. A decapsulator has that address unless it is behind NAT, so its IP stack
//! answers through the tunnel, whatever the implementation of the tunnel. One behind NAT answers at
//! an address in its networks, see `probe_address.rs`.
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
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use adit_policy::PROBE_IDENTIFIER;
use adit_wire::Protocol;
use adit_wire::encapsulation::{OVERHEAD_V4, OuterHeader, OuterPolicy};
use adit_wire::icmpv4::{self, EchoKind, Icmpv4Message, types};
use adit_wire::ipv4::{self, Ipv4Packet, Ipv4Repr};

use crate::tagged_time::TaggedTime;
use crate::time::Instant;

/// The source address and the secret of a tunnel's probes.
#[derive(Debug, Clone)]
pub struct ProbeOptions {
    /// An address of this gateway in our own networks. The peer's answers go to it through the
    /// tunnel.
    pub source: Ipv4Addr,
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
    pub(crate) destination: Ipv4Addr,
}

const TTL: u8 = 64;
/// Bytes of token, round and size.
const PAYLOAD: usize = 8 + 4 + 2;
const HEADERS: usize = OVERHEAD_V4 + ipv4::HEADER_LEN + icmpv4::HEADER_LEN;
/// Size of the smallest probe in bytes, outer header included.
pub(crate) const MIN_SIZE: u16 = (HEADERS + PAYLOAD) as u16;

impl ProbeOptions {
    /// Writes a probe into `out`, outer header first, and returns its length, which is
    /// `probe.size`. `None`: `out` is too short for it, or the size is too small for a probe.
    pub(crate) fn write(
        &self,
        policy: &OuterPolicy,
        (underlay, peer): (Ipv4Addr, Ipv4Addr),
        probe: Probe,
        out: &mut [u8],
    ) -> Option<usize> {
        let size = usize::from(probe.size);
        let datagram = out.get_mut(..size)?;
        let payload_len = size.checked_sub(HEADERS).filter(|len| *len >= PAYLOAD)?;
        let inner_len = size - OVERHEAD_V4;
        let outer = OuterHeader::v4(policy, underlay, peer, Protocol::IPIP, 0, TTL, true, inner_len, 0)?;
        let inner = Ipv4Repr {
            source: self.source,
            destination: probe.destination,
            protocol: Protocol::ICMP,
            ttl: TTL,
            tos: 0,
            identification: 0,
            dont_fragment: true,
            payload_len: (inner_len - ipv4::HEADER_LEN) as u16,
        };
        let (outer_room, rest) = datagram.split_at_mut_checked(outer.len())?;
        let (inner_room, message) = rest.split_at_mut_checked(ipv4::HEADER_LEN)?;
        outer_room.copy_from_slice(outer.as_bytes());
        inner_room.copy_from_slice(&inner.emit());
        // The payload is built apart, because the message and its checksum are built from it.
        let mut payload = vec![0; payload_len];
        for (to, from) in payload.iter_mut().zip(self.payload(peer, probe)) {
            *to = from;
        }
        icmpv4::build_echo(message, PROBE_IDENTIFIER, probe.round as u16, &payload, EchoKind::Request)?;
        Some(size)
    }

    /// The probe that the inner datagram `packet` answers; `None`: it answers none.
    pub(crate) fn answered(&self, peer: Ipv4Addr, packet: &Ipv4Packet<'_>) -> Option<Probe> {
        let is_back = packet.destination() == self.source;
        is_back.then(|| self.read(peer, packet.source(), packet, types::ECHO_REPLY)).flatten()
    }

    /// The probe that `packet`, an inner datagram quoted by a router, is; `None`: it is none of
    /// ours.
    pub(crate) fn quoted(&self, peer: Ipv4Addr, packet: &Ipv4Packet<'_>) -> Option<Probe> {
        let is_ours = packet.source() == self.source;
        is_ours.then(|| self.read(peer, packet.destination(), packet, types::ECHO_REQUEST)).flatten()
    }

    /// The probe of `destination` that `packet` is, or is the answer to.
    fn read(
        &self,
        peer: Ipv4Addr,
        destination: Ipv4Addr,
        packet: &Ipv4Packet<'_>,
        message_type: u8,
    ) -> Option<Probe> {
        if packet.protocol() != Protocol::ICMP || !packet.is_first_fragment_or_whole() {
            return None;
        }
        // An answer may come in fragments, and a quote may be cut short. The token is sufficient.
        let message = Icmpv4Message::parse_lenient(packet.payload()).ok()?;
        if message.message_type() != message_type {
            return None;
        }
        let payload: [u8; PAYLOAD] = *message.payload().first_chunk()?;
        let [.., a, b, c, d, e, f] = payload;
        let probe =
            Probe { round: u32::from_be_bytes([a, b, c, d]), size: u16::from_be_bytes([e, f]), destination };
        (payload == self.payload(peer, probe)).then_some(probe)
    }

    fn payload(&self, peer: Ipv4Addr, probe: Probe) -> [u8; PAYLOAD] {
        let token = self.secret.hash_one((peer, probe.destination, probe.round, probe.size));
        let mut payload = [0; PAYLOAD];
        let fields = [&token.to_be_bytes()[..], &probe.round.to_be_bytes(), &probe.size.to_be_bytes()];
        for (to, from) in payload.iter_mut().zip(fields.iter().copied().flatten()) {
            *to = *from;
        }
        payload
    }
}

/// Whether an inner datagram has the form of a probe, or with `message_type` Echo Reply of an
/// answer. Another gateway's token cannot be checked, and need not be: this only decides what
/// counts the datagram.
pub(crate) fn has_form(packet: &Ipv4Packet<'_>, message_type: u8) -> bool {
    if packet.protocol() != Protocol::ICMP || packet.fragment_offset() != 0 {
        return false;
    }
    let Ok(message) = Icmpv4Message::parse_lenient(packet.payload()) else { return false };
    let Some([.., a, b, c, d, e, f]) = message.payload().first_chunk::<PAYLOAD>().copied() else {
        return false;
    };
    let (round, size) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]));
    message.message_type() == message_type
        && message.echo() == Some((PROBE_IDENTIFIER, round as u16))
        && (packet.more_fragments() || usize::from(size) == packet.total_len() + OVERHEAD_V4)
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

    const US: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 3);
    const PROBE: Probe = Probe { round: 7, size: 1400, destination: PEER };

    fn options() -> ProbeOptions {
        ProbeOptions { source: Ipv4Addr::new(172, 16, 17, 1), secret: RandomState::new(), keepalive: None }
    }

    fn written(options: &ProbeOptions, probe: Probe) -> Vec<u8> {
        let mut out = vec![0xff; 65_535];
        let policy = OuterPolicy { df: false, ..OuterPolicy::default() };
        let len = options.write(&policy, (US, PEER), probe, &mut out).expect("there is room");
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
        assert_eq!((inner.source(), inner.destination(), inner.total_len()), (options.source, PEER, 1380));
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
        for (at, ours) in [(12 + 20, PEER), (16 + 20, options.source)] {
            bytes[at..at + 4].copy_from_slice(&ours.octets());
        }
        bytes[40] = types::ECHO_REPLY;
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
            options().write(&OuterPolicy::default(), (US, PEER), Probe { size, ..PROBE }, out)
        };
        assert_eq!(write(61, &mut out), None);
        assert_eq!(write(62, &mut out), Some(62));
        assert_eq!(write(101, &mut out), None, "the buffer is too short");
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
