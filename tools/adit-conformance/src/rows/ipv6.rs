//! IPv6 inside and outside: RFC 4213 (IPv6 in IPv4) and RFC 2473 (an underlay of IPv6), with RFC
//! 6040 and RFC 6438. Linux does the first with `sit` and the second with `ip6tnl`.

use std::net::Ipv6Addr;

use adit_fixtures::packet_v6::{PacketV6, udp_v6};
use adit_wire::Protocol;
use adit_wire::ecn::Ecn;
use adit_wire::icmpv4::{self, Icmpv4Error};
use adit_wire::icmpv6::{self, Icmpv6Error};

use super::ecn::{EXIT, FIELDS};
use crate::error::Error;
use crate::quote::{Quote, error_about};
use crate::reaction::{Reaction, told_v6, view, view_v6};
use crate::row::Level::{May, Must, Plain, Should};
use crate::row::Role::{Decapsulator, Encapsulator};
use crate::row::{Row, Trial};
use crate::site::{Families, ROUTER6, STRANGER, UNDERLAY, UNDERLAY6};
use crate::system::Setup::{self, OverIpv6, SixInFour};
use crate::testbed::Side;

pub(super) fn rows() -> Vec<Row> {
    let rows = [headers(), too_big(), limits(), errors(), sources(), fragments(), ecn()];
    rows.into_iter().flatten().collect()
}

fn headers() -> Vec<Row> {
    vec![
        Row::new(
            "RFC 4213 3.5",
            Must,
            Encapsulator,
            "6in4-header",
            "A packet of IPv6 leaves in an IPv4 header with protocol 41 and a fixed TTL.",
        )
        .with(SixInFour)
        .one(&["protocol 41, TTL 64"], |trial| {
            let inner = trial.site.there_v6(100);
            let outer = outer(trial, inner.build())?;
            Ok(outer.as_deref().and_then(view).map_or_else(not_sent, |outer| {
                format!("protocol {}, TTL {}", outer.protocol().0, outer.ttl())
            }))
        }),
        Row::new(
            "RFC 4213 3.3",
            Must,
            Encapsulator,
            "6in4-one-hop",
            "The tunnel is one hop: a hop limit of 63 is 62 inside it.",
        )
        .with(SixInFour)
        .one(&["62"], |trial| {
            let inner = trial.site.there_v6(100);
            let outer = outer(trial, inner.build())?;
            let inner =
                outer.as_deref().and_then(inner_of).and_then(|inner| view_v6(inner).map(|it| it.hop_limit()));
            Ok(inner.map_or_else(not_sent, |left| left.to_string()))
        }),
        Row::new(
            "RFC 2473 3",
            Must,
            Encapsulator,
            "over-ipv6-header",
            "A packet leaves in an IPv6 header whose next header says its family, 4 or 41.",
        )
        .with(OverIpv6)
        .part("IPv4", &["next header 4, hop limit 64"], |trial| over_ipv6_header(trial, false))
        .part("IPv6", &["next header 41, hop limit 64"], |trial| over_ipv6_header(trial, true)),
        Row::new(
            "RFC 6438 3",
            Should,
            Encapsulator,
            "flow-label",
            "The outer flow label is not 0, equal within an inner flow and different for others.",
        )
        .with(OverIpv6)
        .part("IPv4", &["one for each flow"], |trial| flow_labels(trial, false))
        .part("IPv6", &["one for each flow"], |trial| flow_labels(trial, true)),
    ]
}

fn over_ipv6_header(trial: &mut Trial<'_>, is_v6: bool) -> Result<String, Error> {
    let inner = there(trial, is_v6, 100);
    let outer = outer(trial, inner)?;
    Ok(outer.as_deref().and_then(view_v6).map_or_else(not_sent, |outer| {
        format!("next header {}, hop limit {}", outer.next_header().0, outer.hop_limit())
    }))
}

fn flow_labels(trial: &mut Trial<'_>, is_v6: bool) -> Result<String, Error> {
    let first = there(trial, is_v6, 100);
    let again = there(trial, is_v6, 200);
    let mut another = first.clone();
    // The first byte of the source port.
    another[if is_v6 { 40 } else { 20 }] ^= 0x10;
    let mut labels = Vec::new();
    for inner in [first, again, another] {
        let outer = outer(trial, inner)?;
        labels.push(outer.as_deref().and_then(view_v6).map(|outer| outer.flow_label()));
    }
    Ok(match labels[..] {
        [Some(0), Some(0), Some(0)] => "0".to_owned(),
        [Some(first), Some(again), Some(_)] if first != again => "several in a flow".to_owned(),
        [Some(first), Some(_), Some(another)] if first == another => "one for all flows".to_owned(),
        [Some(_), Some(_), Some(_)] => "one for each flow".to_owned(),
        _ => not_sent(),
    })
}

