//! RFC 2003 section 5 and RFC 1191: the tunnel's soft state, and datagrams that are too big for the
//! path.

use std::time::Duration;

use adit_wire::icmpv4::{Icmpv4Error, unreachable};

use crate::error::Error;
use crate::quote::{Quote, error_about};
use crate::reaction::{Reaction, view};
use crate::row::Level::{Must, MustNot, Plain, Should};
use crate::row::Role::{Decapsulator, Encapsulator};
use crate::row::{Row, Trial};
use crate::testbed::Side;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "RFC 2003 5.1",
            Must,
            Encapsulator,
            "too-big-for-the-link",
            "A datagram with DF that does not fit the link (1500) with its outer header is refused at once with MTU 1480.",
        )
        .part("1481 bytes", &["not sent, told 3/4, MTU 1480"], |trial| with_df(trial, 1481))
        .part("1480 bytes", &["sent"], |trial| with_df(trial, 1480)),
        Row::new(
            "RFC 2003 5.1",
            Must,
            Encapsulator,
            "too-big-for-the-path",
            "After a router has reported the path's MTU (1400), every datagram with DF that is too big is refused at once, from any sender.",
        )
        .part("1381 bytes", &["not sent, told 3/4, MTU 1380"], |trial| {
            learn(trial, 1400, 1480)?;
            with_df(trial, 1381)
        })
        .part("1380 bytes", &["sent"], |trial| {
            learn(trial, 1400, 1480)?;
            with_df(trial, 1380)
        })
        .part("1381 bytes, another sender", &["not sent, told 3/4, MTU 1380"], |trial| {
            learn(trial, 1400, 1480)?;
            let (site, other) = (trial.site, trial.site.other_sender());
            let datagram = adit_fixtures::packet::udp(other, site.host(), 1381).df(true);
            Ok(trial.send(datagram.build())?.of_datagram(site, other))
        }),
        Row::new(
            "RFC 4459 3.4",
            Plain,
            Encapsulator,
            "too-big-without-df",
            "A datagram without DF that is too big is fragmented before encapsulation, so its destination reassembles it and not the decapsulator.",
        )
        .part("for the link", &["fragmented inside"], |trial| without_df(trial, 1500))
        .part("for the path", &["fragmented inside"], |trial| {
            learn(trial, 1400, 1480)?;
            without_df(trial, 1480)
        }),
        Row::new(
            "RFC 1191 3",
            MustNot,
            Encapsulator,
            "mtu-floor",
            "An MTU below 68 (here 40) is not believed: no sender receives a lower MTU.",
        )
        .one(&["the MTU is at least 68"], |trial| {
            learn(trial, 40, 1480)?;
            let site = trial.site;
            let reaction = trial.send(site.there(1480).df(true).build())?;
            Ok(match reaction.told(site.sender()).map(|told| told.error) {
                Some(Icmpv4Error::TooBig { mtu: 68.. }) | None => "the MTU is at least 68".to_owned(),
                Some(Icmpv4Error::TooBig { mtu }) => format!("the MTU is {mtu}"),
                Some(other) => format!("told {other:?}"),
            })
        }),
        Row::new(
            "RFC 1191 5",
            Should,
            Encapsulator,
            "mtu-not-told",
            "If a router reports no MTU (0), the next smaller common MTU is used: 1492 after 1500 bytes fail, 1006 after 1492 fail.",
        )
        .part("1500 bytes", &["not sent, told 3/4, MTU 1472"], |trial| {
            learn(trial, 0, 1480)?;
            with_df(trial, 1480)
        })
        .part("1492 bytes", &["not sent, told 3/4, MTU 986"], |trial| {
            learn(trial, 0, 1472)?;
            with_df(trial, 1472)
        }),
        Row::new(
            "RFC 1191 6.3",
            MustNot,
            Encapsulator,
            "no-increase",
            "A router that reports a larger MTU (1400, then 1450) does not raise a learned MTU within 5 minutes.",
        )
        .one(&["not sent, told 3/4, MTU 1380"], |trial| {
            let outer = learn(trial, 1400, 1480)?;
            if let Some(outer) = outer {
                let error = Icmpv4Error::TooBig { mtu: 1450 };
                trial.arrive(error_about(&outer, error, Quote::Full))?;
            }
            with_df(trial, 1480)
        }),
        Row::new(
            "RFC 2003 5",
            Should,
            Encapsulator,
            "reachability",
            "An unreachable decapsulator is remembered, so that another sender receives the error too (here: 3/1 with a quote of 8 bytes).",
        )
        .one(&["not sent, told 3/1", "sent, told 3/1"], |trial| {
            let site = trial.site;
            let Some(outer) = trial.carried(site.there(100).build())? else { return Ok("not sent at all".to_owned()) };
            let error = Icmpv4Error::DestinationUnreachable { code: unreachable::HOST };
            trial.arrive(error_about(&outer, error, Quote::Eight))?;
            let other = site.other_sender();
            let datagram = adit_fixtures::packet::udp(other, site.host(), 100);
            Ok(trial.send(datagram.build())?.of_datagram(site, other))
        }),
        Row::new(
            "RFC 2003 5",
            Should,
            Encapsulator,
            "reachable-again",
            "One second after a datagram arrives from the decapsulator it counts as reachable, and no sender receives an error.",
        )
        .one(&["sent"], |trial| reachable_again(trial, Duration::from_secs(1))),
        Row::new(
            "RFC 2003 5",
            Plain,
            Encapsulator,
            "reachable-again-at-once",
            "The same for the next datagram, without a wait.",
        )
        .one(&["sent"], |trial| reachable_again(trial, Duration::ZERO)),
        Row::new(
            "RFC 2003 5.2",
            Should,
            Decapsulator,
            "congestion",
            "Congestion marked inside the tunnel is part of its state: each mark that arrives is counted for the peer.",
        )
        .one(&["counted"], |trial| {
            let site = trial.site;
            let Some(before) = trial.testbed.tunnel.congestion_counted(site) else { return Ok("not counted".to_owned()) };
            trial.arrive(site.outer(site.back(100).tos(2)).tos(3).build())?;
            let after = trial.testbed.tunnel.congestion_counted(site).unwrap_or(before);
            Ok(if after == before + 1 { "counted" } else { "not counted" }.to_owned())
        }),
    ]
}

