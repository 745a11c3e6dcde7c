//! The stream of events that a client follows: server-sent events, one for each event.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{self, Stream};

use crate::state::event_log::{EventLog, EventReader};

/// Streams what `reader` reads until the daemon ends. A comment every 15 seconds lets the client
/// tell a quiet daemon from a dead connection.
pub(crate) fn stream(
    log: Arc<EventLog>,
    reader: EventReader,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let stream = stream::unfold((log, reader), |(log, mut reader)| async {
        let event = reader.next(&log).await?;
        // An event has no map whose keys could not be JSON.
        let data = serde_json::to_string(&event).ok()?;
        Some((Ok(sse::Event::default().id(event.seq.to_string()).data(data)), (log, reader)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;
    use crate::state::events::{Event, EventKind};

    #[test]
    fn each_event_has_its_number_as_id() {
        crate::block_on(async {
            let log = Arc::new(EventLog::new("a"));
            let reader = log.reader(None);
            let kind = |number| EventKind::PeerUp { peer: format!("p{number}") };
            let sent = [log.append(kind(0)), log.append(kind(1))];
            log.close();
            let body = stream(log, reader).into_response().into_body();
            let text = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let text = String::from_utf8(text.to_vec()).unwrap();
            let received = text.split_terminator("\n\n").map(|event| {
                let (id, data) = event.split_once('\n').unwrap();
                let event: Event = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                assert_eq!(id.strip_prefix("id: ").unwrap(), event.seq.to_string());
                event
            });
            assert_eq!(received.collect::<Vec<_>>(), sent);
        });
    }
}
