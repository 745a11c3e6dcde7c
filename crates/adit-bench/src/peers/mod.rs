//! What Adit is measured against: other ways to join two networks, each without encryption.
//!
//! A file a contender. Each says how it is started on the bed, on addresses of its own, with the
//! largest MTU that its header leaves of the cable's: nothing is fragmented outside, which would
//! cost it more than a smaller MTU.

mod adit;
mod fastd;
mod openvpn;
mod tinc;
mod vpncloud;
mod vxlan;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use adit_lab::ping::ping;
use adit_lab::throughput::Path;
use serde::Serialize;

use crate::bed::{Bed, CABLE};
use crate::error::BenchError;
use crate::interrupt;
use crate::process::Process;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Contender {
    /// The cable itself.
    Bare,
    /// The userspace plane.
    Adit,
    /// The kernel's VXLAN: the one tunnel here that does not run in userspace.
    Vxlan,
    Tinc,
    Fastd,
    OpenVpn,
    Vpncloud,
}

impl Contender {
    /// In the order of the tables, and of a round.
    pub(crate) const ALL: [Self; 7] =
        [Self::Bare, Self::Adit, Self::Vxlan, Self::Tinc, Self::Fastd, Self::OpenVpn, Self::Vpncloud];
    /// The others that run in userspace.
    pub(crate) const USERSPACE_PEERS: [Self; 4] = [Self::Tinc, Self::Fastd, Self::OpenVpn, Self::Vpncloud];

    /// What the tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare veth",
            Self::Adit => "Adit, userspace",
            Self::Vxlan => "kernel VXLAN",
            Self::Tinc => "tinc",
            Self::Fastd => "fastd",
            Self::OpenVpn => "OpenVPN",
            Self::Vpncloud => "vpncloud",
        }
    }

    /// How it is set up, in a few words.
    pub(crate) fn setup(self) -> &'static str {
        match self {
            Self::Bare => "no tunnel",
            Self::Adit => "IP in IP, defaults",
            Self::Vxlan => "unicast, iproute2",
            Self::Tinc => "router mode, no cipher, no digest",
            Self::Fastd => "TUN, method null",
            Self::OpenVpn => "TUN over UDP, no cipher, no authentication, no TLS",
            Self::Vpncloud => "TUN, algorithm plain",
        }
    }
}

/// Where programs are that are not in `PATH`.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// The `adit` that is measured.
    pub(crate) adit: PathBuf,
    /// Where `cargo install --root` put what comes from the crate registry.
    pub(crate) tools: PathBuf,
}

/// A contender that is up, from both sides.
pub(crate) struct Tunnel {
    /// Where the receiving side is reached through it.
    pub(crate) server: Ipv4Addr,
    /// Its programs, `a`'s first; none where the kernel does it.
    pub(crate) processes: Vec<Process>,
    /// Bytes of the largest datagram inside.
    pub(crate) mtu: u32,
    /// Of the program, as it says itself.
    pub(crate) version: Option<String>,
    /// What has to go with it, after its programs.
    _cleanup: Option<adit::Cleanup>,
}

/// Time for two sides to find each other.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time for one echo.
const ECHO: Duration = Duration::from_millis(200);
/// Bytes of the first echo: small.
const SMALL: usize = 84;

impl Tunnel {
    /// Starts a contender on both sides and proves that it carries a small datagram, one as
    /// large as its MTU, and that neither goes over the bare cable.
    pub(crate) fn start(contender: Contender, bed: &Bed, tools: &Tools) -> Result<Self, BenchError> {
        interrupt::check()?;
        let tunnel = match contender {
            Contender::Bare => Self::plain(bed.sides[1].underlay(), crate::bed::CABLE_MTU),
            Contender::Adit => adit::start(bed, tools)?,
            Contender::Vxlan => vxlan::start(bed)?,
            Contender::Tinc => tinc::start(bed)?,
            Contender::Fastd => fastd::start(bed)?,
            Contender::OpenVpn => openvpn::start(bed)?,
            Contender::Vpncloud => vpncloud::start(bed, tools)?,
        };
        tunnel.prove(contender, bed)?;
        Ok(tunnel)
    }

    fn plain(server: Ipv4Addr, mtu: u32) -> Self {
        Self { server, processes: Vec::new(), mtu, version: None, _cleanup: None }
    }

    fn of_programs(server: Ipv4Addr, mtu: u32, processes: Vec<Process>, version: Option<String>) -> Self {
        Self { server, processes, mtu, version, _cleanup: None }
    }

    /// The way from the sending side to the receiving one.
    pub(crate) fn path<'a>(&self, bed: &'a Bed) -> Path<'a> {
        Path { client: &bed.sides[0].host, server: &bed.sides[1].host, address: self.server }
    }

    fn prove(&self, contender: Contender, bed: &Bed) -> Result<(), BenchError> {
        let client = &bed.sides[0].host;
        let cable = client.index(CABLE)?;
        let route = client.netlink()?.route_to(self.server, None)?;
        if contender != Contender::Bare && route.device == cable {
            return Err(BenchError::Bypassed);
        }
        for size in [SMALL, self.mtu as usize] {
            let deadline = Instant::now() + PATIENCE;
            while !client.run(|| ping(self.server, size, 64, ECHO))?.is_reply() {
                interrupt::check()?;
                if Instant::now() >= deadline {
                    let what = format!("answer a ping of {size} bytes");
                    return Err(match self.processes.first() {
                        Some(process) => process.silent(&what, PATIENCE),
                        None => BenchError::Silent {
                            name: contender.name().to_owned(),
                            what,
                            patience: PATIENCE,
                            said: "nothing".to_owned(),
                        },
                    });
                }
            }
        }
        Ok(())
    }
}
