//! The job of `cargo xtask vm test`: it runs the tests whose result depends on the kernel, in the
//! guest.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::guest::Guest;
use super::job::Job;
use crate::artifacts::{self, Artifact};
use crate::run;

/// A test target of a cargo package that runs in the guest.
struct Suite {
    package: &'static str,
    /// The integration test's name, or the package's name for its unit tests.
    target: &'static str,
    /// Parts of the names of the tests to run. If empty, all tests run.
    only: &'static [&'static str],
    /// Tests that do not run in the guest, and why.
    left_out: &'static [(&'static str, &'static str)],
}

const fn suite(package: &'static str, target: &'static str) -> Suite {
    Suite { package, target, only: &[], left_out: &[] }
}

/// Why bulk transfers are left out: unoptimised code on an emulated processor needs minutes for
/// them. An optimised build for the guest alone would cost more time than it saves.
const BULK: &str = "moves tens of megabytes; the smaller transfers are run";

/// The test targets whose result depends on the kernel. Tests that only compute are not listed:
/// their result is the same on every kernel. `xdp` of adit-linux is not listed either, because
/// AF_XDP as Adit uses it needs Linux 6.8.
const SUITES: &[Suite] = &[
    suite("adit-linux", "adit_linux"),
    Suite {
        left_out: &[(
            "refusals_name_the_attempt_and_the_reason",
            "of an address that is there already Linux 6.1 says no more than the number",
        )],
        ..suite("adit-linux", "netlink")
    },
    suite("adit-linux", "nftables"),
    Suite {
        left_out: &[(
            "a_hundred_thousand_networks_are_one_transaction",
            "takes a minute of an emulated processor; the same is one transaction on any kernel",
        )],
        ..suite("adit-dataplane", "kernel_filter")
    },
    Suite { only: &["ipip_driver"], ..suite("adit-control", "adit_control") },
    suite("adit-linux", "process"),
    suite("adit-linux", "raw"),
    suite("adit-linux", "user_namespace"),
    Suite {
        left_out: &[(
            "ebpf::tests::random",
            "thousands of packets take minutes; the table of fixtures is run",
        )],
        ..suite("adit-dataplane", "adit_dataplane")
    },
    Suite {
        left_out: &[
            ("sixty_four_megabytes_arrive_in_both_directions", BULK),
            ("several_streams_arrive_through_two_queues", BULK),
            ("the_path_mtu_is_learned_from_a_router", BULK),
            ("the_router_fragments_outer_datagrams_without_df", BULK),
        ],
        ..suite("adit-testbed", "end_to_end")
    },
    Suite {
        left_out: &[
            ("churn::", "allows losses by the packet rates of a real processor"),
            ("loops::", "asks for rules of Adit's own, and listens to tens of thousands of datagrams"),
            ("a_flood_of_forged_errors_changes_nothing", "a flood is one of a real processor"),
            ("userspace", "end_to_end asks most of the same of the userspace plane, in less time"),
            (
                "incomplete_and_overlapping_fragments_harm_nothing",
                "its fragments fill Linux 6.1's memory for them (net.ipv4.ipfrag_high_thresh, 4 MiB), \
                 so that the last datagram is not put together",
            ),
        ],
        ..suite("adit-testbed", "fast_path")
    },
    suite("adit-testbed", "linux_ipip"),
    Suite {
        only: &[
            "encryption::",
            "ipsec::",
            "lifecycle::",
            "vrf::",
            "kernel_plane::",
            // Also selects changed_interface.
            "interface::",
            "large_datagrams::",
            "unit::",
            // Of faults, faults_at_work and dead.
            "with_the_driver",
        ],
        left_out: &[
            ("what_is_not_cut_into_segments_yet_arrives", BULK),
            ("vxlan_passes", "allows no drop, and a driver that another test loads answers Port Unreachable"),
            ("the_absence_of_the_driver_is_explained", "the guest's kernel has the driver"),
            ("changes_are_repaired_or_followed", "it asks for the speed of a real processor"),
            ("the_unit_is_no_laxer_than_before", "asks systemd, not the kernel"),
            ("systemd_understands_the_unit", "asks systemd, not the kernel"),
            (
                "a_long_apply_delays_neither_answers_nor_the_watchdog",
                "thousands of peers take minutes, and it asks for the speed of a real processor",
            ),
        ],
        ..suite("adit", "program")
    },
];

/// How long one test program may take. Emulation is about ten times slower than the machine.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(1800);
/// How long all test programs may take together.
const TIMEOUT: Duration = Duration::from_secs(3000);
/// The exit code of timeout(1) for a program that it ended.
const TIMED_OUT: i32 = 124;

/// The subcommand of `cargo xtask vm` that runs a plan, in the guest.
pub(super) const RUN_PLAN: &str = "run-plan";

