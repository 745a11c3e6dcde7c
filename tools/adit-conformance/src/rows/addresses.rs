//! RFC 2003 sections 3.2 and 6: which sources and destinations may use the tunnel.

use std::net::Ipv4Addr;

use adit_fixtures::packet::{self, Datagram};
use adit_wire::Protocol;

use super::header::sent_by_gateway;
use crate::error::Error;
use crate::reaction::view;
use crate::row::Level::{MustNot, Plain, Should};
use crate::row::Role::{Decapsulator, Encapsulator};
use crate::row::{Row, Trial};
use crate::site::{INSIDE, STRANGER, UNDERLAY};
use crate::testbed::Side;

const LEN: usize = 100;
/// An address in no configured network.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "RFC 2003 3.2",
            MustNot,
            Encapsulator,
            "own-source-forwarded",
            "A datagram to be forwarded whose source is one of the gateway's own addresses is not encapsulated.",
        )
        .part("inside address", &["not sent"], |trial| from_source(trial, INSIDE))
        .part("underlay address", &["not sent"], |trial| from_source(trial, UNDERLAY)),
        Row::new(
            "RFC 2003 3.2",
            Plain,
            Encapsulator,
            "own-source-local",
            "A datagram that the gateway itself sends is encapsulated.",
        )
        .one(&["sent"], |trial| {
            Ok(if sent_by_gateway(trial)?.is_some() { "sent" } else { "not sent" }.to_owned())
        }),
        Row::new(
            "RFC 2003 3.2",
            MustNot,
            Encapsulator,
            "exit-source",
            "A datagram whose source is the decapsulator's address is not encapsulated.",
        )
        .one(&["not sent"], |trial| from_source(trial, trial.site.underlay())),
        Row::new(
            "RFC 2827",
            Plain,
            Encapsulator,
            "foreign-source",
            "A datagram whose source is in none of the gateway's networks is not encapsulated.",
        )
        .one(&["not sent"], |trial| from_source(trial, ELSEWHERE)),
        Row::new(
            "RFC 2003 6.1",
            Should,
            Decapsulator,
            "stranger",
            "Only datagrams from the other end of a tunnel are decapsulated.",
        )
        .part("another outer source", &["not delivered"], |trial| {
            let inner = trial.site.back(LEN);
            came(trial, packet::bare(STRANGER, UNDERLAY, Protocol::IPIP, inner.build()))
        })
        .part("a peer's outer source", &["delivered"], |trial| {
            let outer = trial.site.outer(trial.site.back(LEN));
            came(trial, outer)
        }),
        Row::new(
            "RFC 1122 3.2.2.1",
            Plain,
            Decapsulator,
            "stranger-hears",
            "An unknown source receives no error, or Protocol Unreachable (3/2).",
        )
        .one(&["nothing said", "told 3/2"], |trial| {
            let inner = trial.site.back(LEN).build();
            let reaction = trial.arrive(packet::bare(STRANGER, UNDERLAY, Protocol::IPIP, inner).build())?;
            Ok(reaction.told_on_underlay(STRANGER).map_or("nothing said".to_owned(), |told| format!("told {told}")))
        }),
        Row::new(
            "RFC 1122 3.2.2",
            Plain,
            Decapsulator,
            "peer-hears",
            "A peer receives no error about a delivered datagram (with an ipip driver loaded in this kernel too).",
        )
        .part("whole", &["nothing said"], |trial| {
            let outer = trial.site.outer(trial.site.back(LEN)).build();
            peer_hears(trial, &[outer])
        })
        .part("in outer fragments", &["nothing said"], |trial| {
            let outer = trial.site.outer(trial.site.back(LEN)).df(false);
            let fragments = [outer.clone().piece(0, 48).build(), outer.piece(48, LEN - 48).build()];
            peer_hears(trial, &fragments)
        })
        .part("with options inside", &["nothing said"], |trial| {
            let outer = trial.site.outer(trial.site.back(LEN).options(&[1, 1, 1, 0])).build();
            peer_hears(trial, &[outer])
        }),
        Row::new(
            "RFC 2003 6.2",
            Should,
            Decapsulator,
            "spoofed-inner-source",
            "A datagram whose inner source is not behind the peer that sent it is not delivered.",
        )
        .part("another peer's host", &["not delivered"], |trial| {
            let other = trial.another_site()?;
            inner_from(trial, other.host())
        })
        .part("a host of our own", &["not delivered"], |trial| inner_from(trial, trial.site.other_sender()))
        .part("the gateway itself", &["not delivered"], |trial| inner_from(trial, INSIDE))
        .part("somebody else", &["not delivered"], |trial| inner_from(trial, ELSEWHERE)),
        Row::new(
            "RFC 2003 6.2",
            Should,
            Decapsulator,
            "spoofed-inner-destination",
            "A datagram whose inner destination is not behind the gateway is not forwarded.",
        )
        .part("somebody else", &["not passed on"], |trial| inner_to(trial, ELSEWHERE))
        .part("the peer's own network", &["not passed on"], |trial| inner_to(trial, trial.site.host()))
        .part("this host (127.0.0.1)", &["not passed on"], |trial| inner_to(trial, Ipv4Addr::LOCALHOST)),
        Row::new(
            "RFC 6169 2.2",
            Plain,
            Decapsulator,
            "nested",
            "A datagram encapsulated twice is not decapsulated twice: the second header could hide any source.",
        )
        .one(&["not delivered"], |trial| {
            let site = trial.site;
            let other = trial.another_site()?;
            let hidden = packet::udp(other.host(), site.sender(), LEN);
            came(trial, site.outer(other.outer(hidden)))
        }),
        Row::new(
            "RFC 2003 3.2",
            Plain,
            Encapsulator,
            "routed-into-itself",
            "An outer datagram that is routed back into the tunnel is not encapsulated again.",
        )
        .one(&["not sent"], |trial| {
            let site = trial.site;
            let other = trial.another_site()?;
            let inner = packet::bare(UNDERLAY, site.host(), Protocol::IPIP, other.there(LEN).build());
            let reaction = trial.send(inner.build())?;
            Ok(if reaction.sent_to(site).is_empty() { "not sent" } else { "sent" }.to_owned())
        }),
    ]
}

