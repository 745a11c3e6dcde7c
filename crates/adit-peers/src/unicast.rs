//! The addresses that a host can have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The reason why an address cannot be a host's. It goes after "which is".
///
/// Addresses from 240.0.0.0 on are among them: they are reserved (RFC 1112, section 4), RFC 1812,
/// section 5.3.7 has routers drop what comes from them, and no ICMP error may be sent to one
/// (RFC 1122, section 3.2.2). A tunnel that ends at such an address would depend on routers that
/// break the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnicast {
    /// 0.0.0.0/8.
    #[error("no address (0.0.0.0/8 means \"this network\")")]
    ThisNetwork,
    /// 127.0.0.0/8.
    #[error("a loopback address (127.0.0.0/8 never leaves a machine)")]
    Loopback,
    /// 224.0.0.0/4.
    #[error("a multicast address (224.0.0.0/4)")]
    Multicast,
    /// 240.0.0.0/4 without 255.255.255.255.
    #[error("a reserved address (240.0.0.0/4, which routers do not forward)")]
    Reserved,
    /// 255.255.255.255.
    #[error("the broadcast address")]
    Broadcast,
    /// `::`.
    #[error("no address (:: means \"none\")")]
    Unspecified,
    /// `::1`.
    #[error("the loopback address, which never leaves a machine")]
    LoopbackV6,
    /// fe80::/10.
    #[error("a link-local address (fe80::/10 never leaves a link)")]
    LinkLocalV6,
    /// ff00::/8.
    #[error("a multicast address (ff00::/8)")]
    MulticastV6,
    /// ::ffff:0:0/96.
    #[error("an IPv4 address in the form of IPv6 (::ffff:0:0/96): write it as IPv4")]
    MappedV4,
}

/// Checks that `address` can be the underlay address of one machine.
///
/// # Errors
/// The kind of address that it is instead.
pub fn check_host(address: IpAddr) -> Result<(), NotUnicast> {
    match address {
        IpAddr::V4(address) => check_host_v4(address),
        IpAddr::V6(address) => check_host_v6(address),
    }
}

fn check_host_v4(address: Ipv4Addr) -> Result<(), NotUnicast> {
    match address.octets() {
        [0, ..] => Err(NotUnicast::ThisNetwork),
        [127, ..] => Err(NotUnicast::Loopback),
        [224..=239, ..] => Err(NotUnicast::Multicast),
        [255, 255, 255, 255] => Err(NotUnicast::Broadcast),
        [240..=255, ..] => Err(NotUnicast::Reserved),
        _ => Ok(()),
    }
}

/// The kinds of RFC 4291 section 2.4.
fn check_host_v6(address: Ipv6Addr) -> Result<(), NotUnicast> {
    match address {
        Ipv6Addr::UNSPECIFIED => Err(NotUnicast::Unspecified),
        Ipv6Addr::LOCALHOST => Err(NotUnicast::LoopbackV6),
        _ if address.is_multicast() => Err(NotUnicast::MulticastV6),
        _ if address.is_unicast_link_local() => Err(NotUnicast::LinkLocalV6),
        _ if address.to_ipv4_mapped().is_some() => Err(NotUnicast::MappedV4),
        _ => Ok(()),
    }
}

/// Checks that hosts behind a site can have addresses of `network`. A network that begins with
/// other addresses and only contains such ones, as 0.0.0.0/0 and ::/0 do, is accepted.
///
/// # Errors
/// The network is inside 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 or 240.0.0.0/4; or inside fe80::/10,
/// ff00::/8 or ::ffff:0:0/96, or is `::` or `::1` alone.
pub fn check_network(network: IpNet) -> Result<(), NotUnicast> {
    match network {
        IpNet::V4(network) => match check_host_v4(network.addr()) {
            // A shorter prefix contains other addresses too.
            Err(NotUnicast::ThisNetwork) if network.prefix_len() < 8 => Ok(()),
            checked => checked,
        },
        IpNet::V6(network) => match check_host_v6(network.addr()) {
            Err(NotUnicast::Unspecified) if network.prefix_len() < 128 => Ok(()),
            checked => checked,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_unicast_address_below_240() {
        for (address, found) in [
            ([0, 0, 0, 0], Err(NotUnicast::ThisNetwork)),
            ([0, 255, 255, 255], Err(NotUnicast::ThisNetwork)),
            ([1, 0, 0, 0], Ok(())),
            ([10, 1, 1, 1], Ok(())),
            ([126, 255, 255, 255], Ok(())),
            ([127, 0, 0, 1], Err(NotUnicast::Loopback)),
            ([128, 0, 0, 0], Ok(())),
            ([223, 255, 255, 255], Ok(())),
            ([224, 0, 0, 0], Err(NotUnicast::Multicast)),
            ([239, 255, 255, 255], Err(NotUnicast::Multicast)),
            ([240, 0, 0, 0], Err(NotUnicast::Reserved)),
            ([255, 255, 255, 254], Err(NotUnicast::Reserved)),
            ([255, 255, 255, 255], Err(NotUnicast::Broadcast)),
        ] {
            assert_eq!(check_host(address.into()), found, "{address:?}");
        }
    }

    #[test]
    fn a_network_has_addresses_of_hosts() {
        let check = |network: &str| check_network(network.parse().unwrap());
        assert_eq!(check("224.0.0.0/4"), Err(NotUnicast::Multicast));
        assert_eq!(check("127.0.0.0/8"), Err(NotUnicast::Loopback));
        assert_eq!(check("0.0.0.0/8"), Err(NotUnicast::ThisNetwork));
        assert_eq!(check("0.1.0.0/16"), Err(NotUnicast::ThisNetwork));
        assert_eq!(check("240.0.0.0/4"), Err(NotUnicast::Reserved));
        assert_eq!(check("250.1.0.0/16"), Err(NotUnicast::Reserved));
        assert_eq!(check("255.255.255.255/32"), Err(NotUnicast::Broadcast));
        assert_eq!(check("10.0.0.0/8"), Ok(()));
        assert_eq!(check("0.0.0.0/7"), Ok(()));
        assert_eq!(check("128.0.0.0/1"), Ok(()));
        assert_eq!(check("0.0.0.0/0"), Ok(()));
    }

    #[test]
    fn a_network_of_ipv6_has_addresses_of_hosts() {
        for (network, found) in [
            ("::/0", Ok(())),
            ("::/127", Ok(())),
            ("::/128", Err(NotUnicast::Unspecified)),
            ("::1/128", Err(NotUnicast::LoopbackV6)),
            ("::2/128", Ok(())),
            ("::ffff:0:0/96", Err(NotUnicast::MappedV4)),
            ("::ffff:10.1.1.0/120", Err(NotUnicast::MappedV4)),
            ("64:ff9b::/96", Ok(())),
            ("2001:db8::/32", Ok(())),
            ("fc00::/7", Ok(())),
            ("fe80::/10", Err(NotUnicast::LinkLocalV6)),
            ("febf::/16", Err(NotUnicast::LinkLocalV6)),
            ("fe00::/9", Ok(())),
            ("fec0::/10", Ok(())),
            ("ff00::/8", Err(NotUnicast::MulticastV6)),
            ("ff02::1/128", Err(NotUnicast::MulticastV6)),
        ] {
            assert_eq!(check_network(network.parse().unwrap()), found, "{network}");
        }
    }
}
