//! Our address on the underlay: the file names it, or the interface that has it.

use std::net::{IpAddr, Ipv4Addr};

use adit_config::{Config, Underlay};
use adit_linux::netlink::{Address, Network};

use crate::error::ControlError;

/// Finds our address among those of the machine. The one that is `in_use` stays as long as the
/// interface has it.
///
/// # Errors
/// Fails if the address or the interface of the file is missing, which may be temporary, if the
/// interface has no address, or if its address lies in a peer's network.
pub(crate) fn find(
    network: &mut dyn Network,
    config: &Config,
    in_use: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, ControlError> {
    let there = &network.addresses(None)?;
    let name = match &config.site.underlay {
        Underlay::Address(address) => {
            if there.iter().any(|found| found.prefix.addr() == IpAddr::from(*address)) {
                return Ok(*address);
            }
            return Err(ControlError::UnderlayMissing { address: *address, found: list(there) });
        }
        Underlay::Interface(name) => name,
    };
    let missing = |why: &str| ControlError::NoUnderlayAddress {
        interface: name.to_string(),
        why: why.to_owned(),
        found: list(there),
    };
    let link = network.link(name.as_str())?.ok_or_else(|| missing(no_interface(name.as_str())))?;
    let address =
        choose(there, link.index, in_use).ok_or_else(|| missing("which has no IPv4 address yet"))?;
    config.peers.check_site_underlay(address)?;
    Ok(address)
}

/// Refuses an underlay address in a VRF: to send from there takes sockets and routes of that VRF.
///
/// # Errors
/// Fails if the address is in a VRF, or if the kernel cannot be asked.
pub(crate) fn refuse_vrf(network: &mut dyn Network, address: Ipv4Addr) -> Result<(), ControlError> {
    let there = network.addresses(None)?;
    for found in there.iter().filter(|found| found.prefix.addr() == IpAddr::from(address)) {
        let Some(link) = network.link_by_index(found.index)? else { continue };
        let master = link.master.map(|master| network.link_by_index(master)).transpose()?.flatten();
        if let Some(vrf) = master.filter(|master| master.vrf_table.is_some()) {
            return Err(ControlError::UnderlayInVrf { address, interface: link.name, vrf: vrf.name });
        }
    }
    Ok(())
}

/// Chooses among the global addresses of an interface: the one in use, or the first that is not a
/// secondary address of its network, or the first.
fn choose(there: &[Address], interface: u32, in_use: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let usable = || {
        let global = there.iter().filter(|found| found.index == interface && found.is_global);
        global.filter_map(|found| match found.prefix.addr() {
            IpAddr::V4(address) => Some((address, found)),
            IpAddr::V6(_) => None,
        })
    };
    let used = usable().find(|(address, _)| Some(*address) == in_use);
    let primary = usable().find(|(_, found)| !found.is_secondary);
    used.or(primary).or(usable().next()).map(|(address, _)| address)
}

fn list(there: &[Address]) -> String {
    let found: Vec<String> = there
        .iter()
        .map(|address| address.prefix.addr())
        .filter(|address| address.is_ipv4() && !address.is_loopback())
        .map(|address| address.to_string())
        .collect();
    if found.is_empty() { "none yet".to_owned() } else { found.join(", ") }
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
        let at = |last: u8| Some(Ipv4Addr::new(10, 1, 1, last));
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
            assert_eq!(choose(&there, ETH0, in_use), expected, "{there:?} {in_use:?}");
        }
    }
}
