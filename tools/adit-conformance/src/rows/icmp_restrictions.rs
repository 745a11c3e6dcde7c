//! RFC 1122 section 3.2.2 and RFC 1812 section 4.3.2: restrictions on sending ICMP errors.

use std::net::Ipv4Addr;

use adit_fixtures::packet::{self, Datagram};
use adit_wire::Protocol;
use adit_wire::icmpv4::{Icmpv4Error, unreachable};

use super::path::learn;
use crate::error::Error;
use crate::quote::{Quote, error_about, mend_icmp};
use crate::reaction::error_in;
use crate::row::Level::{MustNot, Should};
use crate::row::Role::Encapsulator;
use crate::row::{Level, Row, Trial};
use crate::site::{INSIDE, Site};
use crate::testbed::Side;

/// A length with DF that a link of 1500 refuses.
const TOO_BIG: usize = 1500;
const QUIET_ASKED: [&str; 1] = ["nothing said"];

fn row(section: &'static str, level: Level, name: &'static str, rule: &'static str) -> Row {
    Row::new(section, level, Encapsulator, name, rule)
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("RFC 1122 3.2.2", MustNot, "no-error-about-errors", "No ICMP error is sent about an ICMP error.")
            .part("too big for the link", &QUIET_ASKED, |trial| {
                refused(trial, icmp_error(trial.site, TOO_BIG))
            })
            .part("3/1 from inside the tunnel", &QUIET_ASKED, |trial| {
                reported(trial, icmp_error(trial.site, 1000))
            }),
        row(
            "RFC 1122 3.2.2",
            MustNot,
            "no-error-about-later-fragments",
            "No ICMP error is sent about a fragment other than the first.",
        )
        .part("too big for the link", &QUIET_ASKED, |trial| {
            refused(trial, trial.site.there(TOO_BIG).df(true).fragment(false, 1480))
        })
        .part("3/1 from inside the tunnel", &QUIET_ASKED, |trial| {
            reported(trial, trial.site.there(1000).df(true).fragment(false, 1480))
        }),
        row(
            "RFC 1812 4.3.2.7",
            MustNot,
            "no-error-about-groups",
            "No ICMP error is sent about a multicast or broadcast datagram.",
        )
        .part("224.0.1.1", &QUIET_ASKED, |trial| {
            refused(trial, trial.site.there(TOO_BIG).df(true).to(Ipv4Addr::new(224, 0, 1, 1)))
        })
        .part("255.255.255.255", &QUIET_ASKED, |trial| {
            refused(trial, trial.site.there(TOO_BIG).df(true).to(Ipv4Addr::BROADCAST))
        }),
        row(
            "RFC 1812 4.3.2.4",
            Should,
            "error-source",
            "The source of an error is the gateway's address on the sender's side.",
        )
        .part("of its own", &["from the inside address"], |trial| {
            let site = trial.site;
            let reaction = trial.send(site.there(TOO_BIG).df(true).build())?;
            Ok(source_of(reaction.told(site.sender())))
        })
        .part("relayed", &["from the inside address"], |trial| {
            let told = relayed_error(trial, 1000)?;
            Ok(source_of(told))
        }),
        row("RFC 1812 4.3.2.3", Should, "error-quotes", "An error quotes as much as fits into 576 bytes.")
            .part("of its own", &["576 bytes"], |trial| {
                let site = trial.site;
                let reaction = trial.send(site.there(TOO_BIG).df(true).build())?;
                Ok(length_of(reaction.told(site.sender())))
            })
            // The router's quote has less space, by the outer header and its own.
            .part("relayed", &["556 bytes", "576 bytes"], |trial| {
                let told = relayed_error(trial, 1000)?;
                Ok(length_of(told))
            }),
        row(
            "RFC 1812 4.3.2.8",
            Should,
            "error-rate",
            "Errors are rate limited: of 400 datagrams that are too big for the path (1400), not all are answered.",
        )
        .alone()
        .one(&["limited"], rate),
        row(
            "RFC 1812 4.3.2.8",
            Should,
            "error-rate-relayed",
            "Relayed errors are rate limited too: of 400 errors from inside the tunnel, not all are relayed.",
        )
        .alone()
        .one(&["limited", "nothing said"], rate_relayed),
    ]
}

