//! RFC 2003 section 4: the relaying of ICMP errors from inside the tunnel.

use adit_wire::icmpv4::{Icmpv4Error, unreachable};

use crate::error::Error;
use crate::quote::{Quote, error_about};
use crate::row::Level::{May, Must, MustNot, Plain, Should, ShouldNot};
use crate::row::Role::Encapsulator;
use crate::row::{Level, Row, Trial};
use crate::site::ROUTER;
use crate::system::Setup;
use crate::testbed::Side;

/// A length that a path of 1,400 bytes refuses.
const LEN: usize = 1480;

fn row(section: &'static str, level: Level, name: &'static str, rule: &'static str) -> Row {
    Row::new(section, level, Encapsulator, name, rule)
}

pub(super) fn rows() -> Vec<Row> {
    let unreachable = |code| Icmpv4Error::DestinationUnreachable { code };
    let time_exceeded = |code| Icmpv4Error::TimeExceeded { code };
    let redirect = |code| Icmpv4Error::Redirect { code, gateway: ROUTER };
    let problem = |pointer| Icmpv4Error::ParameterProblem { code: 0, pointer };
    vec![
        relayed(
            row("RFC 2003 4.1", Should, "net-unreachable", "Net Unreachable (3/0) is relayed to the original sender as Destination Unreachable; code 1 MAY be used, because the sender is on the gateway's own network."),
            unreachable(unreachable::NET),
            &["3/0", "3/1"],
        ),
        relayed(
            row("RFC 2003 4.1", Should, "host-unreachable", "Host Unreachable (3/1) is relayed to the original sender."),
            unreachable(unreachable::HOST),
            &["3/1"],
        ),
        relayed(
            row("RFC 2003 4.1", Should, "protocol-unreachable", "Protocol Unreachable (3/2) is relayed as code 0 or 1: the tunnel cannot reach the decapsulator."),
            unreachable(unreachable::PROTOCOL),
            &["3/0", "3/1"],
        ),
        silent(
            row("RFC 2003 4.1", MustNot, "port-unreachable", "Port Unreachable (3/3) is not relayed."),
            &[unreachable(unreachable::PORT)],
        ),
        relayed(
            row("RFC 2003 4.1", Must, "too-big", "Datagram Too Big (3/4, here MTU 1400) is relayed with the MTU less the outer header."),
            Icmpv4Error::TooBig { mtu: 1400 },
            &["3/4, MTU 1380"],
        ),
        silent(
            row("RFC 2003 4.1", MustNot, "source-route-failed", "Source Route Failed (3/5) is not relayed."),
            &[unreachable(unreachable::SOURCE_ROUTE_FAILED)],
        ),
        silent(
            row("RFC 2003 4.2", ShouldNot, "source-quench", "Source Quench (4/0) is not relayed, and has no effect (RFC 6633)."),
            &[Icmpv4Error::SourceQuench],
        ),
        silent(
            row("RFC 2003 4.3", MustNot, "redirect", "Redirect (5/0 to 5/3) is not relayed."),
            &[redirect(0), redirect(1), redirect(2), redirect(3)],
        ),
        relayed(
            row("RFC 2003 4.4", Must, "time-exceeded", "Time Exceeded in transit (11/0) is relayed to the original sender as Host Unreachable. (Linux: `ttl 64`, because it ignores the error otherwise.)")
                .with(Setup::FixedTtl),
            time_exceeded(0),
            &["3/1"],
        ),
        relayed(
            row("RFC 2003 4.4", Must, "reassembly-time-exceeded", "The same for Time Exceeded in reassembly (11/1).").with(Setup::FixedTtl),
            time_exceeded(1),
            &["3/1"],
        ),
        relayed(
            row("RFC 2003 4.4", Must, "time-exceeded-inherited-ttl", "Time Exceeded in transit (11/0) is relayed as Host Unreachable, also if the outer TTL is the sender's (`ttl inherit`). Adit deviates and relays 11/0: the sender chose the TTL, and a traceroute counts the hops of the underlay.")
                .with(Setup::InheritedTtl)
                .deviation(),
            time_exceeded(0),
            &["3/1"],
        ),
        silent(
            row("RFC 2003 4.5", MustNot, "parameter-problem-outer", "Parameter Problem about an octet that the encapsulator wrote (here protocol, source, destination) is not relayed."),
            &[problem(9), problem(12), problem(16)],
        ),
        relayed_once(
            row("RFC 2003 4.5", May, "parameter-problem-copied", "Parameter Problem about an octet that was copied from the inner header (here TOS) may be relayed."),
            problem(1),
            &["told 12/0, octet 1 at once", "nothing said"],
        ),
        codes_from_six_on(),
        row("RFC 2003 4.1", Must, "sender-elsewhere", "A sender on none of the gateway's own networks (here: behind another peer) receives code 0 for 3/0 and 3/2, through the tunnel that it used.")
            .part("3/0", &["told 3/0 at once"], |trial| sender_elsewhere(trial, unreachable::NET))
            .part("3/2", &["told 3/0 at once"], |trial| sender_elsewhere(trial, unreachable::PROTOCOL)),
    ]
}

