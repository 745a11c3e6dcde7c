//! A report of a run, for the program that started it: which tests were ignored, how long the
//! others took. libtest's own report of times is not stable.

use std::io::Write;
use std::time::Duration;

/// How a test ended.
#[derive(Clone, Copy, Debug)]
pub enum Ending<'a> {
    /// It passed after this time.
    Passed(Duration),
    /// It failed.
    Failed,
    /// It did not run, for this reason.
    Ignored(&'a str),
}

/// A test's line: `passed`, `failed` or `ignored`, the test's path beginning with the crate's
/// name, and the seconds it took or the reason; with tabs between them.
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
/// The file cannot be written: a run whose report is asked for must not lack a part of it.
pub(crate) fn append(path: &str, ending: Ending<'_>) {
    let Some(file) = std::env::var_os("ADIT_TEST_REPORT") else { return };
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        // One write, so that lines of tests that end at the same time do not mix.
        .and_then(|mut file| file.write_all(line(path, ending).as_bytes()));
    assert!(written.is_ok(), "cannot write the report {}: {written:?}", file.display());
}
