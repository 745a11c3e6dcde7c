//! Encapsulation: RFC 2003 sections 3.1, 3.2 and 5.1, RFC 2827.

use adit_tunnel::DropReason;
use adit_wire::Protocol;
use adit_wire::dscp::{Dscp, DscpPolicy};
use adit_wire::encapsulation::TtlPolicy;
use adit_wire::icmpv4::{Icmpv4Error, unreachable};

use super::{NOT_FORWARDED, NOT_LEARNED};
use crate::case::{Case, encap};
use crate::packet::{a_to_b, bare, ours, rewritten, tcp, udp};
use crate::site::{A, B, C, HOST_A, HOST_B, HOST_C, INSIDE_A, PEER_B, PEER_C, STRANGER};

const ACK: u8 = 0x10;

pub(super) fn cases() -> Vec<Case> {
    [usual(), outer_header(), too_big(), refused(), malformed(), left_to_userspace()].concat()
}

fn usual() -> Vec<Case> {
    let segment = || tcp(HOST_A, HOST_B, ACK, &[], &[7; 200]);
    let echo = || bare(HOST_A, HOST_B, Protocol::ICMP, vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    let whole = || udp(HOST_A, HOST_B, 1400);
    let small = || bare(HOST_A, HOST_B, Protocol(99), Vec::new());
    let nested = || bare(HOST_A, HOST_B, Protocol::IPIP, a_to_b().build());
    vec![
        encap("UDP", a_to_b()).sends(PEER_B, ours(B, a_to_b())),
        encap("UDP to the other peer", udp(HOST_A, HOST_C, 60))
            .sends(PEER_C, ours(C, udp(HOST_A, HOST_C, 60))),
        encap("TCP", segment()).sends(PEER_B, ours(B, segment())),
        encap("an echo request", echo()).sends(PEER_B, ours(B, echo())),
        encap("a header and nothing behind it", small()).sends(PEER_B, ours(B, small())),
        encap("a tunnel between hosts is a datagram like any other", nested())
            .sends(PEER_B, ours(B, nested())),
        encap("what the gateway itself sends", udp(INSIDE_A, HOST_B, 80))
            .sends(PEER_B, ours(B, udp(INSIDE_A, HOST_B, 80)))
            .not_end_to_end("only a forgery comes from outside with this source"),
        encap("from one peer to another, forwarded by the host", udp(HOST_C, HOST_B, 80))
            .sends(PEER_B, ours(B, udp(HOST_C, HOST_B, 80))),
        encap("the first fragment", whole().piece(0, 800)).sends(PEER_B, ours(B, whole().piece(0, 800))),
        encap("a later fragment", whole().piece(800, 580)).sends(PEER_B, ours(B, whole().piece(800, 580))),
        encap("a SYN that curl has sent", REAL_SYN.to_vec())
            .sends(PEER_B, real_outer())
            .counting(|counts| counts.clamped.push(PEER_B)),
    ]
}

/// A SYN as Linux writes it, captured: MSS 1460, SACK, timestamps, window scale.
const REAL_SYN: [u8; 60] =
    *b"\x45\x00\x00\x3c\x80\x5c\x40\x00\x40\x06\x75\x92\xac\x10\x11\x0a\xc0\xa8\xc7\x0a\
    \x8f\x34\x00\x50\xb1\x5f\xf6\x69\x00\x00\x00\x00\xa0\x02\xfa\xf0\x8a\xf5\x00\x00\
    \x02\x04\x05\xb4\x04\x02\x08\x0a\x42\x81\x03\x7a\x00\x00\x00\x00\x01\x03\x03\x0a";

/// The same SYN in its outer header with MSS 1440: 20 less, so the checksum grows by 20.
fn real_outer() -> Vec<u8> {
    let mut inner = REAL_SYN;
    inner[36..38].copy_from_slice(&0x8b09_u16.to_be_bytes());
    inner[42..44].copy_from_slice(&1440_u16.to_be_bytes());
    [&b"\x45\x00\x00\x50\x00\x00\x40\x00\x40\x04\x24\xa6\x0a\x01\x01\x01\x0a\x01\x01\x02"[..], &inner]
        .concat()
}

fn outer_header() -> Vec<Case> {
    const MARKED: u8 = 0b1011_1000;
    let marked = || a_to_b().tos(MARKED);
    let one = || a_to_b().ttl(1);
    vec![
        encap("the DSCP is inherited", marked()).sends(PEER_B, ours(B, marked()).tos(MARKED)),
        encap("the DSCP is fixed", marked())
            .with(|setup| setup.config.outer.dscp = DscpPolicy::Fixed(Dscp::new(10).expect("6 bits")))
            .sends(PEER_B, ours(B, marked()).tos(10 << 2)),
        encap("the TTL is fixed", one())
            .with(|setup| setup.config.outer.ttl = TtlPolicy::Fixed(200))
            .sends(PEER_B, ours(B, one()).ttl(200)),
        encap("the TTL is inherited", a_to_b().ttl(9))
            .with(|setup| setup.config.outer.ttl = TtlPolicy::Inherit)
            .sends(PEER_B, ours(B, a_to_b().ttl(9)).ttl(9)),
        encap("a TTL of 1 is enough for the tunnel", one()).sends(PEER_B, ours(B, one())),
        encap("DF inside, DF outside, whatever the policy", a_to_b().df(true))
            .with(|setup| setup.config.outer.df = false)
            .sends(PEER_B, ours(B, a_to_b().df(true))),
        encap("no DF inside, none outside by policy", a_to_b())
            .with(|setup| setup.config.outer.df = false)
            .sends(PEER_B, ours(B, a_to_b()).df(false)),
        encap("no DF inside, one outside by policy", a_to_b()).sends(PEER_B, ours(B, a_to_b())),
    ]
}

fn too_big() -> Vec<Case> {
    let of = |len| udp(HOST_A, HOST_B, len);
    let small_path = |setup: &mut crate::Setup| setup.paths[0].mtu = 576;
    let error = |mtu| Icmpv4Error::TooBig { mtu };
    let pieces = || vec![ours(B, of(1481).piece(0, 1456)).build(), ours(B, of(1481).piece(1456, 5)).build()];
    vec![
        encap("exactly as much as the path takes, with DF", of(1480).df(true))
            .sends(PEER_B, ours(B, of(1480).df(true))),
        encap("exactly as much as the path takes", of(1480)).sends(PEER_B, ours(B, of(1480))),
        encap("a byte too many, with DF", of(1481).df(true))
            .answers(DropReason::InnerTooBig, Some(PEER_B), HOST_A, error(1480))
            .not_end_to_end(NOT_FORWARDED),
        encap("a byte too many, cut inside", of(1481))
            .sends_all(PEER_B, pieces())
            .counting(|counts| counts.tx = Some((PEER_B, 1, 1481)))
            .declined()
            .not_end_to_end(NOT_FORWARDED),
        encap("exactly as much as a smaller path takes", of(556).df(true))
            .with(small_path)
            .sends(PEER_B, ours(B, of(556).df(true)))
            .not_end_to_end(NOT_LEARNED),
        encap("a byte too many for a smaller path", of(557).df(true))
            .with(small_path)
            .answers(DropReason::InnerTooBig, Some(PEER_B), HOST_A, error(556))
            .not_end_to_end(NOT_LEARNED),
    ]
}

fn refused() -> Vec<Case> {
    let say = |code| Icmpv4Error::DestinationUnreachable { code };
    let to_nobody = || udp(HOST_A, STRANGER, 100);
    // An ICMP error, which must not be answered.
    let unanswerable = bare(HOST_A, STRANGER, Protocol::ICMP, vec![3; 36]);
    vec![
        encap("to nobody's network", to_nobody())
            .answers(DropReason::InnerDestinationUnknown, None, HOST_A, say(unreachable::NET))
            .not_end_to_end(NOT_FORWARDED),
        encap("an ICMP error to nobody's network", unanswerable)
            .drops(DropReason::InnerDestinationUnknown, None)
            .declined()
            .counting(|counts| counts.icmp_suppressed = 1)
            .not_end_to_end(NOT_FORWARDED),
        encap("from nobody's network", udp(STRANGER, HOST_B, 100)).answers(
            DropReason::InnerSourceDenied,
            Some(PEER_B),
            STRANGER,
            say(unreachable::PROHIBITED),
        ),
        encap("a TTL of 0", a_to_b().ttl(0))
            .answers(DropReason::InnerTtlZero, None, HOST_A, Icmpv4Error::TimeExceeded { code: 0 })
            .not_end_to_end(NOT_FORWARDED),
        encap("with the peer's underlay address as the source", udp(B, HOST_B, 100))
            .drops(DropReason::InnerSourceIsTunnelExit, Some(PEER_B)),
        encap("back to the peer that it came from", udp(HOST_B, HOST_B, 100))
            .drops(DropReason::RelayToSamePeer, Some(PEER_B)),
        encap("our own outer datagram", ours(B, a_to_b()))
            .drops(DropReason::NestedEncapsulation, None)
            .not_end_to_end(NOT_FORWARDED),
        encap("our own outer datagram, by a host's name", ours(B, a_to_b()).to(HOST_B))
            .drops(DropReason::NestedEncapsulation, None)
            .not_end_to_end("the host's own stack refuses its own address as a source"),
        encap("to a peer, in a tunnel already", bare(HOST_A, B, Protocol::IPIP, a_to_b().build()))
            .drops(DropReason::NestedEncapsulation, None)
            .not_end_to_end("its route is not the tunnel's"),
        encap("to a peer, in a tunnel of IPv6 already", bare(HOST_A, B, Protocol::IPV6, vec![0x60; 40]))
            .drops(DropReason::NestedEncapsulation, None)
            .not_end_to_end("its route is not the tunnel's"),
        encap("a spoofed source: the underlay's own address", udp(A, HOST_B, 100))
            .answers(DropReason::InnerSourceDenied, Some(PEER_B), A, say(unreachable::PROHIBITED))
            .not_end_to_end("the host's own stack refuses its own address as a source"),
    ]
}

fn malformed() -> Vec<Case> {
    let plain = || a_to_b().build();
    let wrong = |name: &str, bytes: Vec<u8>, reason| {
        encap(name, bytes).drops(reason, None).declined().not_end_to_end(NOT_FORWARDED)
    };
    let mut checksum = plain();
    checksum[11] ^= 1;
    let with_padding = [plain(), vec![0; 6]].concat();
    let ipv6 = [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &[0; 32]].concat();
    let malformed = DropReason::InnerMalformed;
    vec![
        wrong("a wrong header checksum", checksum, malformed),
        wrong("a total length beyond the end", rewritten(plain(), 2, &101u16.to_be_bytes()), malformed),
        wrong("a total length before the end", rewritten(plain(), 2, &99u16.to_be_bytes()), malformed),
        wrong("a total length shorter than the header", rewritten(plain(), 2, &[0, 19]), malformed),
        wrong("something after the datagram", with_padding, malformed),
        wrong("a header length below 20", rewritten(plain(), 0, &[0x44]), malformed),
        wrong("a header longer than the datagram", rewritten(plain(), 0, &[0x4f])[..40].to_vec(), malformed),
        wrong("IPv6", ipv6, DropReason::InnerNotIpv4),
        wrong("another version", rewritten(plain(), 0, &[0x55]), DropReason::InnerNotIpv4),
    ]
}

fn left_to_userspace() -> Vec<Case> {
    let optioned = || a_to_b().options(&[1, 1, 1, 0]);
    let denied = Icmpv4Error::DestinationUnreachable { code: unreachable::HOST };
    // An ICMP error must not be answered: it passes and the error stays pending.
    let unanswerable = || bare(HOST_A, HOST_B, Protocol::ICMP, vec![3; 36]);
    vec![
        encap("options, which are not copied", optioned()).sends(PEER_B, ours(B, optioned())).declined(),
        encap("the next hop is not known", a_to_b())
            .with(|setup| setup.paths[0].known = false)
            .sends(PEER_B, ours(B, a_to_b()))
            .declined(),
        encap("a pending error, answered", a_to_b())
            .with(|setup| setup.paths[0].owed = true)
            .answers(DropReason::PeerUnreachable, Some(PEER_B), HOST_A, denied)
            .not_end_to_end(NOT_LEARNED),
        encap("a pending error, for a packet that must not be answered", unanswerable())
            .with(|setup| setup.paths[0].owed = true)
            .sends(PEER_B, ours(B, unanswerable()))
            .declined()
            .not_end_to_end(NOT_LEARNED),
        encap("a pending error for the other peer's senders", a_to_b())
            .with(|setup| setup.paths[1].owed = true)
            .sends(PEER_B, ours(B, a_to_b()))
            .not_end_to_end(NOT_LEARNED),
    ]
}
