//! `cargo xtask deb`: builds the Debian package, and tries it out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{debian, run};

const CARGO_DEB: &str = "3.8.0";
/// It asks this package's tools which libraries the program needs.
const PACKAGES: &[&str] = &["dpkg-dev"];
/// What the unit is tried under.
const TEST_PACKAGES: &[&str] = &["systemd", "systemd-sysv", "systemd-container"];
/// What the test upgrades to: the same, but for Debian later.
const LATER: &str = "-1+later";

/// Which package is built.
enum Build {
    /// The one to hand out.
    Release,
    /// The same with a later version and packed in less time, for the test.
    Later,
}

/// `cargo xtask deb [--test]`.
pub(crate) fn deb(arguments: &[String]) -> Result<(), String> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => build(&prepare()?, &Build::Release).map(drop),
        ["--test"] => test(),
        _ => Err("usage: cargo xtask deb [--test]".to_owned()),
    }
}

/// Installs, upgrades, removes and purges the package as an operator would:
/// `crates/adit/tests/program/{package,first_hour}.rs`.
fn test() -> Result<(), String> {
    need(TEST_PACKAGES)?;
    let tools = prepare()?;
    let (package, later) = (build(&tools, &Build::Release)?, build(&tools, &Build::Later)?);
    let path = |package: &Path| package.to_string_lossy().into_owned();
    let (package, later) = (path(&package), path(&later));
    // Nothing of it may be skipped.
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
        "--test-threads=1",
    ];
    run::cargo(&test, &environment)
}

/// Where things are while the package is built.
struct Tools {
    cargo_deb: PathBuf,
    target: PathBuf,
}

/// Installs what builds packages; builds the program and what it generates about itself.
fn prepare() -> Result<Tools, String> {
    need(PACKAGES)?;
    let target = run::target_directory()?;
    let tools = Tools { cargo_deb: install_cargo_deb(&target.join("deb-tools"))?, target };
    run::cargo(&["build", "--quiet", "--release", "--locked", "-p", "adit"], &[])?;
    generate(&tools.target.join("release"))?;
    Ok(tools)
}

fn need(packages: &[&str]) -> Result<(), String> {
    match debian::install(packages)[..] {
        [] => Ok(()),
        ref missing => Err(format!(
            "this takes packages of Debian which are missing and could not be installed: {} (run as root on Debian)",
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

/// Manual page and completions, under the names that their readers look for.
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
    // Without a name and a time in it, so that the same page gives the same package.
    run::check(Command::new("gzip").args(["--best", "--no-name", "--force"]).arg(folder.join("adit.8")))
}

/// Packs what [`prepare`] has built.
fn build(tools: &Tools, what: &Build) -> Result<PathBuf, String> {
    let folder = tools.target.join("debian");
    let version = env!("CARGO_PKG_VERSION");
    let (revision, name) = match what {
        Build::Release => ("-1", "adit.deb"),
        Build::Later => (LATER, "adit-later.deb"),
    };
    let package = folder.join(name);
    let mut command = Command::new(&tools.cargo_deb);
    // It builds nothing, and so would not strip by itself. It says where the package is.
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
