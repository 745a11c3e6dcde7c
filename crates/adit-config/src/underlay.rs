//! The decoders of underlay addresses, and of the interface that has ours.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use adit_peers::{UnderlayAddresses, check_host};
use toml::de::DeValue;

use crate::decode::{Spanned, Value, described, is_ipv6, string};
use crate::model::Underlay;
use crate::name::DeviceName;
use crate::problem::Diagnostics;
use crate::schema::KeySpec;

/// The value of a key `underlay`, and where its addresses are written.
#[derive(Debug)]
pub(crate) struct UnderlayPart<T> {
    pub(crate) value: T,
    pub(crate) addresses: Vec<Spanned<IpAddr>>,
    pub(crate) span: Range<usize>,
}

impl<T> UnderlayPart<T> {
    /// The place of an address; that of the whole value if it is none of them.
    pub(crate) fn place_of(&self, address: IpAddr) -> Range<usize> {
        let written = self.addresses.iter().find(|written| written.value == address);
        written.map_or_else(|| self.span.clone(), |written| written.span.clone())
    }

    fn map<U>(self, to: impl FnOnce(T) -> U) -> UnderlayPart<U> {
        UnderlayPart { value: to(self.value), addresses: self.addresses, span: self.span }
    }
}

/// Reads our underlay: an address, one of each family, or an interface.
pub(crate) fn own_underlay(
    key: &KeySpec,
    value: &Value<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<UnderlayPart<Underlay>> {
    if matches!(value.get_ref(), DeValue::Array(_)) {
        return Some(underlays(key, value, diagnostics)?.map(Underlay::Addresses));
    }
    let text = string(key, value, diagnostics)?;
    // A text that looks like an address is read as one, even if an interface could have that name.
    let is_address = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '/')) || is_ipv6(text);
    if is_address {
        return Some(underlays(key, value, diagnostics)?.map(Underlay::Addresses));
    }
    match DeviceName::new(text) {
        Ok(_) if is_host_name(text) => {
            let help = "write the address that it has, such as \"10.1.1.1\": names are not looked up";
            key.refuse(
                value.span(),
                format!("the host name {}", described(value)),
                Some(help.to_owned()),
                diagnostics,
            );
            None
        }
        Ok(name) => {
            Some(UnderlayPart { value: Underlay::Interface(name), addresses: Vec::new(), span: value.span() })
        }
        Err(error) => {
            let found =
                format!("{}, which is no address, and as an interface's name {error}", described(value));
            let help = address_of_port(key, text).unwrap_or_else(|| {
                "write the address, such as \"10.1.1.1\", or the interface that has it, such as \"eth0\"; \
                 names of hosts are not looked up"
                    .to_owned()
            });
            key.refuse(value.span(), found, Some(help), diagnostics);
            None
        }
    }
}

