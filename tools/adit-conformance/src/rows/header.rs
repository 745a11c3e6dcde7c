//! RFC 2003 section 3.1: the outer header and the inner TTL.

use std::net::UdpSocket;

use adit_wire::Protocol;

use crate::error::Error;
use crate::reaction::view;
use crate::row::Level::{Must, MustNot, Plain, Should};
use crate::row::Role::{Decapsulator, Encapsulator};
use crate::row::{Row, Trial};
use crate::site::{INSIDE, UNDERLAY};
use crate::system::Setup;
use crate::testbed::Side;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "RFC 2003 3.1",
            Plain,
            Encapsulator,
            "outer-header",
            "The outer header: version 4, no options, protocol 4, from the encapsulator to the decapsulator, the length of both headers and the payload; the inner datagram follows complete.",
        )
        .one(&["as asked"], outer_header),
        Row::new("RFC 2003 3.1", Plain, Encapsulator, "tos", "The outer TOS is copied from the inner header.")
            .part("defaults", &["outer TOS 0xb8"], outer_tos)
            ,
        Row::new("RFC 2003 3.1", Plain, Encapsulator, "tos-inherit", "The same with `tos inherit` on Linux.")
            .with(Setup::InheritedTos)
            .one(&["outer TOS 0xb8"], outer_tos),
        Row::new("RFC 2003 3.1", Must, Encapsulator, "df-copied", "An inner DF is honoured: the outer DF is set.")
            .one(&["outer DF=1"], |trial| outer_df(trial, true)),
        Row::new(
            "RFC 2003 3.1",
            Must,
            Encapsulator,
            "df-copied-without-discovery",
            "The same without path MTU discovery (Adit: `df = false`; Linux: `nopmtudisc`).",
        )
        .with(Setup::NoDiscovery)
        .one(&["outer DF=1"], |trial| outer_df(trial, true)),
        Row::new(
            "RFC 2003 5.1",
            Should,
            Encapsulator,
            "df-always",
            "The outer DF is set even without an inner DF, so that the path MTU is learned.",
        )
        .one(&["outer DF=1"], |trial| outer_df(trial, false)),
        Row::new("RFC 2003 3.1", Plain, Encapsulator, "options", "Inner options are not copied to the outer header and stay in the inner one.")
            .one(&["outer without options, inner with its own"], options),
        Row::new(
            "RFC 2003 3.1",
            Plain,
            Encapsulator,
            "outer-ttl",
            "The outer TTL is enough to reach the decapsulator, whatever the inner TTL is (here 2 when encapsulated).",
        )
        .one(&["outer TTL 64"], outer_ttl),
        Row::new("RFC 2003 3.1", Plain, Encapsulator, "outer-ttl-fixed", "The same with `ttl 64` on Linux.")
            .with(Setup::FixedTtl)
            .one(&["outer TTL 64"], outer_ttl),
        Row::new(
            "RFC 2003 3.1",
            Plain,
            Encapsulator,
            "inner-ttl",
            "The inner TTL is decremented when the gateway forwards the datagram, and unchanged when the gateway itself sends it.",
        )
        .part("forwarded", &["inner TTL one less"], |trial| {
            let sent = trial.site.there(100).ttl(10).build();
            Ok(inner_ttl(trial.carried(sent)?, 10))
        })
        .part("sent by the gateway", &["inner TTL the same"], |trial| {
            Ok(inner_ttl(sent_by_gateway(trial)?, 64))
        }),
        Row::new(
            "RFC 2003 3.1",
            Plain,
            Decapsulator,
            "inner-ttl-at-exit",
            "Decapsulation does not change the inner TTL; forwarding to a host behind the gateway decrements it.",
        )
        .part("to a host", &["inner TTL one less"], |trial| {
            let outer = trial.site.outer(trial.site.back(100).ttl(10)).build();
            Ok(match trial.delivered(outer)? {
                Some(inner) => ttl_words(&inner, 10),
                None => "not delivered".to_owned(),
            })
        }),
        Row::new(
            "RFC 2003 3.1",
            MustNot,
            Encapsulator,
            "ttl-zero",
            "A datagram whose TTL is 0, or becomes 0 by forwarding, is not encapsulated; in the second case its sender SHOULD receive Time Exceeded.",
        )
        .part("arrives with 1", &["not sent, told 11/0"], |trial| ttl_at_entrance(trial, 1))
        .part("arrives with 0", &["not sent", "not sent, told 11/0"], |trial| ttl_at_entrance(trial, 0)),
        Row::new(
            "RFC 2003 3.1",
            Must,
            Decapsulator,
            "ttl-zero-at-exit",
            "An inner datagram with TTL 0 is discarded after decapsulation.",
        )
        .part("to a host", &["discarded"], |trial| {
            let outer = trial.site.outer(trial.site.back(100).ttl(0)).build();
            let is_delivered = trial.delivered(outer)?.is_some();
            Ok(if is_delivered { "delivered" } else { "discarded" }.to_owned())
        })
        .part("to the gateway itself", &["discarded"], ttl_zero_to_gateway),
    ]
}

const NOT_SENT: &str = "not sent";

