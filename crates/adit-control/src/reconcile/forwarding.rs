//! The kernel's setting for forwarding, which is an administrator's: without it nothing passes
//! between peers and the hosts behind this gateway. Adit does not turn it on, and says where it is
//! off. Pure.

use adit_config::SiteConfig;
use adit_linux::netlink::{Address, Link};
use ipnet::IpNet;

use crate::reconcile::desired::Desired;
use crate::reconcile::kernel_diff::in_netns;
use crate::state::warning::{Warning, WarningName};

/// The name under which the kernel keeps `net.ipv4.ip_forward`.
const ALL: &str = "all";
/// What the warning about IPv6 is about.
const ABOUT_IPV6: &str = "ipv6";
/// The setting of interfaces that do not exist yet.
const DEFAULT: &str = "default";

/// The interfaces that packets between peers and hosts arrive by. The kernel forwards a packet if
/// the interface that it arrives by allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForwardingPath {
    /// Those of the tunnel.
    tunnel: Vec<String>,
    /// Those of the networks behind this gateway.
    lans: Vec<String>,
    /// Whether packets of IPv6 arrive too. For those, one setting counts for all interfaces.
    ipv6: bool,
    netns: Option<String>,
}

impl ForwardingPath {
    /// Finds them among the interfaces of the inner side. There are none if only this gateway
    /// itself is reached through the tunnel.
    pub(crate) fn of(site: &SiteConfig, desired: &Desired, links: &[Link], addresses: &[Address]) -> Self {
        let is_local = |network: &IpNet| {
            network.prefix_len() == network.max_prefix_len()
                && addresses.iter().any(|at| at.prefix.addr() == network.addr())
        };
        let mut behind = site.networks.iter().filter(|network| !is_local(network));
        let ipv6 = behind.clone().any(|network| network.addr().is_ipv6());
        let netns = desired.netns.clone();
        if !behind.any(|network| network.addr().is_ipv4()) {
            return Self { ipv6, netns, ..Self::default() };
        }
        let tunnel: Vec<String> = desired.devices.iter().map(|device| device.name.clone()).collect();
        let is_lan = |link: &&Link| {
            let mut own = addresses.iter().filter(|at| {
                at.index == link.index && at.prefix.addr().is_ipv4() && at.prefix.prefix_len() < 32
            });
            let is_of_site =
                own.any(|at| site.networks.iter().any(|network| network.contains(&at.prefix.addr())));
            is_of_site && link.kind.as_deref() != Some("dummy") && !tunnel.contains(&link.name)
        };
        let lans = links.iter().filter(is_lan).map(|link| link.name.clone()).collect();
        Self { tunnel, lans, ipv6, netns }
    }

    /// Returns a warning for each of these interfaces that does not allow it, or one for all of
    /// them. `is_on` reads the setting of an interface, and `ipv6_is_on` the one of IPv6; `None`:
    /// it does not exist, or cannot be read.
    pub(crate) fn warnings(
        &self,
        is_on: impl FnMut(&str) -> Option<bool>,
        ipv6_is_on: impl FnOnce() -> Option<bool>,
    ) -> Vec<Warning> {
        let mut warnings = self.warnings_v4(is_on);
        if self.ipv6 && ipv6_is_on() == Some(false) {
            let prefix = in_netns(self.netns.as_deref());
            let what = format!(
                "forwarding of IPv6 is off (net.ipv6.conf.all.forwarding is 0), so nothing of it passes between \
                 peers and the hosts behind this gateway; `{prefix}sysctl -w net.ipv6.conf.all.forwarding=1` \
                 turns it on; if this gateway has a default route from a router's advertisement, set \
                 net.ipv6.conf.<interface>.accept_ra=2 first, or the kernel removes that route"
            );
            warnings.push(Warning { name: WarningName::ForwardingOff, about: ABOUT_IPV6.to_owned(), what });
        }
        warnings
    }

