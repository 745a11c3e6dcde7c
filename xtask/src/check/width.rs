//! The rule about the width of prose: Markdown, comments and doc comments have at most 100 columns.
//!
//! Exempt are tables, code blocks, lines that a URL or a link makes too long, and generated files.

use super::{Finding, Source, comment};

const MAX_COLUMNS: usize = 100;
/// Documents that `cargo xtask generate` and `conformance` write.
const GENERATED: &[&str] = &[
    "docs/reference/conformance.md",
    "docs/reference/drops.md",
    "docs/reference/configuration.md",
    "docs/guide/configuration.md",
];

/// Finds lines of prose that are too long.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let is_written = |source: &&Source| !GENERATED.contains(&source.path.as_str());
    sources.iter().filter(is_written).flat_map(check_one).collect()
}

fn check_one(source: &Source) -> Vec<Finding> {
    let mut is_code = false;
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(source.text.lines()) {
        let text = if source.is_markdown() { Some(line) } else { comment(line) };
        let Some(text) = text.map(str::trim_start) else {
            is_code = false;
            continue;
        };
        if text.starts_with("```") || text.starts_with("~~~") {
            is_code = !is_code;
        }
        let columns = line.chars().count();
        if columns > MAX_COLUMNS && !is_code && !text.starts_with('|') && !has_long_word(text) {
            findings.push(
                source.finding(number, format!("{columns} columns: at most {MAX_COLUMNS} are allowed")),
            );
        }
    }
    findings
}

/// Whether the line ends with a word that cannot be broken: a URL, or the target of a link.
fn has_long_word(text: &str) -> bool {
    text.split_whitespace()
        .next_back()
        .is_some_and(|word| word.contains("://") || word.contains("](") && word.len() > 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        check(&[source]).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_long_line_of_prose_is_found() {
        let long = "word ".repeat(21);
        assert_eq!(lines("README.md", &format!("short\n{long}\n")), [2]);
        assert_eq!(lines("a.rs", &format!("    /// {long}\n// {long}\nlet code = \"{long}\";\n")), [1, 2]);
        assert_eq!(lines("a.md", &"ä".repeat(100)), [] as [usize; 0], "characters count, not bytes");
    }

    #[test]
    fn tables_code_urls_and_generated_files_are_exempt() {
        let long = "word ".repeat(21);
        let text = format!("| {long}|\n```\n{long}\n```\nSee https://example.com/{}\n", "a".repeat(100));
        assert_eq!(lines("README.md", &text), [] as [usize; 0]);
        assert_eq!(lines("docs/reference/drops.md", &long), [] as [usize; 0]);
    }
}
