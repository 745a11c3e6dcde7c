//! The log of an overlay's events: the newest of them, numbered, for readers who follow or come
//! back.
//!
//! Each reader has a place of its own in the log, so that a slow one delays nobody. A reader whose
//! place has been overwritten is told by [`EventKind::Missed`] how many events it has lost.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::state::events::{Event, EventKind};

/// How many events are kept for replay. An event is some 200 bytes.
pub(crate) const CAPACITY: usize = 1024;

/// The events of one overlay since the daemon started.
pub(crate) struct EventLog {
    site: String,
    capacity: usize,
    ring: Mutex<Ring>,
    /// Wakes the readers; its value is the number of the next event.
    next: watch::Sender<u64>,
}

struct Ring {
    /// The number of the first event of this daemon.
    first: u64,
    /// The number of the next event.
    next: u64,
    events: VecDeque<Event>,
    is_closed: bool,
}

impl Ring {
    /// The number of the oldest event that is still there.
    fn oldest(&self) -> u64 {
        self.next - self.events.len() as u64
    }
}

impl EventLog {
    /// An empty log whose numbers are greater than those of any earlier daemon, as long as the
    /// clock does not go back: the first one is the time in microseconds since 1970. It fits the
    /// integers that JavaScript and jq keep exactly.
    pub(crate) fn new(site: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(site, u64::try_from(now.as_micros()).unwrap_or(1), CAPACITY)
    }

    fn starting_at(site: &str, first: u64, capacity: usize) -> Self {
        let ring = Ring { first, next: first, events: VecDeque::new(), is_closed: false };
        Self { site: site.to_owned(), capacity, ring: Mutex::new(ring), next: watch::Sender::new(first) }
    }

    /// Appends an event that is seen now, and wakes the readers.
    pub(crate) fn append(&self, kind: EventKind) -> Event {
        let mut ring = self.ring();
        let event = Event::now(ring.next, &self.site, kind);
        ring.next += 1;
        if ring.events.len() == self.capacity {
            ring.events.pop_front();
        }
        ring.events.push_back(event.clone());
        self.next.send_replace(ring.next);
        event
    }

    /// Ends what readers follow, once they have read what is there.
    pub(crate) fn close(&self) {
        self.ring().is_closed = true;
        self.next.send_modify(|_| {});
    }

    /// A reader of what comes next; or, if `after` is a number, of all events after that one.
    ///
    /// The number of an earlier daemon's event gives everything that this daemon has seen.
    pub(crate) fn reader(&self, after: Option<u64>) -> EventReader {
        let ring = self.ring();
        let next = match after {
            None => ring.next,
            // A number that is still to come is a mistake, or of a clock that has gone back.
            Some(after) if after >= ring.next => ring.first,
            Some(after) => after.saturating_add(1).max(ring.first),
        };
        EventReader { next, wake: self.next.subscribe() }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader's place in an [`EventLog`].
pub(crate) struct EventReader {
    /// The number of the event that it reads next.
    next: u64,
    wake: watch::Receiver<u64>,
}

impl EventReader {
    /// The next event; `None` once the log is closed.
    ///
    /// Cancel safety: an event that is not returned is read again.
    pub(crate) async fn next(&mut self, log: &EventLog) -> Option<Event> {
        loop {
            self.wake.mark_unchanged();
            match self.try_next(log) {
                Ok(event) => return event,
                Err(Waiting) => self.wake.changed().await.ok()?,
            }
        }
    }

    fn try_next(&mut self, log: &EventLog) -> Result<Option<Event>, Waiting> {
        let ring = log.ring();
        let oldest = ring.oldest();
        if self.next < oldest {
            let missed = EventKind::Missed { events: oldest - self.next };
            // The number of the last one that was lost: who comes back with it goes on behind it.
            self.next = oldest;
            return Ok(Some(Event::now(oldest - 1, &log.site, missed)));
        }
        let position = usize::try_from(self.next - oldest).unwrap_or(usize::MAX);
        match ring.events.get(position) {
            Some(event) => {
                self.next += 1;
                Ok(Some(event.clone()))
            }
            None if ring.is_closed => Ok(None),
            None => Err(Waiting),
        }
    }
}

/// There is no event yet.
struct Waiting;

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u64 = 100;

    fn log(capacity: usize, events: u64) -> EventLog {
        let log = EventLog::starting_at("a", FIRST, capacity);
        (0..events).for_each(|number| drop(log.append(up(number))));
        log
    }

    fn up(number: u64) -> EventKind {
        EventKind::PeerUp { peer: format!("p{number}") }
    }

    /// All that a reader gets: numbers and kinds.
    async fn read(log: &EventLog, mut reader: EventReader) -> Vec<(u64, EventKind)> {
        log.close();
        let mut read = Vec::new();
        while let Some(event) = reader.next(log).await {
            read.push((event.seq, event.kind));
        }
        read
    }

    fn numbered(events: std::ops::Range<u64>) -> Vec<(u64, EventKind)> {
        events.map(|number| (FIRST + number, up(number))).collect()
    }

    #[test]
    fn a_new_reader_begins_with_what_comes_next() {
        crate::block_on(async {
            let log = log(8, 3);
            let (first, second) = (log.reader(None), log.reader(None));
            log.append(up(3));
            log.append(up(4));
            assert_eq!(read(&log, first).await, numbered(3..5));
            assert_eq!(read(&log, second).await, numbered(3..5));
        });
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_events_and_is_told_how_many() {
        crate::block_on(async {
            let log = log(4, 0);
            let reader = log.reader(None);
            (0..7).for_each(|number| drop(log.append(up(number))));
            let mut expected = vec![(FIRST + 2, EventKind::Missed { events: 3 })];
            expected.extend(numbered(3..7));
            assert_eq!(read(&log, reader).await, expected);
        });
    }

    #[test]
    fn a_reader_who_comes_back_gets_what_it_has_not_seen() {
        crate::block_on(async {
            let missed = |events| (FIRST + 2, EventKind::Missed { events });
            for (after, lost, replayed) in [
                (FIRST + 6, None, 7..7),
                (FIRST + 4, None, 5..7),
                (FIRST + 2, None, 3..7),
                (FIRST + 1, Some(missed(1)), 3..7),
                // An earlier daemon's number, and one that is still to come.
                (FIRST - 50, Some(missed(3)), 3..7),
                (FIRST + 7, Some(missed(3)), 3..7),
            ] {
                let log = log(4, 7);
                let expected: Vec<_> = lost.into_iter().chain(numbered(replayed)).collect();
                assert_eq!(read(&log, log.reader(Some(after))).await, expected, "after {after}");
            }
        });
    }

    #[test]
    fn a_reader_is_woken_by_an_event_and_by_the_end() {
        crate::block_on(async {
            let log = std::sync::Arc::new(log(4, 0));
            let mut reader = log.reader(None);
            let followed = tokio::spawn({
                let log = std::sync::Arc::clone(&log);
                async move { (reader.next(&log).await.map(|event| event.kind), reader.next(&log).await) }
            });
            tokio::task::yield_now().await;
            log.append(up(0));
            tokio::task::yield_now().await;
            log.close();
            assert_eq!(followed.await.unwrap(), (Some(up(0)), None));
        });
    }

    #[test]
    fn numbers_of_a_later_daemon_are_greater_and_exact_in_json() {
        let first = EventLog::new("a").append(up(0)).seq;
        let later = EventLog::new("a").append(up(0)).seq;
        assert!(first <= later && later < 1 << 53);
    }
}
