//! The text format of OpenMetrics 1.0, read as strictly as it is written down.

use std::collections::{BTreeMap, BTreeSet};

/// A family of metrics.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    unit: Option<String>,
    /// By the whole name of the sample and its labels.
    pub(crate) samples: BTreeMap<String, f64>,
}

/// Reads a text in which every family has its type and a help; by their names.
#[track_caller]
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut present = String::new();
    for line in body.split_terminator('\n') {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (what, name, text) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            if name != present {
                assert!(is_name(name), "{line}");
                assert!(!families.contains_key(name), "{name} is there twice, or in pieces");
                present = name.to_owned();
            }
            let family = families.entry(present.clone()).or_default();
            assert!(family.samples.is_empty(), "{line}: after its samples");
            let is_new = match what {
                "TYPE" => std::mem::replace(&mut family.kind, text.to_owned()).is_empty(),
                "HELP" => std::mem::replace(&mut family.help, text.to_owned()).is_empty(),
                "UNIT" => family.unit.replace(text.to_owned()).is_none(),
                _ => panic!("{line}: not one of TYPE, HELP and UNIT"),
            };
            assert!(is_new && !text.is_empty(), "{line}");
            continue;
        }
        let family = families.get_mut(&present).unwrap_or_else(|| panic!("{line}: of no family"));
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}: no value"));
        let name = series.split('{').next().unwrap();
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            "gauge" => "",
            kind => panic!("{present} is of the type `{kind}`"),
        };
        assert_eq!(name, format!("{present}{suffix}"), "{line}");
        check_labels(&series[name.len()..]);
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}: no number"));
        assert!(value.is_finite() && (suffix.is_empty() || value >= 0.0), "{line}");
        assert!(suffix != "_info" || value == 1.0, "{line}");
        assert!(family.samples.insert(series.to_owned(), value).is_none(), "{line}: twice");
    }
    for (name, family) in &families {
        assert!(!family.kind.is_empty() && !family.help.is_empty(), "{name}: {family:?}");
        if let Some(unit) = &family.unit {
            assert!(name.ends_with(&format!("_{unit}")), "{name} is not named after its unit, {unit}");
        }
    }
    families
}

fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// What is between a sample's name and its value: nothing, or pairs in braces.
#[track_caller]
fn check_labels(labels: &str) {
    let Some(pairs) = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix("\"}")) else {
        assert_eq!(labels, "");
        return;
    };
    let mut names = BTreeSet::new();
    for pair in pairs.split("\",") {
        let (name, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{labels}"));
        assert!(is_name(name) && names.insert(name), "{labels}");
        // None of ours needs to be escaped.
        assert!(!value.contains(['"', '\\', '\n']), "{labels}");
    }
}
