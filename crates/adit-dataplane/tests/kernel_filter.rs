//! The kernel plane's table: its netlink bytes and its text mean the same to the kernel, a change
//! of it is one transaction, and counts survive the change.

#[macro_use(test)]
extern crate adit_harness;

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use adit_dataplane::kernel::filter::{Filter, RECEIVED};
use adit_linux::netns::NetNs;
use adit_linux::nftables::{Ruleset, Tables};
use adit_linux::sockets::raw::RawSocket;

const NFT: &str = "/usr/sbin/nft";
const TIMEOUT: Duration = Duration::from_secs(20);

fn nft(ns: &NetNs, arguments: &[&str]) -> String {
    let output = ns.run(|| Command::new(NFT).args(arguments).output()).expect("a namespace");
    let output = output.expect("nft runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn tables(ns: &NetNs) -> Tables {
    ns.run(Tables::open).expect("a namespace").expect("nf_tables")
}

fn hub(takes_all: bool, mss_clamp: bool) -> Filter {
    let network = |text: &str| text.parse().expect("a network");
    Filter {
        site: "a".to_owned(),
        underlay: Some([10, 1, 1, 1].into()),
        networks: vec![network("172.16.17.0/24")],
        local: vec![[172, 16, 17, 1].into()],
        reachable: vec![[10, 99, 0, 1].into()],
        peers: vec![
            ([10, 1, 1, 2].into(), vec![network("192.168.199.0/24"), network("192.168.200.7/32")]),
            ([10, 1, 1, 3].into(), vec![network("10.64.0.0/10")]),
        ],
        relayed: takes_all.then(|| vec![([10, 1, 1, 2].into(), [10, 1, 1, 3].into())]),
        devices: vec!["ipipA".to_owned()],
        takes_all,
        others: vec![[10, 9, 9, 9].into()],
        mss_clamp,
    }
}

/// The kernel's own view: rules in their order, elements sorted.
fn bytecode(ns: &NetNs) -> Vec<String> {
    let listed = nft(ns, &["--debug=netlink", "list", "ruleset"]);
    let is_rule = |line: &&str| line.trim_start().starts_with("[ ");
    let is_element = |line: &&str| line.trim_start().starts_with("element ");
    let mut elements: Vec<&str> = listed.lines().filter(is_element).collect();
    elements.sort_unstable();
    listed.lines().filter(is_rule).chain(elements).map(str::to_owned).collect()
}

#[test(root, nft)]
fn the_text_and_the_netlink_bytes_make_the_same_rules() {
    for (takes_all, mss_clamp) in [(false, true), (true, false)] {
        let ruleset = hub(takes_all, mss_clamp).ruleset();
        let (by_bytes, by_text) =
            (NetNs::fresh().expect("a namespace"), NetNs::fresh().expect("a namespace"));
        tables(&by_bytes).set(&ruleset).expect("the kernel takes it");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), ruleset.to_string()).expect("capacity for it");
        nft(&by_text, &["-f", file.path().to_str().expect("text")]);
        let expected = bytecode(&by_text);
        assert!(expected.len() > 40, "{expected:#?}");
        assert_eq!(bytecode(&by_bytes), expected, "{ruleset}");
        // People can read what the bytes made.
        let listed = nft(&by_bytes, &["list", "ruleset"]);
        for line in [
            "elements = { \"ipipA\" }",
            "elements = { 10.1.1.2 . 192.168.199.0 }",
            "oifname @tunnels goto encap",
        ] {
            assert!(listed.contains(line), "{line} in\n{listed}");
        }
    }
}

/// An IPv4 header without options, and what it carries.
fn datagram(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len() as u16).to_be_bytes();
    let head = [0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    [&head[..], &source.octets(), &destination.octets(), payload].concat()
}

