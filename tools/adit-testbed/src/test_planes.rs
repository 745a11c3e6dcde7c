//! Data planes as a parameter of tests: their names, and whether this machine supports them.

use std::sync::OnceLock;

use adit_config::{Config, DataplaneChoice};
use adit_control::reconcile::desired::{Machine, tunnel_config};
use adit_dataplane::ebpf;
use adit_linux::testing;
use adit_tunnel::Tunnel;

use adit_lab::two_sites::{CONFIG_A, UNDERLAY_A};

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

/// Loads the eBPF data plane's programs to see whether this kernel accepts them from this process.
/// The answer is cached, because the verifier takes a while.
///
/// # Errors
/// Describes why the programs cannot be loaded.
pub fn ebpf_support() -> Result<(), &'static str> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(load_programs).as_ref().copied().map_err(String::as_str)
}

fn load_programs() -> Result<(), String> {
    let config = Config::parse("a.toml", CONFIG_A).map_err(|problems| problems.to_string())?;
    let machine = Machine { underlay: UNDERLAY_A, local: vec![UNDERLAY_A], underlay_mtu: 1500, vrf: None };
    let tunnel = Tunnel::new(tunnel_config(&config, &machine)).map_err(|error| error.to_string())?;
    ebpf::probe(&tunnel).map_err(|error| error.to_string())
}

/// Returns true if the test called `test`, which makes network namespaces, can run on this data
/// plane.
///
/// # Panics
/// As [`testing::require`].
#[doc(hidden)]
#[must_use]
pub fn require(test: &str, plane: DataplaneChoice) -> bool {
    if !testing::require_root(test) {
        return false;
    }
    let lacks = if plane == DataplaneChoice::Ebpf { ebpf_support().err() } else { None };
    testing::require(test, lacks.is_none(), &format!("eBPF: {}", lacks.unwrap_or_default()))
}
