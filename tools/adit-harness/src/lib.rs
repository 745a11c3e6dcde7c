//! A test harness for tests that need root, eBPF, a program or a driver.
//!
//! libtest decides at compile time which tests are ignored. With libtest, a test that cannot run on
//! a machine either fails, or returns early and counts as passed. With this harness, a test names
//! its needs, and the harness checks them at run time:
//!
//! ```text
//! test the_programs_agree ... ignored (needs eBPF: the kernel refuses bpf(2))
//! ```
//!
//! A test target uses it with `harness = false` in its `Cargo.toml` and these lines in its root:
//!
//! ```ignore
//! #[macro_use(test)]
//! extern crate adit_harness;
//!
//! fn main() -> std::process::ExitCode {
//!     adit_harness::main()
//! }
//! ```
//!
//! `#[macro_use(test)]` replaces the compiler's `#[test]` in the whole target. `#[test]` and
//! `#[test(root, ebpf)]` register the test, so no list of tests has to be maintained. With
//! `#[test(alone)]`, no other test runs at the same time, for tests that measure.
//!
//! The options are those of libtest. `--include-ignored` also runs tests whose needs are not met,
//! and `--ignored` runs only tests that have needs. The output of tests is not captured. These
//! environment variables have an effect:
//!
//! - `ADIT_STRICT=1`: a test fails if one of its needs is not met.
//! - `ADIT_MAY_SKIP=ipip,vrf`: needs that are exempt from that, because another run meets them.
//! - `ADIT_TESTS=together`: tests that run alone are left out, because other programs run at the
//!   same time; the report says so. `ADIT_TESTS=alone` runs only these.
//! - `ADIT_TEST_REPORT=FILE`: the harness appends a line for each test to this file; see
//!   [`report`].

pub mod needs;
pub mod report;

use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use adit_harness_macros::test;
#[doc(hidden)]
pub use inventory;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Something that a test needs from the machine it runs on.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The short name that `ADIT_MAY_SKIP` uses.
    pub name: &'static str,
    /// Checks the need. The error completes "needs ..." and names what is missing.
    pub check: fn() -> Result<(), String>,
}

/// A test, as `#[test]` registers it.
#[derive(Debug)]
pub struct Test {
    /// The test's path, which begins with the crate's name.
    pub path: &'static str,
    /// The test's needs, in the order in which they are checked.
    pub needs: &'static [Need],
    /// Whether no other test runs at the same time.
    pub is_alone: bool,
    /// Runs the test. The error says why it failed.
    pub run: fn() -> Result<(), String>,
}

inventory::collect!(Test);

/// What a test may return: nothing, or a result whose error fails it.
pub trait Outcome {
    /// Converts the value to a result whose error is a message.
    ///
    /// # Errors
    /// Fails if the test returned an error.
    fn into_result(self) -> Result<(), String>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Debug> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| format!("the test returned an error: {error:?}"))
    }
}

/// How unmet needs are treated in this run.
#[derive(Clone, Debug, Default)]
struct Policy {
    is_strict: bool,
    may_skip: Vec<String>,
    ignores_needs: bool,
}

impl Policy {
    fn from_environment(arguments: &Arguments) -> Self {
        let names = std::env::var("ADIT_MAY_SKIP").unwrap_or_default();
        Self {
            is_strict: std::env::var("ADIT_STRICT").is_ok_and(|value| value == "1"),
            may_skip: names.split(',').map(str::to_owned).collect(),
            ignores_needs: arguments.include_ignored || arguments.ignored,
        }
    }

    /// Returns `None` if the test runs, or the reason if it is ignored.
    ///
    /// # Errors
    /// Fails if a need is not met in a strict run.
    fn decide(&self, needs: &[Need]) -> Result<Option<String>, Failed> {
        if self.ignores_needs {
            return Ok(None);
        }
        for need in needs {
            let Err(lack) = (need.check)() else { continue };
            let reason = format!("needs {lack}");
            if self.is_strict && !self.may_skip.iter().any(|name| name == need.name) {
                return Err(format!("{reason}: with ADIT_STRICT=1, an unmet need is a failure").into());
            }
            return Ok(Some(reason));
        }
        Ok(None)
    }
}