/// What the path takes, and what is done with more.
fn too_big() -> Vec<Row> {
    vec![
        Row::new(
            "RFC 4213 3.2.2",
            Must,
            Encapsulator,
            "6in4-too-big",
            "A packet that does not fit the link (1500) with its outer header is refused at once with Packet Too Big and MTU 1480.",
        )
        .with(SixInFour)
        .part("1481 bytes", &["not sent, told 2/0, MTU 1480"], |trial| fate(trial, true, 1481))
        .part("1480 bytes", &["sent"], |trial| fate(trial, true, 1480)),
        Row::new(
            "RFC 4213 3.2.2",
            Must,
            Encapsulator,
            "6in4-narrow-path",
            "After a router has reported the path's MTU (1200), 1280 bytes pass all the same: without DF, or in outer fragments. More is refused with MTU 1280.",
        )
        .with(SixInFour)
        .part("1280 bytes", &["sent in pieces"], |trial| {
            learn(trial, 1200)?;
            pieces(trial, 1280)
        })
        .part("1281 bytes", &["not sent, told 2/0, MTU 1280"], |trial| {
            learn(trial, 1200)?;
            fate(trial, true, 1281)
        }),
        Row::new(
            "RFC 2473 7.1",
            Must,
            Encapsulator,
            "over-ipv6-too-big",
            "A packet of IPv6 that does not fit the link (1500) with its outer header is refused at once with Packet Too Big and MTU 1460.",
        )
        .with(OverIpv6)
        .part("1461 bytes", &["not sent, told 2/0, MTU 1460"], |trial| fate(trial, true, 1461))
        .part("1460 bytes", &["sent"], |trial| fate(trial, true, 1460)),
        Row::new(
            "RFC 2473 7.1",
            Must,
            Encapsulator,
            "over-ipv6-narrow-path",
            "After a router has reported the path's MTU (1280), which leaves 1240, packets of IPv6 up to 1280 bytes pass in outer fragments. More is refused with MTU 1280.",
        )
        .with(OverIpv6)
        .part("1240 bytes", &["sent"], |trial| {
            learn(trial, 1280)?;
            fate(trial, true, 1240)
        })
        .part("1241 bytes", &["sent in pieces"], |trial| {
            learn(trial, 1280)?;
            pieces(trial, 1241)
        })
        .part("1280 bytes", &["sent in pieces"], |trial| {
            learn(trial, 1280)?;
            pieces(trial, 1280)
        })
        .part("1281 bytes", &["not sent, told 2/0, MTU 1280"], |trial| {
            learn(trial, 1280)?;
            fate(trial, true, 1281)
        }),
        Row::new(
            "RFC 2473 7.2",
            Must,
            Encapsulator,
            "4in6-too-big",
            "A datagram of IPv4 with DF that does not fit is refused with 3/4 and what is left: 1460 on the link (1500), 1240 after a router has reported 1280.",
        )
        .with(OverIpv6)
        .part("1461 bytes", &["not sent, told 3/4, MTU 1460"], |trial| fate(trial, false, 1461))
        .part("1460 bytes", &["sent"], |trial| fate(trial, false, 1460))
        .part("1241 bytes, 1280 reported", &["not sent, told 3/4, MTU 1240"], |trial| {
            learn(trial, 1280)?;
            fate(trial, false, 1241)
        }),
        Row::new(
            "RFC 2473 7.2",
            Must,
            Encapsulator,
            "4in6-too-big-without-df",
            "A datagram of IPv4 without DF that does not fit is fragmented, outside or inside.",
        )
        .with(OverIpv6)
        .one(&["sent in pieces"], |trial| {
            let inner = trial.site.there(1500).build();
            let reaction = trial.send(inner)?;
            Ok(in_pieces(&reaction, trial))
        }),
    ]
}

