//! What is no TOML, in the words of the other messages.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use crate::decode::shown;
use crate::problem::Sink;

/// Reports the errors of the TOML parser, and takes back what was found only because of them.
///
/// The parser goes on after an error. Where that is inside a value, the rest of the file is as it
/// would have been, and only the mistakes of the same line are doubtful. Where it is anywhere
/// else, all that follows is, and so is every claim that something is missing.
pub(crate) fn syntax(errors: Vec<Error>, tree: &Spanned<DeTable<'_>>, sink: &mut Sink) {
    if errors.is_empty() {
        return;
    }
    let places = Places::of(tree);
    let mut errors: Vec<(Range<usize>, String)> = errors
        .into_iter()
        .map(|error| (sink.source.clamp(error.span().unwrap_or(0..0)), error.message().to_owned()))
        .collect();
    errors.sort_by_key(|(span, _)| (span.start, span.end));

    let unclosed: Vec<Range<usize>> = errors
        .iter()
        .filter(|(_, message)| message.starts_with("unclosed array"))
        .filter_map(|(span, _)| places.array_up_to(span.start))
        .collect();
    let mut lines = BTreeSet::new();
    let mut broken: Option<usize> = unclosed.iter().map(|array| array.start).min();
    let mut known = Vec::new();
    for (span, message) in errors {
        // What the parser found in a list that never ended is not about what is written there.
        if unclosed.iter().any(|array| array.start <= span.start) {
            continue;
        }
        let value = places.value_at(span.start);
        if value.is_none() && message != "duplicate key" {
            broken = Some(broken.map_or(span.start, |at| at.min(span.start)));
        }
        // The first error of a line explains the others.
        if lines.insert(sink.source.line(span.start)) {
            known.push((span, message, value));
        }
    }
    let from = broken.map(|at| sink.source.line_start(sink.source.line(at)));
    let source = sink.source.clone();
    sink.retain(|problem| {
        let doubtful = from.is_some_and(|from| problem.absence || problem.span.start >= from);
        !doubtful && !lines.contains(&source.line(problem.span.start))
    });
    for (span, message, value) in known {
        translate(span, &message, value, &places, sink);
    }
    if let Some(array) = unclosed.first() {
        sink.report(
            array.start..array.start + 1,
            "a list that is not closed",
            "opened here",
            "close it with `]`",
        );
    }
}

/// Says what the parser says, with the mend.
fn translate(
    span: Range<usize>,
    message: &str,
    value: Option<Range<usize>>,
    places: &Places,
    sink: &mut Sink,
) {
    let source = sink.source.clone();
    if message == "duplicate key" {
        let name = &source.text[span.clone()];
        let first = places.key_before(name, span.start);
        let line = first.as_ref().map(|first| format!(": also in line {}", source.line(first.start)));
        let message = format!("`{}` is written twice{}", shown(name), line.unwrap_or_default());
        let help = match name {
            "peer" => "write `[[peer]]`, in double brackets, above the keys of each peer",
            _ => "remove one of the two",
        };
        let problem = sink.report(span, message, "again", help);
        if let Some(first) = first {
            problem.with_other(first, "first here");
        }
        return;
    }
    if let Some(value) = value {
        let text = &source.text[value.clone()];
        let quoted = text.starts_with(['"', '\'']);
        if quoted && message.starts_with("invalid") && span.start == value.end && !closed(text) {
            let quote = &text[..1];
            sink.report(
                value,
                "a text that is not closed",
                "no end in this line",
                format!("close it with `{quote}`"),
            );
            return;
        }
        let number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'))
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '_'));
        // An error at the very end is about what comes after the value.
        if !quoted && !text.is_empty() && !text.starts_with(['[', '{']) && span.start < value.end && !number {
            let lower = text.to_ascii_lowercase();
            let help = if lower == "true" || lower == "false" {
                format!("write `{lower}`")
            } else {
                let inner = text.trim_matches(['“', '”', '„', '‘', '’', '«', '»', '`']);
                format!("text goes into straight quotes: `\"{}\"`", shown(inner))
            };
            sink.report(value, format!("expected a value, found {}", shown(text)), "not a value", help);
            return;
        }
    }
    let help = if message.starts_with("key with no value") {
        "write `key = value`"
    } else if message.starts_with("unclosed") {
        "close it, with as many brackets as opened it: `[site]`, `[tunnel]`, `[[peer]]`"
    } else if message.starts_with("missing comma") {
        "put a comma between the two"
    } else {
        "a section is `[name]`, and every other line `key = value` with text in quotes"
    };
    sink.report(span, format!("not valid TOML: {}", shown_message(message)), "here", help);
}

/// Whether a quoted text ends with its own quote.
fn closed(text: &str) -> bool {
    text.len() > 1 && text.ends_with(&text[..1])
}

/// The parser's message without what would break the line.
fn shown_message(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Where keys and values are, in the order of the file.
#[derive(Default)]
struct Places {
    keys: Vec<(Range<usize>, String)>,
    values: Vec<Range<usize>>,
    arrays: Vec<Range<usize>>,
}

impl Places {
    fn of(tree: &Spanned<DeTable<'_>>) -> Self {
        let mut places = Self::default();
        places.add_table(tree.get_ref());
        places.keys.sort_by_key(|(span, _)| span.start);
        places.values.sort_by_key(|span| span.start);
        places.arrays.sort_by_key(|span| span.start);
        places
    }

    /// The parser bounds how deep a tree goes.
    fn add_table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            self.keys.push((key.span(), key.get_ref().to_string()));
            self.add_value(value);
        }
    }

    fn add_value(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(table),
            DeValue::Array(array) => {
                self.arrays.push(value.span());
                for element in array {
                    self.add_value(element);
                }
            }
            _ => self.values.push(value.span()),
        }
    }

    /// The value that `offset` is in, or at an end of.
    fn value_at(&self, offset: usize) -> Option<Range<usize>> {
        let after = self.values.partition_point(|span| span.start <= offset);
        self.values[..after].last().filter(|span| span.end >= offset).cloned()
    }

    /// The outermost list that ends at `offset`.
    fn array_up_to(&self, offset: usize) -> Option<Range<usize>> {
        self.arrays.iter().find(|span| span.end == offset).cloned()
    }

    /// The key `name` that is nearest before `offset`: the keys of a table are written together,
    /// so it is the one of the same table.
    fn key_before(&self, name: &str, offset: usize) -> Option<Range<usize>> {
        let after = self.keys.partition_point(|(span, _)| span.start < offset);
        self.keys[..after].iter().rev().find(|(_, key)| key == name).map(|(span, _)| span.clone())
    }
}
