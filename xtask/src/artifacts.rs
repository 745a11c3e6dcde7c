//! The programs that cargo builds, as its messages name them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::run;

/// The fields that are read from cargo's `compiler-artifact` messages.
#[derive(Debug, Deserialize)]
pub(crate) struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    pub(crate) executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

impl Artifact {
    /// An artifact in a line of cargo's output; `None` for messages about anything else.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// Whether it is a test program.
    pub(crate) fn is_test(&self) -> bool {
        self.profile.test
    }

    /// The target's name, as in a crate's path.
    pub(crate) fn target(&self) -> String {
        self.target.name.replace('-', "_")
    }

    /// The package's directory.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        self.manifest_path.parent().map(PathBuf::from)
    }
}

/// The path of the program of this name, as far as it is UTF-8.
pub(crate) fn program<'a>(artifacts: &'a [Artifact], name: &str) -> Option<&'a str> {
    let programs = artifacts.iter().filter(|artifact| !artifact.is_test() && artifact.target.name == name);
    programs.filter_map(|artifact| artifact.executable.as_deref()?.to_str()).next()
}

/// Builds tests with `cargo test --no-run` and these arguments.
///
/// # Errors
/// Fails if they do not build.
pub(crate) fn build(arguments: &[&str]) -> Result<Vec<Artifact>, String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--no-run", "--locked", "--message-format=json-render-diagnostics"]);
    command.args(arguments).current_dir(run::root()).stderr(Stdio::inherit());
    let messages = run::output(&mut command).ok_or("the tests do not build: see cargo's errors above")?;
    Ok(messages.lines().filter_map(Artifact::parse).collect())
}