/// A Host Unreachable from the sender to the site's host.
fn icmp_error(site: Site, len: usize) -> Datagram {
    let quoted = packet::udp(site.host(), site.sender(), len - 28).build();
    let message = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
    let mut datagram = packet::bare(site.sender(), site.host(), Protocol::ICMP, message).build();
    mend_icmp(&mut datagram);
    packet::bare(site.sender(), site.host(), Protocol::ICMP, datagram[20..].to_vec()).df(true)
}

/// All ICMP errors on the inside, to any host.
fn said(reaction: &crate::reaction::Reaction) -> String {
    let told = reaction.inside.iter().find_map(|bytes| error_in(bytes));
    told.map_or("nothing said".to_owned(), |told| format!("told {told}"))
}

/// Sends a datagram that the gateway itself refuses.
fn refused(trial: &mut Trial<'_>, datagram: Datagram) -> Result<String, Error> {
    Ok(said(&trial.send(datagram.build())?))
}

/// Sends a datagram that a router refuses, and another one after it.
fn reported(trial: &mut Trial<'_>, datagram: Datagram) -> Result<String, Error> {
    let Some(outer) = trial.carried(datagram.clone().build())? else {
        return Ok("not sent at all".to_owned());
    };
    let error = Icmpv4Error::DestinationUnreachable { code: unreachable::HOST };
    let reaction = trial.arrive(error_about(&outer, error, Quote::Full))?;
    match said(&reaction) {
        quiet if quiet == QUIET_ASKED[0] => Ok(said(&trial.send(datagram.build())?)),
        heard => Ok(heard),
    }
}

/// Describes what the sender receives, at once or after its next datagram, if a router reports the
/// decapsulator unreachable.
fn relayed_error(trial: &mut Trial<'_>, len: usize) -> Result<Option<crate::reaction::Told>, Error> {
    let site = trial.site;
    let Some(outer) = trial.carried(site.there(len).build())? else { return Ok(None) };
    let error = Icmpv4Error::DestinationUnreachable { code: unreachable::HOST };
    let reaction = trial.arrive(error_about(&outer, error, Quote::Full))?;
    match reaction.told(site.sender()) {
        Some(told) => Ok(Some(told)),
        None => Ok(trial.send(site.there(len).build())?.told(site.sender())),
    }
}

fn source_of(told: Option<crate::reaction::Told>) -> String {
    match told {
        Some(told) if told.by == INSIDE => "from the inside address".to_owned(),
        Some(told) => format!("from {}", told.by),
        None => "nothing said".to_owned(),
    }
}

fn length_of(told: Option<crate::reaction::Told>) -> String {
    told.map_or("nothing said".to_owned(), |told| format!("{} bytes", told.len))
}

const FLOOD: usize = 400;

fn limited(answers: usize) -> String {
    match answers {
        0 => "nothing said".to_owned(),
        FLOOD.. => "not limited".to_owned(),
        _ => "limited".to_owned(),
    }
}

fn rate(trial: &mut Trial<'_>) -> Result<String, Error> {
    learn(trial, 1400, 1480)?;
    let flood = vec![trial.site.there(1480).df(true).build(); FLOOD];
    let reaction = trial.testbed.put(Side::Inside, &flood)?;
    Ok(limited(reaction.inside.iter().filter(|bytes| error_in(bytes).is_some()).count()))
}

/// A system that relays nothing has no rate to limit, and the observation says so.
fn rate_relayed(trial: &mut Trial<'_>) -> Result<String, Error> {
    let Some(outer) = trial.carried(trial.site.there(1000).build())? else {
        return Ok("not sent at all".to_owned());
    };
    let error = Icmpv4Error::DestinationUnreachable { code: unreachable::HOST };
    let flood = vec![error_about(&outer, error, Quote::Full); FLOOD];
    let reaction = trial.testbed.put(Side::Underlay, &flood)?;
    Ok(limited(reaction.inside.iter().filter(|bytes| error_in(bytes).is_some()).count()))
}
