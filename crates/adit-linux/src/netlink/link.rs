//! Links: network interfaces.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVrf, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Ipip, Netlink};
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// A network interface, as it was when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, unique in its network namespace while it exists.
    pub index: u32,
    /// Its name, 1 to 15 bytes.
    pub name: String,
    /// The longest datagram it carries, in bytes.
    pub mtu: u32,
    /// Whether the administrator wants it up (`IFF_UP`).
    pub up: bool,
    /// Whether it carries what is sent to it: the administrator wants it up, so does what is
    /// below (a cable or the other end, `IFF_LOWER_UP`), and the kernel has acted on that
    /// (`IFF_RUNNING`). Until it has, which takes a moment, it drops everything.
    pub running: bool,
    /// Its link-layer address, if that is an Ethernet's.
    pub mac: Option<[u8; 6]>,
    /// What its maker noted about it.
    pub alias: Option<String>,
    /// The driver's kind for virtual ones: `veth`, `tun`, `ipip`.
    pub kind: Option<String>,
    /// The interface it is a port of: a bridge, a VRF.
    pub master: Option<u32>,
    /// Of a VRF the table of its routes.
    pub vrf_table: Option<u32>,
    /// How it tunnels, if it is of the ipip driver.
    pub ipip: Option<Ipip>,
    /// What frames it carries.
    pub hardware: LinkLayer,
    /// All flags of `netdevice(7)`, `IFF_*`.
    pub flags: u32,
}

/// What frames a link carries (`ARPHRD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// Ethernet.
    Ethernet,
    /// The loopback interface.
    Loopback,
    /// Bare datagrams, as a TUN device.
    None,
    /// Another, by its number.
    Other(u16),
}

impl Netlink {
    /// All interfaces.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let message = RouteNetlinkMessage::GetLink(without_statistics(LinkMessage::default()));
        let answers = self.socket.dump(&message, || "cannot list the interfaces".to_owned())?;
        Ok(answers.into_iter().filter_map(in_answer).collect())
    }

    /// The interface of that name, if there is one.
    ///
    /// # Errors
    /// The name is not one; what the kernel says.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message, || format!("cannot look up the interface {name}"))
    }

    /// The interface of that number, if there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        self.get_link(about(index), || format!("cannot look up interface {index}"))
    }

    fn get_link(&mut self, message: LinkMessage, what: impl Fn() -> String) -> Result<Option<Link>> {
        match self.socket.request(RouteNetlinkMessage::GetLink(without_statistics(message)), 0, what) {
            Ok(answers) => Ok(answers.into_iter().find_map(in_answer)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a pair of Ethernets that are each other's other end: `name` here, `peer_name` in
    /// `peer_ns`. Both are down. Returns the index of the one here.
    ///
    /// # Errors
    /// A name is taken, no CAP_NET_ADMIN in either namespace.
    pub fn add_veth(&mut self, name: &str, peer_name: &str, peer_ns: &NetNs) -> Result<u32> {
        check_name(name)?;
        check_name(peer_name)?;
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(peer_name.to_owned()));
        peer.attributes.push(LinkAttribute::NetNsFd(peer_ns.as_fd().as_raw_fd()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let what = || format!("cannot make the veth pair {name} and {peer_name}");
        self.socket.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, what).map_err(
            |error| match error.errno() {
                Some(libc::EOPNOTSUPP) => {
                    error.with_hint("load the driver (`modprobe veth`), or a kernel with CONFIG_VETH")
                }
                _ => error,
            },
        )?;
        let made = self.link(name)?;
        made.map(|link| link.index)
            .ok_or_else(|| Error::from_errno(what(), libc::ENODEV).with_hint("it vanished at once"))
    }

    /// Wants the interface up.
    ///
    /// # Errors
    /// There is none of that number, no CAP_NET_ADMIN.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.set_flag(index, LinkFlags::Up, "up")
    }

    /// Takes the interface down; the kernel removes its routes.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub fn set_down(&mut self, index: u32) -> Result<()> {
        self.set_flag(index, LinkFlags::empty(), "down")
    }

    fn set_flag(&mut self, index: u32, flags: LinkFlags, word: &str) -> Result<()> {
        let mut message = about(index);
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.set_link(message, || format!("cannot set interface {index} {word}"))
    }

    /// Sets the longest datagram, in bytes.
    ///
    /// # Errors
    /// Out of the driver's range, or as [`Self::set_up`].
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        let what = || format!("cannot set the MTU of interface {index} to {mtu}");
        self.set_attribute(index, LinkAttribute::Mtu(mtu), what)
    }

    /// Notes something about the interface, at most 255 bytes.
    ///
    /// # Errors
    /// Too long, or as [`Self::set_up`].
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<()> {
        let what = || format!("cannot set the alias of interface {index}");
        self.set_attribute(index, LinkAttribute::IfAlias(alias.to_owned()), what)
    }

    /// Makes the interface a port of the bridge (or other such device) `master`, or of none.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<()> {
        let what = || format!("cannot set the master of interface {index}");
        self.set_attribute(index, LinkAttribute::Controller(master.unwrap_or(0)), what)
    }

    /// Sets how many packets may wait to be sent; for a TUN device, to be read.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub fn set_txqueuelen(&mut self, index: u32, packets: u32) -> Result<()> {
        let what = || format!("cannot set the queue length of interface {index}");
        self.set_attribute(index, LinkAttribute::TxQueueLen(packets), what)
    }

    /// Gives the interface another name.
    ///
    /// # Errors
    /// The name is taken or not one, or as [`Self::set_up`].
    pub fn rename(&mut self, index: u32, name: &str) -> Result<()> {
        check_name(name)?;
        let what = || format!("cannot rename interface {index} to {name}");
        self.set_attribute(index, LinkAttribute::IfName(name.to_owned()), what)
    }

    /// Removes the interface, and with it its addresses and routes; of a veth both ends.
    ///
    /// # Errors
    /// Not a virtual one, or as [`Self::set_up`].
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let what = || format!("cannot remove interface {index}");
        self.socket.request(RouteNetlinkMessage::DelLink(about(index)), 0, what).map(drop)
    }

    fn set_attribute(
        &mut self,
        index: u32,
        attribute: LinkAttribute,
        what: impl Fn() -> String,
    ) -> Result<()> {
        let mut message = about(index);
        message.attributes.push(attribute);
        self.set_link(message, what)
    }

    fn set_link(&mut self, message: LinkMessage, what: impl Fn() -> String) -> Result<()> {
        // Without NLM_F_CREATE: a link that is not there is an error.
        self.socket.request(RouteNetlinkMessage::NewLink(message), 0, what).map(drop)
    }
}

