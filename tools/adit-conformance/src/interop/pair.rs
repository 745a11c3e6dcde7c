//! Two systems at the two ends of a tunnel.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_control::Overlay;
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{
    CONFIG_A, CONFIG_B, HOST_B, INSIDE_A, INSIDE_B, TwoSites, UNDERLAY_A, UNDERLAY_B, bring_up,
};
use adit_testbed::test_planes::with_plane;
use ipnet::Ipv4Net;

use crate::error::Error;
use crate::system::{System, ip};

/// The system at each end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) encapsulator: System,
    pub(crate) decapsulator: System,
}

impl Ends {
    /// All pairs: each system with itself, each data plane with Linux in both directions, and the
    /// two data planes with each other.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        use System::{Ebpf, Linux, Userspace};
        let ends = [
            (Userspace, Userspace),
            (Ebpf, Ebpf),
            (Userspace, Ebpf),
            (Ebpf, Userspace),
            (Userspace, Linux),
            (Ebpf, Linux),
            (Linux, Userspace),
            (Linux, Ebpf),
            (Linux, Linux),
        ];
        ends.into_iter().map(|(encapsulator, decapsulator)| Self { encapsulator, decapsulator })
    }

    pub(crate) fn are_adit(self) -> bool {
        self.encapsulator.is_adit() && self.decapsulator.is_adit()
    }

    /// The name in file names.
    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.encapsulator.name(), self.decapsulator.name())
    }
}

/// The network with its tunnel, both removed on drop.
pub(crate) struct Pair {
    pub(crate) ends: Ends,
    pub(crate) network: TwoSites,
    _tunnels: [Option<Overlay>; 2],
}

impl Pair {
    /// Builds the network and brings the tunnel up, with defaults at each end.
    pub(crate) fn join(ends: Ends) -> Result<Self, Error> {
        let network = TwoSites::build()?;
        let a = end(
            &network.gateway_a,
            ends.encapsulator,
            CONFIG_A,
            "ipipA",
            (UNDERLAY_A, UNDERLAY_B),
            INSIDE_A,
        )?;
        let b = end(
            &network.gateway_b,
            ends.decapsulator,
            CONFIG_B,
            "ipipB",
            (UNDERLAY_B, UNDERLAY_A),
            INSIDE_B,
        )?;
        let pair = Self { ends, network, _tunnels: [a, b] };
        pair.wait_until_it_carries()?;
        Ok(pair)
    }

    /// Waits until host B answers host A.
    pub(crate) fn wait_until_it_carries(&self) -> Result<(), Error> {
        const TIMEOUT: Duration = Duration::from_secs(10);
        const ATTEMPT: Duration = Duration::from_millis(300);
        let deadline = Instant::now() + TIMEOUT;
        while !self.network.host_a.run(|| ping(HOST_B, 84, 64, ATTEMPT))?.is_reply() {
            if Instant::now() > deadline {
                return Err(Error::Dead {
                    system: self.ends.encapsulator.title(),
                    seconds: TIMEOUT.as_secs(),
                });
            }
        }
        Ok(())
    }

    /// Pings host B from host A.
    pub(crate) fn ping(&self, size: usize, ttl: u8, timeout: Duration) -> Result<Answer, Error> {
        Ok(self.network.host_a.run(|| ping(HOST_B, size, ttl, timeout))?)
    }
}

fn end(
    gateway: &Host,
    system: System,
    config: &str,
    device: &str,
    (local, remote): (Ipv4Addr, Ipv4Addr),
    inside: Ipv4Addr,
) -> Result<Option<Overlay>, Error> {
    let plane = match system {
        System::Userspace => DataplaneChoice::Userspace,
        System::Ebpf => DataplaneChoice::Ebpf,
        System::Linux => {
            let network: Ipv4Net =
                Ipv4Net::new_assert(if inside == INSIDE_A { INSIDE_B } else { INSIDE_A }, 24).trunc();
            ip(
                gateway,
                &format!(
                    "link add name {device} type ipip local {local} remote {remote}\nlink set {device} up\n\
                     route add {network} dev {device} src {inside}\n"
                ),
            )?;
            return Ok(None);
        }
    };
    Ok(Some(bring_up(gateway, &with_plane(config, plane))?))
}
