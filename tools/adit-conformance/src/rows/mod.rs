//! The rules, a file a subject.

mod addresses;
mod dscp;
mod ecn;
mod errors;
mod forged;
mod fragments;
mod header;
mod icmp_restrictions;
mod ipv6;
mod path;

use crate::row::Row;

/// All rows, in the document's order.
pub(crate) fn all() -> Vec<Row> {
    [
        header::rows(),
        addresses::rows(),
        errors::rows(),
        path::rows(),
        icmp_restrictions::rows(),
        forged::rows(),
        ecn::rows(),
        dscp::rows(),
        fragments::rows(),
        ipv6::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
