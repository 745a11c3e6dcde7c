//! Data planes as a parameter of tests.

use adit_config::DataplaneChoice;

/// The name of a data plane in a configuration.
#[must_use]
pub fn plane_name(plane: DataplaneChoice) -> &'static str {
    match plane {
        DataplaneChoice::Auto => "auto",
        DataplaneChoice::Ebpf => "ebpf",
        DataplaneChoice::Userspace => "userspace",
        DataplaneChoice::Kernel => "kernel",
    }
}

/// Adds a data plane to a configuration that names none.
#[must_use]
pub fn with_plane(config: &str, plane: DataplaneChoice) -> String {
    config.replacen("[site]\n", &format!("[site]\ndataplane = \"{}\"\n", plane_name(plane)), 1)
}
