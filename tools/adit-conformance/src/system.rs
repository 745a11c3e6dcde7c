//! The systems under test, and how each is configured.

use adit_control::Overlay;
use adit_lab::LabError;
use adit_lab::host::Host;
use adit_lab::two_sites::bring_up;
use adit_tunnel::DropReason;

use crate::error::Error;
use crate::kernel_log;
use crate::site::{INSIDE, OURS, Site, UNDERLAY};

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
            Self::Linux => "Linux ipip",
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
}

impl Setup {
    /// Lines for `[tunnel]`, without probes, because the scripted router cannot answer them.
    fn adit(self) -> &'static str {
        match self {
            Self::Default | Self::FixedTtl | Self::InheritedTos => "probe = false",
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
        }
    }

    /// Returns true if both configure a system alike, so that one testbed serves both.
    pub(crate) fn is_same_testbed(self, other: Self, system: System) -> bool {
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
        let peers: String = Site::all().map(|site| site.config()).collect();
        let config = format!(
            "[site]\nname = \"gateway\"\nunderlay = \"{UNDERLAY}\"\nnetworks = [\"{OURS}\"]\ndataplane = \"{}\"\n\
             [tunnel]\n{}\n{peers}",
            system.name(),
            setup.adit()
        );
        Ok(Self::Adit(Box::new(bring_up(gateway, &config)?)))
    }

    /// Makes this site a peer with this setup.
    pub(crate) fn add(&self, site: Site, setup: Setup) -> Result<(), Error> {
        let (Self::Linux(gateway), Some(arguments)) = (self, setup.linux()) else { return Ok(()) };
        let device = site.device();
        let batch = format!(
            "link add name {device} type ipip local {UNDERLAY} remote {} {arguments}\nlink set {device} up\n\
             route add {} dev {device} src {INSIDE}\n",
            site.underlay(),
            site.network()
        );
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
