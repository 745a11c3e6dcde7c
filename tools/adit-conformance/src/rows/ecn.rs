//! RFC 6040: the ECN field at encapsulation and decapsulation.

use adit_wire::ecn::Ecn;

use crate::error::Error;
use crate::reaction::view;
use crate::row::Level::{Must, Plain, Should};
use crate::row::Role::{Decapsulator, Encapsulator};
use crate::row::{Row, Trial};
use crate::system::Setup;

/// The fields in the order of RFC 6040's figures.
pub(super) const FIELDS: [(Ecn, &str); 4] =
    [(Ecn::NotEct, "Not-ECT"), (Ecn::Ect0, "ECT(0)"), (Ecn::Ect1, "ECT(1)"), (Ecn::Ce, "CE")];

/// The table of decapsulation: rows are inner fields, columns outer ones, in the order of
/// [`FIELDS`].
pub(super) const EXIT: [[&str; 4]; 4] = [
    ["Not-ECT", "Not-ECT", "Not-ECT", "dropped"],
    ["ECT(0)", "ECT(0)", "ECT(1)", "CE"],
    ["ECT(1)", "ECT(1)", "ECT(1)", "CE"],
    ["CE", "CE", "CE", "CE"],
];

/// The cells that the RFC wants logged or counted: a name, a rule, the inner and the outer field.
const ODD: [(&str, &str, usize, usize); 5] = [
    (
        "ecn-not-ect-in-ect0",
        "Inner Not-ECT, outer ECT(0): counted or logged, because it should not occur.",
        0,
        1,
    ),
    ("ecn-not-ect-in-ect1", "Inner Not-ECT, outer ECT(1): the same.", 0, 2),
    ("ecn-not-ect-in-ce", "Inner Not-ECT, outer CE: dropped, and counted or logged.", 0, 3),
    ("ecn-ect1-in-ect0", "Inner ECT(1), outer ECT(0): counted or logged.", 2, 1),
    ("ecn-ce-in-ect1", "Inner CE, outer ECT(1): counted or logged.", 3, 2),
];

pub(super) fn rows() -> Vec<Row> {
    let normal = Row::new(
        "RFC 6040 4.1",
        Must,
        Encapsulator,
        "ecn-normal-mode",
        "Normal mode, the default: the outer ECN field is a copy of the inner one, for each of its four values.",
    );
    let compatibility = Row::new(
        "RFC 6040 4.1",
        Plain,
        Encapsulator,
        "ecn-compatibility-mode",
        "Compatibility mode: the outer field is Not-ECT, whatever the inner one is.",
    )
    .with(Setup::Compatibility);
    let exit = Row::new(
        "RFC 6040 4.2",
        Must,
        Decapsulator,
        "ecn-exit",
        "The inner field after decapsulation: for each of the four inner values, with outer Not-ECT, ECT(0), ECT(1), CE.",
    );
    let (mut normal, mut compatibility, mut exit) = (normal, compatibility, exit);
    for (at, (field, name)) in FIELDS.into_iter().enumerate() {
        normal = normal
            .part(&format!("inner {name}"), &[&format!("outer {name}")], move |trial| entrance(trial, field));
        compatibility = compatibility
            .part(&format!("inner {name}"), &["outer Not-ECT"], move |trial| entrance(trial, field));
        exit = exit.part(&format!("inner {name}"), &[&EXIT[at].join(", ")], move |trial| {
            let left: Result<Vec<String>, Error> =
                FIELDS.iter().map(|&(outer, _)| leaves(trial, field, outer)).collect();
            Ok(left?.join(", "))
        });
    }
    let mut rows = vec![normal, compatibility, exit];
    rows.extend(ODD.into_iter().map(|(name, rule, inner, outer)| {
        let asked = format!("{}, noted", EXIT[inner][outer]);
        let (inner, outer) = (FIELDS[inner].0, FIELDS[outer].0);
        Row::new("RFC 6040 4.2", Should, Decapsulator, name, rule)
            .one(&[&asked], move |trial| noted(trial, inner, outer))
    }));
    rows
}

fn name(tos: u8) -> String {
    let field = Ecn::from_tos(tos);
    FIELDS.iter().find(|(known, _)| *known == field).map_or_else(String::new, |(_, name)| (*name).to_owned())
}

fn entrance(trial: &mut Trial<'_>, inner: Ecn) -> Result<String, Error> {
    let outer = trial.carried(trial.site.there(100).tos(inner.bits()).build())?;
    let outer = outer.as_deref().and_then(view);
    Ok(outer.map_or("not sent".to_owned(), |outer| format!("outer {}", name(outer.tos()))))
}

fn leaves(trial: &mut Trial<'_>, inner: Ecn, outer: Ecn) -> Result<String, Error> {
    let datagram = trial.site.outer(trial.site.back(100).tos(inner.bits())).tos(outer.bits()).build();
    let delivered = trial.delivered(datagram)?;
    Ok(delivered.as_deref().and_then(view).map_or("dropped".to_owned(), |inner| name(inner.tos())))
}

/// Describes what leaves, and whether a counter or the kernel's log recorded it.
fn noted(trial: &mut Trial<'_>, inner: Ecn, outer: Ecn) -> Result<String, Error> {
    let before = trial.testbed.tunnel.oddities_noted(trial.site)?;
    let left = leaves(trial, inner, outer)?;
    let is_noted = trial.testbed.tunnel.oddities_noted(trial.site)? > before;
    Ok(format!("{left}, {}", if is_noted { "noted" } else { "not noted" }))
}
