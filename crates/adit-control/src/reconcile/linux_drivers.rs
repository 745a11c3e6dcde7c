//! The drivers of Linux that carry by hand what Adit carries, as the commands of a plan name them:
//! ipip or sit for the peers that are reached over IPv4, and ip6tnl for those over IPv6.

use std::net::IpAddr;

use adit_config::{Config, Path, PeerName};

use crate::reconcile::desired::Desired;

/// See the module.
pub(super) struct LinuxDrivers {
    over_v4: Option<Driver>,
    over_v6: Option<Driver>,
}

/// An interface of a driver.
struct Driver {
    name: String,
    /// The driver and its options, behind `type`.
    kind: String,
    /// Whether it has one peer, so that no route has to name it.
    has_one_peer: bool,
}

impl LinuxDrivers {
    /// The interfaces that `config` needs.
    pub(super) fn of(config: &Config, desired: &Desired) -> Self {
        let over = |is_ipv6: bool| -> Vec<Path> {
            let paths = config.peers.iter().filter_map(|peer| desired.underlay.path_to(&peer.underlay));
            paths.filter(|path| path.destination.is_ipv6() == is_ipv6).collect()
        };
        let (v4, v6) = (over(false), over(true));
        let is_apart = !v4.is_empty() && !v6.is_empty();
        let mut ours = desired.underlay.iter();
        let has_v4 = !v4.is_empty() || v6.is_empty() && desired.underlay.first().is_ipv4();
        let over_v4 = has_v4.then(|| ours.find(IpAddr::is_ipv4)).flatten().map(|local| {
            // ipip carries IPv4 only, sit both families.
            let driver = if desired.ipv6 { "sit mode any" } else { "ipip" };
            let remote = only(&v4).map(|remote| format!(" remote {remote}")).unwrap_or_default();
            let kind = format!("{driver} local {local}{remote}");
            Driver { name: desired.device.clone(), kind, has_one_peer: v4.len() == 1 }
        });
        let over_v6 = (over_v4.is_none() || is_apart).then(|| Driver {
            name: if is_apart { format!("{}6", desired.device) } else { desired.device.clone() },
            kind: match v6.as_slice() {
                [Path { source, destination }] => {
                    format!("ip6tnl mode any local {source} remote {destination} encaplimit none")
                }
                // The routes say where a packet goes.
                _ => "ip6tnl external".to_owned(),
            },
            has_one_peer: v6.len() == 1,
        });
        Self { over_v4, over_v6 }
    }

    /// Names and kinds of the interfaces.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = (&str, &str)> {
        self.over_v4.iter().chain(&self.over_v6).map(|driver| (driver.name.as_str(), driver.kind.as_str()))
    }

    /// The command of a route that Adit makes to a peer by `gateway`, as the driver needs it.
    /// Adit's own route may have any gateway, but a driver sends to the gateway, in the form of the
    /// family. The one over IPv6 takes no gateway: it has one peer, or reads the peer from the
    /// route.
    pub(super) fn route_command(
        &self,
        command: &str,
        gateway: IpAddr,
        peer: &str,
        config: &Config,
        desired: &Desired,
    ) -> String {
        let peer = PeerName::new(peer).ok().and_then(|name| config.peers.get(&name));
        let path = peer.and_then(|peer| desired.underlay.path_to(&peer.underlay));
        let Some(Path { source, destination }) = path else { return command.to_owned() };
        let from = format!(" via {gateway} ");
        match (destination, gateway) {
            (IpAddr::V4(to), IpAddr::V4(_)) => command.replace(&from, &format!(" via {to} ")),
            // An IPv4-compatible address, which the driver sit takes for the far end.
            (IpAddr::V4(to), IpAddr::V6(_)) => command.replace(&from, &format!(" via ::{to} ")),
            (IpAddr::V6(to), _) => {
                let Some(driver) = &self.over_v6 else { return command.to_owned() };
                let to = match driver.has_one_peer {
                    true => " ".to_owned(),
                    false => format!(" encap ip6 dst {to} src {source} hoplimit 64 "),
                };
                let device = format!(" dev {}", desired.device);
                let command = command.replace(&from, &to).replace(" onlink", "");
                command.replace(&device, &format!(" dev {}", driver.name))
            }
        }
    }
}

/// The far end, if there is one.
fn only(paths: &[Path]) -> Option<IpAddr> {
    match paths {
        [path] => Some(path.destination),
        _ => None,
    }
}
