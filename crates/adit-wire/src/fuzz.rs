//! Fuzz targets: functions that take any bytes and assert what must hold for them.
//!
//! A fuzzer calls them, and `tests/fuzz_corpus.rs` calls them with what fuzzers have found. They
//! panic if and only if an assertion fails.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fuzz target reports what it found by panicking"
)]

use core::fmt::{self, Write};
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::checksum::{self, ChecksumState};
use crate::dscp::{Dscp, DscpPolicy};
use crate::ecn::{self, Ecn, EcnMode};
use crate::encapsulation::{OVERHEAD_V4, OuterHeader, OuterPolicy, TtlPolicy};
use crate::fragment::{FragmentError, fragments};
use crate::icmpv4::{self, EchoKind, Icmpv4Error, Icmpv4Message, MAX_ERROR_LEN};
use crate::icmpv6::{self, Icmpv6Error, Icmpv6Message};
use crate::ipv4::{self, Ipv4Packet, Ipv4Repr};
use crate::ipv6::{self, Ipv6Packet, Ipv6Repr, extension};
use crate::print::{Dissection, FlowTable};
use crate::tcp::{self, TcpHeader, TcpOption};
use crate::udp::UdpHeader;
use crate::{Protocol, Validation};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets by name, which is the folder of their corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("checksum", checksum),
    ("clamp_mss", clamp_mss),
    ("encapsulation", encapsulation),
    ("fragment", fragment),
    ("icmpv4", icmpv4),
    ("icmpv6", icmpv6),
    ("ipv4", ipv4),
    ("ipv6", ipv6),
    ("print", print),
    ("udp", udp),
];

/// Inputs are cut to this many bytes, so that copies fit on the stack.
const MAX_INPUT: usize = 4096;

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(MAX_INPUT)]
}

/// A stricter validation accepts less. Views are prefixes. A written header reads back the same.
pub fn ipv4(bytes: &[u8]) {
    let bytes = cut(bytes);
    let strict = Ipv4Packet::parse(bytes, Validation::Strict);
    let datapath = Ipv4Packet::parse(bytes, Validation::Datapath);
    let lenient = Ipv4Packet::parse(bytes, Validation::Lenient);
    assert!(strict.is_err() || datapath.is_ok(), "strict accepts what the data path refuses");
    assert!(datapath.is_err() || lenient.is_ok(), "the data path accepts what lenient refuses");
    if let Ok(packet) = lenient {
        assert!(bytes.starts_with(packet.as_bytes()));
        assert!(packet.as_bytes().starts_with(packet.header()));
        assert!(packet.options().len() <= ipv4::MAX_HEADER_LEN - ipv4::HEADER_LEN);
        let _ = icmpv4::may_answer(&packet);
    }
    let Ok(packet) = datapath else { return };
    assert_eq!(packet.as_bytes().len(), packet.total_len());
    assert_eq!(packet.header().len() + packet.payload().len(), packet.total_len());
    let repr = Ipv4Repr::of(&packet);
    let mut whole = [0; MAX_INPUT + ipv4::HEADER_LEN];
    let len = ipv4::HEADER_LEN + packet.payload().len();
    whole[..ipv4::HEADER_LEN].copy_from_slice(&repr.emit());
    whole[ipv4::HEADER_LEN..len].copy_from_slice(packet.payload());
    let again = Ipv4Packet::parse(&whole[..len], Validation::Strict).expect("what emit wrote");
    assert_eq!(Ipv4Repr::of(&again), repr, "parse(emit(x)) is x");

    // Each change in place leaves a valid header and changes nothing else.
    let (tos, ttl) = (bytes[bytes.len() - 1], bytes[bytes.len() / 2]);
    let mut changed = [0; MAX_INPUT];
    let changed = &mut changed[..packet.total_len()];
    changed.copy_from_slice(packet.as_bytes());
    ipv4::set_tos(changed, tos).expect("a whole header");
    ipv4::set_ttl(changed, ttl).expect("a whole header");
    ipv4::set_ecn(changed, Ecn::Ce).expect("a whole header");
    let changed = Ipv4Packet::parse(changed, Validation::Datapath).expect("checksums follow");
    let expected = Ipv4Repr { tos: tos | Ecn::Ce.bits(), ttl, ..repr };
    assert_eq!(Ipv4Repr::of(&changed), expected);
}

