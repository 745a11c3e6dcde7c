//! RFC 5927: the tunnel believes an ICMP error only about a datagram that it can have sent.

use std::net::Ipv4Addr;

use adit_fixtures::packet::{self, mend};
use adit_wire::Protocol;
use adit_wire::icmpv4::{Icmpv4Error, unreachable};

use crate::error::Error;
use crate::quote::{Quote, error_from};
use crate::row::Level::{MustNot, Plain};
use crate::row::Role::Encapsulator;
use crate::row::{Row, Trial};
use crate::site::{ROUTER, STRANGER, Site, UNDERLAY};

const LEN: usize = 1480;
const UNBELIEVED: [&str; 1] = ["changes nothing"];
/// An address in no configured network.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// The offset of the quote in an ICMP error, after the IPv4 and ICMP headers.
const QUOTE: usize = 28;

pub(super) fn rows() -> Vec<Row> {
    let row = |name, rule| Row::new("RFC 5927 4", Plain, Encapsulator, name, rule);
    vec![
        row(
            "forged-too-big",
            "A forged Datagram Too Big (MTU 600, from off the path) changes nothing, because the quoted datagram was never sent.",
        )
        .part("outer destination", &UNBELIEVED, |trial| {
            forged(trial, |site| outer(ELSEWHERE, inner(site, site.sender(), site.host()), true))
        })
        .part("outer source", &UNBELIEVED, |trial| {
            forged(trial, |site| {
                packet::bare(ELSEWHERE, site.underlay(), Protocol::IPIP, inner(site, site.sender(), site.host()))
                    .df(true)
                    .build()
            })
        })
        .part("inner destination", &UNBELIEVED, |trial| {
            forged(trial, |site| outer(site.underlay(), inner(site, site.sender(), ELSEWHERE), true))
        })
        .part("inner source", &UNBELIEVED, |trial| {
            forged(trial, |site| outer(site.underlay(), inner(site, ELSEWHERE, site.host()), true))
        })
        .part("outer protocol", &UNBELIEVED, |trial| {
            forged(trial, |site| {
                packet::bare(UNDERLAY, site.underlay(), Protocol::UDP, inner(site, site.sender(), site.host()))
                    .df(true)
                    .build()
            })
        })
        .part("no outer DF", &UNBELIEVED, |trial| {
            forged(trial, |site| outer(site.underlay(), inner(site, site.sender(), site.host()), false))
        })
        .part("a later fragment", &UNBELIEVED, |trial| {
            forged(trial, |site| {
                let inner = inner(site, site.sender(), site.host());
                packet::bare(UNDERLAY, site.underlay(), Protocol::IPIP, inner).df(true).fragment(false, 1480).build()
            })
        }),
        row("forged-larger", "A Too Big about a datagram that fits the reported MTU (MTU 1500 about 1500 bytes, 1400 about 1000) changes nothing.")
            .part("1500 about 1500", &UNBELIEVED, |trial| {
                let quoted = truly(trial.site, LEN);
                believed(trial, error_from(STRANGER, &quoted, Icmpv4Error::TooBig { mtu: 1500 }, Quote::Full))
            })
            .part("1400 about 1000", &UNBELIEVED, |trial| {
                let quoted = truly(trial.site, 980);
                believed(trial, error_from(STRANGER, &quoted, Icmpv4Error::TooBig { mtu: 1400 }, Quote::Full))
            }),
        Row::new("RFC 792", MustNot, Encapsulator, "damaged-errors", "A damaged error has no effect.")
            .part("wrong checksum", &UNBELIEVED, |trial| {
                let mut error = too_big(&truly(trial.site, LEN));
                error[22] ^= 0x55;
                believed(trial, error)
            })
            .part("cut inside the quoted header", &UNBELIEVED, |trial| {
                let mut error = too_big(&truly(trial.site, LEN));
                error.truncate(QUOTE + 12);
                let len = error.len() as u16;
                error[2..4].copy_from_slice(&len.to_be_bytes());
                mend(&mut error);
                crate::quote::mend_icmp(&mut error);
                believed(trial, error)
            }),
        row("forged-unreachable", "A forged Host Unreachable is not relayed and changes nothing.")
            .part("inner destination", &UNBELIEVED, |trial| {
                let site = trial.site;
                let quoted = outer(site.underlay(), inner(site, site.sender(), ELSEWHERE), true);
                let error = Icmpv4Error::DestinationUnreachable { code: unreachable::HOST };
                believed(trial, error_from(STRANGER, &quoted, error, Quote::Full))
            })
            .part("outer protocol", &UNBELIEVED, |trial| {
                let site = trial.site;
                let quoted = packet::bare(UNDERLAY, site.underlay(), Protocol::UDP, inner(site, site.sender(), site.host()));
                let error = Icmpv4Error::DestinationUnreachable { code: unreachable::HOST };
                believed(trial, error_from(STRANGER, &quoted.build(), error, Quote::Full))
            }),
        row("genuine-error", "For comparison, an error about a datagram that was sent is believed, from any source.")
            .one(&["is believed: not sent, told 3/4, MTU 580"], |trial| {
                let error = too_big(&truly(trial.site, LEN));
                believed(trial, error)
            }),
    ]
}

fn inner(site: Site, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    site.there(LEN).ttl(62).df(true).to(destination).from(source).build()
}

fn outer(destination: Ipv4Addr, inner: Vec<u8>, df: bool) -> Vec<u8> {
    packet::bare(UNDERLAY, destination, Protocol::IPIP, inner).df(df).build()
}

/// An outer datagram as the tunnel sends it.
fn truly(site: Site, len: usize) -> Vec<u8> {
    outer(site.underlay(), site.there(len).ttl(62).df(true).build(), true)
}

fn too_big(quoted: &[u8]) -> Vec<u8> {
    error_from(ROUTER, quoted, Icmpv4Error::TooBig { mtu: 600 }, Quote::Full)
}

fn forged(trial: &mut Trial<'_>, quoted: impl Fn(Site) -> Vec<u8>) -> Result<String, Error> {
    let error = error_from(STRANGER, &quoted(trial.site), Icmpv4Error::TooBig { mtu: 600 }, Quote::Full);
    believed(trial, error)
}

/// Sends an error, and describes the fate of a full-size datagram after it.
fn believed(trial: &mut Trial<'_>, error: Vec<u8>) -> Result<String, Error> {
    let site = trial.site;
    // The tunnel has traffic, as it would during an attack.
    trial.carried(site.there(LEN).df(true).build())?;
    let reaction = trial.arrive(error)?;
    let told = reaction.told(site.sender());
    let after = trial.send(site.there(LEN).df(true).build())?.of_datagram(site, site.sender());
    Ok(match (told, after.as_str()) {
        (None, "sent") => UNBELIEVED[0].to_owned(),
        (Some(told), "sent") => format!("is relayed: told {told}"),
        _ => format!("is believed: {after}"),
    })
}
