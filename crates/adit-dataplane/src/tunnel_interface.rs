//! The tunnel interface, as data planes serve it.

use adit_linux::error::Error;
use adit_linux::net_scope::NetScope;
use adit_linux::sockets::hidden_end::{HiddenEnd, HiddenEndOptions};
use adit_linux::tunnel_protocol::TunnelProtocol;
use adit_policy::bpf::maps::HostInterface;

/// A veth pair. The host routes into its visible end, the tunnel interface. A data plane serves the
/// hidden end, which is in the network namespace of the underlay.
#[derive(Clone, Debug)]
pub struct TunnelInterface {
    /// Name of the visible end.
    pub name: String,
    /// Its index, in its namespace.
    pub index: u32,
    /// Its link-layer address.
    pub mac: [u8; 6],
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// Name of the hidden end.
    pub hidden_name: String,
    /// Its index.
    pub hidden: u32,
    /// Its link-layer address.
    pub hidden_mac: [u8; 6],
    /// Whether it has IPv6, since a network of either side is one of IPv6.
    pub ipv6: bool,
    /// The number of receivers in userspace for each family, at least one. Each has a thread of its
    /// own.
    pub queues: usize,
    /// The namespace and the VRF of the visible end.
    pub scope: NetScope,
}

impl TunnelInterface {
    /// Opens the sockets of the hidden end, in the calling thread's network namespace.
    pub(crate) fn open(&self) -> Result<HiddenEnd, Error> {
        HiddenEnd::open(&HiddenEndOptions {
            index: self.hidden,
            mac: self.hidden_mac,
            visible_mac: self.mac,
            visible_mtu: usize::from(self.mtu),
            queues: self.queues,
            ipv6: self.ipv6,
        })
    }

    /// The protocols that peers send.
    pub(crate) fn protocols(&self) -> &'static [TunnelProtocol] {
        if self.ipv6 { &[TunnelProtocol::Ipip, TunnelProtocol::Ipv6] } else { &[TunnelProtocol::Ipip] }
    }

    /// What eBPF programs know of the interface.
    pub(crate) fn for_programs(&self) -> HostInterface {
        let visible = self.scope.netns.is_none().then_some(self.index);
        HostInterface::new(self.hidden, visible, self.mtu, self.mac, self.hidden_mac)
    }

    /// Whether `index` is one of the ends, seen from the namespace of the underlay.
    pub(crate) fn has(&self, index: u32) -> bool {
        index == self.hidden || (self.scope.netns.is_none() && index == self.index)
    }
}
