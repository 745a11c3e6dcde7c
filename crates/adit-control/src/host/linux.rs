//! The real machine: system calls, and the data planes of `adit-dataplane`.

use std::process::{Command, Stdio};
use std::sync::Arc;

use adit_dataplane::DataPlane;
use adit_dataplane::ebpf;
use adit_dataplane::kernel::{Filter, FilterTable, KernelPlane, table_name};
use adit_linux::error::Result;
use adit_linux::ethtool;
use adit_linux::flow_source::FlowSource;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Link, Netlink, Network};
use adit_linux::nftables::Tables;
use adit_linux::sysctl;
use adit_tunnel::Tunnel;

use super::plane_select::PlaneStarter;
use super::{Host, PacketFilter, PlaneRequest, StartedPlane};
use crate::error::ControlError;
use crate::reconcile::devices::hidden_alias;

/// This machine, in the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct LinuxHost;

impl Host for LinuxHost {
    fn network(&self, scope: &NetScope) -> Result<Box<dyn Network>> {
        Ok(Box::new(scope.run(Netlink::open)??))
    }

    fn disable_ipv6(&self, scope: &NetScope, interface: &str) -> Result<()> {
        let knob = format!("net/ipv6/conf/{interface}/disable_ipv6");
        scope.run(|| sysctl::write(&knob, "1"))?
    }

    fn limit_offloads(&self, scope: &NetScope, interface: &str) -> Result<()> {
        scope.run(|| ethtool::limit_offloads(interface))?
    }

    fn start_plane(&self, request: &PlaneRequest<'_>) -> std::result::Result<StartedPlane, ControlError> {
        PlaneStarter { request }.start()
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

/// The table of nf_tables that the kernel plane keeps.
struct NftablesFilter(Arc<FilterTable>);

impl PacketFilter for NftablesFilter {
    fn set(&self, filter: &Filter) -> Result<()> {
        self.0.set(filter)
    }

    fn start(
        &self,
        tunnel: Arc<Tunnel>,
        source: FlowSource,
        devices: Vec<u32>,
    ) -> Result<Box<dyn DataPlane>> {
        Ok(Box::new(KernelPlane::of(tunnel, source, Arc::clone(&self.0), devices)?))
    }
}
