//! Values out of the TOML tree, with a report instead of an end where one is wrong.

use std::fmt::Write as _;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::problem::Sink;
use crate::suggest::nearest;

/// A value and its place.
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// Something read, and its place.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// What is known of a key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What it takes, as it goes after "expected".
    pub(crate) takes: &'static str,
    /// A value that is right, as it is written in a file.
    pub(crate) example: &'static str,
}

impl Key {
    fn example(&self) -> String {
        format!("{} = {}", self.name, self.example)
    }

    /// Reports that the value of this key is not what it takes.
    pub(crate) fn refuse(
        &self,
        span: Range<usize>,
        found: impl AsRef<str>,
        help: Option<String>,
        sink: &mut Sink,
    ) {
        let help = help.unwrap_or_else(|| format!("write for example `{}`", self.example()));
        let message = format!("`{}`: expected {}, found {}", self.name, self.takes, found.as_ref());
        sink.report(span, message, format!("not {}", self.takes), help);
    }
}

/// A kind of table of the file.
#[derive(Debug)]
pub(crate) struct Kind {
    /// As it is written in a file: `[site]`.
    pub(crate) title: &'static str,
    pub(crate) keys: &'static [Key],
}

/// A table of the file.
pub(crate) struct Section<'t, 'i> {
    kind: &'static Kind,
    pub(crate) table: &'t DeTable<'i>,
    pub(crate) header: Range<usize>,
}

impl<'t, 'i> Section<'t, 'i> {
    /// Opens a table, and reports the keys in it that nobody knows. `elsewhere` are the other
    /// kinds, where a key may have been meant to be.
    pub(crate) fn open(
        kind: &'static Kind,
        table: &'t DeTable<'i>,
        header: Range<usize>,
        elsewhere: &[&'static Kind],
        sink: &mut Sink,
    ) -> Self {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if kind.keys.iter().all(|known| known.name != name) {
                let help = mend_key(name, kind, elsewhere);
                let message = format!("unknown key `{}` in {}", shown(name), kind.title);
                sink.report(key.span(), message, "not known here", help);
            }
        }
        Self { kind, table, header }
    }

    /// The value of a key that may be left out, with what is known of the key.
    pub(crate) fn optional(&self, name: &'static str) -> Option<(&'static Key, &'t Value<'i>)> {
        let key = self.key(name);
        self.table.get(name).map(|value| (key, value))
    }

    /// The value of a key that must be there. Reports it where it is not.
    pub(crate) fn required(
        &self,
        name: &'static str,
        sink: &mut Sink,
    ) -> Option<(&'static Key, &'t Value<'i>)> {
        let found = self.optional(name);
        if found.is_none() {
            let key = self.key(name);
            let message = format!("`{name}` is missing in {}: expected {}", self.kind.title, key.takes);
            let label = format!("no `{name}` in this section");
            sink.report(self.header.clone(), message, label, format!("add `{}`", key.example())).absence =
                true;
        }
        found
    }

    fn key(&self, name: &str) -> &'static Key {
        self.kind.keys.iter().find(|key| key.name == name).expect("read asks for keys of its own kind")
    }
}

/// A text.
pub(crate) fn string<'t>(key: &Key, value: &'t Value<'_>, sink: &mut Sink) -> Option<&'t str> {
    if let DeValue::String(text) = value.get_ref() {
        return Some(text.as_ref());
    }
    let help = match value.get_ref() {
        DeValue::Array(array) => match array.iter().next().map(Spanned::get_ref) {
            Some(DeValue::String(text)) => {
                Some(format!("without brackets: `{} = \"{}\"`", key.name, shown(text)))
            }
            _ => None,
        },
        _ => None,
    };
    key.refuse(value.span(), described(value), help, sink);
    None
}

/// `true` or `false`.
pub(crate) fn boolean(key: &Key, value: &Value<'_>, sink: &mut Sink) -> Option<bool> {
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
    key.refuse(value.span(), described(value), help, sink);
    None
}

/// One of `words`.
pub(crate) fn word<T: Copy>(key: &Key, value: &Value<'_>, words: &[(&str, T)], sink: &mut Sink) -> Option<T> {
    let text = string(key, value, sink)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let near = nearest(text, words.iter().map(|(word, _)| *word));
        key.refuse(
            value.span(),
            described(value),
            near.map(|near| format!("did you mean \"{near}\"?")),
            sink,
        );
    }
    found
}

/// A number from `least` to `most`, or `word`, which is `None`.
pub(crate) fn number_or_word(
    key: &Key,
    value: &Value<'_>,
    (least, most): (u16, u16),
    word: &str,
    sink: &mut Sink,
) -> Option<Option<u16>> {
    let help = match value.get_ref() {
        DeValue::Integer(number) => {
            // What does not fit is far out of any range, too.
            let number = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
            if let Some(number) = u16::try_from(number).ok().filter(|number| (least..=most).contains(number))
            {
                return Some(Some(number));
            }
            let nearest = if number < i128::from(least) { least } else { most };
            Some(format!(
                "{nearest} is the nearest that is allowed; or leave the key out: the default is {}",
                key.example
            ))
        }
        DeValue::String(text) if text.as_ref() == word => return Some(None),
        DeValue::String(text) if text.parse::<u16>().is_ok_and(|number| (least..=most).contains(&number)) => {
            Some(format!("without quotes: `{} = {}`", key.name, text.trim_start_matches('+')))
        }
        DeValue::String(text) => nearest(text, [word]).map(|near| format!("did you mean \"{near}\"?")),
        _ => None,
    };
    key.refuse(value.span(), described(value), help, sink);
    None
}

/// A list.
pub(crate) fn array<'t, 'i>(key: &Key, value: &'t Value<'i>, sink: &mut Sink) -> Option<&'t DeArray<'i>> {
    let help = match value.get_ref() {
        DeValue::Array(array) => return Some(array),
        DeValue::String(text) => Some(format!("in brackets: `{} = [\"{}\"]`", key.name, shown(text))),
        _ => None,
    };
    key.refuse(value.span(), described(value), help, sink);
    None
}

/// What a value is, for a message.
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

/// `text` fit for a message: one line, no control characters, not too long.
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

/// What to do about a key that is not of `kind`.
fn mend_key(name: &str, kind: &Kind, elsewhere: &[&'static Kind]) -> String {
    let near = |kind: &Kind| nearest(name, kind.keys.iter().map(|key| key.name));
    if let Some(near) = near(kind) {
        return format!("did you mean `{near}`?");
    }
    if let Some(other) = elsewhere.iter().find(|other| other.keys.iter().any(|key| key.name == name)) {
        return format!("`{name}` belongs in {}: move it there", other.title);
    }
    if let Some((near, other)) = elsewhere.iter().find_map(|other| Some((near(other)?, other))) {
        return format!("did you mean `{near}`? That belongs in {}", other.title);
    }
    let known: Vec<String> = kind.keys.iter().map(|key| format!("`{}`", key.name)).collect();
    format!("remove it; {} knows {}", kind.title, known.join(", "))
}
