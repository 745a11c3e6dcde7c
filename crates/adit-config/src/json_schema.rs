//! The JSON Schema of a configuration file, from the table of its keys.

use serde_json::{Map, Value, json};

use crate::schema::{KeySpec, PEER, SITE, Shape, TOP, TUNNEL, TableSpec};

/// One octet, of which an address and a prefix are made.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
/// A character of an interface's name.
/// Which of the many forms of an address of IPv6 are valid, no pattern says shortly.
const ADDRESS_V6: &str = "[0-9a-fA-F]*:[0-9a-fA-F:.]*";
const DEVICE: &str = "[!-$&-.0-9;-~]";

/// The JSON Schema (draft 2020-12) of a configuration file, for editors that check TOML by one.
/// It is committed as `docs/reference/adit.schema.json`.
///
/// It says what a single value may be. Only [`Config::parse`](crate::Config::parse) checks values
/// against each other.
#[must_use]
pub fn json_schema() -> Value {
    let mut tunnel = reference("Tunnel");
    tunnel["default"] = json!({});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Adit configuration",
        "description": TOP.about,
        "type": "object",
        "properties": {
            "site": reference("Site"),
            "tunnel": tunnel,
            "peer": { "type": "array", "items": reference("Peer"), "default": [], "description": "The other sites." },
        },
        "required": ["site"],
        "additionalProperties": false,
        "$defs": { "Site": table(&SITE), "Tunnel": table(&TUNNEL), "Peer": table(&PEER) },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn table(spec: &TableSpec) -> Value {
    let properties: Map<String, Value> =
        spec.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> =
        spec.keys.iter().filter(|key| key.default.is_none()).map(|key| key.name).collect();
    json!({
        "description": spec.about,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &KeySpec) -> Value {
    let mut property = shape(&key.shape);
    property["description"] = key.about.into();
    if let Some(default) = key.default {
        // A TOML number, boolean or text of these is written in JSON in the same way.
        property["default"] = serde_json::from_str(default).unwrap_or_default();
    }
    property
}

fn shape(shape: &Shape) -> Value {
    let address = format!(r"({OCTET}\.){{3}}{OCTET}");
    match shape {
        Shape::Table => json!({ "type": "object" }),
        Shape::Name => shape_of_name(),
        Shape::Device | Shape::VrfOrOff => matching(&format!("{DEVICE}{{1,15}}")),
        Shape::NetnsOrOff => matching(r"[!#-.0-\[\]-~]{1,255}"),
        Shape::UnderlayAddresses => json!({ "anyOf": underlay_addresses(&address) }),
        Shape::UnderlayAddressesOrInterface => {
            // A name has a character that no address has.
            let mut interface = matching(&format!("[0-9.]*[!-$&--;-~]{DEVICE}*"));
            interface["maxLength"] = 15.into();
            json!({ "anyOf": underlay_addresses(&address).into_iter().chain([interface]).collect::<Vec<_>>() })
        }
        Shape::AddressOrWord { word, meaning } => json!({
            "anyOf": [matching(&address), constant(&(word, meaning))],
        }),
        Shape::DurationOrWord { words, .. } => {
            let words = words.iter().map(constant);
            json!({ "anyOf": words.chain([matching("[1-9][0-9]{0,3}[smh]")]).collect::<Vec<_>>() })
        }
        Shape::Addresses => json!({ "type": "array", "items": matching(&address) }),
        Shape::Prefixes => {
            let v4 = format!("{address}/(3[0-2]|[12]?[0-9])");
            let v6 = format!("{ADDRESS_V6}/(12[0-8]|1[01][0-9]|[1-9]?[0-9])");
            json!({ "type": "array", "minItems": 1, "items": matching(&format!("({v4}|{v6})")) })
        }
        Shape::Words(words) => json!({ "oneOf": words.iter().map(constant).collect::<Vec<_>>() }),
        Shape::NumberOrWord { least, most, word, meaning } => json!({
            "anyOf": [{ "type": "integer", "minimum": least, "maximum": most }, constant(&(word, meaning))],
        }),
        Shape::Number { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Relay => json!({
            "anyOf": [
                { "enum": ["auto", "direct", false] },
                {
                    "type": "array",
                    "items": {
                        "type": "array", "minItems": 2, "maxItems": 2, "uniqueItems": true, "items": shape_of_name(),
                    },
                },
            ],
        }),
        Shape::ListenOrOff => matching(&format!(r"(off|({address}|\[[0-9a-fA-F:.]+\]):[1-9][0-9]{{0,4}})")),
    }
}

/// An address, or a list of one or two. That two are of different families is for the decoder.
fn underlay_addresses(v4: &str) -> [Value; 2] {
    let address = matching(&format!("({v4}|{ADDRESS_V6})"));
    let list =
        json!({ "type": "array", "minItems": 1, "maxItems": 2, "uniqueItems": true, "items": address });
    [address, list]
}

fn shape_of_name() -> Value {
    matching("[a-z0-9-]{1,32}")
}

fn matching(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{pattern}$") })
}

fn constant((word, meaning): &(&str, &str)) -> Value {
    json!({ "type": "string", "const": word, "description": meaning })
}
