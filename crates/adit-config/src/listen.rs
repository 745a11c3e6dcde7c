//! The decoder of an address to listen on, or `"off"`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::de::DeValue;

use crate::decode::{Value, described, string};
use crate::problem::Diagnostics;
use crate::schema::{KeySpec, OFF};
use crate::suggest::nearest;

/// Reads the address, or `Some(None)` for [`OFF`]. `None`: it is neither, and reported.
pub(crate) fn listen(
    key: &KeySpec,
    value: &Value<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Option<SocketAddr>> {
    if let DeValue::Integer(port) = value.get_ref()
        && port.as_str().parse::<u16>().is_ok_and(|port| port > 0)
    {
        let help = format!("with the address: `{} = \"127.0.0.1:{}\"`", key.name, port.as_str());
        key.refuse(value.span(), described(value), Some(help), diagnostics);
        return None;
    }
    let text = string(key, value, diagnostics)?;
    if text == OFF {
        return Some(None);
    }
    let help = match text.parse::<SocketAddr>() {
        Ok(address) => match mistake(address) {
            None => return Some(Some(address)),
            Some(mistake) => Some(mistake.to_owned()),
        },
        Err(_) => meant(text).map(|meant| format!("write for example `{} = \"{meant}\"`", key.name)),
    };
    key.refuse(value.span(), described(value), help, diagnostics);
    None
}

/// The help for a well-formed address that nothing can listen on.
fn mistake(address: SocketAddr) -> Option<&'static str> {
    match address.ip() {
        _ if address.port() == 0 => {
            Some("port 0 is any port: choose one that a scraper can be configured with")
        }
        ip if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Some("nobody can connect to a group of hosts: write one address of this machine")
        }
        _ => None,
    }
}

/// The address that was meant, if only a part of it was written.
fn meant(text: &str) -> Option<String> {
    /// The port in the documentation.
    const PORT: u16 = 9150;
    match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) if port > 0 => return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()),
        _ => {}
    }
    let brackets: &[char] = &['[', ']'];
    if let Ok(address) = text.trim_matches(brackets).parse::<IpAddr>() {
        return Some(SocketAddr::from((address, PORT)).to_string());
    }
    match text.split_once(':') {
        Some(("localhost", port)) => meant(port),
        _ => nearest(text, [OFF]).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    fn read(metrics: &str) -> Result<Option<String>, String> {
        let text = format!(
            "[site]\nname = \"a\"\nunderlay = \"10.1.1.1\"\nnetworks = [\"172.16.17.0/24\"]\nmetrics = {metrics}\n"
        );
        match Config::parse("x", &text) {
            Ok(config) => Ok(config.site.metrics.map(|address| address.to_string())),
            Err(problems) => Err(problems.to_string()),
        }
    }

    #[test]
    fn valid_addresses_are_accepted() {
        for address in ["127.0.0.1:9150", "0.0.0.0:1", "192.0.2.7:65535", "[::1]:9150", "[::]:80"] {
            assert_eq!(read(&format!("\"{address}\"")), Ok(Some(address.to_owned())));
        }
        assert_eq!(read("\"off\""), Ok(None));
    }

    #[test]
    fn wrong_addresses_are_refused_with_help() {
        for (wrong, help) in [
            ("9150", "`metrics = \"127.0.0.1:9150\"`"),
            ("\":9150\"", "`metrics = \"127.0.0.1:9150\"`"),
            ("\"9151\"", "`metrics = \"127.0.0.1:9151\"`"),
            ("\"localhost:80\"", "`metrics = \"127.0.0.1:80\"`"),
            ("\"192.0.2.7\"", "`metrics = \"192.0.2.7:9150\"`"),
            ("\"::1\"", "`metrics = \"[::1]:9150\"`"),
            ("\"127.0.0.1:0\"", "port 0 is any port"),
            ("\"224.0.0.1:9150\"", "a group of hosts"),
            ("\"255.255.255.255:9150\"", "a group of hosts"),
            ("\"127.0.0.1:65536\"", "for example"),
            ("\"example.org:9150\"", "for example"),
            ("\"\"", "for example"),
            ("\"of\"", "`metrics = \"off\"`"),
            ("0", "for example"),
            ("true", "for example"),
        ] {
            let said = read(wrong).expect_err(wrong);
            assert!(said.contains("`metrics`: expected") && said.contains(help), "{wrong}: {said}");
        }
    }
}