/// RFC 2473 section 4.1.1.
fn limits() -> Vec<Row> {
    let limited = |left| {
        move |site: &PacketV6| site.clone().extension(Protocol::DESTINATION_OPTIONS, [0, 4, 1, left, 1, 1, 0])
    };
    vec![
        Row::new(
            "RFC 2473 4.1.1",
            Must,
            Encapsulator,
            "limit-0",
            "A packet whose encapsulation limit is 0 is dropped, and its sender receives a Parameter Problem (4/0) that points at the limit.",
        )
        .with(OverIpv6)
        .one(&["not sent, told 4/0, octet 44"], move |trial| {
            let inner = limited(0)(&trial.site.there_v6(100)).build();
            let reaction = trial.send(inner)?;
            Ok(of_v6(&reaction, trial))
        }),
        Row::new(
            "RFC 2473 4.1.1",
            Must,
            Encapsulator,
            "limit-4",
            "A packet whose encapsulation limit is 4 gets an outer header with a limit of 3.",
        )
        .with(OverIpv6)
        .one(&["limit 3"], move |trial| {
            let inner = limited(4)(&trial.site.there_v6(100)).build();
            let outer = outer(trial, inner)?;
            Ok(match outer.as_deref() {
                None => not_sent(),
                Some(outer) if outer.get(6) != Some(&Protocol::DESTINATION_OPTIONS.0) => "no limit".to_owned(),
                Some(outer) => format!("limit {}", outer.get(44).copied().unwrap_or_default()),
            })
        }),
        Row::new(
            "RFC 2473 5.1",
            Must,
            Decapsulator,
            "limit-outside",
            "A limit in the outer destination options says nothing to the exit: the inner packet comes out.",
        )
        .with(OverIpv6)
        .part("IPv4", &["delivered"], |trial| optioned(trial, false, LIMIT))
        .part("IPv6", &["delivered"], |trial| optioned(trial, true, LIMIT)),
        Row::new(
            "RFC 8200 4.2",
            Must,
            Decapsulator,
            "unknown-option-outside",
            "An outer option that a node must know (type 0x45) has the packet dropped.",
        )
        .with(OverIpv6)
        .one(&["dropped"], |trial| optioned(trial, true, [0, 0x45, 4, 0, 0, 0, 0])),
    ]
}

const LIMIT: [u8; 7] = [0, 4, 1, 4, 1, 1, 0];

fn optioned(trial: &mut Trial<'_>, is_v6: bool, body: [u8; 7]) -> Result<String, Error> {
    let inner = back(trial, is_v6);
    let outer = trial.site.outer_v6(inner).extension(Protocol::DESTINATION_OPTIONS, body);
    comes_out(trial, is_v6, vec![outer.build()])
}