/// As [`ipv4()`]. The walk over extension headers stays within the packet.
pub fn ipv6(bytes: &[u8]) {
    let bytes = cut(bytes);
    let strict = Ipv6Packet::parse(bytes, Validation::Strict);
    let datapath = Ipv6Packet::parse(bytes, Validation::Datapath);
    let lenient = Ipv6Packet::parse(bytes, Validation::Lenient);
    assert!(strict.is_err() || datapath.is_ok(), "strict accepts what the data path refuses");
    assert!(datapath.is_err() || lenient.is_ok(), "the data path accepts what lenient refuses");
    if let Ok(packet) = lenient {
        assert!(bytes.starts_with(packet.as_bytes()));
        let _ = icmpv6::may_answer(&packet, Icmpv6Error::TooBig { mtu: 1280 });
        if let Ok(upper) = extension::walk(packet.as_bytes(), packet.next_header()) {
            assert!(upper.offset == ipv6::HEADER_LEN || upper.offset <= packet.as_bytes().len());
            let has_value = |limit: extension::EncapsulationLimit| {
                limit.offset < upper.offset && packet.as_bytes()[limit.offset] == limit.limit
            };
            assert!(upper.limit.is_none_or(has_value), "the pointer is that of the value");
        }
    }
    let Ok(packet) = datapath else { return };
    assert_eq!(packet.as_bytes().len(), packet.total_len());
    let repr = Ipv6Repr::of(&packet);
    assert_eq!(repr.emit()[..], packet.as_bytes()[..ipv6::HEADER_LEN], "emit(parse(x)) is x");

    // Each change in place changes nothing else.
    let (class, hop_limit) = (bytes[bytes.len() - 1], bytes[bytes.len() / 2]);
    let mut changed = [0; MAX_INPUT];
    let changed = &mut changed[..packet.total_len()];
    changed.copy_from_slice(packet.as_bytes());
    ipv6::set_traffic_class(changed, class).expect("a whole header");
    ipv6::set_hop_limit(changed, hop_limit).expect("a whole header");
    ipv6::set_ecn(changed, Ecn::Ce).expect("a whole header");
    let changed = Ipv6Packet::parse(changed, Validation::Datapath).expect("the lengths are the same");
    assert_eq!(Ipv6Repr::of(&changed), Ipv6Repr { traffic_class: class | Ecn::Ce.bits(), hop_limit, ..repr });
    assert_eq!(changed.payload(), packet.payload());
}

/// As [`icmpv4()`].
pub fn icmpv6(bytes: &[u8]) {
    let bytes = cut(bytes);
    if let Some(message) = Icmpv6Message::parse(bytes)
        && let Some(quote) = message.quote()
    {
        assert!(message.payload().starts_with(quote.as_bytes()));
        assert!(message.error().is_some());
    }
    let Some((&[kind, code, a, b], offending)) = bytes.split_first_chunk::<4>() else { return };
    let word = u32::from_be_bytes([a, b, code, kind]);
    let error = match kind % 4 {
        0 => Icmpv6Error::TooBig { mtu: word },
        1 => Icmpv6Error::TimeExceeded { code },
        2 => Icmpv6Error::ParameterProblem { code, pointer: word },
        _ => Icmpv6Error::DestinationUnreachable { code },
    };
    let mut out = [0xa5; icmpv6::MAX_ERROR_LEN];
    let (source, destination) = (Ipv6Addr::from_bits(1 << 125 | u128::from(word)), Ipv6Addr::LOCALHOST);
    let len = icmpv6::build_error(&mut out, source, destination, error, offending);
    let packet = Ipv6Packet::parse(&out[..len], Validation::Strict).expect("a valid packet");
    let message = Icmpv6Message::parse(packet.payload()).expect("a whole header");
    assert!(message.checksum_ok(source, destination));
    assert_eq!(message.error(), Some(error));
    assert!(offending.starts_with(message.payload()));
    assert!(!icmpv6::may_answer(&packet, error), "an error is not answered by an error");

    let mut out = [0; MAX_INPUT + icmpv6::HEADER_LEN];
    let (identifier, sequence) = ((word >> 16) as u16, word as u16);
    let ends = (source, destination);
    let len = icmpv6::build_echo(&mut out, ends, identifier, sequence, offending, EchoKind::Request);
    let message = Icmpv6Message::parse(&out[..len.expect("room")]).expect("a whole header");
    assert!(message.checksum_ok(source, destination));
    assert_eq!((message.echo(), message.payload()), (Some((identifier, sequence)), offending));
}

