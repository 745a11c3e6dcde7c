//! The reader of what a `[[peer]]` says about the path to it.

use std::net::{IpAddr, Ipv4Addr};

use adit_peers::{Keepalive, PathOptions};
use ipnet::IpNet;
use toml::de::DeValue;

use crate::decode::{Section, Spanned, Value};
use crate::duration::{DurationOrWord, duration_or_word};
use crate::problem::Diagnostics;
use crate::schema::{AUTO, KeySpec, OFF};
use crate::underlay::address_v4;

/// Reads the keys of a peer whose networks these are. `None`: one is wrong, and reported.
pub(crate) fn path_options(
    section: &Section<'_, '_>,
    networks: &[Spanned<IpNet>],
    diagnostics: &mut Diagnostics,
) -> Option<PathOptions> {
    let probe_address = match section.optional("probe-address") {
        Some((key, value)) => probe_address(key, value, networks, diagnostics),
        None => Some(None),
    };
    let keepalive = match section.optional("keepalive") {
        Some((key, value)) => duration_or_word(key, value, diagnostics).map(|read| match read {
            DurationOrWord::Duration(interval) => Keepalive::After(interval),
            DurationOrWord::Word(OFF) => Keepalive::Off,
            DurationOrWord::Word(_) => Keepalive::Default,
        }),
        None => Some(Keepalive::Default),
    };
    Some(PathOptions { probe_address: probe_address?, keepalive: keepalive? })
}

/// Reads an address in the peer's networks, from which alone the peer may answer.
fn probe_address(
    key: &KeySpec,
    value: &Value<'_>,
    networks: &[Spanned<IpNet>],
    diagnostics: &mut Diagnostics,
) -> Option<Option<Ipv4Addr>> {
    if matches!(value.get_ref(), DeValue::String(text) if text == AUTO) {
        return Some(None);
    }
    let address = address_v4(key, value, diagnostics)?.value;
    // Networks that cannot be read are reported themselves.
    if !networks.is_empty() && !networks.iter().any(|network| network.value.contains(&IpAddr::from(address)))
    {
        let found = format!("{address}, which lies in none of them");
        let help = "write the address of that site's gateway in its own network; answers from elsewhere are \
                    dropped";
        key.refuse(value.span(), found, Some(help.to_owned()), diagnostics);
        return None;
    }
    Some(Some(address))
}