/// RFC 4213 section 3.4 and RFC 2473 section 8: errors from inside the tunnel.
fn errors() -> Vec<Row> {
    let unreachable_v4 = Icmpv4Error::DestinationUnreachable { code: icmpv4::unreachable::HOST };
    let unreachable = |code| Icmpv6Error::DestinationUnreachable { code };
    let address = unreachable(icmpv6::unreachable::ADDRESS);
    vec![
        Row::new(
            "RFC 4213 3.4",
            May,
            Encapsulator,
            "6in4-unreachable",
            "Host Unreachable of IPv4 is relayed to a sender of IPv6 as address unreachable (1/3).",
        )
        .with(SixInFour)
        .one(&["told 1/3 at once", "nothing said"], move |trial| six_in_four_error(trial, unreachable_v4)),
        Row::new(
            "RFC 4213 3.4",
            May,
            Encapsulator,
            "6in4-time-exceeded",
            "Time Exceeded of IPv4 inside the tunnel is relayed as address unreachable (1/3).",
        )
        .with(SixInFour)
        .one(&["told 1/3 at once", "nothing said"], |trial| {
            six_in_four_error(trial, Icmpv4Error::TimeExceeded { code: 0 })
        }),
        Row::new(
            "RFC 4213 3.2.2",
            Must,
            Encapsulator,
            "6in4-path-too-big",
            "Datagram Too Big of IPv4 (MTU 1400) becomes Packet Too Big with MTU 1380: at once, or for the next packet.",
        )
        .with(SixInFour)
        .one(&["told 2/0, MTU 1380 at once", "the next is told 2/0, MTU 1380"], |trial| {
            six_in_four_error(trial, Icmpv4Error::TooBig { mtu: 1400 })
        }),
        Row::new(
            "RFC 2473 8.2",
            Must,
            Encapsulator,
            "over-ipv6-unreachable",
            "An unreachable node inside the tunnel (1/0, 1/3) is told to the sender: to one of IPv6 as 1/3, to one of IPv4 as 3/1.",
        )
        .with(OverIpv6)
        .part("IPv6, 1/0", &["told 1/3 at once"], move |trial| over_ipv6_error(trial, true, unreachable(0)))
        .part("IPv6, 1/3", &["told 1/3 at once"], move |trial| over_ipv6_error(trial, true, address))
        .part("IPv4, 1/3", &["told 3/1 at once"], move |trial| over_ipv6_error(trial, false, address)),
        Row::new(
            "RFC 2473 8.2",
            Must,
            Encapsulator,
            "over-ipv6-hop-limit",
            "Hop limit exceeded inside the tunnel (3/0) is told as an unreachable address: 1/3 or 3/1.",
        )
        .with(OverIpv6)
        .part("IPv6", &["told 1/3 at once"], |trial| {
            over_ipv6_error(trial, true, Icmpv6Error::TimeExceeded { code: 0 })
        })
        .part("IPv4", &["told 3/1 at once"], |trial| {
            over_ipv6_error(trial, false, Icmpv6Error::TimeExceeded { code: 0 })
        }),
        Row::new(
            "RFC 2473 8.1",
            Must,
            Encapsulator,
            "over-ipv6-path-too-big",
            "Packet Too Big inside the tunnel (MTU 1400) is told with 1360: as 2/0, and as 3/4 where DF is set.",
        )
        .with(OverIpv6)
        .part("IPv6", &["told 2/0, MTU 1360 at once"], |trial| {
            over_ipv6_error(trial, true, Icmpv6Error::TooBig { mtu: 1400 })
        })
        .part("IPv4 with DF", &["told 3/4, MTU 1360 at once"], |trial| {
            over_ipv6_error(trial, false, Icmpv6Error::TooBig { mtu: 1400 })
        }),
        Row::new(
            "RFC 8201 4",
            Must,
            Encapsulator,
            "over-ipv6-mtu-floor",
            "A Packet Too Big below 1280 (here 1279) is not believed: 1460 bytes pass afterwards.",
        )
        .with(OverIpv6)
        .one(&["sent"], |trial| {
            learn(trial, 1279)?;
            fate(trial, true, 1460)
        }),
    ]
}

/// RFC 4213 section 3.6: what must not come out of a tunnel.
fn sources() -> Vec<Row> {
    const FORGED: [(&str, &str); 4] = [
        ("multicast", "ff0e::1"),
        ("loopback", "::1"),
        ("IPv4-compatible", "::10.1.1.1"),
        ("IPv4-mapped", "::ffff:10.1.1.1"),
    ];
    let rule =
        "A packet of IPv6 with a multicast, loopback, IPv4-compatible or IPv4-mapped source is dropped.";
    let mut in_v4 = Row::new("RFC 4213 3.6", Must, Decapsulator, "6in4-forged-source", rule).with(SixInFour);
    let mut in_v6 = Row::new("RFC 4213 3.6", Plain, Decapsulator, "6in6-forged-source", rule).with(OverIpv6);
    for (label, source) in FORGED {
        in_v4 = in_v4.part(label, &["dropped"], move |trial| forged(trial, source, Families::SixInFour));
        in_v6 = in_v6.part(label, &["dropped"], move |trial| forged(trial, source, Families::OverIpv6));
    }
    vec![
        in_v4,
        in_v6,
        Row::new(
            "RFC 4213 3.6",
            Must,
            Decapsulator,
            "6in4-unknown-outer-source",
            "A packet whose outer source is not the configured one is dropped.",
        )
        .with(SixInFour)
        .one(&["dropped"], |trial| {
            let outer = trial.site.outer_v4(trial.site.back_v6(100).build()).from(STRANGER);
            comes_out(trial, true, vec![outer.build()])
        }),
        Row::new("RFC 2473 3", Plain, Decapsulator, "over-ipv6-unknown-outer-source", "The same over IPv6.")
            .with(OverIpv6)
            .one(&["dropped"], |trial| {
                let mut outer = trial.site.outer_v6(trial.site.back_v6(100).build()).build();
                outer[23] ^= 0x40;
                comes_out(trial, true, vec![outer])
            }),
    ]
}

