//! The report of a loss stream.

use std::fmt;
use std::time::{Duration, Instant};

use super::arrivals::Arrivals;

/// Datagrams that were sent together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    /// The number of the first.
    pub(super) first: u64,
    /// When the burst began.
    pub(super) at: Instant,
    /// When the last of them had been sent. A sender may be delayed within a burst.
    pub(super) over: Instant,
}

/// Successive datagrams that were all lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The number of the first.
    pub first: u64,
    /// Their count.
    pub packets: u64,
    /// The earliest time at which the first was sent.
    pub from: Instant,
    /// The latest time at which the first was sent.
    pub first_over: Instant,
    /// The earliest time at which the last was sent.
    pub until: Instant,
}

impl Loss {
    /// The time between sending the first and the last.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.until - self.from
    }
}

/// The fate of every datagram of a stream.
#[derive(Clone, Debug)]
pub struct StreamReport {
    /// Datagrams that were sent or attempted.
    pub sent: u64,
    /// Datagrams that arrived, each counted once.
    pub arrived: u64,
    /// Arrivals of a datagram that had arrived before.
    pub duplicated: u64,
    /// Datagrams that arrived after one that was sent later.
    pub reordered: u64,
    /// The losses in the order of sending.
    pub losses: Vec<Loss>,
    /// The longest time between two arrivals, by the kernel's clock. A delayed sender makes it
    /// longer, so only its excess over `max_sender_delay` is due to the path.
    pub longest_silence: Duration,
    /// The lost datagrams that the sending host refused to send.
    pub refused: u64,
    /// The longest delay of the sender, which has to wait for a processor.
    pub max_sender_delay: Duration,
    /// Datagrams that the receiver's socket dropped. If it is not 0, the path may not be to blame.
    pub dropped_by_receiver: u64,
    /// When the first was sent, the origin of the times in `Display`.
    start: Option<Instant>,
}

impl StreamReport {
    pub(super) fn new(
        sent: u64,
        bursts: &[Burst],
        refused: u64,
        max_sender_delay: Duration,
        arrivals: &Arrivals,
    ) -> Self {
        Self {
            sent,
            arrived: arrivals.distinct(),
            duplicated: arrivals.duplicated,
            reordered: arrivals.reordered,
            losses: losses(sent, bursts, arrivals),
            longest_silence: arrivals.longest_silence,
            refused,
            max_sender_delay,
            dropped_by_receiver: arrivals.dropped_by_receiver,
            start: bursts.first().map(|burst| burst.at),
        }
    }

    /// The number of datagrams that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent - self.arrived
    }

    /// The loss with the most datagrams.
    #[must_use]
    pub fn longest_loss(&self) -> Option<&Loss> {
        self.losses.iter().max_by_key(|loss| (loss.packets, loss.duration()))
    }

    /// Returns true if every datagram arrived exactly once and the receiver kept up. The order does
    /// not matter.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost() == 0 && self.duplicated == 0 && self.dropped_by_receiver == 0
    }

    /// The number of lost datagrams that were certainly sent before `from` or after `until`.
    #[must_use]
    pub fn lost_outside(&self, from: Instant, until: Instant) -> u64 {
        let outside = |loss: &&Loss| loss.first_over < from || loss.until > until;
        self.losses.iter().filter(outside).map(|loss| loss.packets).sum()
    }
}

