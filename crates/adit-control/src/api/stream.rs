//! Events as they come: server-sent events, one each, and how many a slow reader has missed.

use std::convert::Infallible;

use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::state::events::{Event, EventKind};

/// How many events wait for a slow reader; of more, the oldest are lost to it.
pub(crate) const BACKLOG: usize = 1024;

/// What comes from `events`, until the daemon ends. A comment every 15 seconds tells a reader that nothing happens from a
/// connection that has died.
pub(super) fn follow(
    site: String,
    events: Receiver<Event>,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let stream = stream::unfold((site, events), |(site, mut events)| async {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => Event::now(&site, EventKind::Missed { events: missed }),
            Err(RecvError::Closed) => return None,
        };
        // A shape without maps of odd keys always is JSON.
        let data = serde_json::to_string(&event).ok()?;
        Some((Ok(sse::Event::default().data(data)), (site, events)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use tokio::sync::broadcast;

    use super::*;

    fn up(number: usize) -> Event {
        Event::now("a", EventKind::PeerUp { peer: format!("p{number}") })
    }

    async fn all_of(events: Receiver<Event>) -> Vec<EventKind> {
        let body = follow("a".to_owned(), events).into_response().into_body();
        let text = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
        events.map(|json| serde_json::from_str::<Event>(json).unwrap().kind).collect()
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        crate::block_on(async {
            let (sender, receiver) = broadcast::channel(4);
            assert!((0..7).all(|number| sender.send(up(number)).is_ok()));
            drop(sender);
            let expected = [EventKind::Missed { events: 3 }];
            let expected: Vec<_> = expected.into_iter().chain((3..7).map(|number| up(number).kind)).collect();
            assert_eq!(all_of(receiver).await, expected);
        });
    }

    #[test]
    fn each_reader_hears_each_event_once() {
        crate::block_on(async {
            let (sender, first) = broadcast::channel(BACKLOG);
            let second = sender.subscribe();
            assert!((0..3).all(|number| sender.send(up(number)).is_ok()));
            drop(sender);
            let expected: Vec<_> = (0..3).map(|number| up(number).kind).collect();
            assert_eq!(all_of(first).await, expected);
            assert_eq!(all_of(second).await, expected);
        });
    }
}
