//! Data planes as a parameter of tests.

use adit_config::DataplaneChoice;

/// How the configuration calls a data plane.
#[must_use]
pub fn word(plane: DataplaneChoice) -> &'static str {
    match plane {
        DataplaneChoice::Auto => "auto",
        DataplaneChoice::Ebpf => "ebpf",
        DataplaneChoice::Userspace => "userspace",
        DataplaneChoice::Kernel => "kernel",
    }
}

/// A configuration that names no data plane, with this one.
#[must_use]
pub fn with_plane(config: &str, plane: DataplaneChoice) -> String {
    config.replacen("[site]\n", &format!("[site]\ndataplane = \"{}\"\n", word(plane)), 1)
}
