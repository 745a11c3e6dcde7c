//! The command `cargo xtask check`: it checks rules about the sources that neither the compiler nor
//! a test checks. It takes about a second, and lists each place that breaks a rule with file and
//! line.
//!
//! | rule | module |
//! |---|---|
//! | Markdown and comments have at most 100 columns | [`width`] |
//! | links, anchors and file names have a target | [`links`] |
//! | no modules of a crate import each other in a circle | [`circles`] |
//! | crates depend only on crates below them | [`layers`] |
//!
//! The tests that generate documents check that these are up to date; see `cargo xtask generate`.

mod circles;
mod layers;
mod links;
mod width;

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::run;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// The file's path, from the root of the repository.
    file: String,
    /// Counts from 1; 0 if the message is about the whole file.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.file, self.message),
            line => write!(formatter, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// A text file of the repository.
#[derive(Debug)]
struct Source {
    /// The path from the root of the repository, with slashes.
    path: String,
    text: String,
}

impl Source {
    fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn finding(&self, line: usize, message: String) -> Finding {
        Finding { file: self.path.clone(), line, message }
    }
}

/// Checks all rules and prints what breaks them.
///
/// # Errors
/// Fails if a rule is broken, or if the sources cannot be read.
pub(crate) fn check() -> Result<(), String> {
    let paths = paths()?;
    let sources = read(&paths)?;
    let mut findings = width::check(&sources);
    findings.extend(links::check(&sources, &paths));
    findings.extend(circles::check(&sources));
    findings.extend(layers::check()?);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(format!("{count} places break a rule: see the list above")),
    }
}

/// The files of the repository, including those that are not committed yet.
fn paths() -> Result<Vec<String>, String> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(run::root());
    let listed =
        run::output(&mut command).ok_or("cannot list the files of the repository: `git ls-files` failed")?;
    // git lists a removed file until the removal is committed.
    let is_there = |path: &&str| run::root().join(Path::new(path)).is_file();
    let mut paths: Vec<String> = listed.lines().filter(is_there).map(str::to_owned).collect();
    paths.dedup();
    Ok(paths)
}

fn read(paths: &[String]) -> Result<Vec<Source>, String> {
    let is_text = |path: &&String| path.ends_with(".md") || path.ends_with(".rs");
    let read = |path: &String| {
        let text = std::fs::read_to_string(run::root().join(path));
        text.map(|text| Source { path: path.clone(), text }).map_err(|error| format!("{path}: {error}"))
    };
    paths.iter().filter(is_text).map(read).collect()
}

/// The text behind `//`, `///` or `//!` in a line of Rust that is only a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']))
}
