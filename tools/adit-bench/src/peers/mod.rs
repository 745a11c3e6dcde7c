//! The contenders: Adit, and other ways to join two networks without encryption.
//!
//! A file a contender. Each says how it is started on a testbed, with the largest MTU that its
//! header leaves of the cable's: nothing is fragmented outside, which would cost it more than a
//! smaller MTU.

pub(crate) mod adit;
mod families;
mod fastd;
mod ipip;
mod openvpn;
mod tinc;
mod vpncloud;
mod vxlan;

use std::net::IpAddr;
use std::path::{self, PathBuf};
use std::time::{Duration, Instant};

use adit_lab::ping::ping;
use adit_lab::throughput::Flow;
use serde::{Serialize, Serializer};

use crate::error::BenchError;
use crate::interrupt;
use crate::process::Process;
use crate::testbed::{CABLE, CABLE_MTU, Shape, Testbed};

use adit::Flavour;
pub(crate) use families::Families;

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Contender {
    /// The cable itself.
    Bare,
    /// The eBPF plane.
    AditEbpf,
    /// The eBPF plane of an earlier `adit`, if one is given, to measure the cost of a change.
    AditBefore,
    /// The eBPF plane with 10,000 peers and 100,000 networks.
    AditMany,
    /// A second cable on a testbed of its own, which shows the noise.
    Control,
    /// The userspace plane.
    Adit,
    /// The userspace plane of the earlier `adit`.
    UserspaceBefore,
    /// The cable itself, with IPv6.
    BareV6,
    /// The eBPF plane with IPv6 inside or outside.
    EbpfOf(Families),
    /// The userspace plane with IPv6 inside or outside.
    UserspaceOf(Families),
    /// The kernel's VXLAN.
    Vxlan,
    /// The kernel's own IP in IP.
    Ipip,
    Tinc,
    Fastd,
    OpenVpn,
    Vpncloud,
}

impl Contender {
    pub(crate) const ALL: [Self; 20] = [
        Self::Bare,
        Self::AditEbpf,
        Self::AditBefore,
        Self::AditMany,
        Self::Control,
        Self::Adit,
        Self::UserspaceBefore,
        Self::BareV6,
        Self::EbpfOf(Families::SixInFour),
        Self::EbpfOf(Families::FourInSix),
        Self::EbpfOf(Families::SixInSix),
        Self::UserspaceOf(Families::SixInFour),
        Self::UserspaceOf(Families::FourInSix),
        Self::UserspaceOf(Families::SixInSix),
        Self::Vxlan,
        Self::Ipip,
        Self::Tinc,
        Self::Fastd,
        Self::OpenVpn,
        Self::Vpncloud,
    ];
    /// The others that run in userspace.
    pub(crate) const USERSPACE_PEERS: [Self; 4] = [Self::Tinc, Self::Fastd, Self::OpenVpn, Self::Vpncloud];

