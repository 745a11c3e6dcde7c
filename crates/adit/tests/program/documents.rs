//! The documents, compared with the program.
//!
//! The README's two configurations are the examples without their comments. Every command of Adit that
//! the README, the guide or the reference shows exists, with the options it is shown with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::adit;
use crate::support::sites::example;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The documents that operators read.
fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md")];
    for folder in ["docs/guide", "docs/reference"] {
        let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        found.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    found.sort();
    found
}

/// The code blocks of a document in this language.
fn blocks(document: &Path, language: &str) -> Vec<String> {
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

/// A configuration without comments, blank lines and empty sections.
fn bare(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap().trim().to_owned());
    lines.filter(|line| !line.is_empty() && line != "[tunnel]").collect()
}

#[test]
fn the_readme_shows_the_examples() {
    let blocks = blocks(&root().join("README.md"), "toml");
    let shown: Vec<Vec<String>> = blocks.iter().map(|block| bare(block)).collect();
    let examples = ["a.toml", "b.toml"].map(|name| bare(&fs::read_to_string(example(name)).unwrap()));
    assert_eq!(shown, examples);
}

#[test]
fn every_command_that_a_document_shows_exists() {
    let mut help: BTreeMap<String, String> = BTreeMap::new();
    let mut checked = 0;
    for document in documents() {
        let lines = blocks(&document, "console").join("\n");
        let typed = lines.lines().filter_map(|line| line.split_once(['#', '$']));
        // A prompt may name the gateway. What follows `#` later in a line is a comment.
        let typed = typed.filter(|(prompt, _)| prompt.is_empty() || prompt.starts_with("gateway"));
        for (_, command) in typed.flat_map(|(prompt, line)| {
            let line = line.split(" # ").next().unwrap();
            line.split("&&").map(move |command| (prompt, command.trim()))
        }) {
            let Some(arguments) = command.strip_prefix("adit ") else { continue };
            let mut words = arguments.split_whitespace();
            let name = words.next().unwrap();
            let known = help.entry(name.to_owned()).or_insert_with(|| adit(&[name, "--help"]).ok().stdout);
            for option in words.filter(|word| word.starts_with('-')) {
                assert!(known.contains(option), "{}: `{command}`: no {option}", document.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} commands were found");
}
