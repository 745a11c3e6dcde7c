//! The decision whether programs may relay from peer to peer, past the host's FORWARD hook. Pure.

use adit_linux::nftables::{BaseChain, ChainHook};

use super::RelayPath;

/// What was seen of a host's firewall. An error says why a part cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Firewall {
    /// The base chains of nf_tables.
    pub(super) chains: Result<Vec<BaseChain>, String>,
    /// The tables of iptables-legacy.
    pub(super) legacy: Result<Vec<String>, String>,
}

/// Tables of iptables-legacy with a FORWARD chain that can drop.
const LEGACY_FORWARD: [&str; 2] = ["filter", "mangle"];
/// Tables that Adit makes, for each plane that needs one.
const OWN_TABLES: [&str; 2] = ["adit_", "adit-"];

/// The way from peer to peer. `firewall`: `None` if the file says that its rules do not matter.
/// `is_separate`: the hosts inside are in another network namespace. `forwards`: the host forwards
/// what arrives by the tunnel interface.
pub(super) fn relay_path(firewall: Option<&Firewall>, is_separate: bool, forwards: bool) -> RelayPath {
    let by_stack = |reason: String| RelayPath { is_direct: false, reason };
    if is_separate {
        return by_stack("another network namespace decides what is forwarded".to_owned());
    }
    if !forwards {
        return by_stack("forwarding is off on the tunnel interface".to_owned());
    }
    let direct = |reason: &str| RelayPath { is_direct: true, reason: reason.to_owned() };
    match firewall.map(forward_rule) {
        None => direct("as configured, whatever is in FORWARD"),
        Some(None) => direct("no rule in FORWARD"),
        Some(Some(reason)) => by_stack(reason),
    }
}

/// The first sign of a rule in FORWARD. What cannot be read counts as one.
fn forward_rule(firewall: &Firewall) -> Option<String> {
    let chains = match &firewall.chains {
        Ok(chains) => chains,
        Err(error) => return Some(format!("nf_tables cannot be read: {error}")),
    };
    let mut forward = chains.iter().filter(|chain| chain.hook == ChainHook::Forward);
    if let Some(chain) = forward.find(|chain| has_effect(chain)) {
        return Some(described(chain));
    }
    match &firewall.legacy {
        Ok(tables) => tables
            .iter()
            .find(|table| LEGACY_FORWARD.contains(&table.as_str()))
            .map(|table| format!("iptables-legacy has the table {table}")),
        Err(error) => Some(format!("iptables-legacy cannot be read: {error}")),
    }
}

/// The chains with rules that frames of a data plane pass by: all hooks but FORWARD, whose rules
/// hold. Chains that only translate addresses forbid nothing.
pub(super) fn passed_by(firewall: &Firewall) -> Vec<String> {
    let is_own = |chain: &BaseChain| OWN_TABLES.iter().any(|prefix| chain.table.starts_with(prefix));
    let is_passed_by = |chain: &&BaseChain| {
        chain.hook != ChainHook::Forward && !chain.is_nat && has_effect(chain) && !is_own(chain)
    };
    let chains = firewall.chains.iter().flatten().filter(is_passed_by).map(described);
    let tables = firewall.legacy.iter().flatten().filter(|table| *table != "nat");
    chains.chain(tables.map(|table| format!("iptables-legacy table {table}"))).collect()
}

fn has_effect(chain: &BaseChain) -> bool {
    chain.drops || chain.rules > 0
}

/// For example: chain inet fw input (hook input, policy drop, 3 rules).
fn described(chain: &BaseChain) -> String {
    let policy = if chain.drops { "policy drop, " } else { "" };
    let plural = if chain.rules == 1 { "" } else { "s" };
    let BaseChain { family, table, name, hook, rules, .. } = chain;
    format!("chain {family} {table} {name} (hook {}, {policy}{rules} rule{plural})", hook.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(hook: ChainHook, drops: bool, rules: u32) -> BaseChain {
        let (table, name) = ("fw".to_owned(), "c".to_owned());
        BaseChain { family: "inet", table, name, hook, is_nat: false, drops, rules }
    }

    fn firewall(chains: &[BaseChain], legacy: &[&str]) -> Firewall {
        let legacy = legacy.iter().map(|name| (*name).to_owned()).collect();
        Firewall { chains: Ok(chains.to_vec()), legacy: Ok(legacy) }
    }

    #[test]
    fn programs_relay_only_if_no_rule_can_be_in_forward() {
        use ChainHook::{Forward, Input, Output, Postrouting, Prerouting};
        let rows: [(Firewall, Option<&str>); 10] = [
            (firewall(&[], &[]), None),
            (firewall(&[chain(Forward, false, 0)], &[]), None),
            (firewall(&[chain(Forward, false, 1)], &[]), Some("chain inet fw c (hook forward, 1 rule)")),
            (
                firewall(&[chain(Forward, false, 0), chain(Forward, true, 0)], &[]),
                Some("chain inet fw c (hook forward, policy drop, 0 rules)"),
            ),
            (firewall(&[chain(Input, true, 9), chain(Output, true, 9)], &[]), None),
            (firewall(&[chain(Prerouting, true, 9), chain(Postrouting, true, 9)], &[]), None),
            (firewall(&[], &["nat", "raw"]), None),
            (firewall(&[], &["nat", "filter"]), Some("iptables-legacy has the table filter")),
            (
                Firewall { chains: Err("no".to_owned()), ..firewall(&[], &[]) },
                Some("nf_tables cannot be read: no"),
            ),
            (
                Firewall { legacy: Err("no".to_owned()), ..firewall(&[], &[]) },
                Some("iptables-legacy cannot be read: no"),
            ),
        ];
        for (firewall, expected) in rows {
            let path = relay_path(Some(&firewall), false, true);
            assert_eq!(path.is_direct, expected.is_none(), "{firewall:?}");
            assert_eq!(path.reason, expected.unwrap_or("no rule in FORWARD"), "{firewall:?}");
        }
    }

    #[test]
    fn another_namespace_or_a_host_that_does_not_forward_decides_itself() {
        let open = firewall(&[], &[]);
        assert!(relay_path(Some(&open), false, true).is_direct);
        assert!(!relay_path(Some(&open), true, true).is_direct);
        assert!(!relay_path(Some(&open), false, false).is_direct);
        assert!(relay_path(None, false, true).is_direct, "the file says so");
        assert!(!relay_path(None, false, false).is_direct);
    }

    #[test]
    fn chains_that_frames_pass_by_are_named() {
        let input = chain(ChainHook::Input, true, 2);
        let nat = BaseChain { is_nat: true, ..chain(ChainHook::Postrouting, false, 1) };
        let own = BaseChain { table: "adit_b".to_owned(), ..chain(ChainHook::Input, false, 5) };
        let chains =
            [input, nat, own, chain(ChainHook::Output, false, 0), chain(ChainHook::Forward, true, 1)];
        assert_eq!(
            passed_by(&firewall(&chains, &["nat", "raw"])),
            ["chain inet fw c (hook input, policy drop, 2 rules)", "iptables-legacy table raw"]
        );
    }
}
