//! The OpenAPI 3.1 description of the API, made from the types that are served.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::api::apply::{Applied, ApplyRequest};
use crate::api::drops::Drops;
use crate::api::endpoint::Endpoint;
use crate::api::error::ErrorBody;
use crate::api::{handlers, metrics};
use crate::state::events::Event;
use crate::state::status::Status;

/// Where the description keeps its schemas.
const SCHEMAS: &str = "/components/schemas";

/// The description. It is committed as `docs/reference/openapi.json`.
#[must_use]
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = SCHEMAS.into());
    let mut schemas = settings.into_generator();
    let error = json!({ "application/json": { "schema": reference::<ErrorBody>(&mut schemas) } });
    let paths: Map<String, Value> = Endpoint::ALL
        .into_iter()
        .map(|endpoint| {
            let operation = Operation::of(endpoint, &mut schemas).describe(endpoint, &error, &mut schemas);
            (endpoint.path().to_owned(), operation)
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Adit",
            "version": "1",
            "summary": "The API of a running overlay.",
            "description": "HTTP on the Unix socket /run/adit/NAME.sock, to which only root may connect: \
                `curl --unix-socket /run/adit/NAME.sock http://adit/v1/status`. Nothing is removed from the API; \
                objects may get more members, and lists of words more values. `site.metrics` in the configuration \
                serves the answer of /v1/metrics by TCP too, as /metrics, and nothing else.",
        },
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

/// What the description says of one endpoint.
struct Operation {
    id: &'static str,
    summary: &'static str,
    answer: &'static str,
    media_type: &'static str,
    schema: Value,
}

impl Operation {
    fn of(endpoint: Endpoint, schemas: &mut SchemaGenerator) -> Self {
        let text = || json!({ "type": "string" });
        let json = "application/json";
        let changed = "What has changed. If the change fails, nothing has.";
        let (id, summary, answer, media_type, schema) = match endpoint {
            Endpoint::Status => (
                "status",
                "The overlay as it is now",
                "The site, its data plane and why that one, the state and the counters of each peer. While a change or \
                 a repair is in progress, the state before it; the header says how old it is.",
                json,
                reference::<Status>(schemas),
            ),
            Endpoint::Drops => (
                "drops",
                "Every drop reason with its count",
                "All reasons, including those that have never occurred.",
                json,
                reference::<Drops>(schemas),
            ),
            Endpoint::Events => {
                // OpenAPI 3.1 has no word for the shape of what is in each `data:`.
                let event = reference::<Event>(schemas);
                let stream =
                    json!({ "type": "string", "contentMediaType": "text/event-stream", "x-event": event });
                (
                    "events",
                    "Events of the peers and the underlay, as they happen",
                    "Server-sent events without end. Each has its number (`seq`) as `id: ` and one event (`x-event`) as \
                     JSON in one line as `data: `; a comment follows every 15 seconds. The stream begins with the next \
                     event, or, if the request names one, with the one after that. The daemon keeps the newest 1,024 \
                     events. If events that a reader has asked for are gone, the event `missed` says how many.",
                    "text/event-stream",
                    stream,
                )
            }
            Endpoint::Metrics => (
                "metrics",
                "Metrics for Prometheus",
                "The text format of OpenMetrics 1.0.",
                metrics::CONTENT_TYPE,
                text(),
            ),
            Endpoint::Config => (
                "config",
                "The running configuration as a file",
                "TOML with every key. While a change is in progress, the configuration before it.",
                "text/plain; charset=utf-8",
                text(),
            ),
            Endpoint::Apply => {
                ("apply", "Apply a configuration file", changed, json, reference::<Applied>(schemas))
            }
            Endpoint::Reload => (
                "reload",
                "Apply the file again that was applied last",
                changed,
                json,
                reference::<Applied>(schemas),
            ),
            Endpoint::Confirm => (
                "confirm",
                "Keep a change that waits to be confirmed",
                "Whether a change was waiting.",
                json,
                json!({ "type": "boolean" }),
            ),
        };
        Self { id, summary, answer, media_type, schema }
    }

    fn describe(self, endpoint: Endpoint, error: &Value, schemas: &mut SchemaGenerator) -> Value {
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.summary,
            "responses": {
                "200": { "description": self.answer, "content": { self.media_type: { "schema": self.schema } } },
            },
        });
        let (code, failure) = if endpoint.is_change() {
            ("422", "The change has failed, and nothing has changed.")
        } else {
            ("503", "The overlay is being taken down.")
        };
        operation["responses"][code] = json!({ "description": failure, "content": error });
        match endpoint {
            Endpoint::Apply => {
                let schema = reference::<ApplyRequest>(schemas);
                operation["requestBody"] =
                    json!({ "required": true, "content": { "application/json": { "schema": schema } } });
            }
            Endpoint::Status => {
                operation["responses"]["200"]["headers"] = json!({ (handlers::SNAPSHOT_AGE): {
                    "description": "Age of the answer in milliseconds.",
                    "schema": { "type": "integer" },
                } });
            }
            Endpoint::Events => {
                operation["responses"]["400"] =
                    json!({ "description": "The number is not that of an event.", "content": error });
                operation["parameters"] = json!([
                    after("query", handlers::AFTER, "The number of the last event that the reader has seen."),
                    after(
                        "header",
                        handlers::LAST_EVENT_ID,
                        "The same, as a browser sends it; it goes before `after`."
                    ),
                ]);
            }
            _ => {}
        }
        json!({ (if endpoint.is_change() { "post" } else { "get" }): operation })
    }
}

