//! ECN: every pair of inner and outer field (RFC 6040 figures 3 and 4).

use adit_tunnel::DropReason;
use adit_wire::ecn::{EcnAnomaly, EcnMode};

use crate::case::{Case, decap, encap};
use crate::packet::{a_to_b, ours, theirs, udp};
use crate::site::{B, HOST_A, HOST_B, PEER_B};

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;
/// A DSCP that must not change.
const DSCP: u8 = 0b0010_1000;

pub(super) fn cases() -> Vec<Case> {
    [encapsulated(), decapsulated()].concat()
}

fn name(ecn: u8) -> &'static str {
    ["Not-ECT", "ECT(1)", "ECT(0)", "CE"][usize::from(ecn)]
}

/// RFC 6040 figure 3.
fn encapsulated() -> Vec<Case> {
    let mut cases = Vec::new();
    for inner in [NOT_ECT, ECT_1, ECT_0, CE] {
        let datagram = || a_to_b().tos(DSCP | inner);
        cases.push(
            encap(format!("ECN at encapsulation, normal: {}", name(inner)), datagram())
                .sends(PEER_B, ours(B, datagram()).tos(DSCP | inner)),
        );
        cases.push(
            encap(format!("ECN at encapsulation, compatible: {}", name(inner)), datagram())
                .with(|setup| setup.config.outer.ecn = EcnMode::Compatibility)
                .sends(PEER_B, ours(B, datagram()).tos(DSCP)),
        );
    }
    cases
}

/// RFC 6040 figure 4, row by row: inner, outer, resulting inner (`None`: dropped), anomaly.
const DECAPSULATION: [(u8, u8, Option<u8>, Option<EcnAnomaly>); 16] = [
    (NOT_ECT, NOT_ECT, Some(NOT_ECT), None),
    (NOT_ECT, ECT_0, Some(NOT_ECT), Some(EcnAnomaly::NotEctInnerEct0Outer)),
    (NOT_ECT, ECT_1, Some(NOT_ECT), Some(EcnAnomaly::NotEctInnerEct1Outer)),
    (NOT_ECT, CE, None, Some(EcnAnomaly::NotEctInnerCeOuter)),
    (ECT_0, NOT_ECT, Some(ECT_0), None),
    (ECT_0, ECT_0, Some(ECT_0), None),
    (ECT_0, ECT_1, Some(ECT_1), None),
    (ECT_0, CE, Some(CE), None),
    (ECT_1, NOT_ECT, Some(ECT_1), None),
    (ECT_1, ECT_0, Some(ECT_1), Some(EcnAnomaly::Ect1InnerEct0Outer)),
    (ECT_1, ECT_1, Some(ECT_1), None),
    (ECT_1, CE, Some(CE), None),
    (CE, NOT_ECT, Some(CE), None),
    (CE, ECT_0, Some(CE), None),
    (CE, ECT_1, Some(CE), Some(EcnAnomaly::CeInnerEct1Outer)),
    (CE, CE, Some(CE), None),
];

fn decapsulated() -> Vec<Case> {
    let row = |(inner, outer, left, anomaly): (u8, u8, Option<u8>, Option<EcnAnomaly>)| {
        let datagram = |ecn| udp(HOST_B, HOST_A, 100).tos(DSCP | ecn);
        let title = format!("ECN at decapsulation: {} in {}", name(inner), name(outer));
        let draft = decap(title, theirs(B, datagram(inner)).tos(outer));
        let case = match left {
            Some(left) => draft.delivers(datagram(left)),
            None => draft.drops(DropReason::EcnViolation, Some(PEER_B)),
        };
        case.counting(|counts| {
            counts.marked = (outer == CE).then_some((PEER_B, 1));
            counts.anomaly = anomaly.map(|anomaly| (anomaly, 1));
        })
    };
    DECAPSULATION.into_iter().map(row).collect()
}
