//! A machine for a test, fake or real: gateway A of the two-site network.

use std::collections::BTreeMap;
use std::sync::Arc;

use adit_config::Config;
use adit_dataplane::kernel::Filter;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{IpTunnel, MAIN_TABLE, Netlink, Network, Route, RouteKind};
use adit_linux::netns::NetNs;

use crate::error::ControlError;
use crate::host::fake::FakeHost;
use crate::host::faulty::{Faults, FaultyHost};
use crate::host::{Host, LinuxHost};
use crate::overlay::plan::plan_on;
use crate::overlay::{Options, Overlay, RunningOverlay};
use crate::reconcile::devices::is_veth;

/// The interfaces that a machine has beside the overlay's: underlay and inner network.
const INTERFACES: [(&str, &str); 2] = [("eth0", "10.1.1.1/24"), ("lan0", "172.16.17.1/24")];

/// The two-site network's file of site A, for userspace.
pub(super) const TUN: &str = r#"[site]
name = "a"
underlay = "10.1.1.1"
networks = ["172.16.17.0/24"]
device = "ipipA"
dataplane = "userspace"

[[peer]]
name = "b"
underlay = "10.1.1.2"
networks = ["192.168.199.0/24"]
"#;

/// `IFF_NOARP` and `IFF_MULTICAST`.
const NO_ARP: u32 = 0x80 | 0x1000;

/// Another peer.
pub(super) const PEER_C: &str = r#"
[[peer]]
name = "c"
underlay = "10.1.1.3"
networks = ["10.3.0.0/16", "10.4.0.0/16"]
"#;

/// The kernel of a test's machines.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kernel {
    /// The model in memory.
    Model,
    /// The one that runs here, in network namespaces of its own.
    Real,
}

impl Kernel {
    /// Calls `test` with a machine.
    pub(super) fn run(self, test: &(dyn Fn(World) + Sync)) {
        match self {
            Self::Model => test(World::model()),
            Self::Real => World::with_real(test),
        }
    }
}

/// A machine, and what its tests do to it.
pub(crate) struct World {
    host: Arc<dyn Host>,
    /// The kernel as others use it: none of their calls fails.
    pub(super) others: Box<dyn Network>,
    pub(super) faults: Arc<Faults>,
    /// The MTU of the tunnel interface that a running overlay reports.
    pub(super) mtu: u16,
    /// The machine if it is a model.
    fake: Option<FakeHost>,
    /// Keeps the other ends of the real interfaces.
    _far: Option<NetNs>,
}

/// Everything of a machine that a test compares. Interfaces are known by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) links: Vec<String>,
    pub(super) addresses: Vec<String>,
    pub(super) routes: Vec<String>,
}

impl World {
    pub(crate) fn model() -> Self {
        let fake = FakeHost::default();
        fake.add_link("lo", "loopback");
        for (name, _) in INTERFACES {
            fake.add_link(name, "veth");
        }
        let others: Box<dyn Network> = Box::new(fake.clone());
        Self::new(Arc::new(fake.clone()), others, Some(fake), None)
    }

    /// Calls `test` with a network namespace of its own.
    fn with_real(test: &(dyn Fn(Self) + Sync)) {
        let here = NetNs::fresh().unwrap();
        here.run(|| {
            let far = NetNs::fresh().unwrap();
            let mut netlink = Netlink::open().unwrap();
            for (name, _) in INTERFACES {
                netlink.add_veth(name, name, &far).unwrap();
            }
            let others = LinuxHost.network(&NetScope::default()).unwrap();
            test(Self::new(Arc::new(LinuxHost), others, None, Some(far)));
        })
        .unwrap();
    }

    fn new(
        host: Arc<dyn Host>,
        mut others: Box<dyn Network>,
        fake: Option<FakeHost>,
        far: Option<NetNs>,
    ) -> Self {
        for (name, address) in INTERFACES {
            let index = others.link(name).unwrap().unwrap().index;
            others.set_up(index).unwrap();
            others.add_address(index, address.parse().unwrap()).unwrap();
        }
        let faults = Arc::new(Faults::default());
        let host = Arc::new(FaultyHost { host, faults: Arc::clone(&faults) });
        Self { host, others, faults, mtu: 1480, fake, _far: far }
    }

