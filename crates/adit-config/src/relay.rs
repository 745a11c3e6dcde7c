//! The reader of `tunnel.relay`: which peers reach each other through this site.

use adit_peers::{PeerName, Relay};
use toml::de::DeValue;

use crate::decode::{Value, described};
use crate::problem::Diagnostics;
use crate::schema::KeySpec;
use crate::suggest::nearest;

const WORDS: [(&str, Relay); 2] = [("auto", Relay::Auto), ("direct", Relay::Direct)];

/// Reads `"auto"`, `"direct"`, `false`, or a list of pairs of peers.
pub(crate) fn relay(key: &KeySpec, value: &Value<'_>, diagnostics: &mut Diagnostics) -> Option<Relay> {
    let help = match value.get_ref() {
        DeValue::Boolean(false) => return Some(Relay::Off),
        DeValue::Boolean(true) => Some("write `relay = \"auto\"`".to_owned()),
        DeValue::String(text) => {
            if let Some((_, relay)) = WORDS.into_iter().find(|(word, _)| word == text) {
                return Some(relay);
            }
            let near = nearest(text, WORDS.iter().map(|(word, _)| *word));
            near.map(|near| format!("did you mean \"{near}\"?"))
        }
        DeValue::Array(pairs) => {
            let read: Vec<_> = pairs.iter().map(|pair| read_pair(key, pair, diagnostics)).collect();
            return read.into_iter().collect::<Option<_>>().map(Relay::Pairs);
        }
        _ => None,
    };
    key.refuse(value.span(), described(value), help, diagnostics);
    None
}

fn read_pair(key: &KeySpec, value: &Value<'_>, diagnostics: &mut Diagnostics) -> Option<[PeerName; 2]> {
    if let DeValue::Array(names) = value.get_ref() {
        let names: Vec<PeerName> = names
            .iter()
            .filter_map(|name| match name.get_ref() {
                DeValue::String(name) => PeerName::new(name.as_ref()).ok(),
                _ => None,
            })
            .collect();
        if let Ok(pair) = <[PeerName; 2]>::try_from(names)
            && pair[0] != pair[1]
        {
            return Some(pair);
        }
    }
    let help = Some("a pair is a list of the names of two peers: `[[\"b\", \"c\"]]`".to_owned());
    key.refuse(value.span(), described(value), help, diagnostics);
    None
}
