//! Our addresses on the underlay: the file names them, or the interface that has them.

use std::net::IpAddr;

use adit_config::{Config, DeviceName, PeerSet, Underlay, UnderlayAddresses};
use adit_linux::family::Family;
use adit_linux::netlink::{Address, Network};

use crate::error::ControlError;

/// Finds our addresses among those of the machine. One that is `in_use` stays as long as the
/// interface has it.
///
/// # Errors
/// Fails if an address or the interface of the file is missing, which may be temporary, if the
/// interface has no address of a family that a peer needs, or if its address lies in a peer's
/// network.
pub(crate) fn find(
    network: &mut dyn Network,
    config: &Config,
    in_use: Option<UnderlayAddresses>,
) -> Result<UnderlayAddresses, ControlError> {
    let there = network.addresses(None)?;
    match &config.site.underlay {
        Underlay::Addresses(addresses) => {
            addresses.iter().try_for_each(|address| check_present(&there, address))?;
            Ok(*addresses)
        }
        Underlay::Interface(name) => of_interface(network, name, &there, &config.peers, in_use),
    }
}

/// Checks that the machine has an address of the file.
fn check_present(there: &[Address], address: IpAddr) -> Result<(), ControlError> {
    match there.iter().find(|found| found.prefix.addr() == address) {
        // Another host may have it (RFC 4862 section 5.4).
        Some(found) if found.is_tentative => Err(ControlError::UnderlayTentative { address }),
        Some(_) => Ok(()),
        None => Err(ControlError::UnderlayMissing { address, found: list(there) }),
    }
}

/// The addresses of an interface, of the families that the peers have. One of IPv4 comes first, and
/// one of two that no peer needs may be missing.
fn of_interface(
    network: &mut dyn Network,
    name: &DeviceName,
    there: &[Address],
    peers: &PeerSet,
    in_use: Option<UnderlayAddresses>,
) -> Result<UnderlayAddresses, ControlError> {
    let missing = |why: &str| ControlError::NoUnderlayAddress {
        interface: name.to_string(),
        why: why.to_owned(),
        found: list(there),
    };
    let link = network.link(name.as_str())?.ok_or_else(|| missing(no_interface(name.as_str())))?;
    let families = families(peers);
    let used = |family: Family| in_use?.iter().find(|address| Family::of(*address) == family);
    let found = families.iter().filter_map(|family| choose(there, link.index, *family, used(*family)));
    let Ok(found) = UnderlayAddresses::new(found) else {
        return Err(missing(match families.as_slice() {
            [Family::V6] => NO_V6,
            [Family::V4] => NO_V4,
            _ => "which has no IPv4 address yet, and no global IPv6 address that stays",
        }));
    };
    if let Some(peer) = peers.iter().find(|peer| found.path_to(&peer.underlay).is_none()) {
        return Err(missing(if peer.underlay.first().is_ipv6() { NO_V6 } else { NO_V4 }));
    }
    peers.check_site_underlay(found)?;
    Ok(found)
}

const NO_V4: &str = "which has no IPv4 address yet";
const NO_V6: &str = "which has no global IPv6 address yet that stays";

/// Those of our addresses that the machine does not have now, or not on the interface of the file.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub(crate) fn missing(
    network: &mut dyn Network,
    config: &Config,
    ours: UnderlayAddresses,
) -> Result<Vec<IpAddr>, ControlError> {
    let there = network.addresses(None)?;
    // `None`: any. 0: the interface is gone, and none has this number.
    let interface = match config.site.underlay.interface() {
        Some(name) => Some(network.link(name.as_str())?.map_or(0, |link| link.index)),
        None => None,
    };
    let has = |address: &IpAddr| {
        let mut found = there.iter().filter(|found| found.prefix.addr() == *address);
        found.any(|found| !found.is_tentative && interface.is_none_or(|index| found.index == index))
    };
    Ok(ours.iter().filter(|address| !has(address)).collect())
}

/// The families that an interface's addresses are of use for: those of the peers, or IPv4 while
/// there are no peers.
pub(crate) fn families(peers: &PeerSet) -> Vec<Family> {
    let has = |family| {
        let mut addresses = peers.iter().flat_map(|peer| peer.underlay.iter());
        addresses.any(|address| Family::of(address) == family)
    };
    Family::BOTH
        .into_iter()
        .filter(|family| has(*family) || peers.is_empty() && *family == Family::V4)
        .collect()
}

/// Refuses an underlay address in a VRF: to send from there takes sockets and routes of that VRF.
///
/// # Errors
/// Fails if an address is in a VRF, or if the kernel cannot be asked.
pub(crate) fn refuse_vrf(
    network: &mut dyn Network,
    addresses: UnderlayAddresses,
) -> Result<(), ControlError> {
    let there = network.addresses(None)?;
    for found in there.iter().filter(|found| addresses.contains(found.prefix.addr())) {
        let Some(link) = network.link_by_index(found.index)? else { continue };
        let master = link.master.map(|master| network.link_by_index(master)).transpose()?.flatten();
        if let Some(vrf) = master.filter(|master| master.vrf_table.is_some()) {
            let address = found.prefix.addr();
            return Err(ControlError::UnderlayInVrf { address, interface: link.name, vrf: vrf.name });
        }
    }
    Ok(())
}