/// Runs the registered tests that the command line selects.
#[must_use]
pub fn main() -> ExitCode {
    let (filters, options) = filters_and_options(std::env::args().skip(1));
    let arguments = Arguments::from_iter(std::iter::once(String::new()).chain(options));
    let policy = Policy::from_environment(&arguments);
    let mut tests: Vec<&'static Test> = inventory::iter::<Test>.into_iter().collect();
    assert!(!tests.is_empty(), "no test is registered: is `#[macro_use(test)]` missing in the crate's root?");
    // Tests that run alone come last, so that the others do not wait for them.
    tests.sort_by_key(|test| (test.is_alone, test.path));
    let is_chosen = |test: &&Test| {
        let matches = |filter: &String| {
            if arguments.exact { name(test) == filter } else { name(test).contains(filter.as_str()) }
        };
        filters.is_empty() || filters.iter().any(matches)
    };
    tests.retain(is_chosen);
    let which = std::env::var("ADIT_TESTS").unwrap_or_default();
    if which == "together" && tests.iter().any(|test| test.is_alone) {
        report::append_alone();
    }
    tests.retain(|test| match which.as_str() {
        "together" => !test.is_alone,
        "alone" => test.is_alone,
        _ => true,
    });
    let trials = tests.into_iter().map(|test| {
        let policy = policy.clone();
        let is_ignored = arguments.ignored && !test.needs.is_empty();
        Trial::ignorable_test(name(test), move || run(test, &policy)).with_ignored_flag(is_ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Splits the arguments into filters, which are parts of test names, and options. libtest accepts
/// any number of filters, `libtest_mimic` only one.
fn filters_and_options(arguments: impl Iterator<Item = String>) -> (Vec<String>, Vec<String>) {
    const WITH_VALUE: [&str; 5] = ["--skip", "--test-threads", "--color", "--format", "--logfile"];
    let (mut filters, mut options) = (Vec::new(), Vec::<String>::new());
    for argument in arguments {
        let is_value = options.last().is_some_and(|last| WITH_VALUE.contains(&last.as_str()));
        if argument.starts_with('-') || is_value {
            options.push(argument);
        } else {
            filters.push(argument);
        }
    }
    (filters, options)
}

/// The test's path without the crate's name, as libtest shows it.
fn name(test: &Test) -> &'static str {
    test.path.split_once("::").map_or(test.path, |(_, name)| name)
}

fn run(test: &'static Test, policy: &Policy) -> Result<Completion, Failed> {
    match policy.decide(test.needs) {
        Ok(None) => {}
        Ok(Some(reason)) => {
            report::append(test.path, report::Ending::Ignored(&reason));
            return Ok(Completion::ignored_with(reason));
        }
        Err(failed) => {
            report::append(test.path, report::Ending::Failed);
            return Err(failed);
        }
    }
    let (result, took) = if test.is_alone {
        let _alone = EXCLUSION.write().unwrap_or_else(PoisonError::into_inner);
        timed(test)
    } else {
        let _shared = EXCLUSION.read().unwrap_or_else(PoisonError::into_inner);
        timed(test)
    };
    let ending = if result.is_ok() { report::Ending::Passed(took) } else { report::Ending::Failed };
    report::append(test.path, ending);
    result.map(|()| Completion::Completed).map_err(Failed::from)
}

/// A lock that every running test holds: exclusively if it runs alone, otherwise shared.
static EXCLUSION: RwLock<()> = RwLock::new(());

/// Runs the test and measures how long it takes.
fn timed(test: &'static Test) -> (Result<(), String>, Duration) {
    let start = Instant::now();
    let result = on_own_thread(test);
    (result, start.elapsed())
}

/// Runs the test on its own thread, as libtest does. A test may change the state of its thread,
/// such as the network namespace, and a panic's message contains the thread's name.
fn on_own_thread(test: &'static Test) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name(test).to_owned()).spawn(test.run);
    let ended = thread.map_err(|error| format!("cannot start the test's thread: {error}"))?.join();
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("it panicked: {}", text.unwrap_or("its message is above")))
    })
}
