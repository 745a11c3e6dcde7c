//! Every broken configuration with its messages: the files of `tests/broken`, each with a
//! snapshot of the plain and of the drawn output.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use adit_config::{Config, LoadError, Problems};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Names of the files in `folder` that end in `ending`, without it.
fn names(of: &str, ending: &str) -> BTreeSet<String> {
    fs::read_dir(folder(of))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect()
}

fn problems(name: &str) -> Problems {
    let text = fs::read_to_string(folder("broken").join(format!("{name}.toml"))).unwrap();
    match Config::parse(&format!("{name}.toml"), &text) {
        Ok(config) => panic!("{name}.toml is broken, but was read as {config:?}"),
        Err(problems) => problems,
    }
}

#[test]
fn every_broken_configuration_is_explained() {
    for name in names("broken", ".toml") {
        let problems = problems(&name);
        let shown = format!("{problems}\n\n{}", problems.drawn(false, 100));
        // miette pads lines with spaces, which editors and git complain about.
        let shown: Vec<&str> = shown.lines().map(str::trim_end).collect();
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, shown.join("\n"));
        });
    }
}

/// Finds snapshots without a case, and cases without a snapshot.
#[test]
fn cases_and_snapshots_belong_together() {
    let cases = names("broken", ".toml");
    assert!(cases.len() > 30, "only {} cases were found", cases.len());
    assert_eq!(names("snapshots", ".snap"), cases);
}

#[test]
fn places_are_inside_the_file_and_in_order() {
    for name in names("broken", ".toml") {
        let text = fs::read_to_string(folder("broken").join(format!("{name}.toml"))).unwrap();
        let problems = problems(&name);
        let mut last = 0;
        for problem in &problems {
            assert!(problem.span.start >= last, "{name}: not in order");
            last = problem.span.start;
            let before = &text[..problem.span.start];
            assert_eq!(problem.line, before.matches('\n').count() + 1, "{name}: {problem}");
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            assert_eq!(problem.column, before[line_start..].chars().count() + 1, "{name}: {problem}");
            assert!(text.get(problem.span.clone()).is_some(), "{name}: {problem}");
            for text in [&problem.message, &problem.label, &problem.help] {
                assert!(!text.is_empty() && !text.contains(char::is_control), "{name}: {text:?}");
            }
        }
        assert!(problems.len() > 0);
    }
}

#[test]
fn columns_count_characters() {
    let problems = Config::parse("x", "\u{feff}[site]\n\"ä\u{1f600}é\" = 1\n'日本' = 2").unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(&places[places.len() - 2..], [(2, 1), (3, 1)]);
    let problems = Config::parse("x", "site = { 'ä日' = 1, b = 2 }").unwrap_err();
    assert_eq!(problems.iter().last().map(|problem| problem.column), Some(20));
}

#[test]
fn as_json() {
    let problems = problems("range-low");
    assert_eq!(
        serde_json::to_value(&problems).unwrap(),
        serde_json::json!([
            {
                "line": 6, "column": 7,
                "message": "`ttl`: expected 1 to 255 or \"inherit\", found the number 0",
                "help": "1 is the nearest that is allowed; or leave the key out: the default is 64",
            },
            {
                "line": 7, "column": 8,
                "message": "`dscp`: expected \"inherit\" or 0 to 63, found the number 64",
                "help": "63 is the nearest that is allowed; or leave the key out: the default is \"inherit\"",
            },
            {
                "line": 8, "column": 7,
                "message": "`mtu`: expected \"auto\" or 68 to 65515, found the number 67",
                "help": "68 is the nearest that is allowed; or leave the key out: the default is \"auto\"",
            },
        ])
    );
}

#[test]
fn a_file_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    match Config::load(&missing) {
        Err(error @ LoadError::Read { .. }) => {
            let shown = error.to_string();
            assert!(
                shown.contains("none.toml") && shown.contains("give the path of a site's file"),
                "{shown}"
            );
        }
        other => panic!("{other:?}"),
    }
    match Config::load(folder.path()) {
        Err(LoadError::Read { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::IsADirectory),
        other => panic!("{other:?}"),
    }
    assert!(matches!(Config::load(Path::new("/dev/zero")), Err(LoadError::TooLong { .. })));
}

#[test]
fn bytes_that_are_no_text() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), b"[site]\nname = \"\xc3\xa4\xff\"\n").unwrap();
    match Config::load(file.path()) {
        Err(LoadError::Problems(problems)) => {
            let problem = problems.iter().next().unwrap();
            assert_eq!((problem.line, problem.column), (2, 10));
            assert_eq!(problem.message, "a configuration is text in UTF-8, found the byte 0xff");
            assert_eq!(problems.file_name(), file.path().display().to_string());
        }
        other => panic!("{other:?}"),
    }
}
