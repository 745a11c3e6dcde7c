//! The report of a run, for the program that started it: which tests were ignored, and how long
//! the others took. libtest's own report of times is unstable.

use std::io::Write;
use std::time::Duration;

/// The environment variable that names the report's file.
const FILE: &str = "ADIT_TEST_REPORT";

/// How a test ended.
#[derive(Clone, Copy, Debug)]
pub enum Ending<'a> {
    /// It passed, and took this long.
    Passed(Duration),
    /// It failed.
    Failed,
    /// It did not run, for this reason.
    Ignored(&'a str),
}

/// A test's line, with tabs between its fields: `passed`, `failed` or `ignored`; the test's path,
/// which begins with the crate's name; and the seconds it took, or why it was ignored.
#[must_use]
pub fn line(path: &str, ending: Ending<'_>) -> String {
    match ending {
        Ending::Passed(took) => format!("passed\t{path}\t{:.3}\n", took.as_secs_f64()),
        Ending::Failed => format!("failed\t{path}\t\n"),
        Ending::Ignored(reason) => format!("ignored\t{path}\t{}\n", reason.replace(['\t', '\n'], " ")),
    }
}

/// Appends the test's line to the file that `ADIT_TEST_REPORT` names, if it names one.
///
/// # Panics
/// Panics if the file cannot be written, because an incomplete report would go unnoticed.
pub(crate) fn append(path: &str, ending: Ending<'_>) {
    write(&line(path, ending));
}

/// Appends a line with the word `alone` and the path of this program, which has left out tests
/// that run alone.
///
/// # Panics
/// Panics if there is no such file or it cannot be written, because nobody would run these tests.
pub(crate) fn append_alone() {
    assert!(std::env::var_os(FILE).is_some(), "ADIT_TESTS=together needs {FILE}");
    let program = std::env::current_exe();
    let program = program.as_ref().expect("the path of the running program is known");
    write(&format!("alone\t{}\t\n", program.display()));
}

fn write(line: &str) {
    let Some(file) = std::env::var_os(FILE) else { return };
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        // A single write keeps the lines of tests apart that end at the same time.
        .and_then(|mut file| file.write_all(line.as_bytes()));
    assert!(written.is_ok(), "cannot write the report {}: {written:?}", file.display());
}