fn forged(trial: &mut Trial<'_>, source: &str, families: Families) -> Result<String, Error> {
    let source: Ipv6Addr = source.parse().map_err(|error| Error::Io {
        what: "read a constant".to_owned(),
        source: std::io::Error::other(error),
    })?;
    let inner = udp_v6(source, trial.site.sender_v6(), 100).build();
    let outer = match families {
        Families::OverIpv6 => trial.site.outer_v6(inner).build(),
        Families::OverIpv4 | Families::SixInFour => trial.site.outer_v4(inner).build(),
    };
    comes_out(trial, true, vec![outer])
}

/// RFC 8200 section 4.5 and RFC 5722: outer fragments.
fn fragments() -> Vec<Row> {
    let row = |level, section, name, rule| Row::new(section, level, Decapsulator, name, rule).with(OverIpv6);
    vec![
        row(
            Must,
            "RFC 2473 3.3",
            "over-ipv6-reassembly",
            "The exit reassembles outer fragments, in order and out of order.",
        )
        .part("in order", &["delivered"], |trial| fragmented(trial, &[(0, 64), (64, 200)], false))
        .part("out of order", &["delivered"], |trial| fragmented(trial, &[(64, 200), (0, 64)], false)),
        row(
            Must,
            "RFC 5722 4",
            "over-ipv6-overlap",
            "Outer fragments that overlap are dropped, all of them.",
        )
        .one(&["dropped"], |trial| fragmented(trial, &[(0, 64), (56, 200)], true)),
    ]
}

fn fragmented(trial: &mut Trial<'_>, pieces: &[(usize, usize)], overlap: bool) -> Result<String, Error> {
    let whole = trial.site.outer_v6(trial.site.back_v6(256).build());
    let cut = |&(from, to): &(usize, usize)| {
        let to = if to == 200 { 256 } else { to };
        whole.clone().piece(from, to - from).build()
    };
    let mut frames: Vec<Vec<u8>> = pieces.iter().map(cut).collect();
    if overlap {
        // What fills the gap comes last.
        frames.push(whole.clone().piece(64, 192).build());
    }
    comes_out(trial, true, frames)
}

/// RFC 6040 with IPv6 inside, outside, and both.
fn ecn() -> Vec<Row> {
    let combinations = [
        ("6in4", SixInFour, true, "ecn-6in4-entrance", "ecn-6in4-exit"),
        ("4in6", OverIpv6, false, "ecn-4in6-entrance", "ecn-4in6-exit"),
        ("6in6", OverIpv6, true, "ecn-6in6-entrance", "ecn-6in6-exit"),
    ];
    let mut rows = Vec::new();
    for (_, setup, is_v6, entrance, exit) in combinations {
        let mut enters = Row::new(
            "RFC 6040 4.1",
            Must,
            Encapsulator,
            entrance,
            "Normal mode: the outer ECN field is a copy of the inner one, for each of its four values.",
        )
        .with(setup);
        let mut leaves = Row::new(
            "RFC 6040 4.2",
            Must,
            Decapsulator,
            exit,
            "The inner field after decapsulation: for each of the four inner values, with outer Not-ECT, ECT(0), ECT(1), CE.",
        )
        .with(setup);
        for (at, (field, name)) in FIELDS.into_iter().enumerate() {
            enters = enters.part(&format!("inner {name}"), &[&format!("outer {name}")], move |trial| {
                ecn_entrance(trial, is_v6, field)
            });
            leaves = leaves.part(&format!("inner {name}"), &[&EXIT[at].join(", ")], move |trial| {
                let left: Result<Vec<String>, Error> =
                    FIELDS.iter().map(|&(outer, _)| ecn_exit(trial, setup, is_v6, field, outer)).collect();
                Ok(left?.join(", "))
            });
        }
        rows.extend([enters, leaves]);
    }
    rows
}

fn ecn_name(tos: u8) -> String {
    let field = Ecn::from_tos(tos);
    FIELDS.iter().find(|(known, _)| *known == field).map_or_else(String::new, |(_, name)| (*name).to_owned())
}

/// The TOS or traffic class of a packet.
fn tos_of(packet: &[u8]) -> Option<u8> {
    view_v6(packet).map(|it| it.traffic_class()).or_else(|| view(packet).map(|it| it.tos()))
}

