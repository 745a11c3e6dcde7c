//! The real machine: system calls, and the data planes of `adit-dataplane`.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use adit_config::DataplaneChoice;
use adit_dataplane::DataPlane;
use adit_dataplane::ebpf;
use adit_dataplane::kernel::{Filter, FilterTable, KernelPlane, table_name};
use adit_linux::EOPNOTSUPP;
use adit_linux::error::Result;
use adit_linux::ethtool;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Ipip, Link, Netlink, Network, VethPair};
use adit_linux::netns::NetNs;
use adit_linux::nftables::Tables;
use adit_linux::sysctl;
use adit_tunnel::Tunnel;

use super::plane_select::PlaneStarter;
use super::{Host, Ipv6, PacketFilter, PlaneRequest, StartedPlane};
use crate::error::ControlError;
use crate::reconcile::devices::{
    HIDDEN_MAC, HIDDEN_MTU, VISIBLE_MAC, hidden_alias, ipv6_setting, ipv6_settings, v4,
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
        let make_interface = || -> Result<()> {
            if choice == DataplaneChoice::Kernel {
                Tables::open()?;
                return Netlink::open()?.add_ipip(TRIAL, TRIAL_MTU.into(), &trial_ipip(tunnel));
            }
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
        match NetNs::fresh()?.run(make_interface)? {
            Err(error) if choice == DataplaneChoice::Kernel && error.errno() == Some(EOPNOTSUPP) => {
                let modprobe = "`modprobe ipip` was not tried".to_owned();
                return Err(ControlError::NoDriver { error, modprobe });
            }
            made => made?,
        }
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
        let ruleset = filter.ruleset();
        let found = Tables::open()?.look(&ruleset.table)?;
        // Only the open filter, which has set the rules, can tell whether they are unchanged.
        Ok(found.map(|found| found.is(&ruleset, found.rules)))
    }

    fn has_filter(&self, site: &str) -> bool {
        let found = Tables::open().and_then(|mut tables| tables.exists(&table_name(site)));
        // A kernel without nf_tables has no tables.
        found.unwrap_or(false)
    }

    fn remove_filter(&self, site: &str) -> Result<bool> {
        if !self.has_filter(site) {
            return Ok(false);
        }
        Tables::open()?.delete(&table_name(site))
    }

    fn load_ipip_driver(&self) -> String {
        let mut command = Command::new("modprobe");
        command.arg("ipip").stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => "`modprobe ipip` did not help".to_owned(),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                format!("`modprobe ipip` said: {}", said.trim().lines().next().unwrap_or("nothing"))
            }
            Err(error) => format!("`modprobe ipip` cannot be run: {error}"),
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

fn trial_ipip(tunnel: &Tunnel) -> Ipip {
    let remote = tunnel.peers().next().and_then(|(_, peer)| peer.underlay.iter().find_map(v4));
    let local = tunnel.config().underlay.iter().find_map(v4).unwrap_or(Ipv4Addr::UNSPECIFIED);
    Ipip { local, remote, ttl: 64, tos: 0, protocol: 4, path_mtu_discovery: true, mark: 0 }
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
