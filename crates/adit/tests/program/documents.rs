//! The documents, compared with the program.
//!
//! The two configurations of the README are the examples without their comments. Every command of
//! Adit that the README, the guide or the reference shows exists, with the options shown.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::adit;
use crate::support::documents::blocks;
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

/// The commands of Adit that a document shows: typed at a prompt, or named in a sentence.
fn commands(document: &Path) -> Vec<String> {
    let blocks = blocks(document, "console").concat();
    // A prompt may name the gateway.
    let prompts = blocks.lines().filter_map(|line| line.split_once(['#', '$']));
    let prompts = prompts.filter(|(prompt, _)| prompt.is_empty() || prompt.starts_with("gateway"));
    // What follows a second `#` is a comment.
    let typed = prompts.flat_map(|(_, line)| line.split(" # ").next().unwrap().split("&&"));

    let text = fs::read_to_string(document).unwrap();
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    let prose = prose.join(" ");
    let named = prose.split('`').skip(1).step_by(2);
    let all = typed.chain(named).map(str::trim).filter(|command| command.starts_with("adit "));
    all.map(str::to_owned).collect()
}

#[test]
fn every_command_that_a_document_shows_exists() {
    let mut help: BTreeMap<String, String> = BTreeMap::new();
    let mut checked = 0;
    for document in documents() {
        for command in commands(&document) {
            let mut words = command.split_whitespace().skip(1).skip_while(|word| word.starts_with('-'));
            // `adit --netns NAME COMMAND` stands for every command.
            let Some(name) = words.next().filter(|name| name.chars().all(|c| c.is_ascii_lowercase())) else {
                continue;
            };
            if command.contains("--netns") || name == "help" {
                continue;
            }
            let known = help.entry(name.to_owned()).or_insert_with(|| adit(&[name, "--help"]).ok().stdout);
            for option in words.filter(|word| word.starts_with('-')) {
                let option = option.split('=').next().unwrap();
                assert!(known.contains(option), "{}: `{command}`: no {option}", document.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} commands were found");
}

/// What `adit drops` prints is what the reference says.
#[test]
fn every_drop_that_a_document_shows_has_todays_explanation() {
    let reference = fs::read_to_string(root().join("docs/reference/drops.md")).unwrap();
    let reference = reference.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut checked = 0;
    for document in documents() {
        for line in blocks(&document, "console").concat().lines() {
            let fields: Vec<&str> =
                line.trim().split("  ").map(str::trim).filter(|f| !f.is_empty()).collect();
            let [reason, count, section, explanation] = fields[..] else { continue };
            if count.parse::<u64>().is_ok() && section.starts_with("RFC") {
                let described = format!("`{reason}` {explanation} See {section}.");
                assert!(reference.contains(&described), "{}: {line}", document.display());
                checked += 1;
            }
        }
    }
    assert!(checked >= 4, "only {checked} drops were found");
}

#[test]
fn every_key_of_the_configuration_is_in_the_guide() {
    let schema = fs::read_to_string(root().join("docs/reference/adit.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let guide = fs::read_to_string(root().join("docs/guide/configuration.md")).unwrap();
    let tables = schema["$defs"].as_object().unwrap().values();
    let keys: Vec<&String> =
        tables.filter_map(|table| table["properties"].as_object()).flat_map(|keys| keys.keys()).collect();
    assert!(keys.len() > 15, "{keys:?}");
    for key in keys {
        assert!(guide.contains(&format!("`{key}`")), "`{key}` is not in the guide");
    }
}

#[test]
fn the_tutorial_shows_what_check_says_of_its_files() {
    let tutorial = root().join("docs/guide/tutorial.md");
    let text = fs::read_to_string(&tutorial).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = blocks(&tutorial, "toml");
    assert_eq!(files.len(), 2);
    for (name, file) in ["a.toml", "b.toml"].into_iter().zip(files) {
        let path = folder.path().join(name);
        fs::write(&path, file).unwrap();
        let said = adit(&["check", path.to_str().unwrap()]).with(1).stderr;
        for line in said.replace(&folder.path().display().to_string(), "/etc/adit").lines() {
            assert!(text.contains(line), "{line}");
        }
    }
}
