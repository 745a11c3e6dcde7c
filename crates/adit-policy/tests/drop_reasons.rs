//! Names that are stable, and `docs/drops.md`, which is written from the enum.

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
        assert!(reason.explanation().ends_with('.'), "{reason}: not a sentence");
    }
    assert_eq!(DropReason::from_index(DropReason::COUNT), None);
    assert_eq!(DropReason::from_name("no-such-reason"), None);
}

/// All reasons as tables in Markdown.
fn documentation() -> String {
    let mut text = String::from(
        "# Why a datagram was dropped\n\n\
         Nothing is dropped without a count. `adit status` shows the names below; they stay\n\
         the same from release to release. This page is written from `DropReason` in\n\
         `crates/adit-policy/src/drop_reason.rs`; after a change there, run\n\
         `cargo xtask generate`.\n",
    );
    let mut stage = None;
    for reason in DropReason::ALL {
        if stage != Some(reason.stage()) {
            stage = Some(reason.stage());
            let title = reason.stage().title();
            write!(text, "\n## {title}\n\n| reason | why | see |\n|---|---|---|\n").expect("memory");
        }
        let (why, see) = (reason.explanation(), reason.section());
        writeln!(text, "| `{reason}` | {why} | {see} |").expect("memory");
    }
    text
}

#[test]
fn documentation_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/drops.md");
    if std::env::var_os("ADIT_BLESS").is_some() {
        std::fs::write(path, documentation()).expect("docs/drops.md can be written");
    }
    let found = std::fs::read_to_string(path).expect("docs/drops.md can be read");
    assert!(found == documentation(), "docs/drops.md is out of date: run `cargo xtask generate`");
}
