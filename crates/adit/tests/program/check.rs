//! `adit check`, and every other command that reads a configuration.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::sites::example;
use crate::support::{ADIT, adit, keys};

const BROKEN: &str = r#"[site]
name     = "A"
underlay = "10.1.1.1"
networks = ["172.16.17.1/24"]
colour   = "blue"

[[peer]]
name     = "b"
underlay = "10.1.1.2"
networks = ["192.168.199.0/24"]
"#;

/// A folder of its own, and the path of the broken file in it.
fn broken() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.toml");
    fs::write(&file, BROKEN).unwrap();
    (folder, file)
}

/// The words without what differs from run to run.
fn without_folder(text: &str, folder: &Path) -> String {
    text.replace(&format!("{}/", folder.display()), "").replace('\r', "")
}

#[test]
fn a_good_file() {
    for (name, site) in [("a.toml", "a"), ("b.toml", "b")] {
        let file = example(name);
        let said = adit(&["check", &file]).ok();
        assert_eq!(said.stdout, format!("{file}: site `{site}`, 1 peer, 1 network: no mistakes\n"));
        let json = adit(&["check", &file, "-j"]).ok().json();
        assert_eq!(json, serde_json::json!({ "schema": 1, "ok": true, "problems": [], "limits": [] }));
    }
}

/// What a data plane lacks is no mistake.
#[test]
fn what_is_lacking_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    let text = fs::read_to_string(example("a.toml")).unwrap();
    fs::write(&file, text.replacen("[site]", "[site]\ndataplane = \"kernel\"", 1)).unwrap();
    let file = file.to_str().unwrap();
    let said = adit(&["check", file]).ok().stdout;
    assert!(said.contains("no mistakes\n  dataplane = \"kernel\" lacks late-errors: a sender"), "{said}");
    let json = adit(&["check", file, "-j"]).ok().json();
    let limits = json["limits"].as_array().unwrap();
    assert_eq!(limits.len() + 1, said.lines().count(), "{json}");
    assert_eq!(limits[0]["name"], "late-errors");
}

#[test]
fn a_broken_file_for_a_pipe() {
    let (folder, file) = broken();
    let said = adit(&["check", file.to_str().unwrap()]).with(1);
    assert_eq!(said.stdout, "");
    insta::assert_snapshot!(without_folder(&said.stderr, folder.path()));
}

#[test(script)]
fn a_broken_file_for_a_person() {
    let (folder, file) = broken();
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &format!("{ADIT} check {}", file.display()), "/dev/null"]).env("NO_COLOR", "1");
    let said = crate::support::Said::from(command.output().unwrap()).with(1);
    let shown = without_folder(&said.stdout, folder.path());
    let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_broken_file_in_json() {
    let (_folder, file) = broken();
    let json = adit(&["check", "--json", file.to_str().unwrap()]).with(1).json();
    assert_eq!(keys(&json), ["ok", "problems", "schema"]);
    assert_eq!((&json["schema"], &json["ok"]), (&1.into(), &false.into()));
    let places: Vec<_> = json["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| {
            assert_eq!(keys(problem), ["column", "help", "line", "message"]);
            assert!(problem["message"].is_string() && problem["help"].is_string(), "{problem}");
            (problem["line"].as_u64().unwrap(), problem["column"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(places, [(2, 12), (4, 13), (5, 1)], "{json}");
}

#[test]
fn no_file() {
    let said = adit(&["check", "/nonexistent/a.toml"]).with(1);
    insta::assert_snapshot!(said.stderr);
    let json = adit(&["check", "/nonexistent/a.toml", "-j"]).with(1).json();
    assert_eq!(keys(&json), ["error", "ok", "schema"]);
    assert_eq!(json["ok"], false);
}

#[test]
fn every_command_explains_a_broken_file() {
    let (_folder, file) = broken();
    let file = file.to_str().unwrap();
    let checked = adit(&["check", file]).with(1);
    for (command, code) in [("run", 78), ("up", 1), ("down", 1)] {
        let said = adit(&[command, file]).with(code);
        assert_eq!((&said.stdout, &said.stderr), (&checked.stdout, &checked.stderr), "{command}");
    }
}
