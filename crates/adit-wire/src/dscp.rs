//! The differentiated services code point (RFC 2474) and its treatment by a tunnel (RFC 2983).
//!
//! ```text
//!   0   1   2   3   4   5   6   7
//! +---+---+---+---+---+---+---+---+
//! |         DSCP          |  ECN  |   the octet that RFC 791 calls TOS
//! +---+---+---+---+---+---+---+---+
//! ```

/// A code point: the upper six bits of the TOS octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dscp(u8);

impl Dscp {
    /// Best effort.
    pub const DEFAULT: Dscp = Dscp(0);

    /// Returns the code point `value`, or `None` if that is above 63.
    #[inline]
    #[must_use]
    pub const fn new(value: u8) -> Option<Dscp> {
        if value < 64 { Some(Dscp(value)) } else { None }
    }

    /// Returns the code point in a TOS octet.
    #[inline]
    #[must_use]
    pub const fn from_tos(tos: u8) -> Dscp {
        Dscp(tos >> 2)
    }

    /// Returns the number, 0 to 63.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// How the encapsulator chooses the outer code point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DscpPolicy {
    /// It copies that of the inner header (RFC 2003 section 3.1; RFC 2983 section 3.1).
    #[default]
    Inherit,
    /// It writes this one: from outside, the tunnel is a pipe as in RFC 2983.
    Fixed(Dscp),
}

impl DscpPolicy {
    /// Returns the outer code point for an inner one. The decapsulator leaves the inner one as it
    /// is.
    #[inline]
    #[must_use]
    pub const fn outer(self, inner: Dscp) -> Dscp {
        match self {
            DscpPolicy::Inherit => inner,
            DscpPolicy::Fixed(fixed) => fixed,
        }
    }
}
