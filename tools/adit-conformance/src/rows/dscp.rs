//! RFC 2983: differentiated services and tunnels; RFC 6864: the identification.

use adit_wire::ipv4::Ipv4Packet;

use crate::error::Error;
use crate::reaction::{Reaction, view};
use crate::row::Level::{Must, Plain};
use crate::row::Role::{Decapsulator, Encapsulator};
use crate::row::{Row, Trial};
use crate::system::Setup;
use crate::testbed::Side;

/// Expedited forwarding, as a TOS.
const EF: u8 = 0xb8;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "RFC 2983 3.1",
            Plain,
            Decapsulator,
            "dscp-at-exit",
            "Decapsulation does not change the inner DSCP, whatever the outer DSCP is (the pipe model).",
        )
        .part("inner 0, outer 46", &["inner DSCP 0"], |trial| left(trial, 0, EF))
        .part("inner 46, outer 0", &["inner DSCP 46"], |trial| left(trial, EF, 0)),
        Row::new(
            "RFC 2983 3",
            Plain,
            Encapsulator,
            "dscp-fixed",
            "A configured outer DSCP (46) is set, and the inner one is unchanged. (Linux: `tos 0xb8`.)",
        )
        .with(Setup::FixedDscp)
        .one(&["outer DSCP 46, inner DSCP 10"], |trial| {
            let outer = trial.carried(trial.site.there(100).tos(10 << 2).build())?;
            let outer = outer.as_deref().and_then(view);
            Ok(outer.map_or("not sent".to_owned(), |outer| {
                let inner = view(outer.payload()).map_or(0, |inner| inner.tos() >> 2);
                format!("outer DSCP {}, inner DSCP {inner}", outer.tos() >> 2)
            }))
        }),
        Row::new(
            "RFC 6864 4.3",
            Must,
            Encapsulator,
            "identifications",
            "Outer datagrams that may be fragmented have different identifications: 50 of them, without path MTU discovery. (Linux: `nopmtudisc`.)",
        )
        .with(Setup::NoDiscovery)
        .one(&["outer DF=0, 50 identifications"], identifications),
        Row::new(
            "RFC 2003 3.1",
            Plain,
            Encapsulator,
            "df-copied-zero",
            "Without path MTU discovery the outer DF is a copy of the inner one, also if it is 0. (Linux: `nopmtudisc`.)",
        )
        .with(Setup::NoDiscovery)
        .one(&["outer DF=0"], |trial| {
            let outer = trial.carried(trial.site.there(100).build())?;
            let df = outer.as_deref().and_then(view).map(|outer| u8::from(outer.dont_fragment()));
            Ok(df.map_or("not sent".to_owned(), |df| format!("outer DF={df}")))
        }),
        Row::new(
            "RFC 2003 3.1",
            Plain,
            Encapsulator,
            "ttl-inherited",
            "The outer TTL is inherited if configured, so that a traceroute shows the path. (Adit: `ttl = \"inherit\"`; Linux: its default.)",
        )
        .with(Setup::InheritedTtl)
        .one(&["outer TTL 9"], |trial| {
            let outer = trial.carried(trial.site.there(100).ttl(10).build())?;
            Ok(outer.as_deref().and_then(view).map_or("not sent".to_owned(), |outer| format!("outer TTL {}", outer.ttl())))
        }),
    ]
}

fn left(trial: &mut Trial<'_>, inner: u8, outer: u8) -> Result<String, Error> {
    let outer = trial.site.outer(trial.site.back(100).tos(inner)).tos(outer).build();
    let delivered = trial.delivered(outer)?;
    let inner = delivered.as_deref().and_then(view);
    Ok(inner.map_or("not delivered".to_owned(), |inner| format!("inner DSCP {}", inner.tos() >> 2)))
}

fn identifications(trial: &mut Trial<'_>) -> Result<String, Error> {
    const COUNT: usize = 50;
    let site = trial.site;
    let datagrams = vec![site.there(100).build(); COUNT];
    let all = |reaction: &Reaction| reaction.sent_to(site).len() == COUNT;
    let reaction = trial.testbed.put_unless(Side::Inside, &datagrams, all)?;
    let outers: Vec<Ipv4Packet<'_>> = reaction.sent_to(site).into_iter().filter_map(view).collect();
    let mut identifications: Vec<u16> = outers.iter().map(Ipv4Packet::identification).collect();
    identifications.sort_unstable();
    identifications.dedup();
    let df = u8::from(outers.iter().any(Ipv4Packet::dont_fragment));
    Ok(format!("outer DF={df}, {} identifications", identifications.len()))
}
