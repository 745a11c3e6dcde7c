//! The examples, and the committed files that are generated from the table of keys.

use std::fs;
use std::path::{Path, PathBuf};

use adit_config::{Config, DataplaneChoice, TunnelOptions, json_schema, reference};
use serde_json::{Map, Value};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a generated document with the committed one. `ADIT_BLESS=1` writes it.
fn assert_committed(path: &str, text: &str) {
    let path = root().join(path);
    if std::env::var_os("ADIT_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, text, "run `cargo xtask generate` and commit the file");
}

#[test]
fn the_committed_schema_is_up_to_date() {
    let schema = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    assert_committed("docs/reference/adit.schema.json", &schema);
}

#[test]
fn the_committed_reference_is_up_to_date() {
    assert_committed("docs/guide/configuration.md", &reference());
}

fn example(name: &str) -> (Config, Value) {
    let path = root().join("examples").join(name);
    let config = Config::load(&path).unwrap();
    (config, toml::from_str(&fs::read_to_string(path).unwrap()).unwrap())
}

#[test]
fn the_examples_are_the_two_site_network() {
    let (a, _) = example("a.toml");
    let (b, _) = example("b.toml");
    assert_eq!((a.site.name.as_str(), a.site.device.as_str()), ("a", "ipipA"));
    assert_eq!((b.site.name.as_str(), b.site.device.as_str()), ("b", "ipipB"));
    assert_eq!(a.site.tunnel, TunnelOptions::default());
    assert_eq!((a.site.dataplane, b.site.dataplane), (DataplaneChoice::Auto, DataplaneChoice::Auto));
    assert_eq!(a.site.networks, ["172.16.17.0/24".parse().unwrap()]);
    assert_eq!(b.site.networks, ["192.168.199.0/24".parse().unwrap()]);
    for (us, them) in [(&a, &b), (&b, &a)] {
        assert_eq!(us.peers.len(), 1);
        let peer = us.peers.iter().next().unwrap();
        assert_eq!(peer.name.as_str(), them.site.name.as_str());
        assert_eq!(Some(peer.underlay), them.site.underlay.addresses());
        assert_eq!(peer.networks, them.site.networks);
    }
}

#[test]
fn the_defaults_in_the_example_s_comments_are_the_defaults() {
    let text = fs::read_to_string(root().join("examples/a.toml")).unwrap();
    let keys = ["ttl", "dscp", "ecn", "mtu", "df", "mss-clamp", "probe"];
    let mut uncommented = 0;
    let lines: Vec<&str> = text
        .lines()
        .map(|line| {
            let option = line
                .strip_prefix("# ")
                .filter(|rest| rest.split_once('=').is_some_and(|(key, _)| keys.contains(&key.trim())));
            uncommented += usize::from(option.is_some());
            option.unwrap_or(line)
        })
        .collect();
    assert_eq!(uncommented, keys.len());
    assert_eq!(Config::parse("a.toml", &lines.join("\n")).unwrap().site.tunnel, TunnelOptions::default());
}

/// A file with every key satisfies the schema, and one with a key more or less does so exactly if
/// the reader accepts it.
#[test]
fn schema_and_decoder_know_the_same_keys() {
    let schema = json_schema();
    let (a, file) = example("a.toml");
    conforms(&schema, &schema, &file).unwrap();
    conforms(&schema, &schema, &example("b.toml").1).unwrap();

    let written: Value = toml::from_str(&a.to_toml()).unwrap();
    conforms(&schema, &schema, &written).unwrap();
    for (section, of) in [("site", "Site"), ("tunnel", "Tunnel"), ("peer", "Peer")] {
        let in_file = section_of(&written, section);
        let known = schema["$defs"][of]["properties"].as_object().unwrap();
        assert!(known.keys().eq(in_file.keys()), "[{section}]: {known:?}");
        for key in in_file.keys() {
            let mut less = written.clone();
            let table = if section == "peer" { &mut less["peer"][0] } else { &mut less[section] };
            table.as_object_mut().unwrap().remove(key);
            let by_decoder = Config::parse("x", &toml::to_string(&less).unwrap()).is_ok();
            assert_eq!(conforms(&schema, &schema, &less).is_ok(), by_decoder, "without {section}.{key}");
        }
        let mut more = written.clone();
        let table = if section == "peer" { &mut more["peer"][0] } else { &mut more[section] };
        table["unheard-of"] = Value::from(1);
        assert!(conforms(&schema, &schema, &more).is_err(), "{section}");
        assert!(Config::parse("x", &toml::to_string(&more).unwrap()).is_err(), "{section}");
    }
}

fn section_of<'v>(file: &'v Value, section: &str) -> &'v Map<String, Value> {
    let value = &file[section];
    value.get(0).unwrap_or(value).as_object().unwrap()
}

