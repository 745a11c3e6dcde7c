//! The rule against circles of imports: no two modules of a crate use each other, directly or
//! indirectly.
//!
//! A module is a file. It uses another if a path that begins with `crate`, `self` or `super` leads
//! there, outside of test code. A module's uses of its own submodules do not count, because a
//! module and its submodules form one unit. A submodule's uses of the modules above it do count.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Source};

/// A module's path from the root of its crate, which is empty.
type Module = Vec<String>;

/// The modules that each module uses, and the line of the first use.
type Uses = BTreeMap<Module, BTreeMap<Module, usize>>;

/// Finds one shortest circle in each group of modules that use each other.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut crates = BTreeMap::<&str, BTreeMap<Module, &Source>>::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        if let Some((name, module)) = module_of(&source.path) {
            crates.entry(name).or_default().insert(module, source);
        }
    }
    crates.values().flat_map(check_crate).collect()
}

/// The crate's folder and the module of a path `CRATE/src/…`. `None` for tests and additional
/// programs.
fn module_of(path: &str) -> Option<(&str, Module)> {
    let (name, file) = path.split_once("/src/")?;
    let mut module: Module = file.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if module.iter().any(|part| part == "tests" || part == "bin") {
        return None;
    }
    match module.last().map(String::as_str) {
        Some("mod") => drop(module.pop()),
        Some("lib" | "main") if module.len() == 1 => drop(module.pop()),
        _ => {}
    }
    Some((name, module))
}

fn check_crate(modules: &BTreeMap<Module, &Source>) -> Vec<Finding> {
    let mut uses = Uses::new();
    for (module, source) in modules {
        let own = uses.entry(module.clone()).or_default();
        for (line, path) in paths(&source.text) {
            let Some(target) = resolved(module, &path, modules) else { continue };
            // The module itself and its own submodules do not count.
            if !target.starts_with(module) {
                own.entry(target).or_insert(line);
            }
        }
    }
    circles(&uses)
        .into_iter()
        .filter_map(|circle| {
            let (from, to) = (circle.first()?, circle.get(1).or(circle.first())?);
            let line = uses.get(from)?.get(to).copied().unwrap_or_default();
            let names = circle.iter().chain(circle.first()).map(|module| shown(module)).collect::<Vec<_>>();
            Some(modules.get(from)?.finding(line, format!("modules use each other: {}", names.join(" → "))))
        })
        .collect()
}

fn shown(module: &[String]) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

/// The module that a path leads to: the longest beginning of the path that is a module.
fn resolved(from: &[String], path: &[String], modules: &BTreeMap<Module, &Source>) -> Option<Module> {
    let mut at: Module = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" => from.to_vec(),
        "super" => from[..from.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    for part in &path[1..] {
        if part == "super" {
            at.pop()?;
            continue;
        }
        at.push(part.clone());
        if !modules.contains_key(&at) {
            at.pop();
            break;
        }
    }
    modules.contains_key(&at).then_some(at)
}

/// The paths in a file's code, with their lines: those of `use` items, expressions and types.
fn paths(text: &str) -> Vec<(usize, Vec<String>)> {
    let code = without_tests(&without_text(text));
    let mut paths = Vec::new();
    let bytes = code.as_bytes();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = at.checked_sub(1).map(|before| bytes[before]);
            // `super::super::x` begins at the first `super`. `$crate::` and `my_crate::` do not
            // count.
            if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_:$".contains(&byte)) {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let mut found = Vec::new();
            tree(&code[at..], &mut Vec::new(), &mut found);
            paths.extend(found.into_iter().map(|path| (line, path)));
        }
    }
    paths.sort();
    paths
}

/// Reads a path, which may end in a tree of paths as in a `use`. Appends its paths to `found` and
/// returns the text behind it.
fn tree<'a>(text: &'a str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let depth = before.len();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut inside) = rest.strip_prefix('{') {
            loop {
                inside = inside.trim_start();
                if let Some(after) = inside.strip_prefix('}') {
                    before.truncate(depth);
                    return after;
                }
                let after = tree(inside, before, found).trim_start();
                // `as name`, and the comma.
                let next = after.find([',', '}']).unwrap_or(after.len());
                inside = after[next..].strip_prefix(',').unwrap_or(&after[next..]);
                if inside.is_empty() {
                    before.truncate(depth);
                    return inside;
                }
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end > 0 {
            before.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        match rest.strip_prefix("::") {
            Some(after) if end > 0 && !after.starts_with('<') => rest = after,
            _ => {
                found.push(before.clone());
                before.truncate(depth);
                return rest.strip_prefix('*').unwrap_or(rest);
            }
        }
    }
}

/// The code without comments and with spaces in string literals. Line numbers do not change.
fn without_text(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let mut is_string = false;
        let mut before = ' ';
        for (at, c) in line.char_indices() {
            if !is_string && line[at..].starts_with("//") {
                break;
            }
            let is_quote = c == '"' && before != '\\' && before != '\'';
            if is_quote {
                is_string = !is_string;
            }
            code.push(if is_string { ' ' } else { c });
            before = if before == '\\' { ' ' } else { c };
        }
        code.push('\n');
    }
    code
}

