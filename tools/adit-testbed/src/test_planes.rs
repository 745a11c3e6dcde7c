//! Data planes as a parameter of tests.

use std::sync::OnceLock;

use adit_config::{Config, DataplaneChoice};
use adit_control::reconcile::desired::{Machine, tunnel_config};
use adit_dataplane::ebpf;
use adit_linux::testing;
use adit_tunnel::Tunnel;

use adit_lab::two_sites::{CONFIG_A, UNDERLAY_A};

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

/// Whether this kernel takes the programs of the eBPF data plane from this process. Asked once: the
/// verifier takes its time.
///
/// # Errors
/// Why not, in words.
pub fn ebpf() -> Result<(), &'static str> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(probe).as_ref().copied().map_err(String::as_str)
}

fn probe() -> Result<(), String> {
    let config = Config::parse("a.toml", CONFIG_A).map_err(|problems| problems.to_string())?;
    let machine = Machine { underlay: UNDERLAY_A, local: vec![UNDERLAY_A], underlay_mtu: 1500, vrf: None };
    let tunnel = Tunnel::new(tunnel_config(&config, &machine)).map_err(|error| error.to_string())?;
    ebpf::probe(&tunnel).map_err(|error| error.to_string())
}

/// Whether the test called `test` can run on this data plane: it makes network namespaces.
///
/// # Panics
/// As [`testing::require`].
#[doc(hidden)]
#[must_use]
pub fn require(test: &str, plane: DataplaneChoice) -> bool {
    if !testing::require_root(test) {
        return false;
    }
    let lacks = if plane == DataplaneChoice::Ebpf { ebpf().err() } else { None };
    testing::require(test, lacks.is_none(), &format!("eBPF: {}", lacks.unwrap_or_default()))
}
