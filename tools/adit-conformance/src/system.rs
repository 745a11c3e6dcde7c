//! The systems under test, and how each is configured.

use adit_control::Overlay;
use adit_lab::LabError;
use adit_lab::host::Host;
use adit_lab::two_sites::bring_up;
use adit_tunnel::DropReason;

use crate::error::Error;
use crate::kernel_log;
use crate::site::{Families, INSIDE, INSIDE6, OURS, OURS6, Site, UNDERLAY, UNDERLAY6};

/// A system under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Userspace,
    Ebpf,
    Linux,
}

impl System {
    pub(crate) const ALL: [Self; 3] = [Self::Userspace, Self::Ebpf, Self::Linux];

    /// The name in file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
            Self::Ebpf => "ebpf",
            Self::Linux => "linux",
        }
    }

    /// The name in the document.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Userspace => "Adit userspace",
            Self::Ebpf => "Adit eBPF",
            Self::Linux => "Linux",
        }
    }

    pub(crate) fn is_adit(self) -> bool {
        self != Self::Linux
    }
}

/// The tunnel's configuration. Most rows observe the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setup {
    /// Adit's defaults; Linux's (`pmtudisc`, `ttl inherit`).
    Default,
    /// A fixed outer TTL: Adit's default, and Linux with `ttl 64`.
    FixedTtl,
    /// The outer TTL is the inner one: Linux's default.
    InheritedTtl,
    /// RFC 6040's compatibility mode.
    Compatibility,
    /// The outer TOS is the inner one: Adit's default, and Linux with `tos inherit`.
    InheritedTos,
    /// A fixed outer DSCP, 46.
    FixedDscp,
    /// No path MTU discovery inside the tunnel.
    NoDiscovery,
    /// Networks of IPv6 behind the same underlay: Linux's sit with `ttl 64`.
    SixInFour,
    /// An underlay of IPv6: Linux's ip6tnl with `encaplimit none`.
    OverIpv6,
}

impl Setup {
    /// Lines for `[tunnel]`, without probes, because the scripted router cannot answer them.
    fn adit(self) -> &'static str {
        match self {
            Self::Default | Self::FixedTtl | Self::InheritedTos | Self::SixInFour | Self::OverIpv6 => {
                "probe = false"
            }
            Self::InheritedTtl => "probe = false\nttl = \"inherit\"",
            Self::Compatibility => "probe = false\necn = \"compatibility\"",
            Self::FixedDscp => "probe = false\ndscp = 46",
            Self::NoDiscovery => "probe = false\ndf = false",
        }
    }

    /// Arguments of `ip link add type ipip`, or `None` if Linux lacks the mode.
    pub(crate) fn linux(self) -> Option<&'static str> {
        match self {
            Self::Default | Self::InheritedTtl => Some(""),
            Self::FixedTtl => Some("ttl 64"),
            Self::Compatibility => None,
            Self::InheritedTos => Some("tos inherit"),
            Self::FixedDscp => Some("tos 0xb8"),
            Self::NoDiscovery => Some("nopmtudisc"),
            Self::SixInFour => Some("ttl 64"),
            Self::OverIpv6 => Some("encaplimit none hoplimit 64"),
        }
    }

    /// The families of the tunnel.
    pub(crate) fn families(self) -> Families {
        match self {
            Self::SixInFour => Families::SixInFour,
            Self::OverIpv6 => Families::OverIpv6,
            _ => Families::OverIpv4,
        }
    }

    /// Returns true if both configure a system alike, so that one testbed serves both.
    pub(crate) fn is_same_testbed(self, other: Self, system: System) -> bool {
        if self.families() != other.families() {
            return false;
        }
        match system {
            // Every site has a tunnel interface of its own, made on demand.
            System::Linux => true,
            System::Userspace | System::Ebpf => self.adit() == other.adit(),
        }
    }
}

/// The tunnel of the gateway under test.
pub(crate) enum Tunnel {
    Adit(Box<Overlay>),
    Linux(Host),
}