/// Chooses among the global addresses of an interface, of one family: the one in use, or the first
/// that is not a secondary address of its network, or the first. Of IPv6 a new choice is no
/// temporary and no deprecated address (RFC 8981, RFC 4862 section 5.5.4), which will go.
fn choose(there: &[Address], interface: u32, family: Family, in_use: Option<IpAddr>) -> Option<IpAddr> {
    let of_interface = there.iter().filter(|found| found.index == interface && found.is_global);
    let of_family = of_interface.filter(|found| Family::of(found.prefix.addr()) == family);
    let usable: Vec<&Address> = of_family.filter(|found| !found.is_tentative).collect();
    let used = usable.iter().find(|found| Some(found.prefix.addr()) == in_use);
    let primary = usable.iter().find(|found| !found.is_secondary && !found.is_deprecated);
    let first = usable.first().filter(|_| family == Family::V4);
    used.or(primary).or(first).map(|found| found.prefix.addr())
}

fn list(there: &[Address]) -> String {
    let found: Vec<String> = there
        .iter()
        .map(|address| address.prefix.addr())
        .filter(|address| !address.is_loopback() && !is_link_local(address))
        .map(|address| address.to_string())
        .collect();
    if found.is_empty() { "none yet".to_owned() } else { found.join(", ") }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// What to say of an interface that is not there.
fn no_interface(name: &str) -> &'static str {
    let last = name.rsplit_once('.').map_or("", |(_, last)| last);
    if last.len() > 1 && last.chars().all(|c| c.is_ascii_alphabetic()) {
        return "which is no interface of this machine, and names of hosts are not looked up";
    }
    "which is no interface of this machine"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::address_on;

    const ETH0: u32 = 2;

    fn address(index: u32, last: u8) -> Address {
        let prefix = format!("10.1.1.{last}/24").parse().expect("an address and its prefix");
        address_on(index, prefix)
    }

    #[test]
    fn the_address_in_use_stays_as_long_as_the_interface_has_it() {
        let (old, new) = (address(ETH0, 1), address(ETH0, 7));
        let second = Address { is_secondary: true, ..address(ETH0, 3) };
        let elsewhere = address(9, 9);
        let link_local = Address { is_global: false, ..address(ETH0, 5) };
        let at = |last: u8| Some(IpAddr::from([10, 1, 1, last]));
        for (there, in_use, expected) in [
            (vec![], None, None),
            (vec![elsewhere.clone(), link_local.clone()], None, None),
            (vec![elsewhere.clone()], at(9), None),
            (vec![old.clone(), new.clone()], None, at(1)),
            (vec![second.clone(), new.clone()], None, at(7)),
            (vec![second.clone()], None, at(3)),
            (vec![old.clone(), new.clone()], at(7), at(7)),
            (vec![new.clone(), old], at(1), at(1)),
            (vec![new.clone(), second], at(3), at(3)),
            (vec![link_local, new], at(1), at(7)),
        ] {
            assert_eq!(choose(&there, ETH0, Family::V4, in_use), expected, "{there:?} {in_use:?}");
        }
    }

    #[test]
    fn rfc4862_s5_5_4_an_underlay_of_ipv6_is_an_address_that_stays() {
        let six = |last: &str| {
            let prefix = format!("2001:db8::{last}/64").parse().expect("an address and its prefix");
            address_on(ETH0, prefix)
        };
        let stays = six("1");
        let tentative = Address { is_tentative: true, ..six("2") };
        let deprecated = Address { is_deprecated: true, ..six("3") };
        let temporary = Address { is_secondary: true, ..six("4") };
        let link_local = address_on(ETH0, "fe80::5/64".parse().expect("an address and its prefix"));
        let link_local = Address { is_global: false, ..link_local };
        let at = |last: &str| Some(format!("2001:db8::{last}").parse().expect("an address"));
        let others = [address(ETH0, 1), tentative.clone(), deprecated.clone(), temporary, link_local];
        for (there, in_use, expected) in [
            (others.to_vec(), None, None),
            ([&others[..], std::slice::from_ref(&stays)].concat(), None, at("1")),
            (vec![stays.clone(), deprecated.clone()], at("3"), at("3")),
            (vec![stays.clone(), tentative], at("2"), at("1")),
            (vec![deprecated], at("1"), None),
        ] {
            assert_eq!(choose(&there, ETH0, Family::V6, in_use), expected, "{there:?} {in_use:?}");
        }
        assert_eq!(choose(&[stays], ETH0, Family::V4, None), None);
    }
}
