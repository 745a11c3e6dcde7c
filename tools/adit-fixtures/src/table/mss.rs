//! MSS clamping of TCP at both ends of the tunnel (RFC 9293 section 3.7.1).

use super::NOT_LEARNED;
use crate::case::{Case, decap, encap};
use crate::packet::{Datagram, ours, rewritten, tcp, theirs};
use crate::site::{B, HOST_A, HOST_B, PEER_B};

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
/// The MSS that a path of 1500 bytes leaves.
const FITS: u16 = 1440;

/// The MSS option.
fn mss(value: u16) -> Vec<u8> {
    [&[2, 4], &value.to_be_bytes()[..]].concat()
}

/// A SYN from host A with these options.
fn syn(options: &[u8]) -> Datagram {
    tcp(HOST_A, HOST_B, SYN, options, &[])
}

/// A SYN-ACK from host B with these options.
fn answer(options: &[u8]) -> Datagram {
    tcp(HOST_B, HOST_A, SYN_ACK, options, &[])
}

/// The MSS option between other options.
fn around(before: &[u8], value: u16, after: &[u8]) -> Vec<u8> {
    [before, &mss(value), after].concat()
}

pub(super) fn cases() -> Vec<Case> {
    [lowered(), left_alone()].concat()
}

fn lowered() -> Vec<Case> {
    // A description, the options around the MSS, and whether the program finds it there.
    let places: [(&str, &[u8], &[u8], bool); 5] = [
        ("the only option", &[], &[], true),
        ("the first option", &[], &[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7], true),
        ("an option at an even place", &[1, 1], &[1, 0], false),
        ("an option at an odd place", &[1], &[1, 1, 0], false),
        ("the second of two", &[2, 4, 0x05, 0x00], &[], false),
    ];
    let mut cases = Vec::new();
    for (place, before, after, found) in places {
        let at = |value| around(before, value, after);
        let encapsulated = encap(format!("MSS at encapsulation: {place}"), syn(&at(1460)))
            .sends(PEER_B, ours(B, syn(&at(FITS))))
            .counting(|counts| counts.clamped.push(PEER_B));
        let decapsulated = decap(format!("MSS at decapsulation: {place}"), theirs(B, answer(&at(9000))))
            .delivers(answer(&at(FITS)))
            .counting(|counts| counts.clamped.push(PEER_B));
        cases.extend([encapsulated, decapsulated].map(|case| if found { case } else { case.declined() }));
    }
    cases.push(
        encap("MSS at encapsulation of a smaller path", syn(&mss(1460)))
            .with(|setup| setup.paths[0].mtu = 576)
            .sends(PEER_B, ours(B, syn(&mss(516))))
            .counting(|counts| counts.clamped.push(PEER_B))
            .not_end_to_end(NOT_LEARNED),
    );
    cases
}

fn left_alone() -> Vec<Case> {
    let passes =
        |name: &str, datagram: Vec<u8>| encap(name, datagram.clone()).sends(PEER_B, ours(B, datagram));
    let big = || syn(&mss(1460));
    vec![
        passes("an MSS that fits exactly", syn(&mss(FITS)).build()),
        passes("an MSS that fits", syn(&mss(536)).build()),
        passes("a SYN without options", syn(&[]).build()),
        passes("no SYN, but what looks like an MSS", tcp(HOST_A, HOST_B, ACK, &mss(1460), &[]).build()),
        passes("an MSS after the end of the list", syn(&around(&[0, 0, 0, 0], 1460, &[])).build()).declined(),
        passes("an MSS behind an option of no length", syn(&around(&[9, 0, 1, 1], 1460, &[])).build())
            .declined(),
        passes("an MSS of the wrong length", syn(&[2, 3, 0x05, 0]).build()),
        passes("options without an MSS", syn(&[1, 3, 3, 7]).build()),
        passes("a SYN whose options lie beyond it", rewritten(big().build(), 32, &[0xf0])),
        passes("a data offset below the header", rewritten(big().build(), 32, &[0x40])),
        passes("a later fragment that looks like a SYN", {
            let pieces = tcp(HOST_A, HOST_B, ACK, &[], &big().build()[20..]);
            pieces.piece(20, 24).build()
        }),
        passes("a TCP header cut before its flags", big().piece(0, 12).build()),
        encap("an MSS that is too big, with clamping off", big())
            .with(|setup| setup.config.mss_clamp = false)
            .sends(PEER_B, ours(B, big())),
        decap("an MSS at decapsulation, with clamping off", theirs(B, answer(&mss(9000))))
            .with(|setup| setup.config.mss_clamp = false)
            .delivers(answer(&mss(9000))),
        decap("an MSS at decapsulation that fits", theirs(B, answer(&mss(FITS))))
            .delivers(answer(&mss(FITS))),
    ]
}
