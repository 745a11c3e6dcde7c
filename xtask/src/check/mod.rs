//! `cargo xtask check`: rules that neither the compiler nor a test knows, checked on the text of
//! the sources. It takes a second, and lists everything that breaks a rule, each with its file and
//! line.
//!
//! | rule | module |
//! |---|---|
//! | Markdown and comments have at most 100 columns | [`width`] |
//! | links, anchors and names of files lead somewhere | [`links`] |
//! | no modules of a crate import each other in a circle | [`circles`] |
//! | crates depend only on what is below them | [`layers`] |
//!
//! That generated documents are up to date is checked by the tests that generate them; see
//! `cargo xtask generate`.

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
    /// Counted from 1; 0 if the rule is about the whole file.
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
    /// From the root of the repository, with slashes.
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

/// Checks all rules.
///
/// # Errors
/// A rule is broken, or the sources cannot be read.
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
        count => Err(format!("{count} places break a rule")),
    }
}

/// The files of the repository, those that are not committed yet included.
fn paths() -> Result<Vec<String>, String> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(run::root());
    let listed = run::output(&mut command).ok_or("cannot list the files of the repository: is git there?")?;
    // A file that was removed is listed until that is committed.
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

/// The comment in a line of Rust that has nothing else: the text behind `//`, `///` or `//!`.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']))
}
