//! Short rounds, with everything in them that can be started here.

#[macro_use(test)]
extern crate adit_harness;

use adit_testbed::needs::ebpf;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The `adit` of the same profile. `cargo xtask test` names the one that it has built, because a
/// build would replace that under the tests that run beside this one. Without a name it is built
/// now: cargo builds only this package's programs for us.
fn adit() -> Result<PathBuf, Box<dyn std::error::Error>> {
    if let Some(program) = std::env::var_os("ADIT_PROGRAM") {
        return Ok(program.into());
    }
    let bench = PathBuf::from(env!("CARGO_BIN_EXE_adit-bench"));
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "adit"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let directory = bench.parent().and_then(|profile| profile.parent()).ok_or("no target directory")?;
    let status = build.arg("--target-dir").arg(directory).status()?;
    if !status.success() {
        return Err("adit does not build".into());
    }
    Ok(bench.with_file_name("adit"))
}

fn has(figures: &[Value], measure: &str, contender: &str) -> bool {
    figures.iter().any(|figure| {
        figure["measure"] == measure
            && figure["contender"] == contender
            && figure["figure"]["median"].as_f64().is_some_and(|median| median > 0.0)
    })
}

/// A run of the bench, and what became of it.
struct Run {
    directory: tempfile::TempDir,
    pid: u32,
    is_success: bool,
    report: Value,
    document: String,
    said: String,
}

impl Run {
    fn of(arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let document = directory.path().join("benchmarks.md");
        let child = Command::new(env!("CARGO_BIN_EXE_adit-bench"))
            .args(["--quick", "--json"])
            .args(arguments)
            .arg("--document")
            .arg(&document)
            .arg("--adit")
            .arg(adit()?)
            .env("TMPDIR", directory.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()?;
        let pid = child.id();
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout).map_err(|_| said.clone())?;
        let text = std::fs::read_to_string(&document)?;
        std::fs::remove_file(&document)?;
        Ok(Self { directory, pid, is_success: output.status.success(), report, document: text, said })
    }

    /// No file of it is left, and nothing that Adit keeps of a site.
    fn left_nothing(&self) -> Outcome {
        let left: Vec<_> =
            std::fs::read_dir(self.directory.path())?.flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        for place in ["/run/adit", "/var/lib/adit", "/sys/fs/bpf/adit"] {
            let ours = format!("-{}", self.pid);
            let left: Vec<_> = std::fs::read_dir(place)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(&ours)))
                .collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
        Ok(())
    }
}

#[test(root, iperf3)]
fn a_short_round_measures_adit_and_leaves_nothing_behind() -> Outcome {
    let run = Run::of(&["--soak", "--only", "userspace"])?;
    assert!(run.is_success, "{}", run.said);
    let (report, said) = (&run.report, &run.said);
    let figures = report["figures"].as_array().ok_or("no figures")?;
    let measures =
        ["tcp_one", "tcp_four", "udp_small", "request_response", "ping", "forward_tcp", "forward_udp"];
    for measure in measures {
        for contender in ["bare", "adit"] {
            assert!(has(figures, measure, contender), "{measure} of {contender}: {said}");
        }
    }
    // Others may not be installed here; but then the report says why.
    let contenders = report["contenders"].as_array().ok_or("no contenders")?;
    let pairs: Vec<&Value> = contenders.iter().filter(|standing| standing["shape"] == "pair").collect();
    assert_eq!(pairs.len(), 7);
    let failed = |contender: &Value, measure: &str| {
        report["failures"].as_array().is_some_and(|failures| {
            failures.iter().any(|failure| failure["contender"] == *contender && failure["measure"] == measure)
        })
    };
    for standing in pairs {
        let contender = &standing["contender"];
        let name = contender.as_str().ok_or("a contender without a name")?;
        let is_told = standing["failure"].is_string() || failed(contender, "tcp_one");
        assert!(is_told || has(figures, "tcp_one", name), "{name} is neither measured nor excused: {report}");
    }
    assert!(report["soak"]["resident_kib"].as_array().is_some_and(|looks| looks.len() >= 3), "{report}");

    assert!(run.document.contains("| one TCP stream, ratio to the bare veth |"), "{}", run.document);
    run.left_nothing()
}

#[test(root, ebpf)]
fn the_programs_in_the_kernel_are_measured_and_timed() -> Outcome {
    let run = Run::of(&["--only", "adit-ebpf,adit-ebpf-many"])?;
    let (report, said) = (&run.report, &run.said);
    assert!(run.is_success, "{said}");
    let figures = report["figures"].as_array().ok_or("no figures")?;
    for (measure, contender) in [
        ("tcp_one", "adit-ebpf"),
        ("udp_small", "adit-ebpf"),
        ("udp_small", "adit-ebpf-many"),
        ("forward_tcp", "adit-ebpf"),
    ] {
        assert!(has(figures, measure, contender), "{measure} of {contender}: {said}");
    }
    for program in ["adit_encap", "adit_decap"] {
        let is_it = |time: &&Value| time["program"] == program && time["contender"] == "adit-ebpf-many";
        let time = report["programs"].as_array().and_then(|times| times.iter().find(is_it));
        assert!(time.is_some_and(|time| time["runs"].as_u64() > Some(1000)), "{program}: {report}");
    }
    assert!(report["loading"][0]["more"]["median"].as_f64() > Some(0.0), "{report}");
    run.left_nothing()
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
