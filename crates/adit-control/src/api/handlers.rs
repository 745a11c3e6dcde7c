//! The handlers of the API: one for each endpoint.
//!
//! None of them blocks the daemon's only runtime thread: what is read comes from a published
//! snapshot, and changes are made by the thread of the change queue.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;

use crate::api::apply::{Applied, ApplyRequest};
use crate::api::drops::Drops;
use crate::api::endpoint::Endpoint;
use crate::api::error::ApiError;
use crate::api::readings::Readings;
use crate::api::{event_stream, metrics, text_format};
use crate::daemon::change_queue::ChangeQueue;
use crate::state::snapshot::Snapshot;

/// How old the answer of [`Endpoint::Status`] is, in milliseconds.
pub(crate) const SNAPSHOT_AGE: &str = "adit-snapshot-age-ms";

/// Where a reader of events goes on, as a browser's `EventSource` says it.
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";

/// The same in the query.
pub(crate) const AFTER: &str = "after";

pub(crate) async fn status(State(readings): State<Readings>) -> Result<impl IntoResponse, ApiError> {
    let snapshot = snapshot(&readings).await?;
    let age = snapshot.age().as_millis().to_string();
    let head = [(header::CONTENT_TYPE.as_str(), "application/json"), (SNAPSHOT_AGE, &age)];
    Ok((head, snapshot.json()).into_response())
}

pub(crate) async fn drops(State(readings): State<Readings>) -> Result<Json<Drops>, ApiError> {
    Ok(Json(Drops::of(snapshot(&readings).await?.status())))
}

pub(crate) async fn metrics(
    State(readings): State<Readings>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let snapshot = snapshot(&readings).await?;
    let openmetrics = snapshot.openmetrics(|| metrics::text(Arc::clone(&snapshot)).unwrap_or_default());
    let accept = headers.get(header::ACCEPT).map(|value| String::from_utf8_lossy(value.as_bytes()));
    Ok(if text_format::takes_openmetrics(&accept.unwrap_or_default()) {
        ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], openmetrics)
    } else {
        let older = || text_format::of_openmetrics(&String::from_utf8_lossy(&openmetrics));
        let text = snapshot.plain_metrics(older);
        ([(header::CONTENT_TYPE, text_format::CONTENT_TYPE)], text)
    })
}

pub(crate) async fn events(
    State(readings): State<Readings>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let after = match headers.get(LAST_EVENT_ID) {
        // It is newer than the query, which a browser repeats when it connects again.
        Some(id) => Some(event_number(LAST_EVENT_ID, &String::from_utf8_lossy(id.as_bytes()))?),
        None => last_seen(query.as_deref().unwrap_or_default())?,
    };
    // The place in the log is taken before the answer begins: a reader that has its head misses
    // nothing.
    let reader = readings.events.reader(after);
    Ok(event_stream::stream(readings.events, reader))
}

pub(crate) async fn config(State(changes): State<ChangeQueue>) -> String {
    changes.running_config().to_toml()
}

pub(crate) async fn apply(
    State(changes): State<ChangeQueue>,
    request: Result<Json<ApplyRequest>, JsonRejection>,
) -> Result<Json<Applied>, ApiError> {
    let Json(request) = request.map_err(|error| ApiError::new(error.status(), error.body_text()))?;
    Ok(Json(changes.apply(request).await.ok_or_else(ApiError::gone)??))
}

pub(crate) async fn reload(State(changes): State<ChangeQueue>) -> Result<Json<Applied>, ApiError> {
    Ok(Json(changes.reload().await.ok_or_else(ApiError::gone)??))
}

pub(crate) async fn confirm(State(changes): State<ChangeQueue>) -> Result<Json<bool>, ApiError> {
    Ok(Json(changes.confirm().await.ok_or_else(ApiError::gone)??))
}

pub(crate) async fn unknown_path(uri: Uri) -> ApiError {
    let known = Endpoint::ALL.map(Endpoint::path).join(", ");
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {}; there are {known}", uri.path()))
}

async fn snapshot(readings: &Readings) -> Result<Arc<Snapshot>, ApiError> {
    readings.snapshots.recent().await.ok_or_else(ApiError::gone)
}

/// The number that the query of [`Endpoint::Events`] names.
fn last_seen(query: &str) -> Result<Option<u64>, ApiError> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(AFTER)?.strip_prefix('='));
    value.map(|number| event_number(AFTER, number)).transpose()
}

fn event_number(key: &str, value: &str) -> Result<u64, ApiError> {
    value.parse().map_err(|_| {
        let message = format!("{key} is `{value}`; it has to be the number of an event (`seq`)");
        ApiError::new(StatusCode::BAD_REQUEST, message)
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::state::events::EventKind;

    /// What the stream of events answers to this query and header: its numbers, or an error's
    /// status.
    async fn follow(query: &str, header: Option<&'static str>) -> Result<Vec<u64>, StatusCode> {
        let readings = Readings::sample();
        let first = readings.events.append(EventKind::PeerUp { peer: "b".to_owned() }).seq;
        readings.events.append(EventKind::PeerUp { peer: "c".to_owned() });
        readings.events.close();
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(LAST_EVENT_ID, HeaderValue::from_static(header));
        }
        let query = query.replace("FIRST", &first.to_string());
        match events(State(readings), RawQuery(Some(query)), headers).await {
            Err(error) => Err(error.into_response().status()),
            Ok(answer) => {
                let body =
                    axum::body::to_bytes(answer.into_response().into_body(), usize::MAX).await.unwrap();
                let text = String::from_utf8(body.to_vec()).unwrap();
                let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
                Ok(ids.map(|id| id.parse::<u64>().unwrap() - first).collect())
            }
        }
    }

    #[test]
    fn a_reader_of_events_says_what_it_has_seen() {
        crate::block_on(async {
            for (query, header, expected) in [
                ("", None, Ok(vec![])),
                ("after=FIRST", None, Ok(vec![1])),
                ("other=1&after=0", None, Ok(vec![0, 1])),
                ("after=FIRST", Some("0"), Ok(vec![0, 1])),
                ("after=yesterday", None, Err(StatusCode::BAD_REQUEST)),
                ("", Some("yesterday"), Err(StatusCode::BAD_REQUEST)),
            ] {
                assert_eq!(follow(query, header).await, expected, "{query} {header:?}");
            }
        });
    }
}
