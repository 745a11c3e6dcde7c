use adit_wire::dscp::{Dscp, DscpPolicy};
use adit_wire::ecn::Ecn::{self, Ce, Ect0, Ect1, NotEct};
use adit_wire::ecn::EcnAnomaly::{
    CeInnerEct1Outer, Ect1InnerEct0Outer, NotEctInnerCeOuter, NotEctInnerEct0Outer, NotEctInnerEct1Outer,
};
use adit_wire::ecn::{EcnAnomaly, EcnMode, EcnVerdict, decapsulate, encapsulate};

#[test]
fn rfc6040_s4_2_figure_4_all_sixteen_cells() {
    let table: [(Ecn, Ecn, Option<Ecn>, Option<EcnAnomaly>); 16] = [
        (NotEct, NotEct, Some(NotEct), None),
        (NotEct, Ect0, Some(NotEct), Some(NotEctInnerEct0Outer)),
        (NotEct, Ect1, Some(NotEct), Some(NotEctInnerEct1Outer)),
        (NotEct, Ce, None, Some(NotEctInnerCeOuter)),
        (Ect0, NotEct, Some(Ect0), None),
        (Ect0, Ect0, Some(Ect0), None),
        (Ect0, Ect1, Some(Ect1), None),
        (Ect0, Ce, Some(Ce), None),
        (Ect1, NotEct, Some(Ect1), None),
        (Ect1, Ect0, Some(Ect1), Some(Ect1InnerEct0Outer)),
        (Ect1, Ect1, Some(Ect1), None),
        (Ect1, Ce, Some(Ce), None),
        (Ce, NotEct, Some(Ce), None),
        (Ce, Ect0, Some(Ce), None),
        (Ce, Ect1, Some(Ce), Some(CeInnerEct1Outer)),
        (Ce, Ce, Some(Ce), None),
    ];
    for (inner, outer, ecn, anomaly) in table {
        let expected = EcnVerdict { ecn, anomaly };
        assert_eq!(decapsulate(inner, outer), expected, "inner {inner:?}, outer {outer:?}");
    }
}

#[test]
fn rfc6040_s4_1_normal_mode_copies_ce_included() {
    for inner in Ecn::ALL {
        assert_eq!(encapsulate(EcnMode::Normal, inner), inner);
    }
}

#[test]
fn rfc6040_s4_1_compatibility_mode_writes_not_ect() {
    for inner in Ecn::ALL {
        assert_eq!(encapsulate(EcnMode::Compatibility, inner), NotEct);
    }
}

#[test]
fn rfc3168_s5_code_points_are_the_lower_two_bits() {
    for tos in 0..=255_u8 {
        assert_eq!(Ecn::from_tos(tos).bits(), tos & 3);
        assert_eq!(Dscp::from_tos(tos).value(), tos >> 2);
    }
    assert_eq!((Ect0.bits(), Ect1.bits()), (0b10, 0b01));
}

#[test]
fn rfc6040_anomalies_have_an_index_and_a_name_each() {
    for (index, anomaly) in EcnAnomaly::ALL.into_iter().enumerate() {
        assert_eq!(anomaly.index(), index);
        assert!(EcnAnomaly::ALL.iter().all(|&o| o == anomaly || o.as_str() != anomaly.as_str()));
    }
}

#[test]
fn rfc2983_dscp_is_inherited_or_fixed() {
    let (inner, fixed) = (Dscp::new(10).expect("in range"), Dscp::new(46).expect("in range"));
    assert_eq!(DscpPolicy::Inherit.outer(inner), inner);
    assert_eq!(DscpPolicy::Fixed(fixed).outer(inner), fixed);
    assert_eq!(Dscp::new(63).map(Dscp::value), Some(63));
    assert_eq!(Dscp::new(64), None);
}
