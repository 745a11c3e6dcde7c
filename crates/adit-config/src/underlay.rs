//! The underlay: an address, of ours or of a peer, or the interface that has ours.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::decode::{At, Key, Value, described, string};
use crate::model::{Config, Underlay};
use crate::name::DeviceName;
use crate::problem::Sink;
use crate::read::{is_ipv6, no_ipv6};

/// Why an address that an interface turns out to have cannot be our underlay's: what a file with that address in
/// it would be refused for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnderlayConflict {
    /// A peer has it.
    #[error("peer `{peer}` has the underlay address {address} of this site: write the peer's own address")]
    Taken {
        /// What was found.
        address: Ipv4Addr,
        /// Who has it.
        peer: String,
    },
    /// It is behind a peer.
    #[error(
        "{network} of peer `{peer}` contains the underlay address {address} of this site: the tunnel would route into \
         itself; narrow the network so that it leaves out the address that the tunnel itself sends from"
    )]
    Enclosed {
        /// What was found.
        address: Ipv4Addr,
        /// What it lies in.
        network: Ipv4Net,
        /// Whose network that is.
        peer: String,
    },
}

impl Config {
    /// Whether `address` could stand in the file as `site.underlay`: what is found at an interface nobody has held
    /// against the peers before.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_underlay(&self, address: Ipv4Addr) -> Result<(), UnderlayConflict> {
        for peer in &self.peers {
            let name = || peer.name.to_string();
            if peer.underlay == address {
                return Err(UnderlayConflict::Taken { address, peer: name() });
            }
            if let Some(network) = peer.networks.iter().find(|network| network.contains(&address)) {
                return Err(UnderlayConflict::Enclosed { address, network: *network, peer: name() });
            }
        }
        Ok(())
    }
}

/// Ours: an address, or an interface.
pub(crate) fn own_underlay(key: &Key, value: &Value<'_>, sink: &mut Sink) -> Option<At<Underlay>> {
    let text = string(key, value, sink)?;
    // What looks like an address is meant as one, though an interface could be called so.
    let is_address = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '/')) || is_ipv6(text);
    if is_address {
        return underlay(key, value, sink)
            .map(|At { value, span }| At { value: Underlay::Address(value), span });
    }
    match DeviceName::new(text) {
        Ok(name) => Some(At { value: Underlay::Interface(name), span: value.span() }),
        Err(error) => {
            let found =
                format!("{}, which is no address, and as an interface's name {error}", described(value));
            let help = "write the address, such as \"10.1.1.1\", or the interface that has it, such as \"eth0\"; \
                        names of hosts are not looked up";
            key.refuse(value.span(), found, Some(help.to_owned()), sink);
            None
        }
    }
}

/// An address that one machine may have.
pub(crate) fn underlay(key: &Key, value: &Value<'_>, sink: &mut Sink) -> Option<At<Ipv4Addr>> {
    let text = string(key, value, sink)?;
    let found = described(value);
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        let before_slash = text.split_once('/').map(|(address, _)| address);
        let (found, help) = if is_ipv6(text) {
            (format!("the IPv6 address {found}"), Some(no_ipv6()))
        } else if let Some(Ok(address)) = before_slash.map(str::parse::<Ipv4Addr>) {
            (
                format!("the prefix {found}"),
                Some(format!("the address alone: `{} = \"{address}\"`", key.name)),
            )
        } else if text.contains(|c: char| c.is_alphabetic()) {
            (
                found,
                Some("write the address itself, such as \"10.1.1.1\": names are not looked up".to_owned()),
            )
        } else {
            (found, None)
        };
        key.refuse(value.span(), found, help, sink);
        return None;
    };
    if let Some(what) = not_unicast(address) {
        let message =
            format!("`{}`: expected the address of one machine, found {found}, which is {what}", key.name);
        let help = "write the address that this machine has on the public network, such as \"10.1.1.1\"";
        sink.report(value.span(), message, what, help);
        return None;
    }
    Some(At { value: address, span: value.span() })
}

fn not_unicast(address: Ipv4Addr) -> Option<&'static str> {
    if address.octets()[0] == 0 {
        Some("no address (0.0.0.0/8 means \"this network\")")
    } else if address.is_loopback() {
        Some("a loopback address (127.0.0.0/8 never leaves a machine)")
    } else if address.is_multicast() {
        Some("a multicast address (224.0.0.0/4)")
    } else if address.is_broadcast() {
        Some("the broadcast address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(underlay: &str) -> Config {
        let text =
            include_str!("../../../examples/a.toml").replace("\"10.1.1.1\"", &format!("\"{underlay}\""));
        Config::parse("a.toml", &text).unwrap()
    }

    #[test]
    fn an_interface_is_what_is_no_address() {
        assert_eq!(config("10.1.1.1").site.underlay, Underlay::Address(Ipv4Addr::new(10, 1, 1, 1)));
        for name in ["eth0", "eth0.100", "wan", "e", "enp0s31f6", "0x", "a.b.c.d"] {
            let underlay = config(name).site.underlay;
            assert_eq!(underlay.interface().map(DeviceName::as_str), Some(name));
            assert_eq!((underlay.address(), underlay.to_string()), (None, name.to_owned()));
        }
    }

    #[test]
    fn what_an_interface_has_is_held_against_the_peers() {
        let config = config("eth0");
        let refused =
            |address: [u8; 4]| config.check_underlay(address.into()).map_err(|error| error.to_string());
        assert_eq!(refused([10, 1, 1, 1]), Ok(()));
        let taken = refused([10, 1, 1, 2]).unwrap_err();
        assert!(taken.starts_with("peer `b` has the underlay address 10.1.1.2 of this site"), "{taken}");
        let enclosed = refused([192, 168, 199, 7]).unwrap_err();
        let expected =
            "192.168.199.0/24 of peer `b` contains the underlay address 192.168.199.7 of this site";
        assert!(enclosed.starts_with(expected), "{enclosed}");
    }
}