/// An entry of the plan: a program to run in the guest.
#[derive(Debug, Serialize, Deserialize)]
struct Program {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    /// The directory to run in: the package's, as with `cargo test`.
    directory: PathBuf,
    /// How long it may take, in seconds.
    seconds: u64,
}

/// Whether a name on the command line, `PACKAGE`, `PACKAGE:TARGET` or `PACKAGE:TARGET:PART`,
/// selects this suite.
fn is_selected_by(suite: &Suite, name: &str) -> bool {
    let mut words = name.splitn(3, ':');
    words.next() == Some(suite.package) && words.next().is_none_or(|target| target == suite.target)
}

/// The parts of the names of tests to run of a suite that `names` select: those of the command
/// line, or else the suite's own.
fn parts<'a>(suite: &Suite, names: &'a [String]) -> Vec<&'a str> {
    let selected = names.iter().filter(|name| is_selected_by(suite, name));
    let parts = selected.filter_map(|name| name.splitn(3, ':').nth(2)).collect::<Vec<_>>();
    if parts.is_empty() { suite.only.to_vec() } else { parts }
}

/// Builds the tests, and returns the job that runs the suites `names`, or all if there are none.
pub(super) fn job(guest: &Guest, names: &[String]) -> Result<Job, String> {
    job_with(guest, names, None)
}

/// Like [`job`], but also runs another job after the tests, in the same guest.
pub(super) fn job_with(guest: &Guest, names: &[String], other: Option<Job>) -> Result<Job, String> {
    let is_wanted = |suite: &&Suite| names.is_empty() || names.iter().any(|name| is_selected_by(suite, name));
    let suites: Vec<&Suite> = SUITES.iter().filter(is_wanted).collect();
    if suites.is_empty() {
        return Err(format!(
            "no tests for the guest match {}: expected PACKAGE[:TARGET[:PART]]",
            names.join(", ")
        ));
    }
    let artifacts = build()?;
    let mut programs = suites
        .iter()
        .map(|suite| program(suite, &parts(suite, names), &artifacts))
        .collect::<Result<Vec<_>, _>>()?;
    for (test, reason) in suites.iter().flat_map(|suite| suite.left_out) {
        println!("not run in the guest: {test}: {reason}");
    }
    let mut pinned: Vec<PathBuf> = programs.iter().map(|program| program.program.clone()).collect();
    // The programs that the tests start: cargo's artifacts that are not tests.
    pinned
        .extend(artifacts.iter().filter(|artifact| !artifact.is_test()).filter_map(|a| a.executable.clone()));

    let mut timeout = TIMEOUT;
    if let Some(other) = other {
        let (name, arguments) = other.command.split_first().ok_or("the job has no command")?;
        let program = PathBuf::from(name);
        pinned.extend(other.pinned);
        timeout += other.timeout;
        programs.push(Program {
            name: program.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            program,
            arguments: arguments.to_vec(),
            directory: other.directory,
            seconds: other.timeout.as_secs(),
        });
    }

    let failed = |error: &dyn std::error::Error| format!("cannot write the guest's test plan: {error}");
    let plan = guest.file("plan.json");
    let text = serde_json::to_string_pretty(&programs).map_err(|error| failed(&error))?;
    std::fs::write(&plan, text).map_err(|error| failed(&error))?;
    let xtask = std::env::current_exe().map_err(|error| failed(&error))?;
    pinned.push(xtask.clone());
    let command = [xtask.as_os_str(), "vm".as_ref(), RUN_PLAN.as_ref(), plan.as_os_str()];
    Ok(Job {
        command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        environment: Vec::new(),
        directory: run::root(),
        pinned,
        timeout,
    })
}

fn build() -> Result<Vec<Artifact>, String> {
    let mut arguments = vec!["--lib", "--tests"];
    arguments.extend(SUITES.iter().flat_map(|suite| ["--package", suite.package]));
    artifacts::build(&arguments)
}

fn program(suite: &Suite, parts: &[&str], artifacts: &[Artifact]) -> Result<Program, String> {
    let name = format!("{} {}", suite.package, suite.target);
    let found = artifacts.iter().find(|artifact| {
        let of_package = artifact.directory().is_some_and(|directory| directory.ends_with(suite.package));
        of_package && artifact.is_test() && artifact.target() == suite.target
    });
    let places = found.and_then(|artifact| Some((artifact.executable.clone()?, artifact.directory()?)));
    let (program, directory) = places.ok_or_else(|| {
        format!("cargo built no test target {name}: correct the list of suites in {}", file!())
    })?;
    let mut arguments = vec!["--test-threads=2".to_owned()];
    arguments.extend(parts.iter().map(|&part| part.to_owned()));
    for (test, _) in suite.left_out {
        arguments.extend(["--skip".to_owned(), (*test).to_owned()]);
    }
    Ok(Program { name, program, arguments, directory, seconds: PROGRAM_TIMEOUT.as_secs() })
}