/// A sum does not depend on where the data is split. An update gives what a full computation gives.
pub fn checksum(bytes: &[u8]) {
    let bytes = cut(bytes);
    let whole = checksum::sum(bytes).fold();
    let slow = bytes.chunks(2).fold(0_u64, |sum, pair| {
        sum + u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    });
    assert_eq!(checksum::Sum::ZERO.add_word(whole).fold(), whole);
    // Folding is reduction modulo 0xffff, except that only all-zero data folds to zero.
    assert_eq!(u64::from(whole) % 0xffff, slow % 0xffff);
    assert_eq!(whole == 0, slow == 0);
    let Some(&split) = bytes.first() else { return };
    let split = usize::from(split) * 2;
    if let Some((left, right)) = bytes.split_at_checked(split) {
        assert_eq!(checksum::sum(left).add(checksum::sum(right)).fold(), whole);
        assert_eq!(checksum::sum(left).add_bytes(right).fold(), whole);
    }
    if let Some((data, [a, b])) = bytes.split_last_chunk::<2>() {
        changed_word(data, u16::from_be_bytes([*a, *b]));
    }
}

/// Checks an update for a change of the first word of the data.
fn changed_word(data: &[u8], new: u16) {
    let Some((first, rest)) = data.split_first_chunk::<2>() else { return };
    let old = u16::from_be_bytes(*first);
    let before = checksum::checksum(data);
    let after = checksum::sum(rest).add_word(new);
    if before != 0xffff && after.fold() != 0 {
        assert_eq!(checksum::update(before, old, new), after.checksum(), "RFC 1624");
    }
}

/// The outer header is valid and follows the policy. The inner datagram is not changed.
pub fn encapsulation(bytes: &[u8]) {
    let Some((&[a, b, c, tos, ttl, e, g, h], inner)) = cut(bytes).split_first_chunk::<8>() else {
        return;
    };
    let policy = OuterPolicy {
        ttl: if a & 1 == 0 { TtlPolicy::Inherit } else { TtlPolicy::Fixed(b) },
        dscp: Dscp::new(c).map_or(DscpPolicy::Inherit, DscpPolicy::Fixed),
        ecn: if a & 2 == 0 { EcnMode::Normal } else { EcnMode::Compatibility },
        df: a & 4 == 0,
    };
    let inner_df = a & 8 == 0;
    let identification = u16::from_be_bytes([e, g]);
    let (source, destination) = (Ipv4Addr::new(10, a, b, c), Ipv4Addr::new(192, 0, 2, h));
    let v4 = |len, identification| {
        OuterHeader::v4(&policy, source, destination, Protocol::IPIP, tos, ttl, inner_df, len, identification)
    };
    let outer = v4(inner.len(), identification).expect("short enough");
    let mut whole = [0; MAX_INPUT + OVERHEAD_V4];
    let whole = &mut whole[..OVERHEAD_V4 + inner.len()];
    whole[..OVERHEAD_V4].copy_from_slice(outer.as_bytes());
    whole[OVERHEAD_V4..].copy_from_slice(inner);
    let packet = Ipv4Packet::parse(whole, Validation::Strict).expect("a valid outer header");
    assert_eq!(packet.payload(), inner);
    assert_eq!(packet.protocol(), Protocol::IPIP);
    assert_eq!((packet.source(), packet.destination()), (source, destination));
    assert_eq!(packet.dont_fragment(), policy.df || inner_df);
    assert_eq!(packet.dscp(), policy.dscp.outer(Dscp::from_tos(tos)));
    assert_eq!(packet.identification(), identification);
    let verdict = ecn::decapsulate(Ecn::from_tos(tos), packet.ecn());
    assert_eq!(verdict.ecn, Some(Ecn::from_tos(tos)), "an undisturbed path changes no ECN field");
    assert_eq!(verdict.anomaly, None);
    // A segment's header by increments is that of a full computation.
    let len = usize::from(u16::from_be_bytes([h, a]));
    if let Some(expected) = v4(len, !identification) {
        assert_eq!(outer.for_segment(len as u16, !identification), expected);
    }
}

