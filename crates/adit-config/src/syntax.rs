//! Reports of text that is not TOML, worded like the other reports.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use crate::decode::shown;
use crate::problem::Diagnostics;

/// The parser's message about a key or section that is written twice.
const DUPLICATE: &str = "duplicate key";

/// Reports the errors of the TOML parser, and removes the reports that only follow from them.
///
/// The parser goes on after an error. If the error is inside a value, only reports about that value
/// are doubtful. If it is anywhere else, all reports about what follows are doubtful, and so is
/// every report that something is missing.
pub(crate) fn syntax(errors: Vec<Error>, tree: &Spanned<DeTable<'_>>, diagnostics: &mut Diagnostics) {
    if errors.is_empty() {
        return;
    }
    let places = Places::of(tree, &diagnostics.source.text);
    let mut errors: Vec<(Range<usize>, String)> = errors
        .into_iter()
        .map(|error| (diagnostics.source.clamp(error.span().unwrap_or(0..0)), error.message().to_owned()))
        .collect();
    errors.sort_by_key(|(span, _)| (span.start, span.end));

    let unclosed: Vec<Range<usize>> = errors
        .iter()
        .filter(|(_, message)| message.starts_with("unclosed array"))
        .filter_map(|(span, _)| places.array_up_to(span.start))
        .collect();
    let mut broken: Option<usize> = unclosed.iter().map(|array| array.start).min();
    let never_closed = broken;
    let lost_quote = never_closed.and_then(|start| {
        let inside =
            errors.iter().filter(|(span, message)| span.start >= start && message.starts_with("invalid"));
        inside.filter_map(|(span, _)| places.value_at(span.start)).find(|value| {
            let text = &diagnostics.source.text[value.clone()];
            text.starts_with(['"', '\'']) && !closed(text)
        })
    });
    let single_peer = matches!(tree.get_ref().get("peer").map(Spanned::get_ref), Some(DeValue::Table(_)));
    let mut merged_up_to = 0;
    let mut lines = BTreeSet::new();
    let mut values = BTreeSet::new();
    let mut known = Vec::new();
    for (span, message) in errors {
        // Errors inside a list that is not closed do not describe what is written there.
        if never_closed.is_some_and(|start| start <= span.start) {
            break;
        }
        let duplicate = message == DUPLICATE;
        // Peers in single brackets become one with duplicate keys, which `read` has reported.
        if duplicate && single_peer && &diagnostics.source.text[span.clone()] == "peer" {
            merged_up_to = places.head_after(span.start);
            continue;
        }
        if duplicate && span.start < merged_up_to {
            continue;
        }
        // The first error of a value explains the others, and so does that of a broken line.
        let line = diagnostics.source.line(span.start);
        let value = places.value_at(span.start).filter(|_| !duplicate);
        let first = match &value {
            _ if duplicate => values.insert(span.start),
            Some(value) => !lines.contains(&line) && values.insert(value.start),
            None => {
                broken = Some(broken.map_or(span.start, |at| at.min(span.start)));
                lines.insert(line)
            }
        };
        if first {
            known.push((span, message, value));
        }
    }
    let from = broken.map(|at| diagnostics.source.line_start(diagnostics.source.line(at)));
    let source = diagnostics.source.clone();
    diagnostics.retain(|problem| {
        let doubtful = from.is_some_and(|from| problem.absence || problem.span.start >= from);
        let doubtful = doubtful || lines.contains(&source.line(problem.span.start));
        !doubtful && !places.value_at(problem.span.start).is_some_and(|value| values.contains(&value.start))
    });
    for (span, message, value) in known {
        translate(span, &message, value, &places, diagnostics);
    }
    // After a missing quote the closing bracket is inside the text.
    if let Some(value) = lost_quote {
        translate(value.end..value.end, "invalid string", Some(value), &places, diagnostics);
    } else if let Some(start) = never_closed {
        diagnostics.report(start..start + 1, "a list that is not closed", "opened here", "close it with `]`");
    }
}