    fn warnings_v4(&self, mut is_on: impl FnMut(&str) -> Option<bool>) -> Vec<Warning> {
        let mut off = Vec::new();
        for name in &self.tunnel {
            if !is_on(name).or_else(|| is_on(DEFAULT)).unwrap_or(true) {
                off.push((name, "from peers"));
            }
        }
        for name in &self.lans {
            if !is_on(name).unwrap_or(true) {
                off.push((name, "from hosts behind this gateway"));
            }
        }
        let prefix = in_netns(self.netns.as_deref());
        if off.len() == self.tunnel.len() + self.lans.len() && !off.is_empty() && is_on(ALL) == Some(false) {
            let what = format!(
                "forwarding is off (net.ipv4.ip_forward is 0), so nothing passes between peers and the hosts \
                 behind this gateway; `{prefix}sysctl -w net.ipv4.ip_forward=1` turns it on, and a file in \
                 /etc/sysctl.d keeps it on"
            );
            return vec![Warning { name: WarningName::ForwardingOff, about: ALL.to_owned(), what }];
        }
        let warning = |(name, packets): (&String, &str)| Warning {
            name: WarningName::ForwardingOff,
            about: name.clone(),
            what: format!(
                "forwarding is off on {name} (net.ipv4.conf.{name}.forwarding is 0), so packets {packets} are not \
                 forwarded; `{prefix}sysctl -w net.ipv4.conf.{name}.forwarding=1` turns it on"
            ),
        };
        off.into_iter().map(warning).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::{address_on, link};
    use crate::reconcile::desired::Machine;
    use adit_config::Config;

    fn address(index: u32, prefix: &str) -> Address {
        let prefix = prefix.parse().expect("an address and its prefix");
        address_on(index, prefix)
    }

    fn path(networks: &str) -> ForwardingPath {
        let text = include_str!("../../../../examples/a.toml").replace("\"172.16.17.0/24\"", networks);
        let config = Config::parse("a.toml", &text).expect("it is valid");
        let underlay = [10, 1, 1, 1].into();
        let machine = Machine { underlay, local: Vec::new(), underlay_mtu: 1500, vrf: None };
        let links = [
            link(2, "wan", "veth"),
            link(3, "lan", "veth"),
            link(4, "lan.7", "vlan"),
            link(5, "dummyA", "dummy"),
            link(6, "ipipA", "veth"),
        ];
        let addresses = [
            address(2, "10.1.1.1/24"),
            address(3, "172.16.17.1/24"),
            address(4, "172.16.18.1/24"),
            address(5, "172.16.17.2/24"),
            address(3, "172.16.17.9/32"),
            address(3, "2001:db8:17::1/64"),
        ];
        ForwardingPath::of(&config.site, &Desired::of(&config, &machine), &links, &addresses)
    }

    #[test]
    fn forwarding_that_is_off_is_said_where_packets_arrive() {
        const ONE: &str = "\"172.16.17.0/24\"";
        const TWO: &str = "\"172.16.17.0/24\", \"172.16.18.0/24\"";
        // The networks of the site, the interfaces where forwarding is off, and what is said.
        for (networks, off, expected) in [
            (ONE, &[][..], &[][..]),
            (ONE, &["all", "default", "ipipA", "lan", "lan.7", "wan"], &["all"]),
            (ONE, &["all", "default"], &[]),
            (ONE, &["wan"], &[]),
            (ONE, &["ipipA"], &["ipipA"]),
            (ONE, &["lan"], &["lan"]),
            (ONE, &["lan", "ipipA"], &["ipipA", "lan"]),
            (ONE, &["lan.7"], &[]),
            (TWO, &["lan.7"], &["lan.7"]),
            ("\"172.16.17.9/32\"", &["all", "ipipA", "lan"], &[]),
            ("\"172.16.17.77/32\"", &["all", "ipipA", "lan"], &["all"]),
            ("\"192.0.2.0/24\"", &["all", "ipipA"], &["all"]),
            (ONE, &["ipv6"], &[]),
            ("\"2001:db8:17::/64\"", &["all", "ipipA", "lan"], &[]),
            ("\"2001:db8:17::/64\"", &["ipv6"], &["ipv6"]),
            ("\"2001:db8:17::1/128\"", &["ipv6"], &[]),
            ("\"172.16.17.0/24\", \"2001:db8:17::/64\"", &["ipipA", "ipv6"], &["ipipA", "ipv6"]),
        ] {
            let warnings =
                path(networks).warnings(|name| Some(!off.contains(&name)), || Some(!off.contains(&"ipv6")));
            let about: Vec<&str> = warnings.iter().map(|warning| warning.about.as_str()).collect();
            assert_eq!(about, expected, "{networks} {off:?}");
            let is_said = |what: &str| what.starts_with("forwarding ") && what.contains("is off");
            assert!(warnings.iter().all(|warning| is_said(&warning.what)));
        }
    }

    #[test]
    fn before_the_interface_exists_the_default_counts() {
        let read = |default: bool| {
            move |name: &str| match name {
                "ipipA" => None,
                "default" => Some(default),
                _ => Some(true),
            }
        };
        assert_eq!(path("\"172.16.17.0/24\"").warnings(read(true), || None), []);
        let warnings = path("\"172.16.17.0/24\"").warnings(read(false), || None);
        assert_eq!(warnings.iter().map(|warning| warning.about.as_str()).collect::<Vec<_>>(), ["ipipA"]);
    }
}
