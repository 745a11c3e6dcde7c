//! The command line itself: usage, help, and what is generated from its definition.

use std::process::Command;

use crate::support::{ADIT, Said, adit};

const COMMANDS: [&str; 14] = [
    "lab",
    "check",
    "plan",
    "apply",
    "confirm",
    "reload",
    "run",
    "up",
    "down",
    "status",
    "drops",
    "events",
    "completions",
    "man",
];

#[test]
fn wrong_usage_is_64() {
    let wrong: &[&[&str]] = &[
        &[],
        &["no-such-command"],
        &["--no-such-option"],
        &["check"],
        &["check", "one.toml", "two.toml"],
        &["run"],
        &["run", "a.toml", "--on-exit", "perhaps"],
        &["up"],
        &["down"],
        &["status", "a", "b"],
        &["drops", "a", "b"],
        &["events", "a", "b"],
        &["completions"],
        &["completions", "no-such-shell"],
        &["lab", "--pcap"],
        &["check", "a.toml", "--netns"],
    ];
    for arguments in wrong {
        let said = adit(arguments).with(64);
        assert_eq!(said.stdout, "", "{arguments:?}");
        let told = ["Usage: adit", "try '--help'"].iter().any(|way| said.stderr.contains(way));
        assert!(told, "{arguments:?}: {}", said.stderr);
    }
}

#[test]
fn help_is_no_mistake() {
    let said = adit(&["--help"]).ok();
    for command in COMMANDS {
        assert!(said.stdout.contains(&format!("\n  {command} ")), "{command}: {}", said.stdout);
        let of_command = adit(&[command, "--help"]).ok();
        assert!(of_command.stdout.contains(&format!("Usage: adit {command}")), "{}", of_command.stdout);
        for option in ["--json", "--netns <NAME>"] {
            assert!(of_command.stdout.contains(option), "{command} {option}");
        }
    }
    insta::assert_snapshot!(adit(&["-h"]).ok().stdout);
    insta::assert_snapshot!(adit(&["run", "--help"]).ok().stdout);
    assert_eq!(adit(&["--version"]).ok().stdout, concat!("adit ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn what_is_generated_names_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = adit(&["completions", shell]).ok().stdout;
        for word in COMMANDS.iter().chain(&["--on-exit", "--pcap", "--netns"]) {
            // Fish writes an option without its dashes.
            assert!(script.contains(word.trim_start_matches('-')), "{shell}: {word}");
        }
    }
    let page = adit(&["man"]).ok().stdout;
    assert!(page.contains(".TH adit 8"), "{page}");
    for command in COMMANDS {
        assert!(
            page.contains(&format!("adit {command}")) || page.contains(&format!("adit\\-{command}")),
            "{command}"
        );
    }
    for hidden in ["ready\\-fd", "ready-fd"] {
        assert!(!page.contains(hidden));
    }
}

/// What the program prints on a terminal, which `script` is to it.
fn on_a_terminal(arguments: &str, no_color: Option<&str>) -> Said {
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{ADIT} {arguments}"), "/dev/null"]).env_remove("NO_COLOR");
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    command.env("TERM", "xterm").output().unwrap().into()
}

#[test(script)]
fn colour_is_for_terminals_and_not_with_no_color() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[site]\nnam = \"a\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    let check = format!("check {path}");
    const ESCAPE: char = '\x1b';

    let coloured = on_a_terminal(&check, None).with(1);
    assert!(coloured.stdout.contains(ESCAPE), "{coloured:?}");
    let empty = on_a_terminal(&check, Some("")).with(1);
    assert!(empty.stdout.contains(ESCAPE), "an empty NO_COLOR is none: {empty:?}");
    for arguments in [check.as_str(), "--help", "no-such-command"] {
        let plain = on_a_terminal(arguments, Some("1"));
        assert!(!plain.stdout.contains(ESCAPE), "{arguments}: {plain:?}");
    }
    let piped = adit(&["check", path]).with(1);
    assert!(!piped.stderr.contains(ESCAPE), "{piped:?}");
    let json = on_a_terminal(&format!("{check} -j"), None).with(1);
    assert!(!json.stdout.contains(ESCAPE), "{json:?}");
}

#[test]
fn output_that_is_lost_is_an_error_and_a_closed_pipe_is_not() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/a.toml");
    let commands: &[&[&str]] = &[
        &["check", file],
        &["-j", "check", file],
        &["check", "no-such-file", "-j"],
        &["man"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ];
    for arguments in commands {
        let full = std::fs::File::create("/dev/full").unwrap();
        let said = Command::new(ADIT).args(*arguments).stdout(full).output().unwrap();
        let told = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(1), "{arguments:?}: {told}");
        assert_eq!(told, "adit: cannot write the output: No space left on device (os error 28)\n");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let said = Command::new(ADIT).args(*arguments).stdout(writer).output().unwrap();
        assert_eq!(said.stderr, b"", "{arguments:?}");
    }
}
