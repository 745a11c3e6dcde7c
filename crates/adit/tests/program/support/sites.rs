//! The article's network on a machine of its own, with the program run on its gateways.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use adit_lab::host::Host;
use adit_lab::ping::ping;
use adit_lab::two_sites::{HOST_B, INSIDE_B, TwoSites};
use adit_linux::netlink::{Netlink, Route, RouteKind};
use ipnet::IpNet;

use super::machine::{Machine, Running};
use tempfile::TempDir;

/// Both sites, without a tunnel.
pub(crate) struct Sites {
    pub(crate) machine: Machine,
    pub(crate) network: TwoSites,
    /// Lines of `[site]` beside those of the examples.
    site: Option<String>,
    files: TempDir,
}

/// What an administrator sees of a host: interfaces and routes. Of an interface only what does not
/// come and go by itself.
pub(crate) type View = (Vec<String>, Vec<Route>);

impl Sites {
    pub(crate) fn new() -> Self {
        Self::of(None)
    }

    /// The same, for a data plane of the test's choice.
    pub(crate) fn with_dataplane(dataplane: &'static str) -> Self {
        Self::with_site(format!("dataplane = \"{dataplane}\""))
    }

    /// The same, with these lines in `[site]` beside those of the examples.
    pub(crate) fn with_site(lines: impl Into<String>) -> Self {
        Self::of(Some(lines.into()))
    }

    /// The same, with private networks of both families.
    pub(crate) fn with_ipv6() -> Self {
        Self::in_network(TwoSites::build_with_ipv6().unwrap(), None)
    }

    /// The same, with an underlay of both families.
    pub(crate) fn over_ipv6() -> Self {
        Self::in_network(TwoSites::build_over_ipv6().unwrap(), None)
    }

    fn of(site: Option<String>) -> Self {
        Self::in_network(TwoSites::build().unwrap(), site)
    }

    fn in_network(network: TwoSites, site: Option<String>) -> Self {
        Self { machine: Machine::new(), network, site, files: tempfile::tempdir().unwrap() }
    }

    /// The configuration that a site is run with.
    pub(crate) fn file(&self, name: &str) -> String {
        let Some(site) = &self.site else { return example(name) };
        let text = std::fs::read_to_string(example(name)).unwrap();
        let file = self.files.path().join(name);
        std::fs::write(&file, text.replace("[site]", &format!("[site]\n{site}"))).unwrap();
        file.into_os_string().into_string().unwrap()
    }

    /// Starts `adit run` of `examples/a.toml` on gateway A and waits until it is ready.
    pub(crate) fn run_a(&self, options: &[&str]) -> Running {
        self.run(&self.network.gateway_a, "a.toml", options)
    }

    /// The same for B.
    pub(crate) fn run_b(&self) -> Running {
        self.run(&self.network.gateway_b, "b.toml", &[])
    }

    fn run(&self, gateway: &Host, file: &str, options: &[&str]) -> Running {
        let file = self.file(file);
        let mut arguments = vec!["run", file.as_str()];
        arguments.extend(options);
        let mut running = self.machine.start(gateway.ns(), &arguments);
        running.wait_for("ready");
        running
    }

    /// One echo from gateway to gateway, one from host to host: both come back at once.
    #[track_caller]
    pub(crate) fn assert_joined(&self) {
        assert_reaches(&self.network.gateway_a, INSIDE_B);
        assert_reaches(&self.network.host_a, HOST_B);
    }

    /// Gateway A as it is now.
    pub(crate) fn view_a(&self) -> View {
        view(&self.network.gateway_a)
    }

    /// The routes of gateway A to B's network, without the guard behind them.
    pub(crate) fn routes_of_a(&self) -> Vec<Route> {
        let network: IpNet = "192.168.199.0/24".parse().unwrap();
        let routes = self.network.gateway_a.netlink().unwrap().routes().unwrap();
        let is_meant = |route: &Route| route.destination == network && route.kind == RouteKind::Unicast;
        routes.into_iter().filter(is_meant).collect()
    }
}

/// One echo, and no second chance: `ready` means that a packet sent now goes through.
#[track_caller]
pub(crate) fn assert_reaches(from: &Host, to: Ipv4Addr) {
    assert!(is_answered(from, to), "{} does not reach {to}", from.name());
}

/// One echo that comes back, on a machine that builds something meanwhile.
pub(crate) fn is_answered(from: &Host, to: Ipv4Addr) -> bool {
    from.run(|| ping(to, 84, 64, Duration::from_secs(10))).unwrap().is_reply()
}

/// One echo that comes back within a tenth of a second: for whoever looks again and again, or
/// expects none. On a busy machine an echo may take longer.
pub(crate) fn reaches(from: &Host, to: Ipv4Addr) -> bool {
    from.run(|| ping(to, 84, 64, Duration::from_millis(100))).unwrap().is_reply()
}

/// A host as it is now.
pub(crate) fn view(host: &Host) -> View {
    host.run(|| Netlink::open().map(|mut netlink| view_of(&mut netlink))).unwrap()
}

fn is_link_local(network: &IpNet) -> bool {
    matches!(network, IpNet::V6(network) if network.addr().is_unicast_link_local() || network.addr().is_multicast())
}

/// What there is in a network namespace.
pub(crate) fn view_of(netlink: &mut Netlink) -> View {
    let links = netlink.links().unwrap().into_iter();
    let links = links.map(|link| {
        format!(
            "{}: {} {:?} mtu {} up {} {:?}",
            link.index, link.name, link.kind, link.mtu, link.up, link.alias
        )
    });
    let mut routes = netlink.routes().unwrap();
    // The kernel adds these to every interface, once it has found that nobody has its address.
    routes.retain(|route| !is_link_local(&route.destination));
    (links.collect(), routes)
}

/// The path of one of the project's example configurations.
pub(crate) fn example(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    folder.join(name).canonicalize().unwrap().into_os_string().into_string().unwrap()
}