/// Reports an error of the parser, with help.
fn translate(
    span: Range<usize>,
    message: &str,
    value: Option<Range<usize>>,
    places: &Places,
    diagnostics: &mut Diagnostics,
) {
    let source = diagnostics.source.clone();
    if message == DUPLICATE {
        let name = &source.text[span.clone()];
        let first = places.key_before(name, span.start);
        let line = first.as_ref().map(|first| format!(": also in line {}", source.line(first.start)));
        let message = format!("`{}` is written twice{}", shown(name), line.unwrap_or_default());
        let help = match name {
            "peer" => "write `[[peer]]`, in double brackets, above the keys of each peer",
            _ => "remove one of the two",
        };
        let problem = diagnostics.report(span, message, "again", help);
        if let Some(first) = first {
            problem.with_other(first, "first here");
        }
        return;
    }
    if let Some(value) = value.clone() {
        let text = &source.text[value.clone()];
        let quoted = text.starts_with(['"', '\'']);
        if quoted && message.starts_with("invalid") && span.start == value.end && !closed(text) {
            let quote = &text[..1];
            diagnostics.report(
                value,
                "a text that is not closed",
                "no end in this line",
                format!("close it with `{quote}`"),
            );
            return;
        }
        let number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'))
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '_'));
        // An error at the very end is about what follows the value.
        if !quoted && !text.is_empty() && !text.starts_with(['[', '{']) && span.start < value.end && !number {
            let lower = text.to_ascii_lowercase();
            let help = if lower == "true" || lower == "false" {
                format!("write `{lower}`")
            } else {
                let inner = text.trim_matches(['“', '”', '„', '‘', '’', '«', '»', '`']);
                format!("text goes into straight quotes: `\"{}\"`", shown(inner))
            };
            diagnostics.report(
                value,
                format!("expected a value, found {}", shown(text)),
                "not a value",
                help,
            );
            return;
        }
    }
    let in_number = value.is_some_and(|value| source.text[value].starts_with(|c: char| c.is_ascii_digit()));
    let help = if message.starts_with("missing comma") {
        "put a comma between the two"
    } else if message.starts_with("key with no value") {
        "write `key = value`"
    } else if message.starts_with("unclosed") {
        "close it, with as many brackets as opened it: `[site]`, `[tunnel]`, `[[peer]]`"
    } else if in_number {
        "write a number with its digits alone, such as 64"
    } else {
        "a section is `[name]`, and every other line `key = value` with text in quotes"
    };
    diagnostics.report(span, format!("not valid TOML: {}", shown_message(message)), "here", help);
}

/// Whether a quoted text ends with its own quote.
fn closed(text: &str) -> bool {
    text.len() > 1 && text.ends_with(&text[..1])
}

/// The parser's message without control characters.
fn shown_message(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The places of keys and values, in the order of the file.
#[derive(Default)]
struct Places {
    /// The places of each name as a key or in a header.
    keys: HashMap<String, Vec<usize>>,
    heads: Vec<usize>,
    values: Vec<Range<usize>>,
    arrays: Vec<Range<usize>>,
}

impl Places {
    fn of(tree: &Spanned<DeTable<'_>>, text: &str) -> Self {
        let mut places = Self::default();
        places.add_table(tree.get_ref());
        places.add_heads(text);
        for starts in places.keys.values_mut() {
            starts.sort_unstable();
        }
        places.values.sort_by_key(|span| span.start);
        places.arrays.sort_by_key(|span| span.start);
        places
    }

    /// The parser bounds how deep a tree goes.
    fn add_table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            self.keys.entry(key.get_ref().to_string()).or_default().push(key.span().start);
            self.add_value(value);
        }
    }

    /// Adds headers from the text: of a section that is there twice, the tree has only the last.
    fn add_heads(&mut self, text: &str) {
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let inner = line.trim_start_matches([' ', '\t', '[']);
            if line.trim_start().starts_with('[')
                && let Some((name, _)) = inner.split_once(']')
            {
                let start = at + line.len() - inner.len();
                self.heads.push(start);
                self.keys.entry(name.trim_end().to_owned()).or_default().push(start);
            }
            at += line.len();
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

    /// The key or header `name` that is nearest before `offset`: the keys of a table are written
    /// together, so it is the one of the same table.
    fn key_before(&self, name: &str, offset: usize) -> Option<Range<usize>> {
        let starts = self.keys.get(name)?;
        let start = starts[..starts.partition_point(|start| *start < offset)].last()?;
        Some(*start..start + name.len())
    }

    /// The place of the next header after `offset`.
    fn head_after(&self, offset: usize) -> usize {
        self.heads[self.heads.partition_point(|head| *head <= offset)..]
            .first()
            .copied()
            .unwrap_or(usize::MAX)
    }
}