/// Every message and quote stays within its bytes. Every error that is written reads back the same.
pub fn icmpv4(bytes: &[u8]) {
    let bytes = cut(bytes);
    if let Ok(message) = Icmpv4Message::parse_lenient(bytes) {
        assert_eq!(Icmpv4Message::parse(bytes).is_ok(), message.checksum_ok());
        if let Some(quote) = message.quote() {
            assert!(message.payload().starts_with(quote.datagram()));
            assert!(quote.datagram().ends_with(quote.payload()));
            assert!(message.error().is_some());
        }
    }
    let Some((&[kind, code, a, b], offending)) = bytes.split_first_chunk::<4>() else { return };
    let word = u16::from_be_bytes([a, b]);
    let error = match kind % 6 {
        0 => Icmpv4Error::TooBig { mtu: word },
        1 => Icmpv4Error::TimeExceeded { code },
        2 => Icmpv4Error::ParameterProblem { code, pointer: a },
        3 => Icmpv4Error::SourceQuench,
        4 => Icmpv4Error::Redirect { code, gateway: Ipv4Addr::new(10, a, b, 1) },
        _ if code == icmpv4::unreachable::FRAGMENTATION_NEEDED => Icmpv4Error::TooBig { mtu: word },
        _ => Icmpv4Error::DestinationUnreachable { code },
    };
    let mut out = [0xa5; MAX_ERROR_LEN];
    let (source, destination) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(172, 16, a, b));
    let len = icmpv4::build_error(&mut out, source, destination, error, offending);
    let packet = Ipv4Packet::parse(&out[..len], Validation::Strict).expect("a valid datagram");
    let message = Icmpv4Message::parse(packet.payload()).expect("a valid message");
    assert_eq!(message.error(), Some(error));
    assert!(offending.starts_with(message.payload()));
    assert!(len == MAX_ERROR_LEN || message.payload().len() <= offending.len());
    if let (Ok(before), Some(quote)) = (Ipv4Packet::parse(offending, Validation::Lenient), message.quote()) {
        assert!(before.as_bytes().starts_with(quote.datagram()));
    }
    assert!(!icmpv4::may_answer(&packet), "an error is not answered by an error");

    let mut out = [0; MAX_INPUT + icmpv4::HEADER_LEN];
    let len = icmpv4::build_echo(&mut out, word, !word, offending, EchoKind::Request);
    let message = Icmpv4Message::parse(&out[..len.expect("room")]).expect("a valid message");
    assert_eq!(message.echo(), Some((word, !word)));
    assert_eq!(message.payload(), offending);
}

/// Clamping lowers every MSS above the limit, keeps the checksum as right or wrong as it was, and
/// finds nothing to do a second time.
pub fn clamp_mss(bytes: &[u8]) {
    let Some((&[a, b], datagram)) = cut(bytes).split_first_chunk::<2>() else { return };
    let max = u16::from_be_bytes([a, b]);
    let mut clamped = [0; MAX_INPUT];
    let clamped = &mut clamped[..datagram.len()];
    clamped.copy_from_slice(datagram);
    let old = tcp::clamp_mss(clamped, max, ChecksumState::Complete);
    assert_eq!(old.is_none(), clamped == datagram, "None means untouched");
    assert!(old.is_none_or(|old| old > max));
    assert_eq!(tcp::clamp_mss(clamped, max, ChecksumState::Complete), None);
    let Ok(before) = Ipv4Packet::parse(datagram, Validation::Lenient) else { return };
    let after = Ipv4Packet::parse(clamped, Validation::Lenient).expect("the header is untouched");
    assert_eq!(before.header(), after.header());
    if old.is_some() {
        let (sum_before, sum_after) =
            (checksum::checksum(before.payload()), checksum::checksum(after.payload()));
        assert_eq!(sum_before % 0xffff, sum_after % 0xffff, "the checksum follows the option");
        let segment = TcpHeader::parse(after.payload()).expect("a segment with options");
        for option in segment.options() {
            assert!(!matches!(option, TcpOption::MaximumSegmentSize(mss) if mss > max));
        }
    }
    let mut partial = [0; MAX_INPUT];
    let partial = &mut partial[..datagram.len()];
    partial.copy_from_slice(datagram);
    assert_eq!(tcp::clamp_mss(partial, max, ChecksumState::Partial), old);
    if old.is_some() {
        let at = before.header_len() + 16;
        assert_eq!(partial[at..at + 2], datagram[at..at + 2], "a partial checksum is left alone");
    }
}

