//! The stable names of drop reasons, and `docs/reference/drops.md`, which is generated from them.

use std::collections::BTreeSet;
use std::fmt::Write;

use adit_policy::DropReason;

#[test]
fn names_are_distinct_kebab_case_and_found_again() {
    let names: BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), DropReason::COUNT);
    for (index, reason) in DropReason::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), index);
        assert_eq!(DropReason::from_index(index), Some(reason));
        assert_eq!(DropReason::from_name(reason.as_str()), Some(reason));
        assert!(
            reason.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{reason} is not kebab case"
        );
        assert!(reason.section().starts_with("RFC "), "{reason} names no RFC");
        assert!(reason.explanation().ends_with('.'), "{reason}: the explanation is not a sentence");
        assert!(reason.remedy().ends_with('.'), "{reason}: the remedy is not a sentence");
    }
    assert_eq!(DropReason::from_index(DropReason::COUNT), None);
    assert_eq!(DropReason::from_name("no-such-reason"), None);
}

/// Columns of a line of Markdown.
const WIDTH: usize = 100;

/// Breaks a text into lines.
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

/// The reference of all reasons, in Markdown.
fn documentation() -> String {
    let mut text = String::from(
        "# Drop reasons\n\n\
         Adit counts every datagram that it drops under one of these names. `adit status`, `adit drops`\n\
         and the metrics show them, and they stay the same from release to release.\n\n\
         `cargo xtask generate` writes this page from `crates/adit-policy/src/drop_reason.rs`.\n",
    );
    let mut stage = None;
    for reason in DropReason::ALL {
        if stage != Some(reason.stage()) {
            stage = Some(reason.stage());
            write!(text, "\n## {}\n", reason.stage().title()).expect("a string grows");
        }
        let why = wrap(&format!("{} See {}.", reason.explanation(), reason.section()));
        let remedy = wrap(&format!("**What to do:** {}", reason.remedy()));
        write!(text, "\n### `{reason}`\n\n{why}\n\n{remedy}\n").expect("a string grows");
    }
    text
}

#[test]
fn the_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/drops.md");
    if std::env::var_os("ADIT_BLESS").is_some() {
        std::fs::write(path, documentation()).expect("docs/reference/drops.md can be written");
    }
    let found = std::fs::read_to_string(path).expect("docs/reference/drops.md can be read");
    assert!(found == documentation(), "docs/reference/drops.md is out of date: run `cargo xtask generate`");
}