/// Sends `len` bytes with DF, reports this MTU about them from the router, and returns the outer
/// datagram.
pub(super) fn learn(trial: &mut Trial<'_>, mtu: u16, len: usize) -> Result<Option<Vec<u8>>, Error> {
    let site = trial.site;
    let outer = trial.carried(site.there(len).df(true).build())?;
    if let Some(outer) = &outer {
        let error = error_about(outer, Icmpv4Error::TooBig { mtu }, Quote::Full);
        let told = |reaction: &Reaction| reaction.told(site.sender()).is_some();
        trial.testbed.put_unless(Side::Underlay, &[error], told)?;
    }
    Ok(outer)
}

/// A router reports the decapsulator unreachable, a datagram arrives from it, and after some time
/// another one is sent to it.
fn reachable_again(trial: &mut Trial<'_>, later: Duration) -> Result<String, Error> {
    let site = trial.site;
    let Some(outer) = trial.carried(site.there(100).build())? else {
        return Ok("not sent at all".to_owned());
    };
    let error = Icmpv4Error::DestinationUnreachable { code: unreachable::HOST };
    trial.arrive(error_about(&outer, error, Quote::Eight))?;
    trial.delivered(site.outer(site.back(100)).build())?;
    trial.testbed.hear(later, |_| false)?;
    Ok(trial.send(site.there(100).build())?.of_datagram(site, site.sender()))
}

fn with_df(trial: &mut Trial<'_>, len: usize) -> Result<String, Error> {
    let site = trial.site;
    Ok(trial.send(site.there(len).df(true).build())?.of_datagram(site, site.sender()))
}

fn without_df(trial: &mut Trial<'_>, len: usize) -> Result<String, Error> {
    let site = trial.site;
    let reaction = trial.send(site.there(len).build())?;
    let outers: Vec<_> = reaction.sent_to(site).into_iter().filter_map(view).collect();
    let inner_is_fragment = |outer: &adit_wire::ipv4::Ipv4Packet<'_>| {
        view(outer.payload()).is_some_and(|inner| inner.is_fragment())
    };
    Ok(match &outers[..] {
        [] => match reaction.told(site.sender()) {
            Some(told) => format!("not sent, told {told}"),
            None => "dropped, nothing said".to_owned(),
        },
        [one] if !one.is_fragment() => "sent whole".to_owned(),
        several if several.iter().any(|outer| outer.is_fragment()) => "fragmented outside".to_owned(),
        several if several.iter().all(inner_is_fragment) => "fragmented inside".to_owned(),
        several => format!("{} outer datagrams", several.len()),
    })
}