fn outer_header(trial: &mut Trial<'_>) -> Result<String, Error> {
    let site = trial.site;
    let Some(bytes) = trial.carried(site.there(1000).build())? else { return Ok(NOT_SENT.to_owned()) };
    let Some(outer) = view(&bytes) else { return Ok("an outer header that is none".to_owned()) };
    let mut odd = Vec::new();
    let mut check = |is_right: bool, what: String| {
        if !is_right {
            odd.push(what);
        }
    };
    check(outer.header_len() == 20, format!("{} bytes of header", outer.header_len()));
    check(outer.protocol() == Protocol::IPIP, format!("protocol {}", outer.protocol()));
    check(outer.source() == UNDERLAY, format!("from {}", outer.source()));
    check(outer.destination() == site.underlay(), format!("to {}", outer.destination()));
    check(outer.total_len() == 1020, format!("total length {}", outer.total_len()));
    let forwarded = site.there(1000).ttl(62).build();
    check(outer.payload() == forwarded, "another inner datagram".to_owned());
    Ok(if odd.is_empty() { "as asked".to_owned() } else { odd.join(", ") })
}

/// Describes the outer header of a datagram that leaves.
fn of_outer(
    trial: &mut Trial<'_>,
    datagram: Vec<u8>,
    say: impl Fn(adit_wire::ipv4::Ipv4Packet<'_>) -> String,
) -> Result<String, Error> {
    let outer = trial.carried(datagram)?;
    Ok(outer.as_deref().and_then(view).map_or_else(|| NOT_SENT.to_owned(), say))
}

fn outer_tos(trial: &mut Trial<'_>) -> Result<String, Error> {
    let datagram = trial.site.there(100).tos(0xb8).build();
    of_outer(trial, datagram, |outer| format!("outer TOS {:#04x}", outer.tos()))
}

fn outer_df(trial: &mut Trial<'_>, inner: bool) -> Result<String, Error> {
    let datagram = trial.site.there(100).df(inner).build();
    of_outer(trial, datagram, |outer| format!("outer DF={}", u8::from(outer.dont_fragment())))
}

fn options(trial: &mut Trial<'_>) -> Result<String, Error> {
    // Three no-operations and the end of the list.
    let datagram = trial.site.there(100).options(&[1, 1, 1, 0]).build();
    of_outer(trial, datagram, |outer| {
        let has_inner = view(outer.payload()).is_some_and(|inner| inner.options() == [1, 1, 1, 0]);
        let inner = if has_inner { "inner with its own" } else { "inner without its own" };
        let outer = if outer.options().is_empty() { "outer without options" } else { "outer with options" };
        format!("{outer}, {inner}")
    })
}

fn outer_ttl(trial: &mut Trial<'_>) -> Result<String, Error> {
    let datagram = trial.site.there(100).ttl(3).build();
    of_outer(trial, datagram, |outer| format!("outer TTL {}", outer.ttl()))
}

fn ttl_words(inner: &[u8], before: u8) -> String {
    match view(inner).map(|inner| inner.ttl()) {
        Some(ttl) if ttl == before => "inner TTL the same".to_owned(),
        Some(ttl) if ttl + 1 == before => "inner TTL one less".to_owned(),
        Some(ttl) => format!("inner TTL {ttl} of {before}"),
        None => "no inner datagram".to_owned(),
    }
}

fn inner_ttl(outer: Option<Vec<u8>>, before: u8) -> String {
    match outer.as_deref().and_then(view) {
        Some(outer) => ttl_words(outer.payload(), before),
        None => NOT_SENT.to_owned(),
    }
}

/// The outer datagram of what the gateway itself sends from its inside address.
pub(super) fn sent_by_gateway(trial: &mut Trial<'_>) -> Result<Option<Vec<u8>>, Error> {
    let site = trial.site;
    let sent = trial.testbed.gateway.ns().run(|| {
        let socket = UdpSocket::bind((INSIDE, 0))?;
        socket.send_to(b"from the gateway", (site.host(), 4242)).map(drop)
    })?;
    sent.map_err(Error::io("send from the gateway"))?;
    let reaction =
        trial.testbed.put_unless(Side::Inside, &[], |reaction| !reaction.sent_to(site).is_empty())?;
    Ok(reaction.sent_to(site).first().map(|outer| outer.to_vec()))
}

fn ttl_at_entrance(trial: &mut Trial<'_>, ttl: u8) -> Result<String, Error> {
    let site = trial.site;
    let reaction = trial.send(site.there(100).ttl(ttl).build())?;
    Ok(reaction.of_datagram(site, site.sender()))
}

/// A datagram to a closed port of the gateway, which answers if it accepts the datagram.
fn ttl_zero_to_gateway(trial: &mut Trial<'_>) -> Result<String, Error> {
    let site = trial.site;
    let inner = adit_fixtures::packet::udp(site.host(), INSIDE, 100);
    let reaction = trial.arrive(site.outer(inner.clone().ttl(0)).build())?;
    let answered = !reaction.sent_to(site).is_empty();
    Ok(if answered { "delivered, and answered" } else { "discarded" }.to_owned())
}
