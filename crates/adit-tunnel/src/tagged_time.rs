//! A small value and a time in one word, so that every thread reads both or neither.

use crate::time::Instant;

/// 16 bits of a value, one of a mark, and 47 bits of a time in milliseconds (4,400 years).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaggedTime(pub(crate) u64);

impl TaggedTime {
    /// No value.
    pub(crate) const NONE: TaggedTime = TaggedTime(0);
    const MARK: u64 = 1 << 47;
    const TIME: u64 = TaggedTime::MARK - 1;

    /// The value 0 at the time 0 is no value.
    pub(crate) const fn new(value: u16, at: Instant) -> TaggedTime {
        let millis = if at.as_millis() > TaggedTime::TIME { TaggedTime::TIME } else { at.as_millis() };
        TaggedTime((value as u64) << 48 | millis)
    }

    /// The same, marked or not.
    pub(crate) const fn marked(self, mark: bool) -> TaggedTime {
        if mark { TaggedTime(self.0 | TaggedTime::MARK) } else { TaggedTime(self.0 & !TaggedTime::MARK) }
    }

    pub(crate) const fn value(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub(crate) const fn is_marked(self) -> bool {
        self.0 & TaggedTime::MARK != 0
    }

    pub(crate) const fn at(self) -> Instant {
        Instant::from_millis(self.0 & TaggedTime::TIME)
    }
}
