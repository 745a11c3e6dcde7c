//! The differentiated services code point, RFC 2474, and what a tunnel does with it, RFC 2983.

/// A code point: the upper six bits of the octet that RFC 791 calls TOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dscp(u8);

impl Dscp {
    /// Best effort.
    pub const DEFAULT: Dscp = Dscp(0);

    /// A code point of 0 to 63; `None` if `value` is greater.
    #[inline]
    #[must_use]
    pub const fn new(value: u8) -> Option<Dscp> {
        if value < 64 { Some(Dscp(value)) } else { None }
    }

    /// The code point of a TOS octet.
    #[inline]
    #[must_use]
    pub const fn from_tos(tos: u8) -> Dscp {
        Dscp(tos >> 2)
    }

    /// The number, 0 to 63.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// Which code point the outer header gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DscpPolicy {
    /// That of the inner header (RFC 2003 section 3.1; RFC 2983 section 3.1).
    #[default]
    Inherit,
    /// Always this one: the pipe of RFC 2983 seen from outside.
    Fixed(Dscp),
}

impl DscpPolicy {
    /// The outer code point for an inner one. The inner header keeps its own, at the exit too.
    #[inline]
    #[must_use]
    pub const fn outer(self, inner: Dscp) -> Dscp {
        match self {
            DscpPolicy::Inherit => inner,
            DscpPolicy::Fixed(fixed) => fixed,
        }
    }
}
