//! Explicit congestion notification (ECN) in tunnels, RFC 6040, updated by RFC 9599 and RFC 9601.
//!
//! The ECN field is the lower two bits of the TOS octet; [`crate::dscp`] shows it. The encapsulator
//! writes the outer field with [`encapsulate`], and the decapsulator combines both fields with
//! [`decapsulate`].

/// A value of the ECN field (RFC 3168 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not support ECN: a router signals congestion by dropping.
    NotEct = 0,
    /// ECN-capable, code point 01.
    Ect1 = 1,
    /// ECN-capable, code point 10.
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// The four code points, in the order of their values.
    pub const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

    /// Returns the ECN field of a TOS octet.
    #[inline]
    #[must_use]
    pub const fn from_tos(tos: u8) -> Ecn {
        match tos & 0b11 {
            0 => Ecn::NotEct,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// Returns the two bits, 0 to 3.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

/// How the encapsulator writes the outer ECN field (RFC 6040 sections 4.1 and 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EcnMode {
    /// It copies the inner field, CE included. For a decapsulator that follows RFC 6040 or RFC
    /// 4301.
    #[default]
    Normal,
    /// It writes Not-ECT. For a decapsulator that would lose congestion marks.
    Compatibility,
}

/// Returns the outer ECN field for an inner one (RFC 6040 figure 3).
#[inline]
#[must_use]
pub const fn encapsulate(mode: EcnMode, inner: Ecn) -> Ecn {
    match mode {
        EcnMode::Normal => inner,
        EcnMode::Compatibility => Ecn::NotEct,
    }
}

/// A combination of inner and outer field that no conforming path produces: a marked cell of
/// RFC 6040 figure 4. Each is counted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EcnAnomaly {
    /// Inner Not-ECT, outer ECT(0): the outer field became ECN-capable on the path. Dangerous.
    NotEctInnerEct0Outer,
    /// Inner Not-ECT, outer ECT(1). Dangerous.
    NotEctInnerEct1Outer,
    /// Inner Not-ECT, outer CE: congestion that only a drop can signal to the transport. Dangerous.
    NotEctInnerCeOuter,
    /// Inner ECT(1), outer ECT(0): a legal packet that lost a mark. Not dangerous.
    Ect1InnerEct0Outer,
    /// Inner CE, outer ECT(1): the encapsulator hid congestion. Dangerous.
    CeInnerEct1Outer,
}

impl EcnAnomaly {
    /// The number of anomalies: the length of an array of counters.
    pub const COUNT: usize = 5;

    /// Every anomaly, in the order of [`Self::index`].
    pub const ALL: [EcnAnomaly; Self::COUNT] = [
        EcnAnomaly::NotEctInnerEct0Outer,
        EcnAnomaly::NotEctInnerEct1Outer,
        EcnAnomaly::NotEctInnerCeOuter,
        EcnAnomaly::Ect1InnerEct0Outer,
        EcnAnomaly::CeInnerEct1Outer,
    ];

    /// Returns the index of this anomaly in [`Self::ALL`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the name for counters and logs. It does not change between versions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            EcnAnomaly::NotEctInnerEct0Outer => "not-ect-inner-ect0-outer",
            EcnAnomaly::NotEctInnerEct1Outer => "not-ect-inner-ect1-outer",
            EcnAnomaly::NotEctInnerCeOuter => "not-ect-inner-ce-outer",
            EcnAnomaly::Ect1InnerEct0Outer => "ect1-inner-ect0-outer",
            EcnAnomaly::CeInnerEct1Outer => "ce-inner-ect1-outer",
        }
    }
}

/// What the decapsulator does with a datagram because of its ECN fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EcnVerdict {
    /// The ECN field to forward the inner datagram with; `None` if it must be dropped.
    pub ecn: Option<Ecn>,
    /// The anomaly to count.
    pub anomaly: Option<EcnAnomaly>,
}

/// Combines the two fields of a datagram at the decapsulator (RFC 6040 section 4.2, figure 4).
#[inline]
#[must_use]
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> EcnVerdict {
    use Ecn::{Ce, Ect0, Ect1, NotEct};
    use EcnAnomaly as A;
    let (ecn, anomaly) = match (inner, outer) {
        (NotEct, NotEct) => (Some(NotEct), None),
        (NotEct, Ect0) => (Some(NotEct), Some(A::NotEctInnerEct0Outer)),
        (NotEct, Ect1) => (Some(NotEct), Some(A::NotEctInnerEct1Outer)),
        (NotEct, Ce) => (None, Some(A::NotEctInnerCeOuter)),
        (Ect0, NotEct | Ect0) => (Some(Ect0), None),
        (Ect0, Ect1) => (Some(Ect1), None),
        (Ect1, NotEct | Ect1) => (Some(Ect1), None),
        (Ect1, Ect0) => (Some(Ect1), Some(A::Ect1InnerEct0Outer)),
        (Ect0 | Ect1, Ce) => (Some(Ce), None),
        (Ce, NotEct | Ect0 | Ce) => (Some(Ce), None),
        (Ce, Ect1) => (Some(Ce), Some(A::CeInnerEct1Outer)),
    };
    EcnVerdict { ecn, anomaly }
}
