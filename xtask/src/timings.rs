//! Time measurements of `cargo xtask test`: by step, by test program and by test.
//!
//! This module measures the steps. [`crate::programs`] appends a line for each test program to the
//! report. Programs that use adit-harness also append a line for each test
//! (`adit_harness::report`). libtest does not report times of tests.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The environment variable that names the report's file.
const REPORT: &str = "ADIT_TEST_REPORT";
/// How many test programs, and how many tests, are listed at most.
const MAX_LISTED: usize = 20;

/// How long a step took.
#[derive(Debug)]
struct Step {
    name: &'static str,
    wall: Duration,
    /// Processor time of the processes that it started.
    cpu: Duration,
}

/// The measured steps, in the order in which they ran.
#[derive(Debug, Default)]
pub(crate) struct Timings(Vec<Step>);

impl Timings {
    /// Runs a step and measures it.
    ///
    /// # Errors
    /// Fails with the step's error, which its name precedes.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        println!("== {name}");
        let (start, cpu) = (Instant::now(), cpu_of_children());
        let done = work();
        self.0.push(Step { name, wall: start.elapsed(), cpu: cpu_of_children().saturating_sub(cpu) });
        done.map_err(|error| format!("{name}: {error}"))
    }

    /// Prints the steps in order, then the slowest test programs and tests.
    pub(crate) fn print(&self, report: &Report) {
        println!("\n{:>8}{:>12}  step", "seconds", "processor");
        for step in &self.0 {
            println!("{:>8.1}{:>12.1}  {}", step.wall.as_secs_f64(), step.cpu.as_secs_f64(), step.name);
        }
        for (kind, title) in [("program", "test program"), ("passed", "test")] {
            println!("\n{:>8}  {title}", "seconds");
            for (seconds, name) in report.slowest(kind).into_iter().take(MAX_LISTED) {
                println!("{seconds:>8.1}  {name}");
            }
        }
    }
}

/// Processor time of the child processes that ended, and of their children.
fn cpu_of_children() -> Duration {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name may contain any character. After it, the first field is the third of
    // proc(5).
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(13..15).unwrap_or_default().iter().filter_map(|field| field.parse::<f64>().ok());
    Duration::from_secs_f64(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// The file to which test programs append their results.
#[derive(Debug)]
pub(crate) struct Report(PathBuf);

impl Report {
    /// Creates an empty report.
    ///
    /// # Errors
    /// Fails if the file cannot be written in the temporary directory.
    pub(crate) fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("adit-test-report-{}", std::process::id()));
        std::fs::write(&path, "").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    /// The environment variable with which test programs append to this report.
    pub(crate) fn environment(&self) -> (&str, &str) {
        (REPORT, self.0.to_str().unwrap_or_default())
    }

    /// Appends how long a test program took.
    pub(crate) fn program(&self, name: &str, took: Duration) {
        let line = format!("program\t{name}\t{:.3}\n", took.as_secs_f64());
        let file = std::fs::OpenOptions::new().append(true).open(&self.0);
        // A lost line only means that the program's time is not listed.
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }

    /// Whether this program has left out tests that run alone.
    pub(crate) fn is_to_run_alone(&self, program: &Path) -> bool {
        self.lines("alone").iter().any(|(path, _)| Path::new(path) == program)
    }

    /// The ignored tests, with the reasons.
    pub(crate) fn ignored(&self) -> Vec<(String, String)> {
        self.lines("ignored")
    }

    /// Seconds and names of the lines of this kind, slowest first.
    fn slowest(&self, kind: &str) -> Vec<(f64, String)> {
        let timed = self.lines(kind).into_iter().filter_map(|(name, rest)| Some((rest.parse().ok()?, name)));
        let mut timed: Vec<(f64, String)> = timed.collect();
        timed.sort_by(|one, other| other.0.total_cmp(&one.0));
        timed
    }

    /// The second and the third field of the lines whose first is `kind`.
    fn lines(&self, kind: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let fields = text.lines().filter_map(|line| {
            let mut fields = line.split('\t');
            let is_kind = fields.next() == Some(kind);
            is_kind.then(|| (fields.next(), fields.next()))
        });
        fields
            .map(|(name, rest)| (name.unwrap_or_default().to_owned(), rest.unwrap_or_default().to_owned()))
            .collect()
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // A file left in the temporary directory does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_report_lists_the_slowest_first() {
        let report = Report(std::env::temp_dir().join(format!("adit-timings-{}", std::process::id())));
        std::fs::write(
            &report.0,
            "passed\ta::quick\t0.5\nignored\ta::b\tneeds root\npassed\ta::slow\t12.0\nalone\t/t/a-1\t\n",
        )
        .unwrap();
        assert!(report.is_to_run_alone(Path::new("/t/a-1")) && !report.is_to_run_alone(Path::new("/t/a")));
        assert_eq!(report.slowest("passed"), [(12.0, "a::slow".to_owned()), (0.5, "a::quick".to_owned())]);
        assert_eq!(report.ignored(), [("a::b".to_owned(), "needs root".to_owned())]);
    }

    #[test]
    fn processor_time_of_children_is_counted() {
        let before = cpu_of_children();
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", busy]).status().unwrap().success());
        assert!(cpu_of_children() > before);
    }
}