/// The result of a program, and how long it took.
struct Ended {
    name: String,
    result: Result<(), String>,
    took: Duration,
}

/// Runs the programs of a plan in the guest, one after another, and prints the result of each. The
/// exit code is 1 if one failed.
///
/// # Errors
/// Fails if the plan cannot be read.
pub(super) fn run_plan(plan: &str) -> Result<ExitCode, String> {
    let text = std::fs::read_to_string(plan).map_err(|error| format!("cannot read {plan}: {error}"))?;
    let programs: Vec<Program> = serde_json::from_str(&text).map_err(|error| format!("{plan}: {error}"))?;
    let ended: Vec<Ended> = programs.into_iter().map(run_one).collect();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("\nin the guest, Linux {}:", release.trim());
    for Ended { name, result, took } in &ended {
        let result = result.as_ref().map_or_else(|error| format!("FAILED: {error}"), |()| "ok".to_owned());
        println!("{name:<32}{:>6.1} s  {result}", took.as_secs_f64());
    }
    Ok(ExitCode::from(u8::from(ended.iter().any(|ended| ended.result.is_err()))))
}

fn run_one(program: Program) -> Ended {
    println!("\n== {}", program.name);
    let start = Instant::now();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &program.seconds.to_string()]).arg(&program.program);
    command.args(&program.arguments).current_dir(&program.directory);
    let result = match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if status.code() == Some(TIMED_OUT) => {
            Err(format!("timed out after {} s", program.seconds))
        }
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(format!("cannot run it: {error}")),
    };
    Ended { name: program.name, result, took: start.elapsed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo's message about an artifact.
    fn artifact(package: &str, target: &str, test: &str, executable: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","manifest_path":"/w/crates/{package}/Cargo.toml",
               "target":{{"name":"{target}"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
        )
    }

    fn artifacts(lines: &[&str]) -> Vec<Artifact> {
        lines.iter().filter_map(|line| Artifact::parse(line)).collect()
    }

    #[test]
    fn a_suite_finds_the_test_program_of_its_package() {
        let found = artifacts(&[
            r#"{"reason":"build-script-executed","package_id":"x"}"#,
            &artifact("adit", "raw", "true", r#""/t/other""#),
            &artifact("adit-linux", "adit-linux", "false", "null"),
            &artifact("adit-linux", "raw", "true", r#""/t/raw-1""#),
        ]);
        assert_eq!(found.len(), 3);
        let found_one = program(&suite("adit-linux", "raw"), &[], &found).unwrap();
        assert_eq!(found_one.program, PathBuf::from("/t/raw-1"));
        assert_eq!(found_one.directory, PathBuf::from("/w/crates/adit-linux"));
        let error = program(&suite("adit-linux", "adit_linux"), &[], &found).unwrap_err();
        assert!(error.contains("adit-linux adit_linux"), "{error}");
    }

    #[test]
    fn a_suite_is_selected_by_its_package_or_with_its_target() {
        let suite = suite("adit-testbed", "linux_ipip");
        for (name, is_selected) in [
            ("adit-testbed", true),
            ("adit-testbed:linux_ipip", true),
            ("adit-testbed:linux_ipip:ebpf", true),
            ("adit-testbed:fast_path", false),
            ("adit", false),
            ("linux_ipip", false),
        ] {
            assert_eq!(is_selected_by(&suite, name), is_selected, "{name}");
        }
    }

    #[test]
    fn a_suite_runs_only_the_tests_that_it_names() {
        let line = artifact("adit", "t", "true", r#""/t/t""#);
        let suite = Suite { only: &["slow::"], ..suite("adit", "t") };
        for (name, part) in [("adit", "slow::"), ("adit:t", "slow::"), ("adit:t:a::b", "a::b")] {
            let names = [name.to_owned(), "adit:other:no".to_owned()];
            let parts = parts(&suite, &names);
            let program = program(&suite, &parts, &artifacts(&[&line])).unwrap();
            assert_eq!(program.arguments, ["--test-threads=2", part]);
        }
    }

    #[test]
    fn a_suite_skips_the_tests_that_it_leaves_out() {
        let line = artifact("adit", "t", "true", r#""/t/t""#);
        let suite = Suite { left_out: &[("slow", "is slow")], ..suite("adit", "t") };
        let program = program(&suite, &[], &artifacts(&[&line])).unwrap();
        assert_eq!(program.arguments, ["--test-threads=2", "--skip", "slow"]);
    }
}