/// The table sees what arrives before the driver does, so it needs no driver.
#[test(root, nft)]
fn only_peers_of_a_listed_pair_reach_each_other() {
    const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
    let peers = [[10, 1, 1, 2], [10, 1, 1, 3]].map(Ipv4Addr::from);
    let hosts = [[192, 168, 199, 5], [10, 64, 0, 5]].map(Ipv4Addr::from);
    let refused = |ns: &NetNs| {
        let listed = nft(ns, &["list", "counter", "ip", "adit_a", "relay-refused"]);
        let packets = listed.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        packets.and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    let accepted = |tables: &mut Tables| {
        let counted = tables.elements("adit_a", RECEIVED).expect("they can be listed");
        counted.iter().map(|(_, counted)| counted.packets).sum::<u64>()
    };
    // Whether the second peer, and then the first, hears the other.
    for (relayed, expected) in [
        (None, [true, true]),
        (Some(vec![]), [false, false]),
        (Some(vec![(peers[0], peers[1])]), [true, false]),
    ] {
        let ns = NetNs::fresh().expect("a namespace");
        for command in ["link set lo up", "address add 10.1.1.1 dev lo"] {
            let arguments = command.split(' ');
            let done = ns.run(|| Command::new("ip").args(arguments).status()).expect("a namespace");
            assert!(done.expect("ip runs").success(), "{command}");
        }
        let filter = Filter { relayed: relayed.clone(), ..hub(true, true) };
        let mut tables = tables(&ns);
        tables.set(&filter.ruleset()).expect("the kernel takes it");
        for ([from, to], is_allowed) in [[0, 1], [1, 0]].into_iter().zip(expected) {
            let before = (refused(&ns), accepted(&mut tables));
            let inner = datagram(hosts[from], hosts[to], 17, &[0; 8]);
            let outer = datagram(peers[from], NODE, 4, &inner);
            let sent = ns.run(|| RawSocket::sender().expect("root").send(&outer)).expect("a namespace");
            sent.expect("it is sent");
            let after = if is_allowed { (before.0, before.1 + 1) } else { (before.0 + 1, before.1) };
            let start = Instant::now();
            while (refused(&ns), accepted(&mut tables)) != after {
                assert!(start.elapsed() < TIMEOUT, "{relayed:?}: from {from} to {to}");
            }
        }
    }
}

#[test(root, nft)]
fn a_change_by_somebody_else_is_detected_and_repaired() {
    let ns = NetNs::fresh().expect("a namespace");
    let mut tables = tables(&ns);
    let ruleset = hub(false, true).ruleset();
    assert_eq!(tables.look("adit_a").expect("it can be looked at"), None);
    tables.set(&ruleset).expect("the kernel takes it");
    let look = |tables: &mut Tables| tables.look("adit_a").expect("it can be looked at").unwrap_or_default();
    let rules = look(&mut tables).rules;
    assert!(look(&mut tables).is(&ruleset, rules));
    for breakage in [
        "delete table ip adit_a",
        "flush chain ip adit_a decap",
        "add rule ip adit_a input accept",
        "insert rule ip adit_a input accept",
        "delete element ip adit_a peers { 10.1.1.2 }",
        "add element ip adit_a peers { 10.1.1.9 }",
        "add chain ip adit_a mine",
        "add set ip adit_a mine { type ipv4_addr; }",
        "add table ip adit_a { flags dormant; }",
    ] {
        let before = tables.generation().expect("it tells");
        nft(&ns, &[breakage]);
        assert_ne!(tables.generation().expect("it tells"), before, "{breakage}");
        assert!(!look(&mut tables).is(&ruleset, rules), "{breakage}");
        tables.set(&ruleset).expect(breakage);
        assert!(look(&mut tables).is(&ruleset, rules), "{breakage}: {}", nft(&ns, &["list", "ruleset"]));
    }
    assert!(tables.delete("adit_a").expect("it goes"));
    assert!(!tables.delete("adit_a").expect("it is gone"));
    assert_eq!(nft(&ns, &["list", "ruleset"]), "");
}

/// A set of the same name may be something else: then the table is replaced whole.
#[test(root, nft)]
fn a_foreign_table_of_the_same_name_is_replaced() {
    let ns = NetNs::fresh().expect("a namespace");
    nft(
        &ns,
        &[
            "add table ip adit_a { set peers { type inet_service; elements = { 80 }; }; chain input { type nat hook input priority 5; }; }",
        ],
    );
    let mut tables = tables(&ns);
    let ruleset = hub(true, true).ruleset();
    tables.set(&ruleset).expect("the kernel takes it");
    let found = tables.look("adit_a").expect("it can be looked at").expect("it is there");
    assert!(found.is(&ruleset, found.rules));
}

#[test(root, nft)]
fn a_change_removes_what_goes_and_keeps_the_counts_of_what_stays() {
    let ns = NetNs::fresh().expect("a namespace");
    let mut tables = tables(&ns);
    let mut filter = hub(true, true);
    tables.set(&filter.ruleset()).expect("the kernel takes it");
    // As if the peer had sent something.
    nft(&ns, &["delete element ip adit_a received { 10.1.1.2 }"]);
    nft(&ns, &["add element ip adit_a received { 10.1.1.2 counter packets 7 bytes 700 }"]);
    filter.peers.pop();
    filter.devices.push("another".to_owned());
    filter.mss_clamp = false;
    let ruleset: Ruleset = filter.ruleset();
    tables.set(&ruleset).expect("the kernel takes it");
    let found = tables.look("adit_a").expect("it can be looked at").expect("it is there");
    assert!(found.is(&ruleset, found.rules), "{found:#?}");
    let counted = tables.elements("adit_a", RECEIVED).expect("they can be listed");
    let [(key, counted)] = &counted[..] else { panic!("{counted:?}") };
    assert_eq!((key.as_slice(), counted.packets, counted.bytes), (&[10, 1, 1, 2][..], 7, 700));
}

/// As many networks as the project promises.
#[test(root, nft)]
#[expect(clippy::print_stderr, reason = "the figures are worth reading")]
fn a_hundred_thousand_networks_are_one_transaction() {
    let ns = NetNs::fresh().expect("a namespace");
    let mut tables = tables(&ns);
    let peer = |n: u32| {
        let networks =
            (0..10).map(|m| format!("{}/28", Ipv4Addr::from_bits(0x1400_0000 + (n * 10 + m) * 16)));
        (
            Ipv4Addr::from_bits(0x0a02_0000 + n),
            networks.map(|text| text.parse().expect("a network")).collect(),
        )
    };
    let mut filter = hub(true, true);
    filter.peers = (0..10_000).map(peer).collect();
    let ruleset = filter.ruleset();
    let start = Instant::now();
    tables.set(&ruleset).expect("the kernel takes it");
    let set = start.elapsed();
    let found = tables.look("adit_a").expect("it can be looked at").expect("it is there");
    assert!(found.is(&ruleset, found.rules));
    let look = start.elapsed() - set;
    filter.peers.pop();
    let ruleset = filter.ruleset();
    let start = Instant::now();
    tables.set(&ruleset).expect("the kernel takes it");
    eprintln!("set {set:?}, looked at {look:?}, a peer less {:?}", start.elapsed());
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
