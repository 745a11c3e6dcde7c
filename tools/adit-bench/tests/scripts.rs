//! The scripts beside the bench: they are long measurements that no test runs, so this sees that
//! they load.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The scripts with this extension in a directory of this package.
fn scripts(directory: &str, extension: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = std::fs::read_dir(&directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let scripts: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    assert!(!scripts.is_empty(), "no .{extension} in {}", directory.display());
    scripts
}

fn assert_succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A script may import another, whose functions have other names by now.
#[test]
fn every_python_script_finds_what_it_imports() {
    for script in scripts("scripts", "py") {
        let module = script.file_stem().unwrap().to_str().unwrap();
        let mut python = Command::new("python3");
        assert_succeeds(
            python.args(["-B", "-c", &format!("import {module}")]).current_dir(script.parent().unwrap()),
        );
    }
}

#[test]
fn every_shell_script_is_well_formed() {
    for script in scripts("guest", "sh") {
        assert_succeeds(Command::new("bash").arg("-n").arg(script));
    }
}
