//! Creating and changing interfaces of Linux's own tunnel drivers.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::Netlink;
use super::ip_tunnel::IpTunnel;
use super::link::{about, check_name};
use crate::error::Result;

impl Netlink {
    /// Creates an interface of a tunnel driver, which the kernel loads if it can. It is down.
    ///
    /// # Errors
    /// The name is taken or another interface of the driver has the same two ends (`EEXIST`), there
    /// is no such driver (`EOPNOTSUPP`), or CAP_NET_ADMIN is missing.
    pub fn add_tunnel(&mut self, name: &str, mtu: u32, tunnel: &IpTunnel) -> Result<()> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        let kind = tunnel.driver.kind();
        let what = || format!("cannot create the {kind} interface {name}");
        let created = self.socket.request(tunnel.request(message), NLM_F_CREATE | NLM_F_EXCL, what);
        created.map(drop).map_err(|error| match error.errno() {
            Some(libc::EEXIST) => error.with_hint(format!(
                "another interface has this name or the same two ends (`ip -d link show type {kind}`): remove it",
            )),
            _ => error,
        })
    }

    /// Changes how an interface tunnels; its driver stays. Each datagram meets the old or the new
    /// parameters.
    ///
    /// # Errors
    /// Another interface of the driver has the same two ends (`EEXIST`), or as
    /// [`Self::add_tunnel`].
    pub fn change_tunnel(&mut self, index: u32, tunnel: &IpTunnel) -> Result<()> {
        let what = || format!("cannot change the {} interface {index}", tunnel.driver.kind());
        self.socket.request(tunnel.request(about(index)), 0, what).map(drop)
    }
}
