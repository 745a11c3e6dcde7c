//! The veth pair of a tunnel: the tunnel interface, and the end behind it that a data plane serves.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};

use super::Netlink;
use super::link::check_name;
use crate::error::Result;
use crate::netns::NetNs;

/// The two ends of a veth pair.
///
/// The link-layer addresses are part of the request that creates the pair. The kernel then marks
/// them as set by hand, and udev's `MACAddressPolicy=persistent` leaves them alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethPair {
    /// Name of the visible end, the tunnel interface, 1 to 15 bytes.
    pub name: String,
    /// Its link-layer address.
    pub mac: [u8; 6],
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Name of the hidden end, 1 to 15 bytes.
    pub hidden: String,
    /// Its link-layer address.
    pub hidden_mac: [u8; 6],
    /// Its MTU, in bytes.
    pub hidden_mtu: u32,
}

impl Netlink {
    /// Creates the pair: the hidden end in this namespace, the visible end in `netns`, or also in
    /// this one. Both are down.
    ///
    /// # Errors
    /// A name is taken (`EEXIST`), the kernel has no veth driver, or CAP_NET_ADMIN is missing in
    /// one of the namespaces.
    pub fn add_veth_pair(&mut self, pair: &VethPair, netns: Option<&NetNs>) -> Result<()> {
        check_name(&pair.name)?;
        check_name(&pair.hidden)?;
        let mut visible = end(&pair.name, pair.mac, pair.mtu);
        if let Some(netns) = netns {
            visible.attributes.push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
        }
        let mut message = end(&pair.hidden, pair.hidden_mac, pair.hidden_mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(visible))),
        ]));
        let what = || format!("cannot create the veth pair {} and {}", pair.name, pair.hidden);
        self.create_veth(message, what).map_err(|error| match error.errno() {
            Some(libc::EEXIST) => {
                error.with_hint("an interface has one of these names (`ip link`): remove or rename it")
            }
            _ => error,
        })
    }
}

fn end(name: &str, mac: [u8; 6], mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::Address(mac.to_vec()));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message
}
