//! Fragments of the outer datagram, which the decapsulator reassembles (RFC 2003 section 3.1, RFC
//! 791, RFC 5722).

use adit_fixtures::packet::Datagram;

use crate::error::Error;
use crate::reaction::{Reaction, view};
use crate::row::Level::{Must, Plain};
use crate::row::Role::Decapsulator;
use crate::row::{Row, Trial};
use crate::testbed::Side;

/// Bytes of each fragment's payload.
const PIECE: usize = 480;
const INNER: usize = 1400;

pub(super) fn rows() -> Vec<Row> {
    let row = |level, name, rule| Row::new("RFC 791 3.2", level, Decapsulator, name, rule);
    vec![
        row(Must, "outer-fragments", "Fragments of the outer datagram are reassembled.")
            .part("in order", &["delivered whole"], |trial| sent_in(trial, |_| {}))
            .part("the last first", &["delivered whole"], |trial| sent_in(trial, |pieces| pieces.reverse())),
        row(Plain, "outer-fragments-missing", "An incomplete datagram is not delivered.")
            .part("the last alone", &["not delivered"], |trial| {
                sent_in(trial, |pieces| {
                    pieces.drain(..pieces.len() - 1);
                })
            })
            .part("the first alone", &["not delivered"], |trial| sent_in(trial, |pieces| pieces.truncate(1)))
            .part("one between missing", &["not delivered"], |trial| {
                sent_in(trial, |pieces| {
                    pieces.remove(1);
                })
            }),
        Row::new(
            "RFC 5722 4",
            Plain,
            Decapsulator,
            "outer-fragments-overlapping",
            "Overlapping fragments are discarded (RFC 5722 for IPv6; Linux does it for IPv4 too).",
        )
        .one(&["not delivered"], overlapping),
        row(
            Must,
            "outer-fragments-largest",
            "The largest datagram, with 65,515 inner bytes, is reassembled and forwarded.",
        )
        .one(&["delivered in fragments, every byte"], largest),
        row(Plain, "inner-fragments", "Fragments of the inner datagram pass unchanged.").one(
            &["delivered as it is"],
            |trial| {
                let inner = trial.site.back(600).fragment(true, 800);
                let delivered = trial.delivered(trial.site.outer(inner).build())?;
                let inner = delivered.as_deref().and_then(view);
                Ok(inner
                    .map_or("not delivered", |inner| {
                        if inner.more_fragments() && inner.fragment_offset() == 800 {
                            "delivered as it is"
                        } else {
                            "changed"
                        }
                    })
                    .to_owned())
            },
        ),
    ]
}

/// The fragments of an outer datagram.
fn pieces(outer: &Datagram, payload_len: usize, piece: usize) -> Vec<Vec<u8>> {
    (0..payload_len)
        .step_by(piece)
        .map(|offset| outer.clone().df(false).piece(offset, piece.min(payload_len - offset)).build())
        .collect()
}

fn sent_in(trial: &mut Trial<'_>, change: impl Fn(&mut Vec<Vec<u8>>)) -> Result<String, Error> {
    let inner = trial.site.back(INNER);
    let mut fragments = pieces(&trial.site.outer(inner.clone()), INNER, PIECE);
    change(&mut fragments);
    arrived(trial, &fragments, &inner)
}

fn arrived(trial: &mut Trial<'_>, fragments: &[Vec<u8>], inner: &Datagram) -> Result<String, Error> {
    let to = trial.site.sender();
    let complete = |reaction: &Reaction| !reaction.delivered_to(to).is_empty();
    let reaction = trial.testbed.put_unless(Side::Underlay, fragments, complete)?;
    let expected = inner.clone().ttl(62).build();
    Ok(match reaction.delivered_to(to).first() {
        None => "not delivered",
        Some(delivered) if *delivered == expected => "delivered whole",
        Some(_) => "delivered, with other bytes",
    }
    .to_owned())
}

/// A fragment in the middle overlaps eight bytes of the one before it, with other contents.
fn overlapping(trial: &mut Trial<'_>) -> Result<String, Error> {
    let inner = trial.site.back(INNER);
    let outer = trial.site.outer(inner.clone()).df(false);
    let mut fragments = pieces(&outer, INNER, PIECE);
    let forged = outer.payload(vec![0xcd; PIECE]).fragment(true, PIECE - 8).build();
    fragments.insert(1, forged);
    arrived(trial, &fragments, &inner)
}

/// The datagram does not fit the inside network, so the gateway fragments it.
fn largest(trial: &mut Trial<'_>) -> Result<String, Error> {
    const LARGEST: usize = 65_515;
    const HEADER: usize = 20;
    let to = trial.site.sender();
    let inner = trial.site.back(LARGEST);
    let fragments = pieces(&trial.site.outer(inner.clone()), LARGEST, 1480);
    let bytes_of = |reaction: &Reaction| -> usize {
        reaction.delivered_to(to).iter().map(|piece| piece.len() - HEADER).sum()
    };
    let complete = |reaction: &Reaction| bytes_of(reaction) == LARGEST - HEADER;
    let reaction = trial.testbed.put_unless(Side::Underlay, &fragments, complete)?;
    let expected = inner.build();
    let is_right = |piece: &&[u8]| {
        view(piece).is_some_and(|packet| {
            let at = HEADER + usize::from(packet.fragment_offset());
            expected.get(at..at + packet.payload().len()) == Some(packet.payload())
        })
    };
    let delivered = reaction.delivered_to(to);
    Ok(match bytes_of(&reaction) {
        0 => "not delivered".to_owned(),
        len if len == LARGEST - HEADER && delivered.iter().all(is_right) => {
            "delivered in fragments, every byte".to_owned()
        }
        len => format!("{len} of {} bytes, or other ones", LARGEST - HEADER),
    })
}
