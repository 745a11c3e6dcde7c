//! Decoders of single values in the TOML tree. A wrong value is reported, and reading goes on.

use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::ops::Range;

use toml::de::{DeArray, DeTable, DeValue};

use crate::problem::Diagnostics;
use crate::schema::{KeySpec, Shape, TableSpec};
use crate::suggest::nearest;

/// A value and its place.
pub(crate) type Value<'i> = toml::Spanned<DeValue<'i>>;

/// A value that was read, and its place.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

impl KeySpec {
    fn example(&self) -> String {
        format!("{} = {}", self.name, self.example)
    }

    /// Reports a value that this key does not accept.
    pub(crate) fn refuse(
        &self,
        span: Range<usize>,
        found: impl AsRef<str>,
        help: Option<String>,
        diagnostics: &mut Diagnostics,
    ) {
        let help = help.unwrap_or_else(|| format!("write for example `{}`", self.example()));
        let message = format!("`{}`: expected {}, found {}", self.name, self.expected, found.as_ref());
        diagnostics.report(span, message, format!("not {}", self.expected), help);
    }
}

/// A table of the file.
pub(crate) struct Section<'t, 'i> {
    spec: &'static TableSpec,
    pub(crate) table: &'t DeTable<'i>,
    pub(crate) header: Range<usize>,
}

impl<'t, 'i> Section<'t, 'i> {
    /// Opens a table, and reports its unknown keys. `elsewhere` are the other tables, in which a
    /// key may belong.
    pub(crate) fn open(
        spec: &'static TableSpec,
        table: &'t DeTable<'i>,
        header: Range<usize>,
        elsewhere: &[&'static TableSpec],
        diagnostics: &mut Diagnostics,
    ) -> Self {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if spec.keys.iter().all(|known| known.name != name) {
                let help = unknown_key_help(name, spec, elsewhere);
                let message = format!("unknown key `{}` in {}", shown(name), spec.title);
                diagnostics.report(key.span(), message, "not known here", help);
            }
        }
        Self { spec, table, header }
    }

    /// The value of a key that may be left out, with the description of the key.
    pub(crate) fn optional(&self, name: &'static str) -> Option<(&'static KeySpec, &'t Value<'i>)> {
        let key = self.key(name);
        self.table.get(name).map(|value| (key, value))
    }

    /// The value of a key that must be there. Reports it if it is missing.
    pub(crate) fn required(
        &self,
        name: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<(&'static KeySpec, &'t Value<'i>)> {
        let found = self.optional(name);
        if found.is_none() {
            let key = self.key(name);
            let message = format!("`{name}` is missing in {}: expected {}", self.spec.title, key.expected);
            let label = format!("no `{name}` in this section");
            diagnostics
                .report(self.header.clone(), message, label, format!("add `{}`", key.example()))
                .absence = true;
        }
        found
    }

    fn key(&self, name: &str) -> &'static KeySpec {
        self.spec.keys.iter().find(|key| key.name == name).expect("read asks for keys of its own kind")
    }
}

/// Reads a text.
pub(crate) fn string<'t>(
    key: &KeySpec,
    value: &'t Value<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<&'t str> {
    if let DeValue::String(text) = value.get_ref() {
        return Some(text.as_ref());
    }
    let help = match value.get_ref() {
        DeValue::Array(array) => match array.iter().next().map(toml::Spanned::get_ref) {
            Some(DeValue::String(text)) => {
                Some(format!("without brackets: `{} = \"{}\"`", key.name, shown(text)))
            }
            _ => None,
        },
        _ => None,
    };
    key.refuse(value.span(), described(value), help, diagnostics);
    None
}

/// Reads `true` or `false`.
pub(crate) fn boolean(key: &KeySpec, value: &Value<'_>, diagnostics: &mut Diagnostics) -> Option<bool> {
    let help = match value.get_ref() {
        DeValue::Boolean(truth) => return Some(*truth),
        DeValue::String(text) => match text.to_ascii_lowercase().as_str() {
            truth @ ("true" | "false") => Some(format!("without quotes: `{} = {truth}`", key.name)),
            "yes" | "on" | "1" => Some(format!("write `{} = true`", key.name)),
            "no" | "off" | "0" => Some(format!("write `{} = false`", key.name)),
            _ => None,
        },
        DeValue::Integer(number) => match number.as_str() {
            "1" => Some(format!("write `{} = true`", key.name)),
            "0" => Some(format!("write `{} = false`", key.name)),
            _ => None,
        },
        _ => None,
    };
    key.refuse(value.span(), described(value), help, diagnostics);
    None
}

