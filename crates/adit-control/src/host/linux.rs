//! The real machine: system calls, and the data planes of `adit-dataplane`.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;

use adit_config::{DataplaneChoice, Path};
use adit_dataplane::DataPlane;
use adit_dataplane::ebpf;
use adit_dataplane::kernel::{Filter, FilterTable, KernelPlane, table_name};
use adit_linux::EOPNOTSUPP;
use adit_linux::error::Result;
use adit_linux::ethtool;
use adit_linux::family::Family;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{IpTunnel, Link, Netlink, Network, TunnelDriver, VethPair};
use adit_linux::netns::NetNs;
use adit_linux::nftables::Tables;
use adit_linux::sysctl;
use adit_tunnel::Tunnel;

use super::plane_select::PlaneStarter;
use super::{Host, Ipv6, PacketFilter, PlaneRequest, StartedPlane};
use crate::error::ControlError;
use crate::reconcile::devices::{
    HIDDEN_MAC, HIDDEN_MTU, VISIBLE_MAC, driver, hidden_alias, ipv6_setting, ipv6_settings,
};

/// This machine, in the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct LinuxHost;

impl Host for LinuxHost {
    fn network(&self, scope: &NetScope) -> Result<Box<dyn Network>> {
        Ok(Box::new(scope.run(Netlink::open)??))
    }

    fn set_ipv6(&self, scope: &NetScope, interface: &str, is_on: bool) -> Result<()> {
        let values = ipv6_settings(interface, is_on);
        scope.run(|| values.iter().try_for_each(|(knob, value)| sysctl::write(knob, value)))?
    }

    fn ipv6(&self, scope: &NetScope, interface: &str) -> Result<Ipv6> {
        let knob = ipv6_setting(interface, "disable_ipv6");
        let wanted = ipv6_settings(interface, true);
        scope.run(|| {
            if sysctl::read(&knob).map_or(true, |value| value != "0") {
                return Ipv6::Off;
            }
            // The first step turns it off, before the others. Turning forwarding on for all
            // interfaces turns it on here too, which does no harm.
            let mut lasting = wanted.iter().skip(1).filter(|(knob, _)| !knob.ends_with("/forwarding"));
            if lasting.all(|(knob, value)| sysctl::read(knob).is_ok_and(|found| found == *value)) {
                return Ipv6::Static;
            }
            if sysctl::is_writable(&knob) { Ipv6::Auto } else { Ipv6::AlwaysAuto }
        })
    }

    fn limit_offloads(&self, scope: &NetScope, interface: &str) -> Result<()> {
        scope.run(|| ethtool::limit_offloads(interface))?
    }

    fn unreadable_offloads(&self, scope: &NetScope, interface: &str) -> Result<Vec<String>> {
        scope.run(|| ethtool::unreadable_offloads(interface))?
    }

    fn forwards(&self, scope: &NetScope, interface: &str) -> Result<bool> {
        scope.run(|| sysctl::forwards(interface))?
    }

    fn forwards_ipv6(&self, scope: &NetScope) -> Result<bool> {
        scope.run(sysctl::forwards_ipv6)?
    }

    fn chains_passed_by(&self) -> Vec<String> {
        adit_dataplane::chains_passed_by()
    }

    fn start_plane(&self, request: &PlaneRequest<'_>) -> std::result::Result<StartedPlane, ControlError> {
        PlaneStarter { request }.start()
    }

    fn try_plane(&self, choice: DataplaneChoice, tunnel: &Tunnel) -> std::result::Result<(), ControlError> {
        if choice == DataplaneChoice::Kernel {
            return trial_tunnels(tunnel).iter().try_for_each(try_tunnel);
        }
        let make_interface = || -> Result<()> {
            let pair = VethPair {
                name: TRIAL.to_owned(),
                mac: VISIBLE_MAC,
                mtu: TRIAL_MTU.into(),
                hidden: "trial-h".to_owned(),
                hidden_mac: HIDDEN_MAC,
                hidden_mtu: HIDDEN_MTU,
            };
            Netlink::open()?.add_veth_pair(&pair, None)
        };
        // In a namespace of its own, which ends with its last reference.
        NetNs::fresh()?.run(make_interface)??;
        match choice {
            DataplaneChoice::Ebpf => Ok(ebpf::probe(tunnel)?),
            // Where eBPF cannot be used, userspace forwards.
            DataplaneChoice::Auto | DataplaneChoice::Userspace | DataplaneChoice::Kernel => Ok(()),
        }
    }

    fn open_filter(&self) -> Result<Box<dyn PacketFilter>> {
        Ok(Box::new(NftablesFilter(Arc::new(FilterTable::open()?))))
    }

