//! Explicit congestion notification in tunnels, RFC 6040 (updated by RFC 9599 and RFC 9601).

/// The ECN field: the lower two bits of the TOS octet (RFC 3168 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not understand ECN: congestion is told by dropping.
    NotEct = 0,
    /// ECN-capable, code point 01.
    Ect1 = 1,
    /// ECN-capable, code point 10.
    Ect0 = 2,
    /// Congestion was experienced.
    Ce = 3,
}

impl Ecn {
    /// The four code points, by their value.
    pub const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

    /// The ECN field of a TOS octet.
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

    /// The two bits, 0 to 3.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

/// How the entrance of the tunnel writes the outer ECN field (RFC 6040 section 4.1 and 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EcnMode {
    /// Copies the inner field, CE included: for an exit that follows RFC 6040 or RFC 4301.
    #[default]
    Normal,
    /// Writes Not-ECT always: for an exit that would lose congestion marks.
    Compatibility,
}

/// The outer ECN field for an inner one (RFC 6040 figure 3).
#[inline]
#[must_use]
pub const fn encapsulate(mode: EcnMode, inner: Ecn) -> Ecn {
    match mode {
        EcnMode::Normal => inner,
        EcnMode::Compatibility => Ecn::NotEct,
    }
}

/// A combination of inner and outer field that no conforming path produces: the marked cells of
/// RFC 6040 figure 4, each to be counted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EcnAnomaly {
    /// Inner Not-ECT, outer ECT(0): the outer field was made ECN-capable on the way. Dangerous.
    NotEctInnerEct0Outer,
    /// Inner Not-ECT, outer ECT(1). Dangerous.
    NotEctInnerEct1Outer,
    /// Inner Not-ECT, outer CE: congestion that the transport could only learn by the drop. Dangerous.
    NotEctInnerCeOuter,
    /// Inner ECT(1), outer ECT(0): a legal packet with a mark that is gone. Not dangerous.
    Ect1InnerEct0Outer,
    /// Inner CE, outer ECT(1): the entrance hid congestion. Dangerous.
    CeInnerEct1Outer,
}

impl EcnAnomaly {
    /// How many kinds there are: the length of an array of counters.
    pub const COUNT: usize = 5;

    /// Every kind, by its index.
    pub const ALL: [EcnAnomaly; Self::COUNT] = [
        EcnAnomaly::NotEctInnerEct0Outer,
        EcnAnomaly::NotEctInnerEct1Outer,
        EcnAnomaly::NotEctInnerCeOuter,
        EcnAnomaly::Ect1InnerEct0Outer,
        EcnAnomaly::CeInnerEct1Outer,
    ];

    /// The place of this kind in [`Self::ALL`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// A stable name for counters and logs.
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

/// What the exit of the tunnel does with a datagram, as far as ECN goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EcnExit {
    /// The ECN field that the inner datagram leaves with; `None`: it must be dropped.
    pub ecn: Option<Ecn>,
    /// What was odd about it, to be counted.
    pub anomaly: Option<EcnAnomaly>,
}

/// Combines the two fields at the exit (RFC 6040 section 4.2, figure 4).
#[inline]
#[must_use]
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> EcnExit {
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
    EcnExit { ecn, anomaly }
}
