//! Network interfaces, which netlink calls links.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVrf, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use super::ip_tunnel::IpTunnel;
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// The state of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, unique in its network namespace while it exists.
    pub index: u32,
    /// Its name, 1 to 15 bytes.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// True if it is administratively up (`IFF_UP`).
    pub up: bool,
    /// True if it carries traffic: it is administratively up, what is below it is up (a cable or
    /// the other end, `IFF_LOWER_UP`), and the kernel has processed that (`IFF_RUNNING`). Until
    /// then, which takes a moment, it drops everything.
    pub running: bool,
    /// Its link-layer address, if that is an Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Its alias, a text that the creator can set.
    pub alias: Option<String>,
    /// The kind of a virtual interface: `veth`, `tun`, `sit`.
    pub kind: Option<String>,
    /// The number of the interface it is a port of: a bridge or a VRF.
    pub master: Option<u32>,
    /// The number of the interface that it belongs to, in that interface's namespace. For an end of
    /// a veth pair it is the other end.
    pub lower: Option<u32>,
    /// True if the interface that it belongs to is in another namespace, where `lower` counts.
    pub is_lower_elsewhere: bool,
    /// For a VRF, its routing table.
    pub vrf_table: Option<u32>,
    /// For an interface of the drivers ipip, sit and ip6tnl, how it tunnels.
    pub tunnel: Option<IpTunnel>,
    /// Its link layer.
    pub hardware: LinkLayer,
    /// All its flags (`IFF_*` of netdevice(7)).
    pub flags: u32,
}

/// The link layer of an interface (`ARPHRD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// Ethernet.
    Ethernet,
    /// The loopback interface.
    Loopback,
    /// None: the interface carries bare datagrams, as a TUN device does.
    None,
    /// Another one, by its number.
    Other(u16),
}