/// The fragments fit, are valid, and make up the original.
pub fn fragment(bytes: &[u8]) {
    let Some((&[a, b], datagram)) = cut(bytes).split_first_chunk::<2>() else { return };
    let max_len = usize::from(u16::from_be_bytes([a, b])) % 2048;
    let Ok(packet) = Ipv4Packet::parse(datagram, Validation::Datapath) else { return };
    let pieces = match fragments(&packet, max_len) {
        Ok(pieces) => pieces,
        Err(error) => {
            let fits = packet.total_len() <= max_len;
            assert!(!fits || matches!(error, FragmentError::Options | FragmentError::Offset));
            return;
        }
    };
    let mut at = packet.header_len();
    let mut offset = packet.fragment_offset();
    let mut more = true;
    for piece in pieces {
        assert!(more, "nothing follows the last fragment");
        assert!(piece.len() <= max_len);
        assert_eq!(piece.payload().start, at);
        let mut whole = [0; MAX_INPUT];
        let (header_len, len) = (piece.header().len(), piece.len());
        whole[..header_len].copy_from_slice(piece.header());
        whole[header_len..len].copy_from_slice(&packet.as_bytes()[piece.payload()]);
        let view = Ipv4Packet::parse(&whole[..len], Validation::Datapath).expect("a valid fragment");
        assert_eq!(view.fragment_offset(), offset);
        assert_eq!(view.identification(), packet.identification());
        at = piece.payload().end;
        offset += view.payload().len() as u16;
        more = at < packet.total_len();
        assert_eq!(view.more_fragments(), more || packet.more_fragments());
        assert!(!more || view.payload().len().is_multiple_of(8));
    }
    assert_eq!(at, packet.total_len(), "every byte is in a fragment");
}

/// Any bytes have a line, of bounded length, and the same line each time.
pub fn print(bytes: &[u8]) {
    let bytes = cut(bytes);
    let mut flows = FlowTable::<4>::new();
    let dissection = Dissection::new(bytes);
    let (first, again) = (line(&dissection), line(&dissection));
    assert_eq!(first, again);
    line(&dissection.with_flow(&mut flows));
    line(&dissection.with_flow(&mut flows));
}

/// Returns the length and a hash of the line.
fn line(dissection: &Dissection<'_>) -> (usize, u64) {
    struct Line {
        len: usize,
        hash: u64,
    }
    impl Write for Line {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.len += text.len();
            for byte in text.bytes() {
                assert!(byte == b'\t' || (b' '..=b'~').contains(&byte), "one line of ASCII");
                self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            Ok(())
        }
    }
    let mut line = Line { len: 0, hash: 0 };
    write!(line, "{dissection}").unwrap();
    // Eight nested headers, all options, and an HTTP line as long as the input.
    assert!(line.len <= MAX_INPUT + 2048);
    (line.len, line.hash)
}

/// A view is as long as its length field says.
pub fn udp(bytes: &[u8]) {
    if let Ok(datagram) = UdpHeader::parse(bytes) {
        assert_eq!(datagram.payload().len() + 8, usize::from(datagram.length()));
        assert!(bytes[8..].starts_with(datagram.payload()));
        let _ = datagram.checksum_ok(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
    }
}