    /// Its name in the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare veth",
            Self::AditEbpf => "Adit, eBPF",
            Self::AditBefore => "Adit, eBPF, before",
            Self::AditMany => "Adit, eBPF, 10,000 peers",
            Self::Control => "bare veth, another",
            Self::Adit => "Adit, userspace",
            Self::UserspaceBefore => "Adit, userspace, before",
            Self::BareV6 => "bare veth, IPv6",
            Self::EbpfOf(families) => {
                families.pick(["Adit, eBPF, 6in4", "Adit, eBPF, 4in6", "Adit, eBPF, 6in6"])
            }
            Self::UserspaceOf(families) => {
                families.pick(["Adit, userspace, 6in4", "Adit, userspace, 4in6", "Adit, userspace, 6in6"])
            }
            Self::Vxlan => "kernel VXLAN",
            Self::Ipip => "Linux ipip",
            Self::Tinc => "tinc",
            Self::Fastd => "fastd",
            Self::OpenVpn => "OpenVPN",
            Self::Vpncloud => "vpncloud",
        }
    }

    /// Its name in the tables of a testbed.
    pub(crate) fn name_on(self, shape: Shape) -> &'static str {
        match (self, shape) {
            (Self::Bare, Shape::Chain) => "plain forwarding",
            (Self::Control, Shape::Chain) => "plain forwarding, another",
            _ => self.name(),
        }
    }

    /// Its name on the command line and in the JSON.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::AditEbpf => "adit-ebpf",
            Self::AditBefore => "adit-ebpf-before",
            Self::AditMany => "adit-ebpf-many",
            Self::Control => "control",
            Self::Adit => "adit",
            Self::UserspaceBefore => "adit-before",
            Self::BareV6 => "bare-ipv6",
            Self::EbpfOf(families) => families.pick(["adit-ebpf-6in4", "adit-ebpf-4in6", "adit-ebpf-6in6"]),
            Self::UserspaceOf(families) => families.pick(["adit-6in4", "adit-4in6", "adit-6in6"]),
            Self::Vxlan => "vxlan",
            Self::Ipip => "ipip",
            Self::Tinc => "tinc",
            Self::Fastd => "fastd",
            Self::OpenVpn => "openvpn",
            Self::Vpncloud => "vpncloud",
        }
    }

    /// How it is set up, in a few words.
    pub(crate) fn setup(self) -> &'static str {
        match self {
            Self::Bare | Self::Control | Self::BareV6 => "no tunnel",
            Self::EbpfOf(_) | Self::UserspaceOf(_) => "the same, with IPv6 inside or outside",
            Self::AditEbpf => "IP in IP, programs in the kernel",
            Self::AditBefore | Self::UserspaceBefore => "the same, of an earlier version",
            Self::AditMany => {
                "IP in IP, programs in the kernel, 100,000 networks of /24 to /28, the measured peer in the middle"
            }
            Self::Adit => "IP in IP, defaults",
            Self::Vxlan => "unicast, iproute2",
            Self::Ipip => "the kernel's driver, iproute2",
            Self::Tinc => "router mode, no cipher, no digest",
            Self::Fastd => "TUN, method null",
            Self::OpenVpn => "TUN over UDP, no cipher, no authentication, no TLS",
            Self::Vpncloud => "TUN, algorithm plain",
        }
    }

    /// The flavour of Adit, if it is one.
    pub(crate) fn flavour(self) -> Option<Flavour> {
        match self {
            Self::AditEbpf => Some(Flavour { dataplane: "ebpf", tag: "e", ..Flavour::DEFAULT }),
            Self::AditBefore => {
                Some(Flavour { dataplane: "ebpf", tag: "b", is_before: true, ..Flavour::DEFAULT })
            }
            Self::AditMany => {
                Some(Flavour { dataplane: "ebpf", tag: "m", is_large: true, ..Flavour::DEFAULT })
            }
            Self::Adit => Some(Flavour { dataplane: "userspace", tag: "u", ..Flavour::DEFAULT }),
            Self::UserspaceBefore => {
                Some(Flavour { dataplane: "userspace", tag: "v", is_before: true, ..Flavour::DEFAULT })
            }
            Self::EbpfOf(families) => Some(Flavour {
                dataplane: "ebpf",
                tag: families.pick(["e64", "e46", "e66"]),
                families: Some(families),
                ..Flavour::DEFAULT
            }),
            Self::UserspaceOf(families) => Some(Flavour {
                dataplane: "userspace",
                tag: families.pick(["u64", "u46", "u66"]),
                families: Some(families),
                ..Flavour::DEFAULT
            }),
            _ => None,
        }
    }

    /// Returns true for the eBPF plane, which forwards nothing in its processes.
    pub(crate) fn is_ebpf(self) -> bool {
        self.flavour().is_some_and(|flavour| flavour.dataplane == "ebpf")
    }

    /// Returns true if the report is incomplete without it. Other tunnels may not be installed.
    pub(crate) fn is_ours(self) -> bool {
        self.is_bare() || self.flavour().is_some_and(|flavour| !flavour.is_before)
    }

    /// Returns true if it forwards in a process, whose processor time can be measured.
    pub(crate) fn has_programs(self) -> bool {
        !self.is_bare() && !matches!(self, Self::Vxlan | Self::Ipip)
    }

    /// Returns true if it is a cable without a tunnel.
    pub(crate) fn is_bare(self) -> bool {
        matches!(self, Self::Bare | Self::Control | Self::BareV6)
    }

    /// Returns true if its testbed needs addresses of IPv6.
    fn needs_ipv6(self) -> bool {
        self == Self::BareV6 || self.flavour().is_some_and(|flavour| flavour.families.is_some())
    }
}

impl Serialize for Contender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.slug())
    }
}

/// The places of programs outside `PATH`.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// The `adit` that is measured.
    pub(crate) adit: PathBuf,
    /// An earlier one, to be measured beside it.
    pub(crate) before: Option<PathBuf>,
    /// Where `cargo install --root` put what comes from the crate registry.
    pub(crate) tools: PathBuf,
}

/// What a contender runs on its testbed.
struct Running {
    /// Where the receiving side is reached through it.
    server: IpAddr,
    /// Its programs, `a`'s first; none where the kernel does it.
    processes: Vec<Process>,
    /// Bytes of the largest datagram inside.
    mtu: u32,
    /// Of the program, as it says itself.
    version: Option<String>,
    /// What has to go with it, after its programs.
    _cleanup: Vec<adit::Cleanup>,
}

