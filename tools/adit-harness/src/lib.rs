//! A test harness for tests that need something of the machine: root, eBPF, a program, a driver.
//!
//! libtest decides at compile time which tests are ignored, so a test that cannot run on this
//! machine either fails or returns early and counts as passed. Here a test names its needs, and
//! the harness checks them when it runs:
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
//! `#[macro_use(test)]` replaces the compiler's `#[test]` in the whole target. So `#[test]` and
//! `#[test(root, ebpf)]` register themselves, and there is no list that a test could be missing
//! from. `#[test(alone)]` is for a test that measures: no other test runs beside it.
//!
//! The options are those of libtest, of which `--include-ignored` runs tests whose needs are not
//! met, and `--ignored` runs only tests that have needs. Output of tests is not captured. These
//! variables of the environment count:
//!
//! - `ADIT_STRICT=1`: a need that is not met is a failure.
//! - `ADIT_MAY_SKIP=ipip,vrf`: the needs for which it is not, because another run provides them.
//! - `ADIT_TEST_REPORT=FILE`: a line for each test is appended to this file; see [`report`].

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

/// Something that a test needs of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// A short name, as `ADIT_MAY_SKIP` uses it.
    pub name: &'static str,
    /// Says in words what is missing, if anything is.
    pub check: fn() -> Result<(), String>,
}

/// A test, as `#[test]` registers it.
#[derive(Debug)]
pub struct Test {
    /// Its path, beginning with the crate's name.
    pub path: &'static str,
    /// What it needs, in the order in which it is checked.
    pub needs: &'static [Need],
    /// Whether no other test runs at the same time.
    pub is_alone: bool,
    /// The test itself.
    pub run: fn() -> Result<(), String>,
}

inventory::collect!(Test);

/// What a test may return: nothing, or a result whose error fails it.
pub trait Outcome {
    /// The error in words.
    ///
    /// # Errors
    /// The test returned an error.
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

    /// Whether the test runs; why not, if it is ignored.
    fn decide(&self, needs: &[Need]) -> Result<Option<String>, Failed> {
        if self.ignores_needs {
            return Ok(None);
        }
        for need in needs {
            let Err(lack) = (need.check)() else { continue };
            let reason = format!("needs {lack}");
            if self.is_strict && !self.may_skip.iter().any(|name| name == need.name) {
                return Err(format!("{reason}, and nothing is skipped with ADIT_STRICT=1").into());
            }
            return Ok(Some(reason));
        }
        Ok(None)
    }
}

/// Runs the tests of this program as the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let (filters, options) = filters_and_options(std::env::args().skip(1));
    let arguments = Arguments::from_iter(std::iter::once(String::new()).chain(options));
    let policy = Policy::from_environment(&arguments);
    let mut tests: Vec<&'static Test> = inventory::iter::<Test>.into_iter().collect();
    assert!(!tests.is_empty(), "no test is registered: is `#[macro_use(test)]` missing in the crate's root?");
    // Those that run alone come last, so that the others never wait for them.
    tests.sort_by_key(|test| (test.is_alone, test.path));
    let is_wanted = |test: &&Test| {
        let matches = |filter: &String| {
            if arguments.exact { name(test) == filter } else { name(test).contains(filter.as_str()) }
        };
        filters.is_empty() || filters.iter().any(matches)
    };
    let trials = tests.into_iter().filter(is_wanted).map(|test| {
        let policy = policy.clone();
        let is_ignored = arguments.ignored && !test.needs.is_empty();
        Trial::ignorable_test(name(test), move || run(test, &policy)).with_ignored_flag(is_ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// The parts of names by which tests are chosen, and the options: libtest takes any number of
/// parts, and `libtest_mimic` only one.
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
        let _alone = TURNS.write().unwrap_or_else(PoisonError::into_inner);
        timed(test)
    } else {
        let _beside_others = TURNS.read().unwrap_or_else(PoisonError::into_inner);
        timed(test)
    };
    let ending = if result.is_ok() { report::Ending::Passed(took) } else { report::Ending::Failed };
    report::append(test.path, ending);
    result.map(|()| Completion::Completed).map_err(Failed::from)
}

/// Held by every test that runs: for itself by one that runs alone, and shared by the others.
static TURNS: RwLock<()> = RwLock::new(());

fn timed(test: &'static Test) -> (Result<(), String>, Duration) {
    let start = Instant::now();
    let result = on_own_thread(test);
    (result, start.elapsed())
}

/// Runs the test on a thread that ends with it, as libtest does: a test may change what belongs to
/// its thread, such as the network namespace, and the thread's name appears in a panic's message.
fn on_own_thread(test: &'static Test) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name(test).to_owned()).spawn(test.run);
    let ended = thread.map_err(|error| format!("cannot start the test's thread: {error}"))?.join();
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("it panicked: {}", text.unwrap_or("see above")))
    })
}
