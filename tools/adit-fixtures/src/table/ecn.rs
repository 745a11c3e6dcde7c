//! ECN: every pair of inner and outer field (RFC 6040 figures 3 and 4).

use adit_tunnel::DropReason;
use adit_wire::Protocol;
use adit_wire::ecn::{EcnAnomaly, EcnMode};

use crate::case::{Case, decap, decap_v6, encap, encap_v6};
use crate::packet::{a_to_b, ours, theirs, udp};
use crate::packet_v6::{a_to_b_v6, udp_v6};
use crate::site::{B, HOST_A, HOST_A6, HOST_B, HOST_B6, PEER_B, Setup};

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
        let v4 = || a_to_b().tos(DSCP | inner);
        let v6 = || a_to_b_v6().traffic_class(DSCP | inner);
        let in_v4 = |tos| ours(B, v4()).tos(tos);
        let in_v6 = |tos| ours(B, v6()).protocol(Protocol::IPV6).tos(tos);
        let title = |family: &str, mode| format!("ECN at encapsulation{family}, {mode}: {}", name(inner));
        let compatible = |setup: &mut Setup| setup.config.outer.ecn = EcnMode::Compatibility;
        cases.extend([
            encap(title("", "normal"), v4()).sends(PEER_B, in_v4(DSCP | inner)),
            encap(title("", "compatible"), v4()).with(compatible).sends(PEER_B, in_v4(DSCP)),
            encap_v6(title(" of IPv6", "normal"), v6()).sends(PEER_B, in_v6(DSCP | inner)),
            encap_v6(title(" of IPv6", "compatible"), v6()).with(compatible).sends(PEER_B, in_v6(DSCP)),
        ]);
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
        let v4 = |ecn| udp(HOST_B, HOST_A, 100).tos(DSCP | ecn);
        let v6 = |ecn| udp_v6(HOST_B6, HOST_A6, 100).traffic_class(DSCP | ecn);
        let title = |family| format!("ECN at decapsulation{family}: {} in {}", name(inner), name(outer));
        let from_v4 = decap(title(""), theirs(B, v4(inner)).tos(outer));
        let from_v6 = decap_v6(title(" of IPv6"), theirs(B, v6(inner)).protocol(Protocol::IPV6).tos(outer));
        let cases = match left {
            Some(left) => [from_v4.delivers(v4(left)), from_v6.delivers(v6(left))],
            None => [from_v4, from_v6].map(|draft| draft.drops(DropReason::EcnViolation, Some(PEER_B))),
        };
        cases.map(|case| {
            case.counting(|counts| {
                counts.marked = (outer == CE).then_some((PEER_B, 1));
                counts.anomaly = anomaly.map(|anomaly| (anomaly, 1));
            })
        })
    };
    DECAPSULATION.into_iter().flat_map(row).collect()
}