/// The code without items that are compiled only for tests. Line numbers do not change.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = item_end(item);
        kept.extend(item[..end].chars().filter(|&c| c == '\n'));
        rest = &item[end..];
    }
    kept + rest
}

/// The end of the item at the start of the text: behind its block, or its semicolon if it has none.
fn item_end(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// One shortest circle for each group of modules that use each other, directly or indirectly.
fn circles(uses: &Uses) -> Vec<Vec<Module>> {
    let mut circles = Vec::new();
    let mut seen = BTreeSet::new();
    for start in uses.keys().filter(|module| !module.is_empty()) {
        if seen.contains(start) {
            continue;
        }
        if let Some(circle) = shortest_circle(uses, start) {
            seen.extend(circle.iter().cloned());
            circles.push(circle);
        }
    }
    circles
}

/// A shortest path of uses from a module back to itself.
fn shortest_circle(uses: &Uses, start: &Module) -> Option<Vec<Module>> {
    let mut came_from = BTreeMap::<&Module, &Module>::new();
    let mut front = vec![start];
    while !front.is_empty() {
        let mut next = Vec::new();
        for from in front {
            for to in uses.get(from).into_iter().flat_map(BTreeMap::keys) {
                if to == start {
                    let mut circle = vec![from.clone()];
                    let mut at = from;
                    while at != start {
                        at = came_from.get(at)?;
                        circle.push(at.clone());
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if !came_from.contains_key(to) {
                    came_from.insert(to, from);
                    next.push(to);
                }
            }
        }
        front = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let source = |(path, text): &(&str, &str)| Source {
            path: format!("crates/x/src/{path}"),
            text: (*text).to_owned(),
        };
        let sources: Vec<Source> = files.iter().map(source).collect();
        check(&sources).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_circle_of_imports_is_found() {
        let found = findings(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
            ("a.rs", "\nuse crate::b::{B, other};\n"),
            ("b.rs", "fn f() -> super::c::C { todo() }\n"),
            ("c/mod.rs", "use std::fmt;\nuse crate::{a::A as Other, unknown};\n"),
        ]);
        assert_eq!(found, ["crates/x/src/a.rs:2: modules use each other: a → b → c → a"]);
    }

    #[test]
    fn imports_in_one_direction_are_allowed() {
        let files = [
            ("lib.rs", "pub use crate::a::A;\n"),
            ("a.rs", "use crate::b::B;\n// use crate::a\n"),
            (
                "b.rs",
                "const TEXT: &str = \"crate::a::A\";\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n",
            ),
        ];
        assert_eq!(findings(&files), [] as [String; 0]);
    }

    #[test]
    fn a_module_and_its_submodules_are_one_unit() {
        let one_unit = [
            ("lib.rs", ""),
            ("a/mod.rs", "mod inner;\nuse inner::I;\nuse self::inner::J;\n"),
            ("a/inner.rs", "use super::Shared;\n"),
        ];
        assert_eq!(findings(&one_unit), [] as [String; 0]);
        let found = findings(&[
            ("lib.rs", ""),
            ("a/mod.rs", "use crate::b::B;\n"),
            ("a/inner.rs", "use super::Shared;\n"),
            ("b.rs", "use crate::a::inner::I;\n"),
        ]);
        assert_eq!(found, ["crates/x/src/a/mod.rs:1: modules use each other: a → b → a::inner → a"]);
    }

    #[test]
    fn every_path_of_a_use_tree_is_read() {
        let read = |text: &str| -> Vec<String> {
            paths(text).into_iter().map(|(_, path)| path.join("::")).collect()
        };
        assert_eq!(
            read("use crate::{a::{self, B as C}, d::*, e};"),
            ["crate::a::B", "crate::a::self", "crate::d", "crate::e"]
        );
        assert_eq!(read("let x = super::super::a::f::<u8>();"), ["super::super::a::f"]);
        assert_eq!(read("$crate::a::b!(my_crate::c)"), [] as [String; 0]);
    }
}
