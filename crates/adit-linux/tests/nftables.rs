//! The rule against the tunnel drivers: `nft` lists it, and the kernel removes it with its owner.

#[macro_use(test)]
extern crate adit_harness;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use adit_linux::netns::NetNs;
use adit_linux::nftables::TunnelDropRule;
use adit_linux::tunnel_protocol::TunnelProtocol;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 1));
const LOCAL_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
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
    let peers = [[10, 1, 1, 2], [10, 1, 1, 3]].map(IpAddr::from);
    let rule = ns.run(|| TunnelDropRule::start("adit-a", LOCAL, &peers, &PROTOCOLS));
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
fn nft_lists_the_drop_rule_of_ipv6() {
    let ns = NetNs::fresh().expect("a namespace");
    // A peer of the other family has no place in the table.
    let peers = ["2001:db8::2", "2001:db8::3", "10.1.1.3"].map(|peer| peer.parse().expect("an address"));
    let rule = ns.run(|| TunnelDropRule::start("adit-a", LOCAL_V6, &peers, &PROTOCOLS));
    let rule = rule.expect("a namespace").expect("it starts");
    let rules = listed(&ns).replace("l4proto ipv6 ", "l4proto 41 ").replace("l4proto ipencap ", "l4proto 4 ");
    for line in [
        "table ip6 adit-a {",
        "flags owner",
        "type ipv6_addr",
        "elements = { 2001:db8::2,\n\t\t\t     2001:db8::3 }",
        "type filter hook prerouting priority -500",
        "ip6 nexthdr != ipv6-frag meta l4proto 4 ip6 daddr 2001:db8::1 ip6 saddr @peers drop",
        "ip6 nexthdr != ipv6-frag meta l4proto 41 ip6 daddr 2001:db8::1 ip6 saddr @peers drop",
        "type filter hook output priority",
        "@th,112,8 0x4 ip6 saddr 2001:db8::1 ip6 daddr @peers drop",
        "@th,112,8 0x29 ip6 saddr 2001:db8::1 ip6 daddr @peers drop",
    ] {
        assert!(rules.contains(line), "{line} in\n{rules}");
    }
    drop(rule);
    assert_eq!(listed(&ns), "");
}

#[test(root, nft)]
fn a_drop_rule_takes_ten_thousand_peers() {
    let ns = NetNs::fresh().expect("a namespace");
    let peers: Vec<IpAddr> = (0..10_000).map(|n| Ipv4Addr::from_bits(0x0a02_0000 + n).into()).collect();
    let rule = ns.run(|| TunnelDropRule::start("adit-hub", LOCAL, &peers, &PROTOCOLS)).expect("a namespace");
    let _rule = rule.expect("it starts");
    assert!(listed(&ns).contains("10.2.39.15"), "the last peer");
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
