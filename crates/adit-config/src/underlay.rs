//! The decoders of underlay addresses, and of the interface that has ours.

use std::net::{IpAddr, Ipv4Addr};

use adit_peers::check_host;

use crate::decode::{Spanned, Value, described, is_ipv6, string};
use crate::model::Underlay;
use crate::name::DeviceName;
use crate::problem::Diagnostics;
use crate::schema::KeySpec;

/// Reads our underlay: an address, or an interface.
pub(crate) fn own_underlay(
    key: &KeySpec,
    value: &Value<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Spanned<Underlay>> {
    let text = string(key, value, diagnostics)?;
    // A text that looks like an address is read as one, even if an interface could have that name.
    let is_address = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '/')) || is_ipv6(text);
    if is_address {
        return underlay(key, value, diagnostics)
            .map(|Spanned { value, span }| Spanned { value: Underlay::Address(value), span });
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
        Ok(name) => Some(Spanned { value: Underlay::Interface(name), span: value.span() }),
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

/// Reads an address that one machine can have.
pub(crate) fn underlay(
    key: &KeySpec,
    value: &Value<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Spanned<IpAddr>> {
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
    let Spanned { value: address, span } = underlay(key, value, diagnostics)?;
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
        assert_eq!(config("10.1.1.1").site.underlay, Underlay::Address(Ipv4Addr::new(10, 1, 1, 1).into()));
        for name in ["eth0", "eth0.100", "wan", "e", "enp0s31f6", "0x", "a.b.c.d"] {
            let underlay = config(name).site.underlay;
            assert_eq!(underlay.interface().map(DeviceName::as_str), Some(name));
            assert_eq!((underlay.address(), underlay.to_string()), (None, name.to_owned()));
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
