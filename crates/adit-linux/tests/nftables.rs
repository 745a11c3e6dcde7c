//! The rule against the tunnel4 drivers: `nft` lists it, and the kernel removes it with its owner.

#[macro_use(test)]
extern crate adit_harness;

use std::net::Ipv4Addr;
use std::process::Command;

use adit_linux::netns::NetNs;
use adit_linux::nftables::Tunnel4DropRule;
use adit_linux::tunnel_protocol::TunnelProtocol;

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const PROTOCOLS: [TunnelProtocol; 2] = [TunnelProtocol::Ipip, TunnelProtocol::Ipv6];
const NFT: &str = "/usr/sbin/nft";

fn listed(ns: &NetNs) -> String {
    let output = ns.run(|| Command::new(NFT).args(["list", "ruleset"]).output()).expect("a namespace");
    let output = output.expect("nft runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test(root, nft)]
fn nft_lists_the_drop_rule_until_its_owner_closes_it() {
    let ns = NetNs::fresh().expect("a namespace");
    let peers = [Ipv4Addr::new(10, 1, 1, 2), Ipv4Addr::new(10, 1, 1, 3)];
    let rule = ns.run(|| Tunnel4DropRule::start("adit-a", LOCAL, &peers, &PROTOCOLS));
    let rule = rule.expect("a namespace").expect("it starts");
    // Some versions of `nft` write the number.
    let rules = listed(&ns).replace("protocol 41", "protocol ipv6").replace("protocol 4", "protocol ipencap");
    for line in [
        "table ip adit-a {",
        "flags owner",
        "elements = { 10.1.1.2, 10.1.1.3 }",
        "type filter hook prerouting priority -500",
        "ip protocol ipencap ip daddr 10.1.1.1 ip saddr @peers drop",
        "ip protocol ipv6 ip daddr 10.1.1.1 ip saddr @peers drop",
    ] {
        assert!(rules.contains(line), "{line} in\n{rules}");
    }
    drop(rule);
    assert_eq!(listed(&ns), "");
}

#[test(root, nft)]
fn a_drop_rule_takes_ten_thousand_peers() {
    let ns = NetNs::fresh().expect("a namespace");
    let peers: Vec<Ipv4Addr> = (0..10_000).map(|n| Ipv4Addr::from_bits(0x0a02_0000 + n)).collect();
    let rule = ns.run(|| Tunnel4DropRule::start("adit-hub", LOCAL, &peers, &PROTOCOLS)).expect("a namespace");
    let _rule = rule.expect("it starts");
    assert!(listed(&ns).contains("10.2.39.15"), "the last peer");
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