fn ecn_entrance(trial: &mut Trial<'_>, is_v6: bool, field: Ecn) -> Result<String, Error> {
    let inner = if is_v6 {
        trial.site.there_v6(100).traffic_class(field.bits()).build()
    } else {
        trial.site.there(100).tos(field.bits()).build()
    };
    let outer = outer(trial, inner)?;
    Ok(outer.as_deref().and_then(tos_of).map_or_else(not_sent, |tos| format!("outer {}", ecn_name(tos))))
}

fn ecn_exit(
    trial: &mut Trial<'_>,
    setup: Setup,
    is_v6: bool,
    inner: Ecn,
    outer: Ecn,
) -> Result<String, Error> {
    let inner = if is_v6 {
        trial.site.back_v6(100).traffic_class(inner.bits()).build()
    } else {
        trial.site.back(100).tos(inner.bits()).build()
    };
    let outer = match setup {
        OverIpv6 => trial.site.outer_v6(inner).traffic_class(outer.bits()).build(),
        _ => trial.site.outer_v4(inner).tos(outer.bits()).build(),
    };
    let reaction = arrives(trial, is_v6, vec![outer])?;
    let delivered = delivered(&reaction, trial, is_v6);
    Ok(delivered.as_deref().and_then(tos_of).map_or_else(|| "dropped".to_owned(), ecn_name))
}

fn not_sent() -> String {
    "not sent".to_owned()
}

/// A packet of a family from the sender to the site's host, of IPv4 with DF.
fn there(trial: &Trial<'_>, is_v6: bool, len: usize) -> Vec<u8> {
    if is_v6 { trial.site.there_v6(len).build() } else { trial.site.there(len).df(true).build() }
}

fn back(trial: &Trial<'_>, is_v6: bool) -> Vec<u8> {
    if is_v6 { trial.site.back_v6(100).build() } else { trial.site.back(100).build() }
}

/// Sends a packet from a host on the inside, and returns the outer packet, if one leaves.
fn outer(trial: &mut Trial<'_>, inner: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
    let site = trial.site;
    let complete = |reaction: &Reaction| !reaction.outers_to(site).is_empty();
    let reaction = trial.testbed.put_unless(Side::Inside, &[inner], complete)?;
    Ok(reaction.outers_to(site).first().map(|outer| outer.to_vec()))
}

/// The inner packet of a plain outer one.
fn inner_of(outer: &[u8]) -> Option<&[u8]> {
    outer.get(if outer[0] >> 4 == 6 { 40 } else { 20 }..)
}

/// Sends outer packets from the underlay, and returns what is heard.
fn arrives(trial: &mut Trial<'_>, is_v6: bool, outers: Vec<Vec<u8>>) -> Result<Reaction, Error> {
    let site = trial.site;
    let complete = |reaction: &Reaction| {
        if is_v6 {
            !reaction.delivered_to_v6(site.sender_v6()).is_empty()
        } else {
            !reaction.delivered_to(site.sender()).is_empty()
        }
    };
    trial.testbed.put_unless(Side::Underlay, &outers, complete)
}

fn delivered(reaction: &Reaction, trial: &Trial<'_>, is_v6: bool) -> Option<Vec<u8>> {
    let delivered = if is_v6 {
        reaction.delivered_to_v6(trial.site.sender_v6())
    } else {
        reaction.delivered_to(trial.site.sender())
    };
    delivered.first().map(|packet| packet.to_vec())
}

fn comes_out(trial: &mut Trial<'_>, is_v6: bool, outers: Vec<Vec<u8>>) -> Result<String, Error> {
    let reaction = arrives(trial, is_v6, outers)?;
    let is_out = delivered(&reaction, trial, is_v6).is_some();
    Ok(if is_out { "delivered" } else { "dropped" }.to_owned())
}

/// The fate of a packet of `len` bytes.
fn fate(trial: &mut Trial<'_>, is_v6: bool, len: usize) -> Result<String, Error> {
    let inner = there(trial, is_v6, len);
    let reaction = trial.send(inner)?;
    Ok(if is_v6 { of_v6(&reaction, trial) } else { of_v4(&reaction, trial) })
}

fn of_v6(reaction: &Reaction, trial: &Trial<'_>) -> String {
    let sent = if reaction.outers_to(trial.site).is_empty() { "not sent" } else { "sent" };
    match reaction.told_to_v6(trial.site.sender_v6()) {
        Some(error) => format!("{sent}, told {}", told_v6(error)),
        None => sent.to_owned(),
    }
}