fn after(place: &str, name: &str, description: &str) -> Value {
    let schema = json!({ "type": "integer", "minimum": 0 });
    json!({ "in": place, "name": name, "description": description, "schema": schema })
}

fn reference<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::sync::Arc;

    use axum::response::IntoResponse;

    use super::*;
    use crate::api::readings::Readings;
    use crate::state::event_log::EventLog;
    use crate::state::events::{DownCause, EventKind};
    use crate::state::sample;
    use crate::state::snapshot::{NoStatus, SnapshotPublisher};
    use crate::state::status::{PathMtuFrom, PeerState};
    use crate::state::unreachable::UnreachableCause;

    /// Set `ADIT_BLESS=1` to write the file anew.
    #[test]
    fn the_committed_description_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
        let description = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
        if std::env::var_os("ADIT_BLESS").is_some() {
            std::fs::write(&path, &description).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, description, "run `cargo xtask generate` and commit the file");
    }

    /// How a value differs from a schema of the description. A member that the schema does not know
    /// is a mistake here, though not for those who read the answer of a newer daemon.
    fn mistakes(schema: &Value, value: &Value) -> Vec<String> {
        let mut whole = schema.clone();
        whole["components"] = openapi()["components"].clone();
        whole["unevaluatedProperties"] = Value::Bool(false);
        let validator = jsonschema::draft202012::new(&whole).unwrap();
        validator.iter_errors(value).map(|error| error.to_string()).collect()
    }

    fn named(name: &str) -> Value {
        json!({ "$ref": format!("#{SCHEMAS}/{name}") })
    }

    #[test]
    fn every_shape_fits_its_description_and_no_other_does() {
        let status = sample::status();
        let event = |what| serde_json::to_value(Event::now(1, "a", what)).unwrap();
        let peer = || "b".to_owned();
        let address = || "10.1.1.1".to_owned();
        let down = EventKind::PeerDown {
            peer: peer(),
            state: PeerState::Unreachable,
            cause: DownCause::Unreachable(UnreachableCause::Prohibited),
            router: Some(Ipv4Addr::LOCALHOST.into()),
            icmp_type: Some(3),
            icmp_code: Some(13),
        };
        let right = [
            ("Status", serde_json::to_value(&status).unwrap()),
            ("Drops", serde_json::to_value(Drops::of(&status)).unwrap()),
            ("ErrorBody", json!({ "schema": 1, "ok": false, "error": "no" })),
            ("Event", event(EventKind::PeerUp { peer: peer() })),
            ("Event", event(down)),
            (
                "Event",
                event(EventKind::PathMtuChanged {
                    peer: peer(),
                    from: 1500,
                    to: 1300,
                    told_by: PathMtuFrom::Probe,
                }),
            ),
            ("Event", event(EventKind::ProbesAnswered { peer: peer() })),
            ("Event", event(EventKind::ProbesUnanswered { peer: peer() })),
            ("Event", event(EventKind::UnderlayMissing { address: address() })),
            ("Event", event(EventKind::UnderlayPresent { address: address() })),
            ("Event", event(EventKind::UnderlayMoved { from: address(), to: "10.1.1.7".to_owned() })),
            ("Event", event(EventKind::Repaired { object: "route".to_owned(), times: 1 })),
            ("Event", event(EventKind::Missed { events: 3 })),
        ];
        for (name, value) in right {
            assert_eq!(mistakes(&named(name), &value), [] as [String; 0], "{name}: {value}");
            for key in value.as_object().unwrap().keys() {
                let mut less = value.clone();
                less.as_object_mut().unwrap().remove(key);
                // Members that were added later may be missing in an older daemon's answer.
                let is_optional = match name {
                    "Status" => !["schema", "site", "peers", "drops"].contains(&key.as_str()),
                    "Event" => ["seq", "router", "icmp_type", "icmp_code"].contains(&key.as_str()),
                    _ => false,
                };
                assert_eq!(mistakes(&named(name), &less).is_empty(), is_optional, "{name} without {key}");
            }
            let mut more = value.clone();
            more["unknown"] = json!(1);
            assert_ne!(mistakes(&named(name), &more), [] as [String; 0], "{name} with something else");
        }
    }

    #[test]
    fn errors_fit_their_description() {
        crate::block_on(async {
            let snapshots = SnapshotPublisher::new(Box::new(|| Err(NoStatus::Gone)));
            let gone = Readings { snapshots: Arc::new(snapshots), events: Arc::new(EventLog::new("a")) };
            for refused in [
                handlers::unknown_path("/v2/status".parse().unwrap()).await.into_response(),
                handlers::status(axum::extract::State(gone)).await.into_response(),
            ] {
                assert!(refused.status().is_client_error() || refused.status().is_server_error());
                let body = axum::body::to_bytes(refused.into_body(), usize::MAX).await.unwrap();
                let refusal: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(mistakes(&named("ErrorBody"), &refusal), [] as [String; 0], "{refusal}");
            }
        });
    }
}