/// Whether the keys of `value` are those of `part` of `schema`: what is required is there, and
/// nothing else than what is known.
fn conforms(schema: &Value, part: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = part.get("$ref").and_then(Value::as_str) {
        let target = schema.pointer(reference.trim_start_matches('#')).ok_or(reference)?;
        return conforms(schema, target, value);
    }
    if let Some(array) = value.as_array() {
        return array.iter().try_for_each(|element| conforms(schema, &part["items"], element));
    }
    let Some(table) = value.as_object() else { return Ok(()) };
    let known = part["properties"].as_object().ok_or("no table was expected")?;
    if part["additionalProperties"] != Value::Bool(false) {
        return Err("the schema lets any key in".to_owned());
    }
    for key in part["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !table.contains_key(key) {
            return Err(format!("`{key}` is missing"));
        }
    }
    for (key, value) in table {
        conforms(schema, known.get(key).ok_or_else(|| format!("`{key}` is unknown"))?, value)?;
    }
    Ok(())
}

#[test]
fn schema_and_decoder_agree_on_what_an_underlay_is() {
    let validator = jsonschema::draft202012::new(&json_schema()).unwrap();
    let (a, _) = example("a.toml");
    let text = a.to_toml();
    let text = text.replace("\"10.1.1.2\"", "\"PEER\"");
    let peer_of = |underlay: &str| if underlay.contains(':') { "2001:db8::2" } else { "10.1.1.2" };
    for (underlay, is_right) in [
        ("10.1.1.1", true),
        ("2001:db8::1", true),
        ("eth0", true),
        ("0.eth", true),
        ("123456789012345", false),
        ("a23456789012345", true),
        ("a234567890123456", false),
        ("10.1.1", false),
        ("10.1.1.256", false),
        ("10.1.1.1/24", false),
        ("a b", false),
        ("2001:db8::1/64", false),
        ("fe80::1%eth0", false),
        ("", false),
    ] {
        let text =
            text.replace("\"10.1.1.1\"", &format!("\"{underlay}\"")).replace("PEER", peer_of(underlay));
        let value: Value = toml::from_str(&text).unwrap();
        assert_eq!(validator.is_valid(&value), is_right, "{underlay}: by the schema");
        assert_eq!(Config::parse("x", &text).is_ok(), is_right, "{underlay}: by the decoder");
    }
    for (underlay, is_right) in [
        ("[\"10.1.1.1\"]", true),
        ("[\"10.1.1.1\", \"2001:db8::1\"]", true),
        ("[\"2001:db8::1\", \"10.1.1.1\"]", true),
        ("[]", false),
        ("[\"10.1.1.1\", \"10.1.1.1\"]", false),
        ("[\"10.1.1.1\", \"2001:db8::1\", \"2001:db8::3\"]", false),
        ("[\"eth0\"]", false),
        ("[7]", false),
        ("7", false),
    ] {
        for (ours, theirs) in [(underlay, "\"10.1.1.2\""), ("\"10.1.1.2\"", underlay)] {
            let text = text.replace("\"10.1.1.1\"", ours).replace("\"PEER\"", theirs);
            let value: Value = toml::from_str(&text).unwrap();
            assert_eq!(validator.is_valid(&value), is_right, "{ours} and {theirs}: by the schema");
            assert_eq!(Config::parse("x", &text).is_ok(), is_right, "{ours} and {theirs}: by the decoder");
        }
    }
}
