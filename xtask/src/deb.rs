//! The command `cargo xtask deb`: it builds the Debian package and tests it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{debian, run};

/// The version of cargo-deb.
const CARGO_DEB: &str = "3.8.0";
/// cargo-deb uses `dpkg-shlibdeps` of this package to find the libraries that the program needs.
const PACKAGES: &[&str] = &["dpkg-dev"];
/// The packages that the tests boot the unit and managers of networks with.
const TEST_PACKAGES: &[&str] = &["systemd", "systemd-sysv", "systemd-container", "udev"];
/// The Debian revision that the test upgrades to: later than the release's `-1`.
const LATER: &str = "-1+later";

/// Which package is built.
enum Build {
    /// The package to publish.
    Release,
    /// The same files with a later revision, compressed quickly. Only the test uses it.
    Later,
}

/// Runs `cargo xtask deb [--test]`.
pub(crate) fn deb(arguments: &[String]) -> Result<(), String> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => build(&prepare()?, &Build::Release).map(drop),
        ["--test"] => test(),
        _ => Err("usage: cargo xtask deb [--test]".to_owned()),
    }
}

/// Builds both packages and runs the tests that install, upgrade, remove and purge them as an
/// operator would, or boot them:
/// `crates/adit/tests/program/{package,first_hour,network_managers}.rs`.
fn test() -> Result<(), String> {
    need(TEST_PACKAGES)?;
    let tools = prepare()?;
    let (package, later) = (build(&tools, &Build::Release)?, build(&tools, &Build::Later)?);
    let path = |package: &Path| package.to_string_lossy().into_owned();
    let (package, later) = (path(&package), path(&later));
    // No test may be skipped.
    let environment = [("ADIT_PACKAGE", &*package), ("ADIT_PACKAGE_LATER", &later), ("ADIT_STRICT", "1")];
    let test = [
        "test",
        "--quiet",
        "--locked",
        "-p",
        "adit",
        "--test",
        "program",
        "--",
        "package::",
        "first_hour::from_the_package",
        "network_managers::",
        "--test-threads=1",
    ];
    run::cargo(&test, &environment)
}

/// What a build of the package needs.
struct Tools {
    /// The program cargo-deb.
    cargo_deb: PathBuf,
    /// Where cargo builds.
    target: PathBuf,
}

/// Installs cargo-deb, and builds the program, its manual page and its completions.
fn prepare() -> Result<Tools, String> {
    need(PACKAGES)?;
    let target = run::target_directory()?;
    let tools = Tools {
        cargo_deb: install_cargo_deb(&run::tool_directory(&format!("cargo-deb-{CARGO_DEB}"))?)?,
        target,
    };
    run::cargo(&["build", "--quiet", "--release", "--locked", "-p", "adit"], &[])?;
    generate(&tools.target.join("release"))?;
    Ok(tools)
}

/// Installs packages.
///
/// # Errors
/// Fails if one is still missing.
fn need(packages: &[&str]) -> Result<(), String> {
    match debian::install(packages)[..] {
        [] => Ok(()),
        ref missing => Err(format!(
            "the package needs these Debian packages, which could not be installed: {} (run as root on Debian)",
            missing.join(" ")
        )),
    }
}

fn install_cargo_deb(tools: &Path) -> Result<PathBuf, String> {
    let program = tools.join("bin/cargo-deb");
    let installed = run::output(Command::new(&program).arg("--version"));
    if installed.is_none_or(|version| !version.trim().ends_with(CARGO_DEB)) {
        println!("installing cargo-deb {CARGO_DEB} into {}", tools.display());
        let root = tools.to_string_lossy();
        let arguments = ["install", "--quiet", "--locked", "--force", "--root", &root];
        run::cargo(&[&arguments[..], &["--version", CARGO_DEB, "cargo-deb"]].concat(), &[])?;
    }
    Ok(program)
}

/// Writes the manual page and the shell completions, under the names that man and the shells
/// expect.
fn generate(release: &Path) -> Result<(), String> {
    let folder = release.join("package");
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let files: [(&str, &[&str]); 4] = [
        ("adit.8", &["man"]),
        ("adit.bash", &["completions", "bash"]),
        ("_adit", &["completions", "zsh"]),
        ("adit.fish", &["completions", "fish"]),
    ];
    for (name, arguments) in files {
        let text = run::output(Command::new(release.join("adit")).args(arguments))
            .ok_or_else(|| format!("`adit {}` failed", arguments.join(" ")))?;
        let file = folder.join(name);
        fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    // Without name and time in the archive, the same page gives the same package.
    run::check(Command::new("gzip").args(["--best", "--no-name", "--force"]).arg(folder.join("adit.8")))
}

/// Packs what [`prepare`] built.
fn build(tools: &Tools, what: &Build) -> Result<PathBuf, String> {
    let folder = tools.target.join("debian");
    let version = env!("CARGO_PKG_VERSION");
    let (revision, name) = match what {
        Build::Release => ("-1", "adit.deb"),
        Build::Later => (LATER, "adit-later.deb"),
    };
    let package = folder.join(name);
    let mut command = Command::new(&tools.cargo_deb);
    // With `--no-build`, cargo-deb strips only if `--strip` is given.
    command
        .args(["--quiet", "--no-build", "--strip", "--package", "adit"])
        .args(["--deb-version", &format!("{version}{revision}"), "--output"])
        .arg(&package)
        .current_dir(run::root())
        .env("CARGO", env!("CARGO"));
    if matches!(what, Build::Later) {
        command.arg("--fast");
    }
    run::check(&mut command)?;
    Ok(package)
}
