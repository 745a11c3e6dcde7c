//! Address families inside and outside a tunnel, beside the usual IPv4 in IPv4.

/// A combination of families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Families {
    /// IPv6 in IPv4.
    SixInFour,
    /// IPv4 in IPv6.
    FourInSix,
    /// IPv6 in IPv6.
    SixInSix,
}

impl Families {
    pub(crate) const ALL: [Self; 3] = [Self::SixInFour, Self::FourInSix, Self::SixInSix];

    /// Whether the private networks are of IPv6.
    pub(crate) fn is_v6_inside(self) -> bool {
        matches!(self, Self::SixInFour | Self::SixInSix)
    }

    /// Whether the underlay is of IPv6.
    pub(crate) fn is_v6_outside(self) -> bool {
        matches!(self, Self::FourInSix | Self::SixInSix)
    }

    /// One of three texts.
    pub(crate) fn pick(self, texts: [&'static str; 3]) -> &'static str {
        let [six_in_four, four_in_six, six_in_six] = texts;
        match self {
            Self::SixInFour => six_in_four,
            Self::FourInSix => four_in_six,
            Self::SixInSix => six_in_six,
        }
    }
}
