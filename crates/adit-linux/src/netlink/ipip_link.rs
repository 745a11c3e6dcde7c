//! Creating and changing interfaces of Linux's ipip driver.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::Netlink;
use super::ipip::Ipip;
use super::link::{about, check_name};
use crate::error::Result;

impl Netlink {
    /// Creates an interface of the ipip driver, which the kernel loads if it can. It is down.
    ///
    /// # Errors
    /// The name is taken or another interface has the same two ends (`EEXIST`), there is no such
    /// driver (`EOPNOTSUPP`), or CAP_NET_ADMIN is missing.
    pub fn add_ipip(&mut self, name: &str, mtu: u32, ipip: &Ipip) -> Result<()> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        let what = || format!("cannot create the ipip interface {name}");
        let created = self.socket.request(ipip.request(message), NLM_F_CREATE | NLM_F_EXCL, what);
        created.map(drop).map_err(|error| match error.errno() {
            Some(libc::EEXIST) => error.with_hint(
                "another interface has this name or the same two ends (`ip -d link show type ipip`): remove it",
            ),
            _ => error,
        })
    }

    /// Changes how an ipip interface tunnels. Each datagram meets the old or the new parameters.
    ///
    /// # Errors
    /// Another interface has the same two ends (`EEXIST`), or as [`Self::add_ipip`].
    pub fn change_ipip(&mut self, index: u32, ipip: &Ipip) -> Result<()> {
        let what = || format!("cannot change the ipip interface {index}");
        self.socket.request(ipip.request(about(index)), 0, what).map(drop)
    }
}