impl Netlink {
    /// Lists all interfaces.
    ///
    /// # Errors
    /// The kernel refuses to list them.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let message = RouteNetlinkMessage::GetLink(without_statistics(LinkMessage::default()));
        let answers = self.socket.dump(&message, || "cannot list the interfaces".to_owned())?;
        Ok(answers.into_iter().filter_map(in_answer).collect())
    }

    /// Returns the interface of that name, if there is one.
    ///
    /// # Errors
    /// The name is invalid, or the kernel refuses to look it up.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message, || format!("cannot look up the interface {name}"))
    }

    /// Returns the interface of that number, if there is one.
    ///
    /// # Errors
    /// The kernel refuses to look it up.
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

    /// Creates a veth pair: `name` in this namespace and `peer_name` in `peer_ns`. Both are down.
    /// Returns the number of the interface in this namespace.
    ///
    /// # Errors
    /// A name is taken (`EEXIST`), the kernel has no veth driver, or CAP_NET_ADMIN is missing in
    /// one of the namespaces.
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
        self.create_veth(message, what)?;
        let made = self.link(name)?;
        made.map(|link| link.index).ok_or_else(|| {
            Error::from_errno(what(), libc::ENODEV).with_hint("another program removed it: try again")
        })
    }

    pub(super) fn create_veth(&mut self, message: LinkMessage, what: impl Fn() -> String) -> Result<()> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let created = self.socket.request(RouteNetlinkMessage::NewLink(message), flags, what);
        created.map(drop).map_err(|error| match error.errno() {
            Some(libc::EOPNOTSUPP) => {
                error.with_hint("load the driver (`modprobe veth`), or use a kernel with CONFIG_VETH")
            }
            _ => error,
        })
    }

    /// Sets the interface up.
    ///
    /// # Errors
    /// There is none of that number (`ENODEV`), or CAP_NET_ADMIN is missing.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::Up, LinkFlags::Up, "set interface {} up")
    }

    /// Sets the interface down. The kernel removes its routes.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub fn set_down(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::Up, LinkFlags::empty(), "set interface {} down")
    }

    /// Turns neighbour resolution and multicast off on the interface: a frame for any next hop gets
    /// the interface's own link-layer address as its destination.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub fn set_no_arp(&mut self, index: u32) -> Result<()> {
        let mask = LinkFlags::Noarp | LinkFlags::Multicast;
        self.set_flags(index, mask, LinkFlags::Noarp, "turn ARP off on interface {}")
    }

    /// Sets the link-layer address of an Ethernet interface.
    ///
    /// # Errors
    /// The address is no unicast address, or as [`Self::set_up`].
    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> Result<()> {
        let what = || format!("cannot set the link-layer address of interface {index}");
        self.set_attribute(index, LinkAttribute::Address(mac.to_vec()), what)
    }

    /// Sets the flags in `mask`; `what` says so, with `{}` for the index.
    fn set_flags(&mut self, index: u32, mask: LinkFlags, flags: LinkFlags, what: &str) -> Result<()> {
        let mut message = about(index);
        message.header.flags = flags;
        message.header.change_mask = mask;
        self.set_link(message, || format!("cannot {}", what.replace("{}", &index.to_string())))
    }

    /// Sets the MTU, in bytes.
    ///
    /// # Errors
    /// The MTU is out of the driver's range, or as [`Self::set_up`].
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        let what = || format!("cannot set the MTU of interface {index} to {mtu}");
        self.set_attribute(index, LinkAttribute::Mtu(mtu), what)
    }

    /// Sets the alias, at most 255 bytes.
    ///
    /// # Errors
    /// The alias is too long, or as [`Self::set_up`].
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<()> {
        let what = || format!("cannot set the alias of interface {index}");
        self.set_attribute(index, LinkAttribute::IfAlias(alias.to_owned()), what)
    }

    /// Makes the interface a port of `master`, a bridge or a VRF, or of none.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<()> {
        let what = || format!("cannot set the master of interface {index}");
        self.set_attribute(index, LinkAttribute::Controller(master.unwrap_or(0)), what)
    }

    /// Renames the interface.
    ///
    /// # Errors
    /// The name is taken (`EEXIST`) or invalid, or as [`Self::set_up`].
    pub fn rename(&mut self, index: u32, name: &str) -> Result<()> {
        check_name(name)?;
        let what = || format!("cannot rename interface {index} to {name}");
        self.set_attribute(index, LinkAttribute::IfName(name.to_owned()), what)
    }

    /// Removes the interface with its addresses and routes. A veth goes with its other end.
    ///
    /// # Errors
    /// The interface is not virtual, or as [`Self::set_up`].
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
        // Without NLM_F_CREATE, a missing interface is an error.
        self.socket.request(RouteNetlinkMessage::NewLink(message), 0, what).map(drop)
    }
}

/// Returns a message about the interface `index`. The kernel refuses 0, which means "any".
pub(super) fn about(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Asks the kernel to leave out the counters, which are most of its answer and are not read here.
fn without_statistics(mut message: LinkMessage) -> LinkMessage {
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(Error::from_errno(format!("cannot use `{name}` as an interface's name"), libc::EINVAL)
            .with_hint("an interface's name has 1 to 15 bytes"));
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

/// Returns `None` for a bridge's view of its port, which the kernel sends as a link too.
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
        lower: None,
        is_lower_elsewhere: false,
        vrf_table: None,
        tunnel: None,
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
            LinkAttribute::Link(lower) => link.lower = Some(lower).filter(|lower| *lower != 0),
            LinkAttribute::LinkNetNsId(_) => link.is_lower_elsewhere = true,
            LinkAttribute::Controller(master) => link.master = Some(master).filter(|master| *master != 0),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::Data(InfoData::Vrf(vrf)) => {
                            link.vrf_table = vrf.into_iter().find_map(table)
                        }
                        LinkInfo::Data(InfoData::IpTunnel(data)) => {
                            link.tunnel = link.kind.as_deref().and_then(|kind| IpTunnel::of(kind, data));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}