impl Running {
    fn plain(server: impl Into<IpAddr>, mtu: u32) -> Self {
        Self::of_programs(server, mtu, Vec::new(), None)
    }

    fn of_programs(
        server: impl Into<IpAddr>,
        mtu: u32,
        processes: Vec<Process>,
        version: Option<String>,
    ) -> Self {
        Self { server: server.into(), processes, mtu, version, _cleanup: Vec::new() }
    }
}

/// A contender that is up, from both sides.
pub(crate) struct Tunnel {
    running: Running,
    /// What it is up on.
    pub(crate) testbed: Testbed,
    /// Bytes of the largest datagram inside.
    pub(crate) mtu: u32,
    /// Of the program, as it says itself.
    pub(crate) version: Option<String>,
}

/// Time for two sides to find each other.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for one echo.
const ECHO: Duration = Duration::from_millis(200);
/// Bytes of the first echo: small.
const SMALL: usize = 84;

impl Tunnel {
    /// Builds a testbed, starts a contender on both sides of it and proves that it carries a small
    /// datagram, one as large as its MTU, and that neither goes over the bare cable.
    pub(crate) fn start(
        contender: Contender,
        shape: Shape,
        directory: &path::Path,
        tools: &Tools,
    ) -> Result<Self, BenchError> {
        interrupt::check()?;
        let testbed = Testbed::build(shape, directory.join(format!("{}-{shape:?}", contender.slug())))?;
        if contender.needs_ipv6() {
            testbed.add_ipv6()?;
        }
        let running = match (contender, contender.flavour()) {
            (_, Some(flavour)) => adit::start(&testbed, tools, flavour)?,
            (Contender::Vxlan, _) => vxlan::start(&testbed)?,
            (Contender::Ipip, _) => ipip::start(&testbed)?,
            (Contender::Tinc, _) => tinc::start(&testbed)?,
            (Contender::Fastd, _) => fastd::start(&testbed)?,
            (Contender::OpenVpn, _) => openvpn::start(&testbed)?,
            (Contender::Vpncloud, _) => vpncloud::start(&testbed, tools)?,
            (Contender::BareV6, _) => Running::plain(testbed.sides[1].underlay_v6(), CABLE_MTU),
            _ => bare(&testbed)?,
        };
        let (mtu, version) = (running.mtu, running.version.clone());
        let tunnel = Self { running, testbed, mtu, version };
        tunnel.prove(contender)?;
        Ok(tunnel)
    }

    /// Where the receiving side is reached through it.
    pub(crate) fn server(&self) -> IpAddr {
        self.running.server
    }

    /// Its programs.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.running.processes.iter()
    }

    /// Asks its programs to end.
    pub(crate) fn end(&mut self, patience: Duration) -> Result<(), BenchError> {
        self.running.processes.iter_mut().try_for_each(|process| process.end(patience))
    }

    /// The way from the sending side to the receiving one.
    pub(crate) fn path(&self) -> Flow<'_> {
        let [a, b] = &self.testbed.sides;
        Flow { client: &a.end, server: &b.end, address: self.server() }
    }

    fn prove(&self, contender: Contender) -> Result<(), BenchError> {
        let side = &self.testbed.sides[0];
        let cable = side.host.index(CABLE)?;
        let route = side.host.netlink()?.route_to(self.server(), None)?;
        if contender.is_bare() != (route.device == cable) {
            return Err(BenchError::Bypassed);
        }
        for size in [SMALL, self.mtu as usize] {
            let deadline = Instant::now() + READY_TIMEOUT;
            while !side.end.run(|| ping(self.server(), size, 64, ECHO))?.is_reply() {
                interrupt::check()?;
                if Instant::now() >= deadline {
                    let what = format!("answer a ping of {size} bytes");
                    return Err(match self.running.processes.first() {
                        Some(process) => process.silent(&what, READY_TIMEOUT),
                        None => BenchError::Silent {
                            name: contender.name().to_owned(),
                            what,
                            patience: READY_TIMEOUT,
                            said: "nothing".to_owned(),
                        },
                    });
                }
            }
        }
        Ok(())
    }
}

/// No tunnel: the private networks are routed over the cable.
fn bare(testbed: &Testbed) -> Result<Running, BenchError> {
    for side in &testbed.sides {
        side.host.route(side.other_private_network(), Some(side.other_underlay()), None)?;
    }
    let server =
        if testbed.sides[1].is_gateway() { testbed.sides[1].private() } else { testbed.sides[1].underlay() };
    Ok(Running::plain(server, CABLE_MTU))
}

/// The version of what the kernel does.
fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}