fn of_v4(reaction: &Reaction, trial: &Trial<'_>) -> String {
    let sent = if reaction.outers_to(trial.site).is_empty() { "not sent" } else { "sent" };
    match reaction.told(trial.site.sender()) {
        Some(told) => format!("{sent}, told {told}"),
        None => sent.to_owned(),
    }
}

/// Whether a packet of IPv6 of `len` bytes leaves so that the path can take it.
fn pieces(trial: &mut Trial<'_>, len: usize) -> Result<String, Error> {
    let inner = there(trial, true, len);
    let reaction = trial.send(inner)?;
    Ok(match reaction.told_to_v6(trial.site.sender_v6()) {
        Some(error) => format!("not sent, told {}", told_v6(error)),
        None => in_pieces(&reaction, trial),
    })
}

fn in_pieces(reaction: &Reaction, trial: &Trial<'_>) -> String {
    let outers = reaction.outers_to(trial.site);
    // A router of the underlay may cut what has no DF.
    let may_be_cut = |outer: &&[u8]| view(outer).is_some_and(|outer| !outer.dont_fragment());
    match outers[..] {
        [] => not_sent(),
        [one] if may_be_cut(&one) => "sent in pieces".to_owned(),
        [_] => "sent whole".to_owned(),
        _ => "sent in pieces".to_owned(),
    }
}

/// Has a router report this MTU of the path, about a packet that fills the link.
fn learn(trial: &mut Trial<'_>, mtu: u16) -> Result<(), Error> {
    let site = trial.site;
    let inner = site.there_v6(1440).build();
    let Some(outer) = outer(trial, inner)? else { return Ok(()) };
    let error = if outer[0] >> 4 == 6 {
        error_about_v6(&outer, Icmpv6Error::TooBig { mtu: mtu.into() })
    } else {
        error_about(&outer, Icmpv4Error::TooBig { mtu }, Quote::Full)
    };
    let told = |reaction: &Reaction| reaction.told_to_v6(site.sender_v6()).is_some();
    trial.testbed.put_unless(Side::Underlay, &[error], told)?;
    // Linux's sit tells the sender with the next packet, which this one is not.
    trial.send(site.there_v6(1440).build())?;
    Ok(())
}

/// A router's error about an outer packet of IPv6.
fn error_about_v6(outer: &[u8], error: Icmpv6Error) -> Vec<u8> {
    let mut bytes = [0; icmpv6::MAX_ERROR_LEN];
    let len = icmpv6::build_error(&mut bytes, ROUTER6, UNDERLAY6, error, outer);
    bytes[..len].to_vec()
}

/// What the sender of a packet of IPv6 in IPv4 hears of a router's error about it.
fn six_in_four_error(trial: &mut Trial<'_>, error: Icmpv4Error) -> Result<String, Error> {
    let inner = trial.site.there_v6(1440).build();
    let Some(outer) = outer(trial, inner)? else { return Ok(not_sent()) };
    debug_assert_eq!(view(&outer).map(|outer| outer.source()), Some(UNDERLAY));
    heard(trial, true, error_about(&outer, error, Quote::Full))
}

/// The same over IPv6, of a packet of either family.
fn over_ipv6_error(trial: &mut Trial<'_>, is_v6: bool, error: Icmpv6Error) -> Result<String, Error> {
    let inner = there(trial, is_v6, 1440);
    let Some(outer) = outer(trial, inner)? else { return Ok(not_sent()) };
    heard(trial, is_v6, error_about_v6(&outer, error))
}

fn heard(trial: &mut Trial<'_>, is_v6: bool, error: Vec<u8>) -> Result<String, Error> {
    let site = trial.site;
    let told = |reaction: &Reaction| {
        if is_v6 {
            reaction.told_to_v6(site.sender_v6()).map(told_v6)
        } else {
            reaction.told(site.sender()).map(|told| told.to_string())
        }
    };
    let reaction = trial.testbed.put_unless(Side::Underlay, &[error], |reaction| told(reaction).is_some())?;
    if let Some(told) = told(&reaction) {
        return Ok(format!("told {told} at once"));
    }
    let inner = there(trial, is_v6, 1440);
    let reaction = trial.send(inner)?;
    Ok(told(&reaction).map_or_else(|| "nothing said".to_owned(), |told| format!("the next is told {told}")))
}
