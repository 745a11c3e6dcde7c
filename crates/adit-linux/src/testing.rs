//! For the tests of every crate: what to do where the system lacks what a test needs.

use std::io::Write;

/// Whether the test called `test` can run: it needs to make and configure network namespaces.
///
/// Where it cannot, a skip is written to stderr, and to the file that `ADIT_TEST_LOG` names, if it
/// is set; the test then returns. That is only for those who asked for skips, by `ADIT_TEST_LOG`
/// or `ADIT_TEST_SKIP=1`, and not with `ADIT_STRICT=1`.
///
/// # Panics
/// Nobody asked for skips, so that a test that did not run does not count as passed.
#[must_use]
pub fn require_root(test: &str) -> bool {
    require(test, crate::netns::is_privileged(), "root (CAP_NET_ADMIN)")
}

/// The same for anything else: `met` says whether it is there, `what` reads "needs ...".
///
/// # Panics
/// As [`require_root`].
#[must_use]
#[expect(clippy::print_stderr, reason = "a skip must be seen, and tests have no log")]
pub fn require(test: &str, met: bool, what: &str) -> bool {
    if met {
        return true;
    }
    let is_set = |name| std::env::var(name).is_ok_and(|value| value == "1");
    let log = std::env::var_os("ADIT_TEST_LOG");
    let may_skip = log.is_some() || is_set("ADIT_TEST_SKIP");
    assert!(
        may_skip && !is_set("ADIT_STRICT"),
        "{test}: needs {what}; ADIT_TEST_SKIP=1 (without ADIT_STRICT=1) skips what cannot run"
    );
    let line = format!("SKIP {test}: needs {what}\n");
    eprint!("{line}");
    if let Some(path) = log {
        let logged = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            // One write, so that lines of tests that run at the same time do not mix.
            .and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(logged.is_ok(), "{test}: cannot write to the log {}: {logged:?}", path.display());
    }
    false
}
