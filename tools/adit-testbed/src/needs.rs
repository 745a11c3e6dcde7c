//! Needs of tests that only Adit can check: what this kernel has and lets this process do. They are
//! for the `#[test]` of adit-harness, and return an error that completes "needs ...".

use std::path::Path;
use std::sync::OnceLock;

use adit_config::Config;
use adit_control::reconcile::desired::{Machine, tunnel_config};
use adit_dataplane::ebpf as programs;
use adit_lab::host::Host;
use adit_lab::two_sites::{CONFIG_A, UNDERLAY_A, UNDERLAY_B};
use adit_linux::netlink::{IpTunnel, Netlink, TunnelDriver};
use adit_linux::netns::NetNs;
use adit_tunnel::Tunnel;

/// The kernel takes the programs of the eBPF data plane from this process. Asked once: the verifier
/// takes its time.
///
/// # Errors
/// It refuses them; the error is the kernel's, in words.
pub fn ebpf() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(|| probe().map_err(|error| format!("eBPF: {error}"))).clone()
}

fn probe() -> Result<(), String> {
    let config = Config::parse("a.toml", CONFIG_A).map_err(|problems| problems.to_string())?;
    let machine = Machine {
        underlay: UNDERLAY_A.into(),
        local: vec![UNDERLAY_A.into()],
        underlay_mtu: 1500,
        vrf: None,
    };
    let tunnel = Tunnel::new(tunnel_config(&config, &machine)).map_err(|error| error.to_string())?;
    programs::probe(&tunnel).map_err(|error| error.to_string())
}

/// TUN interfaces, and socat to join two of them.
///
/// # Errors
/// The device or the program is missing.
pub fn tun() -> Result<(), String> {
    let has_socat = std::process::Command::new("socat").arg("-V").output().is_ok();
    if has_socat && Path::new("/dev/net/tun").exists() {
        Ok(())
    } else {
        Err("/dev/net/tun and socat (Debian: `apt install socat`)".to_owned())
    }
}

/// The qdisc fq_codel.
///
/// # Errors
/// The kernel has none.
pub fn fq_codel() -> Result<(), String> {
    let tried = Host::new("fq_codel")
        .and_then(|host| host.program("tc", &["qdisc", "add", "dev", "lo", "root", "fq_codel"]));
    tried.map_err(|_| "the kernel's fq_codel: `cargo xtask vm test` has it".to_owned())
}

/// SCTP, which many kernels of build machines lack, and Python to speak it.
///
/// # Errors
/// The kernel has none, or python3 is not installed.
pub fn sctp() -> Result<(), String> {
    const ATTEMPT: &str = "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)";
    let tried = Host::new("sctp").and_then(|host| host.program("python3", &["-c", ATTEMPT]));
    tried.map(drop).map_err(|_| "python3 and the kernel's SCTP: `cargo xtask vm test` has both".to_owned())
}

/// TCX, the hook of programs since Linux 6.6.
///
/// # Errors
/// This kernel is older.
pub fn tcx() -> Result<(), String> {
    match programs::Hook::of_this_kernel() {
        programs::Hook::Tcx => Ok(()),
        programs::Hook::Clsact => Err("TCX (Linux 6.6)".to_owned()),
    }
}

/// Linux's own ipip driver, which many kernels of build machines lack.
///
/// # Errors
/// There is none.
pub fn ipip() -> Result<(), String> {
    if has_ipip() {
        Ok(())
    } else {
        Err("the kernel's ipip driver: `cargo xtask vm test` runs this where it is".to_owned())
    }
}

/// Linux's own sit driver, which many kernels of build machines lack.
///
/// # Errors
/// There is none.
pub fn sit() -> Result<(), String> {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    driver(&ANSWER, "sit", "sit local 192.0.2.1 remote 192.0.2.2")
}

/// Linux's own ip6tnl driver, which many kernels of build machines lack.
///
/// # Errors
/// There is none.
pub fn ip6tnl() -> Result<(), String> {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    driver(&ANSWER, "ip6tnl", "ip6tnl mode any local 2001:db8::1 remote 2001:db8::2")
}

/// Whether an interface of this type can be made. The kernel loads the driver for it.
fn driver(answer: &OnceLock<bool>, name: &str, link: &str) -> Result<(), String> {
    let make: Vec<&str> = ["link", "add", "probe", "type"].into_iter().chain(link.split(' ')).collect();
    let is_met =
        *answer.get_or_init(|| Host::new("probe").is_ok_and(|host| host.program("ip", &make).is_ok()));
    if is_met {
        Ok(())
    } else {
        Err(format!("the kernel's {name} driver: `cargo xtask vm test` runs this where it is"))
    }
}

/// A kernel without an ipip driver, for what is said there.
///
/// # Errors
/// There is one.
pub fn no_ipip() -> Result<(), String> {
    if has_ipip() { Err("a kernel without an ipip driver".to_owned()) } else { Ok(()) }
}

fn has_ipip() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    let parameters = IpTunnel::between(TunnelDriver::Ipip, UNDERLAY_A.into(), Some(UNDERLAY_B.into()));
    let make = || Netlink::open().and_then(|mut netlink| netlink.add_tunnel("probe", 1480, &parameters));
    *ANSWER.get_or_init(|| NetNs::fresh().and_then(|ns| ns.run(make)).is_ok_and(|made| made.is_ok()))
}

/// The kernel's virtual routing and forwarding (VRF), which many kernels of build machines lack.
///
/// # Errors
/// It has none.
pub fn vrf() -> Result<(), String> {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    let make = ["link", "add", "probe", "type", "vrf", "table", "10"];
    let is_met =
        *ANSWER.get_or_init(|| Host::new("probe").is_ok_and(|host| host.program("ip", &make).is_ok()));
    if is_met {
        Ok(())
    } else {
        Err("the kernel's VRFs: `cargo xtask vm test` runs this where they are".to_owned())
    }
}

/// IPsec's ESP, which many kernels of build machines lack.
///
/// # Errors
/// The kernel has none.
pub fn esp() -> Result<(), String> {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    let state = "xfrm state add src 10.1.1.1 dst 10.1.1.2 proto esp spi 0x100 mode transport \
                 aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128";
    let add = |host: Host| host.program("ip", &state.split_whitespace().collect::<Vec<_>>());
    let is_met = *ANSWER.get_or_init(|| Host::new("probe").and_then(add).is_ok());
    if is_met {
        Ok(())
    } else {
        Err("the kernel's ESP: `cargo xtask vm test` runs this where it is".to_owned())
    }
}

/// WireGuard, and wg-quick to start it.
///
/// # Errors
/// The kernel or the machine has none.
pub fn wireguard() -> Result<(), String> {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    let make = ["link", "add", "probe", "type", "wireguard"];
    let has_driver =
        *ANSWER.get_or_init(|| Host::new("probe").is_ok_and(|host| host.program("ip", &make).is_ok()));
    if has_driver && Path::new("/usr/bin/wg-quick").exists() {
        Ok(())
    } else {
        Err("WireGuard and wg-quick: `cargo xtask vm test` runs this where they are".to_owned())
    }
}

/// strongSwan's daemon and swanctl.
///
/// # Errors
/// One of them is missing.
pub fn strongswan() -> Result<(), String> {
    if ["charon-systemd", "swanctl"].iter().all(|name| Path::new("/usr/sbin").join(name).exists()) {
        Ok(())
    } else {
        Err("strongSwan (Debian: `apt install charon-systemd strongswan-swanctl`)".to_owned())
    }
}