    fn filter_matches(&self, filter: &Filter) -> Result<Option<bool>> {
        let (name, rulesets) = (table_name(&filter.site), filter.rulesets());
        let mut tables = Tables::open()?;
        let mut matches = Vec::with_capacity(Family::BOTH.len());
        for family in Family::BOTH {
            let ruleset = rulesets.iter().find(|ruleset| ruleset.family == family);
            // Only the open filter, which has set the rules, can tell whether they are unchanged.
            matches.push(match (ruleset, tables.look(family, &name)?) {
                (Some(ruleset), Some(found)) => Some(found.is(ruleset, found.rules)),
                (None, Some(_)) => Some(false),
                (Some(_), None) => None,
                (None, None) => continue,
            });
        }
        let has_any = matches.iter().any(Option::is_some);
        Ok(has_any.then(|| matches.iter().all(|matches| *matches == Some(true))))
    }

    fn has_filter(&self, site: &str) -> bool {
        // A kernel without nf_tables has no tables.
        let Ok(mut tables) = Tables::open() else { return false };
        Family::BOTH.iter().any(|family| tables.exists(*family, &table_name(site)).unwrap_or(false))
    }

    fn remove_filter(&self, site: &str) -> Result<bool> {
        if !self.has_filter(site) {
            return Ok(false);
        }
        Tables::open()?.delete(&table_name(site))
    }

    fn load_driver(&self, driver: TunnelDriver) -> String {
        let module = driver.module();
        let mut command = Command::new("modprobe");
        command.arg(module).stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => format!("`modprobe {module}` did not help"),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                format!("`modprobe {module}` said: {}", said.trim().lines().next().unwrap_or("nothing"))
            }
            Err(error) => format!("`modprobe {module}` cannot be run: {error}"),
        }
    }

    fn has_pins(&self, site: &str) -> bool {
        ebpf::pins_of(site).is_ok_and(|pins| pins.is_some_and(|pins| ebpf::pins_exist(&pins)))
    }

    fn remove_pins(&self, site: &str) -> std::result::Result<(), ControlError> {
        // Without the BPF file system there are no pins.
        if let Ok(Some(pins)) = ebpf::pins_of(site) {
            ebpf::remove_pins(&pins)?;
        }
        // Filters that no pin names are known by the hidden end.
        let alias = hidden_alias(site);
        let is_hidden = |link: &Link| link.alias.as_deref() == Some(&alias);
        let hidden = Netlink::open()?.links()?.into_iter().find(is_hidden);
        Ok(ebpf::remove_filters(hidden.map_or(0, |link| link.index))?)
    }
}

/// An interface that is made to see whether it can be made.
const TRIAL: &str = "trial";
const TRIAL_MTU: u16 = 1480;

/// Tries whether the kernel has the driver of a tunnel, and nf_tables. In a namespace of its own,
/// which ends with its last reference.
fn try_tunnel(tunnel: &IpTunnel) -> std::result::Result<(), ControlError> {
    let make_interface = || -> Result<()> {
        Tables::open()?;
        Netlink::open()?.add_tunnel(TRIAL, TRIAL_MTU.into(), tunnel)
    };
    NetNs::fresh()?.run(make_interface)?.map_err(|error| {
        if error.errno() != Some(EOPNOTSUPP) {
            return error.into();
        }
        let modprobe = format!("`modprobe {}` was not tried", tunnel.driver.module());
        ControlError::NoDriver { driver: tunnel.driver.kind(), error, modprobe }
    })
}

/// Returns one tunnel of each driver that the peers need. Without peers, that is the driver for
/// IPv4 over our first address.
fn trial_tunnels(tunnel: &Tunnel) -> Vec<IpTunnel> {
    let ours = tunnel.config().underlay;
    let mut trials: BTreeMap<TunnelDriver, IpTunnel> = BTreeMap::new();
    for (_, peer) in tunnel.peers() {
        for Path { source, destination } in ours.paths_to(&peer.underlay) {
            let driver = driver(source, &peer.networks);
            trials.entry(driver).or_insert(IpTunnel::between(driver, source, Some(destination)));
        }
    }
    if trials.is_empty() {
        let local = ours.first();
        let driver = driver(local, []);
        trials.insert(driver, IpTunnel::between(driver, local, None));
    }
    trials.into_values().collect()
}

/// The table of nf_tables that the kernel plane keeps.
struct NftablesFilter(Arc<FilterTable>);

impl PacketFilter for NftablesFilter {
    fn set(&self, filter: &Filter) -> Result<()> {
        self.0.set(filter)
    }

    fn start(&self, tunnel: Arc<Tunnel>, mark: u32, devices: Vec<u32>) -> Result<Box<dyn DataPlane>> {
        Ok(Box::new(KernelPlane::of(tunnel, mark, Arc::clone(&self.0), devices)?))
    }
}
