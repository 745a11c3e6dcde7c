//! Tests of the harness: the outcomes of tests whose needs are met, are not met, or are ignored.
//! The program starts itself again and reads the result.

#[macro_use(test)]
extern crate adit_harness;

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    adit_harness::main()
}

/// The environment variable of the inner run, in which the tests of `samples` may fail.
const INNER: &str = "ADIT_HARNESS_INNER";

mod samples {
    fn nothing() -> Result<(), String> {
        Ok(())
    }

    /// Is met in the outer run, which may be a strict one.
    fn the_moon() -> Result<(), String> {
        std::env::var_os(super::INNER).map_or(Ok(()), |_| Err("the moon".to_owned()))
    }

    fn fail_in_the_inner_run() {
        assert!(std::env::var_os(super::INNER).is_none(), "it ran");
    }

    #[test]
    fn without_needs() {}

    #[test(nothing)]
    fn with_a_need_that_is_met() {}

    #[test(nothing, self::the_moon)]
    fn with_a_need_that_is_not_met() {
        fail_in_the_inner_run();
    }

    #[test(alone)]
    fn runs_alone() {}

    #[test]
    fn returns_an_error() -> Result<(), String> {
        std::env::var_os(super::INNER).map_or(Ok(()), |_| Err("a mistake".to_owned()))
    }
}

struct Run {
    output: String,
    is_success: bool,
    report: String,
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .env_remove("ADIT_STRICT")
        .env_remove("ADIT_MAY_SKIP")
        .env_remove("ADIT_TESTS")
        .env(INNER, "1")
        .env("ADIT_TEST_REPORT", &report)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    Run {
        output: String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        is_success: output.status.success(),
        report: std::fs::read_to_string(report).unwrap_or_default(),
    }
}

#[test]
fn a_test_whose_need_is_not_met_is_ignored_with_the_reason() {
    let run = run(&["samples::with"], &[]);
    assert!(run.is_success, "{}", run.output);
    let name = "samples::with_a_need_that_is_not_met";
    assert!(run.output.contains(&format!("test {name} ... ignored (needs the moon)")), "{}", run.output);
    assert!(run.output.contains("2 passed; 0 failed; 1 ignored"), "{}", run.output);
    assert!(run.report.contains(&format!("ignored\toutcomes::{name}\tneeds the moon\n")), "{}", run.report);
    assert_eq!(run.report.lines().filter(|line| line.starts_with("passed\t")).count(), 2, "{}", run.report);
}

#[test]
fn an_unmet_need_is_a_failure_in_strict_mode() {
    let run = run(&["samples::with"], &[("ADIT_STRICT", "1")]);
    assert!(!run.is_success && run.output.contains("needs the moon"), "{}", run.output);
    assert!(run.report.contains("failed\toutcomes::samples::with_a_need_that_is_not_met"), "{}", run.report);
}

#[test]
fn a_need_that_another_run_provides_may_be_unmet_in_strict_mode() {
    let run = run(&["samples::with"], &[("ADIT_STRICT", "1"), ("ADIT_MAY_SKIP", "sun,the_moon")]);
    assert!(run.is_success && run.output.contains("1 ignored"), "{}", run.output);
}

#[test]
fn tests_run_despite_unmet_needs_if_they_are_included() {
    for option in ["--include-ignored", "--ignored"] {
        let run = run(&["samples::with", option], &[]);
        assert!(!run.is_success && run.output.contains("it panicked: it ran"), "{option}: {}", run.output);
    }
}

#[test]
fn an_error_that_a_test_returns_fails_it() {
    let run = run(&["--exact", "samples::returns_an_error"], &[]);
    assert!(!run.is_success && run.output.contains("a mistake"), "{}", run.output);
}

#[test]
fn tests_are_listed_filtered_and_skipped_as_with_libtest() {
    let listed = run(&["samples::", "--list"], &[]).output;
    assert_eq!(listed.matches(": test").count(), 5, "{listed}");
    let chosen = run(&["samples::without", "samples::returns", "--list"], &[]).output;
    assert_eq!(chosen.matches(": test").count(), 2, "{chosen}");
    let left_out = run(&["samples::", "--skip", "returns", "--skip", "not_met", "--test-threads=1"], &[]);
    assert!(left_out.is_success && left_out.output.contains("3 passed"), "{}", left_out.output);
}

#[test]
fn tests_that_run_alone_are_left_out_and_reported_while_other_programs_run() {
    let names = ["samples::without", "samples::runs"];
    let together = run(&names, &[("ADIT_TESTS", "together")]);
    assert!(together.is_success && together.output.contains("1 passed"), "{}", together.output);
    let program = std::env::current_exe().unwrap();
    assert!(together.report.contains(&format!("alone\t{}\t\n", program.display())), "{}", together.report);
    let none = run(&["samples::without"], &[("ADIT_TESTS", "together")]);
    assert!(!none.report.contains("alone\t"), "{}", none.report);
    let alone = run(&names, &[("ADIT_TESTS", "alone")]);
    assert!(alone.report.contains("passed\toutcomes::samples::runs_alone\t"), "{}", alone.report);
    assert!(alone.output.contains("1 passed"), "{}", alone.output);
}