/// A message about the interface `index`. 0 would mean "any", and is refused by the kernel.
pub(super) fn about(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Counters are most of what the kernel says about a link, and nobody here reads them.
fn without_statistics(mut message: LinkMessage) -> LinkMessage {
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(Error::from_errno(format!("cannot use `{name}` as an interface's name"), libc::EINVAL)
            .with_hint("a name has 1 to 15 bytes"));
    }
    Ok(())
}

fn in_answer(answer: RouteNetlinkMessage) -> Option<Link> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => of_message(message),
        _ => None,
    }
}

fn table(info: InfoVrf) -> Option<u32> {
    match info {
        InfoVrf::TableId(table) => Some(table),
        _ => None,
    }
}

/// `None` for a bridge's view of its port, which is sent as a link too.
pub(super) fn of_message(message: LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running),
        mac: None,
        alias: None,
        kind: None,
        master: None,
        vrf_table: None,
        ipip: None,
        hardware: match message.header.link_layer_type {
            LinkLayerType::Ether => LinkLayer::Ethernet,
            LinkLayerType::Loopback => LinkLayer::Loopback,
            LinkLayerType::None => LinkLayer::None,
            other => LinkLayer::Other(other.into()),
        },
        flags: flags.bits(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(address) => link.mac = address.try_into().ok(),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Controller(master) => link.master = Some(master).filter(|master| *master != 0),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::Data(InfoData::Vrf(vrf)) => {
                            link.vrf_table = vrf.into_iter().find_map(table)
                        }
                        LinkInfo::Data(InfoData::IpTunnel(data)) => link.ipip = Some(Ipip::of(data)),
                        _ => {}
                    }
                }
                // Others are told in the same way.
                link.ipip = link.ipip.filter(|_| link.kind.as_deref() == Some("ipip"));
            }
            _ => {}
        }
    }
    Some(link)
}
