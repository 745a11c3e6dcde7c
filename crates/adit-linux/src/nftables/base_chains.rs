//! The base chains of a network namespace, whoever owns them: the places where a host's firewall
//! may drop or change IPv4 datagrams.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::answer::{find, number, string};
use super::batch::Message;
use super::tables::Tables;
use super::uapi::*;
use crate::error::Result;
use crate::netlink::Notifications;

/// A hook of IPv4 that runs base chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainHook {
    /// Everything that arrives, before it is routed.
    Prerouting,
    /// To this host.
    Input,
    /// From one interface to another.
    Forward,
    /// From this host.
    Output,
    /// Everything that leaves, after it was routed.
    Postrouting,
}

impl ChainHook {
    /// Its name, as `nft` writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }

    /// The hook of a number of linux/netfilter.h; `None` for the ingress hook of family `inet`,
    /// which is a device's.
    fn of_number(number: u32) -> Option<Self> {
        Some(match i32::try_from(number).ok()? {
            libc::NF_INET_PRE_ROUTING => Self::Prerouting,
            libc::NF_INET_LOCAL_IN => Self::Input,
            libc::NF_INET_FORWARD => Self::Forward,
            libc::NF_INET_LOCAL_OUT => Self::Output,
            libc::NF_INET_POST_ROUTING => Self::Postrouting,
            _ => return None,
        })
    }
}

/// A base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// The family of its table: `ip` or `inet`.
    pub family: &'static str,
    /// The name of its table.
    pub table: String,
    /// Its own name.
    pub name: String,
    /// The hook that runs it.
    pub hook: ChainHook,
    /// True if it only translates addresses (`type nat`).
    pub is_nat: bool,
    /// True if its policy is to drop.
    pub drops: bool,
    /// The number of its rules.
    pub rules: u32,
}

// linux/netfilter/nfnetlink.h
const NFNLGRP_NFTABLES: u32 = 7;
/// The families that see IPv4 datagrams on their way through the host.
const FAMILIES: [(&str, i32); 2] = [("ip", libc::NFPROTO_IPV4), ("inet", libc::NFPROTO_INET)];

impl Tables {
    /// Subscribes to changes of all tables in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no netfilter netlink, or CAP_NET_ADMIN is missing.
    pub fn changes() -> Result<Notifications> {
        Notifications::open(NETLINK_NETFILTER, NFNLGRP_NFTABLES)
    }

    /// Lists the base chains that see IPv4 datagrams, of all tables in the namespace. Those of a
    /// dormant table are listed too.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or CAP_NET_ADMIN is missing.
    pub fn base_chains(&mut self) -> Result<Vec<BaseChain>> {
        let mut chains = Vec::new();
        for (family, code) in FAMILIES {
            let found = |bytes: &[u8]| chains.extend(of_answer(family, bytes));
            let what = "cannot list the chains of nf_tables";
            self.list_number(code as u8, Message::GetChain, |_| {}, what, found)?;
        }
        Ok(chains)
    }
}

/// Reads a chain from its attributes; `None` if it is no base chain of IPv4.
fn of_answer(family: &'static str, bytes: &[u8]) -> Option<BaseChain> {
    let hook = find(bytes, NFTA_CHAIN_HOOK)?;
    let hook = ChainHook::of_number(find(hook, NFTA_HOOK_HOOKNUM).and_then(number)?)?;
    let name = |kind| find(bytes, kind).and_then(string).unwrap_or_default();
    // Nothing jumps to a base chain, so each use of it is a rule.
    let rules = find(bytes, NFTA_CHAIN_USE).and_then(number).unwrap_or(u32::MAX);
    let policy = find(bytes, NFTA_CHAIN_POLICY).and_then(number);
    Some(BaseChain {
        family,
        table: name(NFTA_TABLE_NAME),
        name: name(NFTA_CHAIN_NAME),
        hook,
        is_nat: find(bytes, NFTA_CHAIN_TYPE).and_then(string).as_deref() == Some("nat"),
        drops: policy == Some(libc::NF_DROP as u32),
        rules,
    })
}

