//! A Debian package on a machine of a test's own, whose `/usr`, `/etc` and `/var` are layers over
//! those of the real one; so it is the real dpkg with the real list of packages, and nothing of it
//! stays.

use std::path::PathBuf;
use std::process::Command;

use adit_linux::netns::NetNs;

use super::Said;
use super::machine::Machine;

/// What a package changes.
pub(crate) const LAYERS: [&str; 3] = ["/usr", "/etc", "/var"];
/// The installed program.
pub(crate) const ADIT: &str = "/usr/bin/adit";

/// A package that `cargo xtask deb --test` has built.
pub(crate) fn package(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.filter(|path| path.is_file())
        .unwrap_or_else(|| panic!("{variable} names no package: run `cargo xtask deb --test`"))
}

/// dpkg on that machine; done, whatever it has to tell.
#[track_caller]
pub(crate) fn dpkg(machine: &Machine, arguments: &[&str]) -> Said {
    let mut command = Command::new("dpkg");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    machine.run(&NetNs::current().unwrap(), &mut command).with(0)
}
