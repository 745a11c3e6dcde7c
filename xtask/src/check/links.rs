//! The rule about links and file names: links in Markdown, and file names in Markdown and comments,
//! refer to something that exists.
//!
//! A file name is a word in backticks that ends in `.rs` or `.md`, or a path with a slash that ends
//! in another extension of the repository. It may be relative to any folder: `daemon/mod.rs`
//! matches every file whose path ends with it. Paths outside of the repository begin with `/`, `~`
//! or a variable, and are not checked.

use std::collections::BTreeSet;

use super::{Finding, Source, comment};

/// Extensions of the files whose names are checked.
const EXTENSIONS: &[&str] = &[".rs", ".md", ".toml", ".sh", ".json", ".py", ".service"];
/// Beginnings of paths that are not in the repository: in the Linux kernel, or built.
const ELSEWHERE: &[&str] = &["tools/testing/", "net/", "include/", "target/", "http", "src/lib", ".."];

/// Texts that a program copies into a document in another folder. Their links are relative to that
/// folder.
const COPIED: &[&str] = &["tools/adit-bench/src/benchmarks.md"];

/// Finds links and file names without a target.
pub(super) fn check(sources: &[Source], paths: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for (number, text) in prose(source) {
            if source.is_markdown() && !COPIED.contains(&source.path.as_str()) {
                findings.extend(targets(text).filter_map(|target| {
                    let message = dead_link(source, target, sources, paths)?;
                    Some(source.finding(number, message))
                }));
            }
            for name in file_names(text).filter(|name| !is_known(name, paths)) {
                findings.push(source.finding(number, format!("there is no file `{name}`")));
            }
        }
    }
    findings
}

/// The lines of prose and their numbers: Markdown outside of code blocks, and comments.
fn prose(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(source.text.lines()).filter_map(move |(number, line)| {
        let text = if source.is_markdown() { line } else { comment(line)? };
        if text.trim_start().starts_with("```") {
            is_code = !is_code;
            return None;
        }
        (!is_code).then_some((number, text))
    })
}

/// The targets of links: `](target)` and `[name]: target`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let defined =
        line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target.trim());
    inline.chain(defined)
}

/// The message about a Markdown link whose target does not exist.
fn dead_link(source: &Source, target: &str, sources: &[Source], paths: &[String]) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { source.path.clone() } else { joined(&source.path, file) };
    let folder = format!("{}/", path.trim_end_matches('/'));
    if !paths.iter().any(|known| *known == path || known.starts_with(&folder)) {
        return Some(format!("the link to {target} is dead: there is no {path}"));
    }
    let anchor = anchor?;
    let to = sources.iter().find(|source| source.path == path && source.is_markdown())?;
    (!anchors(to).contains(anchor))
        .then(|| format!("the link to {target} is dead: no heading gives #{anchor}"))
}

/// A path relative to the folder of another.
fn joined(from: &str, to: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in to.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors of a document, as GitHub derives them from its headings.
fn anchors(source: &Source) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(source) {
        if line.starts_with('#') {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            let again = (1..).map(|number| format!("{anchor}-{number}"));
            let free = std::iter::once(anchor.clone()).chain(again).find(|name| !anchors.contains(name));
            anchors.extend(free);
        }
        let named = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
        anchors.extend(named.map(str::to_owned));
    }
    anchors
}

/// The file names in backticks.
fn file_names(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|word| {
        let is_path = word.chars().all(|c| c.is_ascii_alphanumeric() || "./_-@".contains(c));
        let is_outside =
            word.starts_with(['/', '~', '.', '*']) || ELSEWHERE.iter().any(|start| word.starts_with(start));
        let is_document = word.ends_with(".rs") || word.ends_with(".md");
        let is_file = is_document || word.contains('/') && EXTENSIONS.iter().any(|end| word.ends_with(end));
        is_path && is_file && !is_outside
    })
}

fn is_known(name: &str, paths: &[String]) -> bool {
    let ending = format!("/{name}");
    paths.iter().any(|path| path == name || path.ends_with(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let other = Source {
            path: "docs/guide/other.md".to_owned(),
            text: "# What it is\n\n## `-j`, too\n".to_owned(),
        };
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        let paths = [path, "docs/guide/other.md", "crates/adit/src/main.rs"].map(str::to_owned);
        check(&[source, other], &paths).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_link_to_a_file_a_folder_or_a_heading_is_accepted() {
        let text = "[a](docs/guide/other.md) [b](docs/guide/) [c](docs/guide/other.md#what-it-is) [d](https://x.y)\n\
                    # Here\n[e](#here) [f](docs/guide/other.md#-j-too)\n";
        assert_eq!(findings("README.md", text), [] as [String; 0]);
        assert_eq!(findings("docs/a.md", "[up](../crates/adit/src/main.rs)"), [] as [String; 0]);
    }

    #[test]
    fn a_dead_link_and_a_dead_anchor_are_found() {
        let found =
            findings("README.md", "ok\n[a](docs/none.md) [b](docs/guide/other.md#gone)\n[c]: nowhere.md\n");
        assert_eq!(
            found,
            [
                "README.md:2: the link to docs/none.md is dead: there is no docs/none.md",
                "README.md:2: the link to docs/guide/other.md#gone is dead: no heading gives #gone",
                "README.md:3: the link to nowhere.md is dead: there is no nowhere.md",
            ]
        );
    }

    #[test]
    fn a_comment_that_names_a_missing_file_is_found() {
        assert_eq!(
            findings("a.rs", "//! See `adit/src/main.rs`, `other.md` and `/etc/x.toml`.\n"),
            [] as [String; 0]
        );
        let found =
            findings("a.rs", "let x = 1;\n// As in `gone.rs` and `docs/gone.toml`.\nlet y = \"`not.rs`\";\n");
        assert_eq!(
            found,
            ["a.rs:2: there is no file `gone.rs`", "a.rs:2: there is no file `docs/gone.toml`"]
        );
    }
}