/// Reads one of `words`.
pub(crate) fn word<T: Copy>(
    key: &KeySpec,
    value: &Value<'_>,
    words: &[(&str, T)],
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    let text = string(key, value, diagnostics)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let near = nearest(text, words.iter().map(|(word, _)| *word));
        key.refuse(
            value.span(),
            described(value),
            near.map(|near| format!("did you mean \"{near}\"?")),
            diagnostics,
        );
    }
    found
}

/// Reads a number of the key's range, or the key's word, which is `Some(None)`.
pub(crate) fn number_or_word(
    key: &KeySpec,
    value: &Value<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Option<u32>> {
    let Shape::NumberOrWord { least, most, word, .. } = key.shape else { return None };
    ranged(key, value, (least, most), Some(word), diagnostics)
}

/// Reads a number of the key's range.
pub(crate) fn number(key: &KeySpec, value: &Value<'_>, diagnostics: &mut Diagnostics) -> Option<u16> {
    let Shape::Number { least, most } = key.shape else { return None };
    let number = ranged(key, value, (least.into(), most.into()), None, diagnostics).flatten();
    number.and_then(|number| u16::try_from(number).ok())
}

fn ranged(
    key: &KeySpec,
    value: &Value<'_>,
    (least, most): (u32, u32),
    word: Option<&str>,
    diagnostics: &mut Diagnostics,
) -> Option<Option<u32>> {
    let help = match value.get_ref() {
        DeValue::Integer(number) => {
            // A number that does not fit is out of every range.
            let number = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
            if let Some(number) = u32::try_from(number).ok().filter(|number| (least..=most).contains(number))
            {
                return Some(Some(number));
            }
            let nearest = if number < i128::from(least) { least } else { most };
            Some(format!(
                "{nearest} is the nearest that is allowed; or leave the key out: the default is {}",
                key.example
            ))
        }
        DeValue::String(text) if Some(text.as_ref()) == word => return Some(None),
        DeValue::String(text) if text.parse::<u32>().is_ok_and(|number| (least..=most).contains(&number)) => {
            Some(format!("without quotes: `{} = {}`", key.name, text.trim_start_matches('+')))
        }
        DeValue::String(text) => nearest(text, word).map(|near| format!("did you mean \"{near}\"?")),
        _ => None,
    };
    key.refuse(value.span(), described(value), help, diagnostics);
    None
}

/// Reads a list.
pub(crate) fn array<'t, 'i>(
    key: &KeySpec,
    value: &'t Value<'i>,
    diagnostics: &mut Diagnostics,
) -> Option<&'t DeArray<'i>> {
    let help = match value.get_ref() {
        DeValue::Array(array) => return Some(array),
        DeValue::String(text) => Some(format!("in brackets: `{} = [\"{}\"]`", key.name, shown(text))),
        _ => None,
    };
    key.refuse(value.span(), described(value), help, diagnostics);
    None
}

/// Describes a value for a message.
pub(crate) fn described(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => format!("\"{}\"", shown(text)),
        DeValue::Integer(number) => format!("the number {}", shown(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", shown(number.as_str())),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// `text` for a message: one line, without control characters, shortened.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 50;
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == MOST {
            shown.push('…');
            break;
        }
        // Quotes and letters of any script stay as they were written.
        if c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        {
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The help for a key that `spec` does not have.
fn unknown_key_help(name: &str, spec: &TableSpec, elsewhere: &[&'static TableSpec]) -> String {
    let near = |spec: &TableSpec| nearest(name, spec.keys.iter().map(|key| key.name));
    if let Some(near) = near(spec) {
        return format!("did you mean `{near}`?");
    }
    if let Some(other) = elsewhere.iter().find(|other| other.keys.iter().any(|key| key.name == name)) {
        return format!("`{name}` belongs in {}: move it there", other.title);
    }
    if let Some((near, other)) = elsewhere.iter().find_map(|other| Some((near(other)?, other))) {
        return format!("did you mean `{near}`? That belongs in {}", other.title);
    }
    let known: Vec<String> = spec.keys.iter().map(|key| format!("`{}`", key.name)).collect();
    format!("remove it; {} knows {}", spec.title, known.join(", "))
}

/// Whether `text` is meant as an IPv6 address or prefix.
pub(crate) fn is_ipv6(text: &str) -> bool {
    text.split('/').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}