/// Reads the underlay addresses of one gateway: an address, or a list of one of each family.
pub(crate) fn underlays(
    key: &KeySpec,
    value: &Value<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<UnderlayPart<UnderlayAddresses>> {
    let addresses = match value.get_ref() {
        DeValue::Array(array) => {
            let read: Vec<_> =
                array.iter().filter_map(|element| address(key, element, diagnostics)).collect();
            if array.is_empty() {
                let help = format!("name at least one: `{} = {}`", key.name, key.example);
                key.refuse(value.span(), "an empty list", Some(help), diagnostics);
            }
            // What is wrong with the others has been reported.
            if array.is_empty() || read.len() < array.len() {
                return None;
            }
            read
        }
        _ => vec![address(key, value, diagnostics)?],
    };
    for (place, later) in addresses.iter().enumerate() {
        let before = addresses.iter().take(place);
        let same = { before }.find(|before| before.value.is_ipv4() == later.value.is_ipv4());
        if let Some(first) = same {
            let family = if later.value.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!(
                "`{}`: expected one address of each family at most, found {} and {}, both of {family}",
                key.name, first.value, later.value
            );
            let help = "a gateway has one address of IPv4 and one of IPv6 here: remove one of the two";
            diagnostics
                .report(later.span.clone(), message, "of the same family", help)
                .with_other(first.span.clone(), "first here");
            return None;
        }
    }
    let both = UnderlayAddresses::new(addresses.iter().map(|written| written.value)).ok()?;
    Some(UnderlayPart { value: both, addresses, span: value.span() })
}

/// Reads an address that one machine can have.
fn address(key: &KeySpec, value: &Value<'_>, diagnostics: &mut Diagnostics) -> Option<Spanned<IpAddr>> {
    let text = string(key, value, diagnostics)?;
    let found = described(value);
    let Ok(address) = text.parse::<IpAddr>() else {
        let before_slash = text.split_once('/').map(|(address, _)| address);
        let (found, help) = if let Some(Ok(address)) = before_slash.map(str::parse::<IpAddr>) {
            (
                format!("the prefix {found}"),
                Some(format!("the address alone: `{} = \"{address}\"`", key.name)),
            )
        } else if let Some(help) = address_of_port(key, text) {
            (found, Some(help))
        } else if text.contains(|c: char| c.is_alphabetic()) {
            (
                found,
                Some("write the address itself, such as \"10.1.1.1\": names are not looked up".to_owned()),
            )
        } else {
            (found, None)
        };
        key.refuse(value.span(), found, help, diagnostics);
        return None;
    };
    if let Err(what) = check_host(address) {
        let message =
            format!("`{}`: expected the address of one machine, found {found}, which is {what}", key.name);
        let help = "write the address that the gateway has on the public network, such as \"10.1.1.1\"";
        diagnostics.report(value.span(), message, what.to_string(), help);
        return None;
    }
    Some(Spanned { value: address, span: value.span() })
}

/// Reads an address of IPv4 that one machine can have.
pub(crate) fn address_v4(
    key: &KeySpec,
    value: &Value<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Spanned<Ipv4Addr>> {
    let Spanned { value: address, span } = address(key, value, diagnostics)?;
    match address {
        IpAddr::V4(address) => Some(Spanned { value: address, span }),
        IpAddr::V6(_) => {
            let found = format!("the IPv6 address {}", described(value));
            let help = format!("`{}` takes IPv4 only in this version", key.name);
            key.refuse(span, found, Some(help), diagnostics);
            None
        }
    }
}

/// Returns true for names such as `gw.example.org`. No tool gives such a name to an interface.
fn is_host_name(text: &str) -> bool {
    let is_word = |label: &str| label.len() > 1 && label.chars().all(|c| c.is_ascii_alphabetic());
    text.matches('.').count() > 1 && text.rsplit('.').take(2).all(is_word)
}

/// What to write instead of an address with a port.
fn address_of_port(key: &KeySpec, text: &str) -> Option<String> {
    let (address, port) = text.split_once(':')?;
    let address: Ipv4Addr = address.parse().ok()?;
    port.parse::<u16>().ok()?;
    Some(format!("IP in IP has no ports; write the address alone: `{} = \"{address}\"`", key.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn config(underlay: &str) -> Config {
        let text =
            include_str!("../../../examples/a.toml").replace("\"10.1.1.1\"", &format!("\"{underlay}\""));
        Config::parse("a.toml", &text).unwrap()
    }

    #[test]
    fn a_text_that_is_no_address_is_an_interface() {
        assert_eq!(config("10.1.1.1").site.underlay, Underlay::Addresses([10, 1, 1, 1].into()));
        for name in ["eth0", "eth0.100", "wan", "e", "enp0s31f6", "0x", "a.b.c.d"] {
            let underlay = config(name).site.underlay;
            assert_eq!(underlay.interface().map(DeviceName::as_str), Some(name));
            assert_eq!((underlay.addresses(), underlay.to_string()), (None, name.to_owned()));
        }
    }

    #[test]
    fn a_host_name_is_no_interface() {
        for name in ["gw.example.org", "a.b-c.site.net"] {
            let text =
                include_str!("../../../examples/a.toml").replace("\"10.1.1.1\"", &format!("\"{name}\""));
            let error = Config::parse("a.toml", &text).unwrap_err().to_string();
            assert!(error.contains(&format!("found the host name \"{name}\"")), "{error}");
            assert!(error.contains("names are not looked up"), "{error}");
        }
    }

    #[test]
    fn the_address_of_an_interface_is_checked_against_the_peers() {
        let peers = config("eth0").peers;
        let refused =
            |address: [u8; 4]| peers.check_site_underlay(address.into()).map_err(|error| error.to_string());
        assert_eq!(refused([10, 1, 1, 1]), Ok(()));
        let taken = refused([10, 1, 1, 2]).unwrap_err();
        assert!(
            taken.starts_with("10.1.1.2 is the underlay address of both peer b and this site"),
            "{taken}"
        );
        let enclosed = refused([192, 168, 199, 7]).unwrap_err();
        let expected =
            "network 192.168.199.0/24 of peer b contains the underlay address 192.168.199.7 of this site";
        assert!(enclosed.starts_with(expected), "{enclosed}");
    }
}