/// Returns the names of the tables that iptables-legacy has in the calling thread's network
/// namespace, such as `filter`. A kernel without iptables-legacy has none.
///
/// # Errors
/// The kernel has them and does not show them.
pub fn legacy_tables() -> io::Result<Vec<String>> {
    match std::fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::NetNs;
    use crate::nftables::writer::Writer;
    use crate::sockets::poll::readable_within;
    use std::time::Duration;

    /// The attributes of a chain's answer, without netlink's and netfilter's headers.
    fn answer(hook: Option<i32>, policy: Option<i32>, rules: u32) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.string(NFTA_TABLE_NAME, "fw");
        writer.string(NFTA_CHAIN_NAME, "f");
        if let Some(hook) = hook {
            writer.nested(NFTA_CHAIN_HOOK, |body| {
                body.number(NFTA_HOOK_HOOKNUM, hook as u32);
                body.number(NFTA_HOOK_PRIORITY, 0);
            });
        }
        if let Some(policy) = policy {
            writer.number(NFTA_CHAIN_POLICY, policy as u32);
        }
        writer.number(NFTA_CHAIN_USE, rules);
        writer.into_bytes()
    }

    #[test]
    fn a_base_chain_is_read_with_its_hook_policy_and_rules() {
        let read = |hook, policy, rules| of_answer("ip", &answer(hook, policy, rules));
        let forward = Some(libc::NF_INET_FORWARD);
        let chain = |hook, drops, rules| {
            let (table, name) = ("fw".to_owned(), "f".to_owned());
            Some(BaseChain { family: "ip", table, name, hook, is_nat: false, drops, rules })
        };
        assert_eq!(read(forward, Some(libc::NF_ACCEPT), 0), chain(ChainHook::Forward, false, 0));
        assert_eq!(read(forward, Some(libc::NF_DROP), 0), chain(ChainHook::Forward, true, 0));
        assert_eq!(
            read(Some(libc::NF_INET_LOCAL_IN), Some(libc::NF_ACCEPT), 3),
            chain(ChainHook::Input, false, 3)
        );
        // A chain that others jump to, and the ingress hook of a device.
        assert_eq!(read(None, None, 7), None);
        assert_eq!(read(Some(5), Some(libc::NF_ACCEPT), 7), None);
    }

    #[test(root, nft)]
    fn the_base_chains_of_other_programs_are_listed() {
        let netns = NetNs::fresh().unwrap();
        netns
            .run(|| {
                let mut tables = Tables::open().unwrap();
                assert_eq!(tables.base_chains().unwrap(), []);
                let before = tables.generation().unwrap();
                let mut changes = Tables::changes().unwrap();
                assert!(!changes.any());
                let load = |text: &str| {
                    let run = std::process::Command::new("nft").arg(text).status().unwrap();
                    assert!(run.success(), "{text}");
                };
                load(
                    "add table ip fw; add chain ip fw plain; add rule ip fw plain drop; \
                      add chain ip fw f { type filter hook forward priority 0; policy drop; }",
                );
                load(
                    "add table inet mixed; add chain inet mixed j; \
                      add chain inet mixed i { type filter hook input priority -10; }; \
                      add rule inet mixed i ip protocol 4 drop; add rule inet mixed i jump j",
                );
                load(
                    "add table ip6 six; add chain ip6 six f { type filter hook forward priority 0; }; \
                      add rule ip6 six f drop",
                );
                assert!(readable_within(&changes, Duration::from_secs(5)).unwrap());
                assert!(changes.any());
                assert_ne!(tables.generation().unwrap(), before);
                let seen: Vec<_> = tables
                    .base_chains()
                    .unwrap()
                    .into_iter()
                    .map(|chain| (chain.family, chain.table, chain.hook, chain.drops, chain.rules))
                    .collect();
                let forward = ("ip", "fw".to_owned(), ChainHook::Forward, true, 0);
                let input = ("inet", "mixed".to_owned(), ChainHook::Input, false, 2);
                assert_eq!(seen, [forward, input]);
            })
            .unwrap();
    }
}
