//! Identifications of outer datagrams that may be fragmented (RFC 6864 section 4). Two senders with
//! one address must not use the same one. The programs and userspace count independently, so each
//! has half of the numbers.

/// A sender's half of the identifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdRange {
    /// 0 to 32,767: the programs'.
    Lower,
    /// 32,768 to 65,535: userspace's, where programs run in front of it.
    Upper,
}

const HALF: u32 = 1 << 15;

impl IdRange {
    /// The first of `segments` consecutive identifications, for the value of a counter that only
    /// grows. Returns `None` if they would cross the end of the range: ask again with a counter
    /// that is `segments` further on.
    #[inline(always)]
    #[must_use]
    pub const fn identifications(self, counter: u32, segments: u32) -> Option<u16> {
        let first = counter & (HALF - 1);
        if first + segments > HALF && first != 0 {
            return None;
        }
        let base = match self {
            IdRange::Lower => 0,
            IdRange::Upper => HALF,
        };
        Some((base | first) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6864_s4_ranges_do_not_overlap_and_no_identification_crosses_its_range() {
        for (half, range) in [(IdRange::Lower, 0..=0x7fffu16), (IdRange::Upper, 0x8000..=0xffff)] {
            let (mut counter, mut seen) = (HALF - 10, 0);
            for segments in [1, 7, 44, 1, 600, 31_000, 5] {
                let first = half.identifications(counter, segments).or_else(|| {
                    counter += segments;
                    half.identifications(counter, segments)
                });
                counter += segments;
                let last = first.map(|first| first + (segments - 1) as u16);
                let is_inside = |id: Option<u16>| id.is_some_and(|id| range.contains(&id));
                assert!(is_inside(first) && is_inside(last), "{half:?}: {first:?} to {last:?}");
                seen += 1;
            }
            assert_eq!(seen, 7);
        }
    }
}
