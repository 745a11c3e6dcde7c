//! The description of the interface (OpenAPI 3.1), made from the very types that are served.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Endpoint, ErrorBody};
use crate::api::drops::Drops;
use crate::api::metrics;
use crate::daemon::service::{Applied, ApplyRequest};
use crate::state::events::Event;
use crate::state::status::Status;

/// Where the description keeps what it refers to.
const SCHEMAS: &str = "/components/schemas";

/// The description. It is committed as `docs/reference/openapi.json`.
#[must_use]
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = SCHEMAS.into());
    let mut schemas = settings.into_generator();
    let refusal = json!({ "application/json": { "schema": reference::<ErrorBody>(&mut schemas) } });
    let paths: Map<String, Value> = Endpoint::ALL
        .into_iter()
        .map(|endpoint| (endpoint.path().to_owned(), described(endpoint, &refusal, &mut schemas)))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Adit",
            "version": "1",
            "summary": "A running overlay, asked on its socket.",
            "description": "HTTP on the Unix socket /run/adit/NAME.sock, which root alone may connect to: \
                `curl --unix-socket /run/adit/NAME.sock http://adit/v1/status`. What is there stays; members may \
                be added to objects, and values to lists of words. `site.metrics` in the configuration serves \
                the answer of /v1/metrics by TCP too, as /metrics, and nothing else.",
        },
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

fn described(endpoint: Endpoint, refusal: &Value, schemas: &mut SchemaGenerator) -> Value {
    let text = || json!({ "type": "string" });
    let (id, summary, answer, media_type, schema) = match endpoint {
        Endpoint::Status => (
            "status",
            "The overlay as it is now",
            "Site, data plane and why, a peer each, what was counted.",
            "application/json",
            reference::<Status>(schemas),
        ),
        Endpoint::Drops => (
            "drops",
            "Every reason for which something is dropped",
            "Each reason with its count, whether or not it ever occurred.",
            "application/json",
            reference::<Drops>(schemas),
        ),
        Endpoint::Events => {
            // What OpenAPI 3.1 has no word for: the shape of what is in each `data:`.
            let event = reference::<Event>(schemas);
            let stream =
                json!({ "type": "string", "contentMediaType": "text/event-stream", "x-event": event });
            (
                "events",
                "What happens to the peers, as it happens",
                "Server-sent events without end: `data: ` and one event (`x-event`) as JSON, in one line; a comment \
                 every 15 seconds. It begins with what happens next. A reader that is too slow loses the \
                 oldest, and is told how many by the event `missed`.",
                "text/event-stream",
                stream,
            )
        }
        Endpoint::Metrics => (
            "metrics",
            "Numbers for Prometheus",
            "The text format of OpenMetrics 1.0.",
            metrics::CONTENT_TYPE,
            text(),
        ),
        Endpoint::Config => (
            "config",
            "What runs, as a configuration file",
            "TOML, with every key written out.",
            "text/plain; charset=utf-8",
            text(),
        ),
        Endpoint::Apply => (
            "apply",
            "Has what runs become what a file says",
            "What has changed: all of it, or, if it is refused, nothing.",
            "application/json",
            reference::<Applied>(schemas),
        ),
        Endpoint::Reload => (
            "reload",
            "Applies the file anew that was applied last",
            "What has changed: all of it, or, if it is refused, nothing.",
            "application/json",
            reference::<Applied>(schemas),
        ),
        Endpoint::Confirm => (
            "confirm",
            "Keeps what was applied to be confirmed",
            "Whether anything waited for it.",
            "application/json",
            json!({ "type": "boolean" }),
        ),
    };
    let mut operation = json!({
        "operationId": id,
        "summary": summary,
        "responses": {
            "200": { "description": answer, "content": { media_type: { "schema": schema } } },
        },
    });
    let refused = if endpoint.is_change() {
        ("422", "It cannot be done, and nothing was changed.")
    } else {
        ("503", "The overlay is being taken down.")
    };
    operation["responses"][refused.0] = json!({ "description": refused.1, "content": refusal });
    if endpoint == Endpoint::Apply {
        let schema = reference::<ApplyRequest>(schemas);
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    json!({ (if endpoint.is_change() { "post" } else { "get" }): operation })
}

fn reference<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use axum::response::IntoResponse;

    use super::*;
    use crate::api::Api;
    use crate::state::events::{DownCause, EventKind};
    use crate::state::sample;
    use crate::state::status::PathMtuFrom;

    /// Set `ADIT_BLESS=1` to write the file anew.
    #[test]
    fn committed_description_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
        let description = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
        if std::env::var_os("ADIT_BLESS").is_some() {
            std::fs::write(&path, &description).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, description, "run `cargo xtask generate` and commit the file");
    }

    /// What of a value does not fit a schema of the description. A member that the schema does not know is a
    /// mistake here, though none of those who read an answer of a newer daemon.
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
    fn every_shape_is_as_described_and_others_are_not() {
        let status = sample::status();
        let event = |what| serde_json::to_value(Event::now("a", what)).unwrap();
        let peer = || "b".to_owned();
        let address = || "10.1.1.1".to_owned();
        let right = [
            ("Status", serde_json::to_value(&status).unwrap()),
            ("Drops", serde_json::to_value(Drops::of(&status)).unwrap()),
            ("ErrorBody", json!({ "schema": 1, "ok": false, "error": "no" })),
            ("Event", event(EventKind::PeerUp { peer: peer() })),
            ("Event", event(EventKind::PeerDown { peer: peer(), cause: DownCause::Silent })),
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
                // Those were added later, and may be missing in an older daemon's answer.
                let is_optional =
                    name == "Status" && ["repairs", "ecn", "icmp", "probes"].contains(&key.as_str());
                assert_eq!(mistakes(&named(name), &less).is_empty(), is_optional, "{name} without {key}");
            }
            let mut more = value.clone();
            more["unheard-of"] = json!(1);
            assert_ne!(mistakes(&named(name), &more), [] as [String; 0], "{name} with something else");
        }
    }

    #[test]
    fn what_is_refused_is_as_described() {
        crate::block_on(async {
            for refused in [
                crate::api::unknown("/v2/status".parse().unwrap()).await.into_response(),
                crate::api::status(axum::extract::State(Api::new(std::sync::Arc::new(|| None))))
                    .await
                    .into_response(),
            ] {
                assert!(refused.status().is_client_error() || refused.status().is_server_error());
                let body = axum::body::to_bytes(refused.into_body(), usize::MAX).await.unwrap();
                let refusal: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(mistakes(&named("ErrorBody"), &refusal), [] as [String; 0], "{refusal}");
            }
        });
    }
}