    /// The machine.
    pub(super) fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host)
    }

    pub(crate) fn bring_up(&self, config: &Config) -> Result<Overlay, ControlError> {
        Overlay::bring_up_with(
            config,
            Options { host: self.host(), outlives_process: false, path_cache: None },
        )
    }

    /// The lines of the plan for `config`.
    pub(super) fn plan(
        &self,
        running: Option<&Config>,
        config: &Config,
    ) -> Result<Vec<String>, ControlError> {
        let underlay = [10, 1, 1, 1].into();
        let running =
            running.map(|running| RunningOverlay { config: running.clone(), underlay, mtu: self.mtu });
        let plan = plan_on(&self.host, running.as_ref(), config)?;
        Ok(plan.changes.iter().map(ToString::to_string).collect())
    }

    pub(super) fn index(&mut self, name: &str) -> u32 {
        self.others.link(name).unwrap().unwrap_or_else(|| panic!("there is no {name}")).index
    }

    /// A route of ours by the interface of that name.
    pub(super) fn route(&mut self, destination: &str, device: &str) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            device: Some(self.index(device)),
            ..Route::default()
        }
    }

    pub(super) fn view(&mut self) -> View {
        let links = self.others.links().unwrap();
        let name = |index: u32| {
            let found = links.iter().find(|link| link.index == index);
            found.map_or_else(|| index.to_string(), |link| link.name.clone())
        };
        let mut addresses: Vec<String> = self
            .others
            .addresses(None)
            .unwrap()
            .iter()
            .map(|address| format!("{} {}", name(address.index), address.prefix))
            .collect();
        let mut routes: Vec<String> =
            self.others.routes_of(MAIN_TABLE).unwrap().iter().map(|route| describe(route, &name)).collect();
        let mut described: Vec<String> = links
            .iter()
            .filter(|link| link.name != "lo")
            .map(|link| {
                let state = if link.up { "up" } else { "down" };
                let alias = link.alias.as_deref().unwrap_or("-");
                let kind = link.kind.as_deref().unwrap_or("-");
                let ends = link.tunnel.map(|ipip| format!(" {ipip:?}")).unwrap_or_default();
                // Other interfaces have random ones.
                let is_pair = link.alias.is_some() && is_veth(link);
                let ethernet = if is_pair {
                    format!(" {:x?} {:#x}", link.mac, link.flags & NO_ARP)
                } else {
                    String::new()
                };
                format!("{} {kind} mtu {} {state} {alias}{ends}{ethernet}", link.name, link.mtu)
            })
            .collect();
        described.sort();
        addresses.sort();
        routes.sort();
        View { links: described, addresses, routes }
    }

    /// Adds an interface of that kind to a model, which no call of control could add.
    pub(super) fn add_link(&self, name: &str, kind: &str) {
        self.fake.as_ref().expect("the machine is a model").add_link(name, kind);
    }

    /// The model.
    pub(super) fn fake(&self) -> &FakeHost {
        self.fake.as_ref().expect("the machine is a model")
    }

    /// The packet filters of a model; of the real machine none.
    pub(super) fn filters(&self) -> BTreeMap<String, Filter> {
        self.fake.as_ref().map(FakeHost::filters).unwrap_or_default()
    }
}

fn describe(route: &Route, name: &dyn Fn(u32) -> String) -> String {
    let mut text = route.destination.to_string();
    if route.kind != RouteKind::Unicast {
        text += &format!(" {:?}", route.kind);
    }
    for (word, value) in [
        ("via", route.gateway.map(|gateway| gateway.to_string())),
        ("dev", route.device.map(name)),
        ("src", route.preferred_source.map(|source| source.to_string())),
        ("metric", route.metric.map(|metric| metric.to_string())),
    ] {
        text += &value.map(|value| format!(" {word} {value}")).unwrap_or_default();
    }
    format!("{text} proto {}", route.protocol)
}

pub(super) fn config(text: &str) -> Config {
    Config::parse("a.toml", text).unwrap()
}

/// The same file for Linux's ipip driver.
pub(super) fn with_ipip(text: &str) -> String {
    text.replace("userspace", "kernel")
}

/// What the tests need of the machine.
pub(super) mod needs {
    use adit_linux::netlink::TunnelDriver;

    use super::{IpTunnel, NetNs, Netlink};

    /// Linux's ipip driver, which many kernels of build machines lack.
    pub(crate) fn ipip() -> Result<(), String> {
        let parameters =
            IpTunnel::between(TunnelDriver::Ipip, [192, 0, 2, 1].into(), Some([192, 0, 2, 2].into()));
        let attempt = || Netlink::open()?.add_tunnel("adit-probe", 1480, &parameters);
        let created = NetNs::fresh().and_then(|netns| netns.run(attempt)?);
        created.map_err(|error| format!("the kernel's ipip driver: `cargo xtask vm test` has it ({error})"))
    }
}
