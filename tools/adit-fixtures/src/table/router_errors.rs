//! ICMP errors from routers whose own address is in no configured network, in both directions and
//! from peer to peer. The programs leave them to userspace.

use std::net::Ipv4Addr;

use adit_tunnel::DropReason;
use adit_wire::Protocol;
use adit_wire::icmpv4::{Icmpv4Error, MAX_ERROR_LEN, build_error};

use crate::case::{Case, decap, encap};
use crate::packet::{Datagram, bare, ours, theirs, udp};
use crate::site::{A, B, C, HOST_A, HOST_B, HOST_C, INSIDE_A, PEER_B, PEER_C, STRANGER};

const TOO_BIG: Icmpv4Error = Icmpv4Error::TooBig { mtu: 1300 };

/// An error from `source` to `to` about a datagram from there to `about`.
fn error(kind: Icmpv4Error, source: Ipv4Addr, to: Ipv4Addr, about: Ipv4Addr) -> Datagram {
    quoting(kind, source, to, udp(to, about, 100))
}

fn quoting(kind: Icmpv4Error, source: Ipv4Addr, to: Ipv4Addr, quoted: Datagram) -> Datagram {
    bare(source, to, Protocol::ICMP, message(kind, source, to, quoted))
}

fn message(kind: Icmpv4Error, source: Ipv4Addr, to: Ipv4Addr, quoted: Datagram) -> Vec<u8> {
    let mut bytes = [0; MAX_ERROR_LEN];
    let len = build_error(&mut bytes, source, to, kind, &quoted.build());
    bytes[20..len].to_vec()
}

pub(super) fn cases() -> Vec<Case> {
    [admitted(), refused_in(), refused_out()].concat()
}

fn admitted() -> Vec<Case> {
    let kinds = [
        ("Datagram Too Big", TOO_BIG),
        ("Host Unreachable", Icmpv4Error::DestinationUnreachable { code: 1 }),
        ("Time Exceeded", Icmpv4Error::TimeExceeded { code: 0 }),
        ("Parameter Problem", Icmpv4Error::ParameterProblem { code: 0, pointer: 1 }),
    ];
    let mut cases = Vec::new();
    for (name, kind) in kinds {
        let out = || error(kind, STRANGER, HOST_B, HOST_A);
        let inside = || error(kind, STRANGER, HOST_A, HOST_B);
        let relayed = || error(kind, STRANGER, HOST_C, HOST_B);
        cases.extend([
            encap(format!("{name} of a router of ours"), out()).sends(PEER_B, ours(B, out())).declined(),
            decap(format!("{name} of a router behind a peer"), theirs(B, inside()))
                .delivers(inside())
                .declined(),
            decap(format!("{name} of a router behind a peer, to another peer"), theirs(B, relayed()))
                .sends(PEER_C, ours(C, relayed().ttl(62)))
                .declined(),
        ]);
    }
    let gateway = || error(TOO_BIG, B, HOST_C, HOST_B);
    cases.push(
        decap("Datagram Too Big of a peer's gateway, to another peer", theirs(B, gateway()))
            .sends(PEER_C, ours(C, gateway().ttl(62)))
            .declined(),
    );
    cases
}

fn refused_in() -> Vec<Case> {
    let refused = |name: &str, inner: Datagram, reason| {
        decap(format!("a router's error {name}"), theirs(B, inner)).drops(reason, Some(PEER_B)).declined()
    };
    let not_from = DropReason::InnerSourceNotFromPeer;
    let own = DropReason::InnerSourceIsOwn;
    let from = |source| error(TOO_BIG, source, HOST_A, HOST_B);
    let mut broken = message(TOO_BIG, STRANGER, HOST_A, udp(HOST_A, HOST_B, 100));
    broken[10] ^= 1;
    let broken = bare(STRANGER, HOST_A, Protocol::ICMP, broken);
    vec![
        refused("about a datagram to another peer", error(TOO_BIG, STRANGER, HOST_A, HOST_C), not_from),
        refused("about a datagram of ours to us", error(TOO_BIG, STRANGER, HOST_A, INSIDE_A), not_from),
        refused(
            "about somebody else's datagram",
            quoting(TOO_BIG, STRANGER, HOST_A, udp(INSIDE_A, HOST_B, 100)),
            not_from,
        ),
        refused("back to where it came from", error(TOO_BIG, STRANGER, HOST_B, HOST_B), not_from),
        refused("to a stranger", error(TOO_BIG, STRANGER, STRANGER, HOST_B), not_from),
        refused("with a wrong checksum", broken, not_from),
        refused("from another peer's host", from(HOST_C), not_from),
        refused("from another peer's gateway", from(C), not_from),
        refused("from a loopback address", from(Ipv4Addr::LOCALHOST), not_from)
            .not_end_to_end("a real gateway has that address itself"),
        refused("from a link-local address", from(Ipv4Addr::new(169, 254, 1, 1)), not_from),
        refused("from a multicast address", from(Ipv4Addr::new(224, 0, 0, 5)), not_from),
        refused("from 0/8", from(Ipv4Addr::new(0, 1, 2, 3)), not_from),
        // The programs need no quote for these.
        decap("a router's error from our network", theirs(B, from(HOST_A))).drops(own, Some(PEER_B)),
        decap("a router's error from our gateway", theirs(B, from(A))).drops(own, Some(PEER_B)),
        decap(
            "a redirect of a router behind a peer",
            theirs(B, error(Icmpv4Error::Redirect { code: 1, gateway: B }, STRANGER, HOST_A, HOST_B)),
        )
        .drops(not_from, Some(PEER_B)),
    ]
}

fn refused_out() -> Vec<Case> {
    let refused = |name: &str, datagram: Datagram| {
        encap(format!("a router's error {name}"), datagram)
            .drops(DropReason::InnerSourceDenied, Some(PEER_B))
            .counting(|counts| counts.icmp_suppressed = 1)
            .declined()
    };
    vec![
        refused("about a datagram to nobody", error(TOO_BIG, STRANGER, HOST_B, STRANGER)),
        refused("about a datagram to the same peer", error(TOO_BIG, STRANGER, HOST_B, HOST_B)),
        refused(
            "about somebody else's datagram, to a peer",
            quoting(TOO_BIG, STRANGER, HOST_B, udp(HOST_C, HOST_A, 100)),
        ),
        refused("from another peer's gateway, to a peer", error(TOO_BIG, C, HOST_B, HOST_A)),
    ]
}