impl fmt::Display for StreamReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(
            formatter,
            "{} sent, {} lost, {} duplicated, {} reordered; \
             longest silence {:.1} ms, sender delayed by {:.1} ms at most",
            self.sent,
            self.lost(),
            self.duplicated,
            self.reordered,
            ms(self.longest_silence),
            ms(self.max_sender_delay),
        )?;
        if self.refused > 0 {
            write!(formatter, "; the sending host refused {} of the lost", self.refused)?;
        }
        if self.dropped_by_receiver > 0 {
            write!(formatter, "; the receiver's socket dropped {}", self.dropped_by_receiver)?;
        }
        for loss in self.losses.iter().take(SHOWN) {
            let since = self.start.map_or(Duration::ZERO, |start| loss.from - start);
            write!(
                formatter,
                "\n  lost {} from number {} on, sent {:.1} ms after the start within {:.1} ms",
                loss.packets,
                loss.first,
                ms(since),
                ms(loss.duration()),
            )?;
        }
        match self.losses.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(formatter, "\n  and {more} more gaps"),
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn losses(sent: u64, bursts: &[Burst], arrivals: &Arrivals) -> Vec<Loss> {
    let burst_of = |sequence: u64| {
        let after = bursts.partition_point(|burst| burst.first <= sequence);
        bursts.get(after.saturating_sub(1))
    };
    let mut losses: Vec<Loss> = Vec::new();
    for sequence in (0..sent).filter(|&sequence| !arrivals.has(sequence)) {
        let Some(&Burst { at, over, .. }) = burst_of(sequence) else { continue };
        match losses.last_mut() {
            Some(loss) if loss.first + loss.packets == sequence => {
                loss.packets += 1;
                loss.until = at;
            }
            _ => losses.push(Loss { first: sequence, packets: 1, from: at, first_over: over, until: at }),
        }
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST_INTERVAL: Duration = Duration::from_millis(1);

    /// A report of ten datagrams a millisecond. All but `lost` arrive in order, 1 ms later.
    fn report(sent: u64, lost: &[u64]) -> (Instant, StreamReport) {
        let start = Instant::now();
        let bursts: Vec<Burst> = (0..sent.div_ceil(10))
            .map(|tick| start + BURST_INTERVAL * tick as u32)
            .zip((0..).step_by(10))
            .map(|(at, first)| Burst { first, at, over: at + BURST_INTERVAL / 2 })
            .collect();
        let mut arrivals = Arrivals::default();
        for sequence in (0..sent).filter(|sequence| !lost.contains(sequence)) {
            arrivals.note(sequence, BURST_INTERVAL * (sequence / 10 + 1) as u32);
        }
        (start, StreamReport::new(sent, &bursts, 0, Duration::ZERO, &arrivals))
    }

    #[test]
    fn a_stream_without_loss_is_complete() {
        let (_, report) = report(100, &[]);
        assert!(report.is_complete(), "{report}");
        assert_eq!((report.arrived, report.longest_silence), (100, BURST_INTERVAL));
        assert_eq!(report.longest_loss(), None);
    }

    #[test]
    fn losses_are_reported_with_the_times_of_sending() {
        let lost: Vec<u64> = [3].into_iter().chain(15..45).chain([99]).collect();
        let (start, report) = report(100, &lost);
        let found: Vec<(u64, u64)> = report.losses.iter().map(|loss| (loss.first, loss.packets)).collect();
        assert_eq!(found, [(3, 1), (15, 30), (99, 1)]);
        assert_eq!(report.lost(), 32);
        assert!(!report.is_complete());
        let longest = report.longest_loss().expect("something was lost");
        assert_eq!((longest.from, longest.until), (start + BURST_INTERVAL, start + 4 * BURST_INTERVAL));
        assert_eq!(report.longest_silence, 3 * BURST_INTERVAL, "14 came after 2 ms, 45 after 5");
        assert_eq!(report.lost_outside(start + BURST_INTERVAL, start + 4 * BURST_INTERVAL), 2);
        assert_eq!(
            report.lost_outside(start + BURST_INTERVAL * 3 / 2, start + 4 * BURST_INTERVAL),
            2,
            "it may have been sent by then"
        );
        assert_eq!(report.lost_outside(start + 2 * BURST_INTERVAL, start + 4 * BURST_INTERVAL), 32);
        assert_eq!(report.lost_outside(start, start + 9 * BURST_INTERVAL), 0);
    }

    #[test]
    fn duplicates_and_reordering_are_counted_separately() {
        let mut arrivals = Arrivals::default();
        for sequence in [0, 2, 1, 2, 3] {
            arrivals.note(sequence, BURST_INTERVAL);
        }
        let now = Instant::now();
        let bursts = [Burst { first: 0, at: now, over: now }];
        let report = StreamReport::new(4, &bursts, 0, Duration::ZERO, &arrivals);
        assert_eq!((report.lost(), report.duplicated, report.reordered), (0, 1, 1));
        assert!(!report.is_complete(), "a stream with a duplicate is not complete");
    }
}