/// Sends a datagram with this source from the inside.
fn from_source(trial: &mut Trial<'_>, source: Ipv4Addr) -> Result<String, Error> {
    let site = trial.site;
    let reaction = trial.send(packet::udp(source, site.host(), LEN).build())?;
    Ok(if reaction.sent_to(site).is_empty() { "not sent" } else { "sent" }.to_owned())
}

/// Describes the fate of an outer datagram whose inner one is for the sender.
fn came(trial: &mut Trial<'_>, outer: Datagram) -> Result<String, Error> {
    let is_delivered = trial.delivered(outer.build())?.is_some();
    Ok(if is_delivered { "delivered" } else { "not delivered" }.to_owned())
}

/// Describes the error that the peer's gateway receives about what it sent.
fn peer_hears(trial: &mut Trial<'_>, outer: &[Vec<u8>]) -> Result<String, Error> {
    let reaction = trial.testbed.put(Side::Underlay, outer)?;
    let told = reaction.told_on_underlay(trial.site.underlay());
    Ok(told.map_or("nothing said".to_owned(), |told| format!("told {told}")))
}

fn inner_from(trial: &mut Trial<'_>, source: Ipv4Addr) -> Result<String, Error> {
    let inner = packet::udp(source, trial.site.sender(), LEN);
    let outer = trial.site.outer(inner);
    came(trial, outer)
}

/// Sends an inner datagram for this destination through the tunnel, and describes where it leaves.
fn inner_to(trial: &mut Trial<'_>, destination: Ipv4Addr) -> Result<String, Error> {
    let site = trial.site;
    let inner = packet::udp(site.host(), destination, LEN);
    let reaction = trial.arrive(site.outer(inner).build())?;
    let is_it = |bytes: &[u8]| view(bytes).is_some_and(|packet| packet.destination() == destination);
    let in_tunnel = reaction.sent_to(site).into_iter().filter_map(view).any(|outer| is_it(outer.payload()));
    Ok(if reaction.underlay.iter().any(|bytes| is_it(bytes)) {
        "passed on by the underlay, in the open"
    } else if reaction.inside.iter().any(|bytes| is_it(bytes)) {
        "passed on to the inside"
    } else if in_tunnel {
        "sent back by the tunnel"
    } else {
        "not passed on"
    }
    .to_owned())
}
