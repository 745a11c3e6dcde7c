//! The code blocks of documents.

use std::fs;
use std::path::Path;

/// The code blocks of a document in this language.
pub(crate) fn blocks(document: &Path, language: &str) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap();
    let mut found = Vec::new();
    let mut current: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut current) {
            (Some(opened), None) => current = Some((opened == language, String::new())),
            (Some(_), Some(_)) => {
                let (is_wanted, block) = current.take().unwrap();
                found.extend(is_wanted.then_some(block));
            }
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(current.is_none(), "{} has a code block without an end", document.display());
    found
}