/// Adds a part for each quote. If the quote holds the inner header and 8 bytes more, the sender
/// receives the error at once; otherwise the next datagram's sender does.
fn relayed(row: Row, error: Icmpv4Error, as_what: &[&str]) -> Row {
    Quote::ALL.into_iter().fold(row, |row, quote| {
        let asks: Vec<String> = as_what
            .iter()
            .flat_map(|told| match quote {
                Quote::Eight => vec![
                    format!("the next is told {told}, not sent"),
                    format!("the next is told {told}, and sent"),
                ],
                Quote::TwentyEight | Quote::Full | Quote::Extended => vec![format!("told {told} at once")],
            })
            .collect();
        let asks: Vec<&str> = asks.iter().map(String::as_str).collect();
        row.part(quote.label(), &asks, move |trial| after(trial, error, quote))
    })
}

/// Adds a part for the full quote only.
fn relayed_once(row: Row, error: Icmpv4Error, asks: &[&str]) -> Row {
    row.part("", asks, move |trial| after(trial, error, Quote::Full))
}

/// Adds a part for each quote, or one for each of several errors with a full quote.
fn silent(row: Row, errors: &[Icmpv4Error]) -> Row {
    const ASKS: [&str; 1] = ["nothing said"];
    match *errors {
        [error] => Quote::ALL
            .into_iter()
            .fold(row, |row, quote| row.part(quote.label(), &ASKS, move |trial| after(trial, error, quote))),
        _ => errors.iter().fold(row, |row, &error| {
            let (message_type, code) = error.type_and_code();
            let label = match error {
                Icmpv4Error::ParameterProblem { pointer, .. } => format!("octet {pointer}"),
                _ => format!("{message_type}/{code}"),
            };
            row.part(&label, &ASKS, move |trial| after(trial, error, Quote::Full))
        }),
    }
}

/// The codes that RFC 2003 does not list are special cases of its first two.
fn codes_from_six_on() -> Row {
    let row = row(
        "RFC 1812 5.2.7.1",
        Plain,
        "unreachable-codes-from-6-on",
        "The codes of Destination Unreachable that RFC 2003 does not list (6 to 15) are relayed as 3/0 or 3/1.",
    );
    (6..=15).fold(row, |row, code| {
        let error = Icmpv4Error::DestinationUnreachable { code };
        let asks = ["told 3/0 at once", "told 3/1 at once"];
        row.part(&format!("3/{code}"), &asks, move |trial| after(trial, error, Quote::Full))
    })
}

/// Sends a datagram and an error about it, and describes what the sender receives at once or after
/// its next datagram.
fn after(trial: &mut Trial<'_>, error: Icmpv4Error, quote: Quote) -> Result<String, Error> {
    let site = trial.site;
    let sender = site.sender();
    let datagram = || site.there(LEN).df(true).build();
    let Some(outer) = trial.carried(datagram())? else { return Ok("not sent at all".to_owned()) };
    let error = error_about(&outer, error, quote);
    let reaction =
        trial.testbed.put_unless(Side::Underlay, &[error], |reaction| reaction.told(sender).is_some())?;
    if let Some(told) = reaction.told(sender) {
        return Ok(format!("told {told} at once"));
    }
    let reaction = trial.send(datagram())?;
    let is_sent = !reaction.sent_to(site).is_empty();
    Ok(match (reaction.told(sender), is_sent) {
        (Some(told), false) => format!("the next is told {told}, not sent"),
        (Some(told), true) => format!("the next is told {told}, and sent"),
        (None, false) => "nothing said, the next not sent".to_owned(),
        (None, true) => "nothing said".to_owned(),
    })
}

/// The gateway is a hub: the sender is behind another peer, and the error goes through the tunnel.
fn sender_elsewhere(trial: &mut Trial<'_>, code: u8) -> Result<String, Error> {
    let to = trial.site;
    let from = trial.another_site()?;
    let inner = adit_fixtures::packet::udp(from.host(), to.host(), LEN).df(true);
    let outer = from.outer(inner).build();
    let complete = |reaction: &crate::reaction::Reaction| !reaction.sent_to(to).is_empty();
    let reaction = trial.testbed.put_unless(Side::Underlay, &[outer], complete)?;
    let Some(passed_on) = reaction.sent_to(to).first().map(|outer| outer.to_vec()) else {
        return Ok("not passed on at all".to_owned());
    };
    let error = error_about(&passed_on, Icmpv4Error::DestinationUnreachable { code }, Quote::Full);
    let reaction = trial.arrive(error)?;
    let told = reaction
        .sent_to(from)
        .into_iter()
        .filter_map(crate::reaction::view)
        .find_map(|outer| crate::reaction::error_in(outer.payload()));
    Ok(told.map_or("nothing said".to_owned(), |told| format!("told {told} at once")))
}