impl Tunnel {
    /// Brings it up: Adit's with all sites as peers, Linux's without any.
    pub(crate) fn bring_up(system: System, setup: Setup, gateway: &Host) -> Result<Self, Error> {
        if system == System::Linux {
            return Ok(Self::Linux(gateway.clone()));
        }
        let families = setup.families();
        let peers: String = Site::all().map(|site| site.config(families)).collect();
        let underlay = match families {
            Families::OverIpv4 | Families::SixInFour => UNDERLAY.to_string(),
            Families::OverIpv6 => UNDERLAY6.to_string(),
        };
        let networks = match families {
            Families::OverIpv4 => format!("\"{OURS}\""),
            Families::SixInFour | Families::OverIpv6 => format!("\"{OURS}\", \"{OURS6}\""),
        };
        let config = format!(
            "[site]\nname = \"gateway\"\nunderlay = \"{underlay}\"\nnetworks = [{networks}]\ndataplane = \"{}\"\n\
             [tunnel]\n{}\n{peers}",
            system.name(),
            setup.adit()
        );
        Ok(Self::Adit(Box::new(bring_up(gateway, &config)?)))
    }

    /// Makes this site a peer with this setup.
    pub(crate) fn add(&self, site: Site, setup: Setup) -> Result<(), Error> {
        let (Self::Linux(gateway), Some(arguments)) = (self, setup.linux()) else { return Ok(()) };
        let (device, remote) = (site.device(), site.underlay());
        let kind = match setup.families() {
            Families::OverIpv4 => format!("ipip local {UNDERLAY} remote {remote}"),
            Families::SixInFour => format!("sit local {UNDERLAY} remote {remote}"),
            Families::OverIpv6 => {
                format!("ip6tnl mode any local {UNDERLAY6} remote {}", site.underlay_v6())
            }
        };
        let mut batch = format!("link add name {device} type {kind} {arguments}\nlink set {device} up\n");
        if setup.families() != Families::SixInFour {
            batch += &format!("route add {} dev {device} src {INSIDE}\n", site.network());
        }
        if setup.families() != Families::OverIpv4 {
            batch += &format!("route add {} dev {device} src {INSIDE6}\n", site.network_v6());
        }
        ip(gateway, &batch)
    }

    /// The number of datagrams with a CE mark that it has counted from a site, or `None` if it does
    /// not count them.
    pub(crate) fn congestion_counted(&self, site: Site) -> Option<u64> {
        match self {
            Self::Adit(overlay) => {
                overlay.plane().totals().peers.get(site.index()).map(|peer| peer.congestion_experienced)
            }
            Self::Linux(_) => None,
        }
    }

    /// The number of ICMP errors from the underlay that it has inspected, or `None` if it does not
    /// count them.
    pub(crate) fn errors_counted(&self) -> Option<u64> {
        let Self::Adit(overlay) = self else { return None };
        let totals = overlay.plane().totals();
        let refused = [
            DropReason::IcmpMalformed,
            DropReason::IcmpUnbelievable,
            DropReason::IcmpNotRelayed,
            DropReason::IcmpNotAnswerable,
            DropReason::IcmpRateLimited,
        ];
        let refused: u64 = refused.into_iter().map(|reason| totals.drops_of(reason)).sum();
        let icmp = totals.icmp;
        Some(icmp.relayed + icmp.state_changed + icmp.not_ours + refused)
    }

    /// The number of unexpected pairs of ECN fields that it has counted or logged from a site.
    pub(crate) fn oddities_noted(&self, site: Site) -> Result<u64, Error> {
        match self {
            Self::Adit(overlay) => Ok(overlay.plane().totals().ecn_anomalies.iter().sum()),
            Self::Linux(_) => kernel_log::lines_with(&format!("from {} with TOS", site.underlay())),
        }
    }
}

/// Returns true if this kernel has the driver. May load its module.
pub(crate) fn has_driver() -> Result<bool, Error> {
    let host = Host::new("a host to try the driver on")?;
    let remote = Site::all().next().map_or(UNDERLAY, Site::underlay);
    match ip(&host, &format!("link add name try0 type ipip local {UNDERLAY} remote {remote}\n")) {
        Ok(()) => Ok(true),
        Err(Error::Lab(LabError::Program { said, .. })) if said.contains("Unknown device type") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs lines of the `ip` program (Debian: iproute2) on a host.
pub(crate) fn ip(host: &Host, lines: &str) -> Result<(), Error> {
    Ok(host.program_with_input("ip", &["-batch", "-"], lines)?)
}
