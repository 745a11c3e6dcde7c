//! The order of the crates: each depends only on crates below it, and what ships on nothing that
//! only tests and measures. So the program links no test bed.

use std::process::Command;

use serde::Deserialize;

use super::Finding;
use crate::run;

/// What ships, from the top to the bottom.
const ORDER: &[&str] = &[
    "adit",
    "adit-lab",
    "adit-control",
    "adit-dataplane",
    "adit-linux",
    "adit-config",
    "adit-tunnel",
    "adit-policy",
    "adit-peers",
    "adit-wire",
];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// None for what the program is built from.
    kind: Option<String>,
}

/// # Errors
/// Cargo cannot say what depends on what.
pub(super) fn check() -> Result<Vec<Finding>, String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(run::root());
    let metadata = run::output(&mut command).ok_or("cannot learn from cargo what depends on what")?;
    let metadata: Metadata = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    Ok(check_packages(&metadata.packages))
}

fn check_packages(packages: &[Package]) -> Vec<Finding> {
    let ships = |package: &Package| package.manifest_path.contains("/crates/");
    let rank = |name: &str| ORDER.iter().position(|known| *known == name);
    let mut findings = Vec::new();
    for package in packages.iter().filter(|package| ships(package)) {
        let mut find = |message| {
            let file = package.manifest_path.split("/crates/").last().unwrap_or_default();
            findings.push(Finding { file: format!("crates/{file}"), line: 0, message });
        };
        let Some(own) = rank(&package.name) else {
            find(format!("{} has no place in the order of crates, {}", package.name, file!()));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|one| one.kind.as_deref() != Some("dev")) {
            let name = &dependency.name;
            let is_tool = packages.iter().any(|other| other.name == *name && !ships(other));
            if is_tool {
                find(format!("{} ships, and depends on {name}, which does not", package.name));
            } else if rank(name).is_some_and(|below| below <= own) {
                find(format!("{} depends on {name}, which is above it", package.name));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(path: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        Package {
            name: path.rsplit('/').next().unwrap().to_owned(),
            manifest_path: format!("/w/{path}/Cargo.toml"),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
                .collect(),
        }
    }

    fn messages(dependencies: &[(&str, Option<&str>)]) -> Vec<String> {
        let packages = [package("crates/adit-linux", dependencies), package("tools/adit-testbed", &[])];
        check_packages(&packages).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_crate_may_depend_on_those_below_and_on_others() {
        let dependencies = [("adit-wire", None), ("libc", None), ("adit-testbed", Some("dev"))];
        assert_eq!(messages(&dependencies), [] as [String; 0]);
    }

    #[test]
    fn what_points_up_or_to_a_tool_is_found() {
        assert_eq!(
            messages(&[("adit-control", None), ("adit-testbed", None)]),
            [
                "crates/adit-linux/Cargo.toml: adit-linux depends on adit-control, which is above it",
                "crates/adit-linux/Cargo.toml: adit-linux ships, and depends on adit-testbed, which does not",
            ]
        );
    }

    #[test]
    fn a_new_crate_needs_a_place_in_the_order() {
        let found = check_packages(&[package("crates/adit-new", &[])]);
        assert!(found[0].message.starts_with("adit-new has no place"), "{found:?}");
    }
}
