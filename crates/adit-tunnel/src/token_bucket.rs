//! A rate limit with a burst (RFC 1812 section 4.3.2.8).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::time::Instant;

/// A token bucket as one number (GCRA): the time, in microseconds, at which the bucket would be
/// full. It gives `BURST` tokens at once and `PER_SECOND` from then on; neither may be 0.
#[derive(Debug)]
pub(crate) struct TokenBucket<const PER_SECOND: u32, const BURST: u32>(AtomicU64);

impl<const PER_SECOND: u32, const BURST: u32> TokenBucket<PER_SECOND, BURST> {
    const INTERVAL: u64 = 1_000_000 / PER_SECOND as u64;
    const TOLERANCE: u64 = Self::INTERVAL * (BURST as u64 - 1);

    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes over the tokens of another bucket.
    pub(crate) fn inherit(&self, previous: &Self) {
        self.0.store(previous.0.load(Relaxed), Relaxed);
    }

    /// Takes one token if there is one.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let now = now.as_millis().saturating_mul(1000);
        self.0
            .fetch_update(Relaxed, Relaxed, |full_at| {
                let full_at = full_at.max(now);
                (full_at - now <= Self::TOLERANCE).then(|| full_at.saturating_add(Self::INTERVAL))
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1812_s4_3_2_8_a_burst_and_then_a_rate() {
        let at = |millis| Instant::from_millis(millis);
        let bucket = TokenBucket::<100, 50>::new();
        assert_eq!((0..1000).filter(|_| bucket.take(at(1_000_000))).count(), 50);
        let sent = (1..=1000).filter(|ms| bucket.take(at(1_000_000 + ms))).count();
        assert_eq!(sent, 100);
        assert_eq!((0..1000).filter(|_| bucket.take(at(2_000_000))).count(), 50, "full again");
        assert!(!bucket.take(at(1_000_000)), "a clock read earlier by another thread gets nothing more");
    }
}
