//! The rule about the order of the crates: each depends only on crates below it, and a crate that
//! ships depends on none that only tests or measures. So the program does not link the test bed.

use std::process::Command;

use serde::Deserialize;

use super::Finding;
use crate::run;

/// The crates that ship, from top to bottom.
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
    /// `dev` or `build`; `None` for a normal dependency.
    kind: Option<String>,
}

/// Finds dependencies that break the order.
///
/// # Errors
/// Fails if `cargo metadata` fails.
pub(super) fn check() -> Result<Vec<Finding>, String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(run::root());
    let metadata = run::output(&mut command)
        .ok_or("cannot read the dependencies of the crates from `cargo metadata`")?;
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
            find(format!(
                "{} has no place in the order of crates: add it to ORDER in {}",
                package.name,
                file!()
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|one| one.kind.as_deref() != Some("dev")) {
            let name = &dependency.name;
            let is_tool = packages.iter().any(|other| other.name == *name && !ships(other));
            if is_tool {
                find(format!("{} ships, but depends on {name}, which does not", package.name));
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
    fn a_crate_may_depend_on_crates_below_it_and_on_foreign_ones() {
        let dependencies = [("adit-wire", None), ("libc", None), ("adit-testbed", Some("dev"))];
        assert_eq!(messages(&dependencies), [] as [String; 0]);
    }

    #[test]
    fn a_dependency_on_a_higher_crate_or_on_a_tool_is_found() {
        assert_eq!(
            messages(&[("adit-control", None), ("adit-testbed", None)]),
            [
                "crates/adit-linux/Cargo.toml: adit-linux depends on adit-control, which is above it",
                "crates/adit-linux/Cargo.toml: adit-linux ships, but depends on adit-testbed, which does not",
            ]
        );
    }

    #[test]
    fn a_new_crate_needs_a_place_in_the_order() {
        let found = check_packages(&[package("crates/adit-new", &[])]);
        assert!(found[0].message.starts_with("adit-new has no place"), "{found:?}");
    }
}
