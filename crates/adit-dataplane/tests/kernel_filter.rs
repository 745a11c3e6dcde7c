//! The kernel plane's table: its netlink bytes and its text mean the same to the kernel, a change
//! of it is one transaction, and counts survive the change.

#[macro_use(test)]
extern crate adit_harness;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use adit_dataplane::kernel::filter::{Filter, RECEIVED};
use adit_fixtures::packet::{bare, udp};
use adit_fixtures::packet_v6::{bare_v6, icmp_v6, udp_v6};
use adit_linux::family::Family;
use adit_linux::netns::NetNs;
use adit_linux::nftables::Tables;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_wire::Protocol;
use ipnet::IpNet;

const NFT: &str = "/usr/sbin/nft";
const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xa, 0, 0, 0, 1);
const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 1, 2), Ipv4Addr::new(10, 1, 1, 3)];
const PEERS6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 1, 0xb, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 1, 0xc, 0, 0, 0, 1)];
const TABLE: &str = "adit_a";
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
        underlay: vec![[10, 1, 1, 1].into()],
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

/// The hub with networks of both families, over the underlays that are named.
fn hub_of_both(underlays: &[Family], takes_all: bool) -> Filter {
    let network = |text: &str| text.parse().expect("a network");
    let mut filter = hub(takes_all, true);
    let address = |underlay: Family, v4: IpAddr, v6: Ipv6Addr| match underlay {
        Family::V4 => v4,
        Family::V6 => v6.into(),
    };
    filter.underlay = underlays.iter().map(|of| address(*of, NODE.into(), NODE6)).collect();
    filter.networks.push(network("2001:db8:17::/64"));
    filter.local.push("2001:db8:17::1".parse().expect("an address"));
    filter.others.push("2001:db8:9::9".parse().expect("an address"));
    filter.peers[0].1.extend([network("2001:db8:199::/64"), network("2001:db8:200::7/128")]);
    filter.peers[1].1.push(network("2001:db8:6400::/40"));
    let peers = [(PEERS[0], PEERS6[0]), (PEERS[1], PEERS6[1])];
    let networks: Vec<_> = filter.peers.iter().map(|(_, networks)| networks.clone()).collect();
    let at = |of: &Family| {
        peers
            .iter()
            .zip(&networks)
            .map(|((v4, v6), networks)| (address(*of, (*v4).into(), *v6), networks.clone()))
            .collect::<Vec<_>>()
    };
    filter.peers = underlays.iter().flat_map(at).collect();
    filter.relayed = takes_all.then(|| vec![(filter.peers[0].0, filter.peers[1].0)]);
    filter
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
    let both = [false, true].map(|takes_all| {
        [&Family::BOTH[..1], &Family::BOTH[1..], &Family::BOTH].map(|of| hub_of_both(of, takes_all))
    });
    let of_v4 = [hub(false, true), hub(true, false)];
    for (tables_expected, filter) in
        of_v4.into_iter().map(|of| (1, of)).chain(both.into_iter().flatten().map(|of| (2, of)))
    {
        let rulesets = filter.rulesets();
        assert_eq!(rulesets.len(), tables_expected);
        let (by_bytes, by_text) =
            (NetNs::fresh().expect("a namespace"), NetNs::fresh().expect("a namespace"));
        tables(&by_bytes).set(TABLE, &rulesets).expect("the kernel takes it");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text: Vec<String> = rulesets.iter().map(ToString::to_string).collect();
        std::fs::write(file.path(), text.join("\n")).expect("capacity for it");
        nft(&by_text, &["-f", file.path().to_str().expect("text")]);
        let expected = bytecode(&by_text);
        assert!(expected.len() > 40, "{expected:#?}");
        assert_eq!(bytecode(&by_bytes), expected, "{}", text.join("\n"));
        // People can read what the bytes made.
        let listed = nft(&by_bytes, &["list", "ruleset"]);
        let has_v4 = filter.underlay.contains(&NODE.into());
        let of_v4 = ["elements = { \"ipipA\" }", "oifname @tunnels goto encap"];
        let pair = has_v4.then_some("elements = { 10.1.1.2 . 192.168.199.0 }");
        for line in of_v4.into_iter().chain(pair) {
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

/// A machine with our underlay addresses.
fn node() -> NetNs {
    let ns = NetNs::fresh().expect("a namespace");
    let commands =
        ["link set lo up", "address add 10.1.1.1 dev lo", "address add 2001:db8:1:a::1 dev lo nodad"];
    for command in commands {
        let done = ns.run(|| Command::new("ip").args(command.split(' ')).status()).expect("a namespace");
        assert!(done.expect("ip runs").success(), "{command}");
    }
    ns
}

/// Sends whole packets to this machine, as if from others.
fn arrive(ns: &NetNs, packets: &[Vec<u8>]) {
    let sent = ns.run(|| {
        for packet in packets {
            if packet[0] >> 4 == 4 {
                RawSocket::sender().expect("root").send(packet).expect("it is sent");
                continue;
            }
            let mut sender = RawFrameSender::open_from(NODE6.into(), 2000, 1).expect("root");
            sender.frame()[LINK_HEADER..][..packet.len()].copy_from_slice(packet);
            sender.commit(packet.len(), None);
            sender.flush();
            assert_eq!(sender.take_sent().taken, 1);
        }
    });
    sent.expect("a namespace");
}

/// What the tables have counted: accepted packets, and drops by their names.
fn counts(tables: &mut Tables) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for family in Family::BOTH {
        let accepted = tables.elements(family, TABLE, RECEIVED).unwrap_or_default();
        *counts.entry("accepted".to_owned()).or_default() +=
            accepted.iter().map(|(_, counted)| counted.packets).sum::<u64>();
        for (name, counted) in tables.counters(family, TABLE).expect("they can be listed") {
            *counts.entry(name).or_default() += counted.packets;
        }
    }
    counts.retain(|_, count| *count > 0);
    counts
}

/// Sends packets, and fails unless they are counted under these names and no others.
#[track_caller]
fn expect_counts(ns: &NetNs, tables: &mut Tables, what: &str, packets: &[Vec<u8>], expected: &[&str]) {
    let mut wanted = counts(tables);
    for name in expected {
        *wanted.entry((*name).to_owned()).or_default() += 1;
    }
    arrive(ns, packets);
    let start = Instant::now();
    while counts(tables) != wanted {
        assert!(start.elapsed() < TIMEOUT, "{what}: {:?}, and not {wanted:?}", counts(tables));
    }
}

/// A packet in another, of the families of its parts.
fn tunneled(outer: Family, payload_is: Family, inner: Vec<u8>) -> Vec<u8> {
    let protocol = match payload_is {
        Family::V4 => Protocol::IPIP,
        Family::V6 => Protocol::IPV6,
    };
    match outer {
        Family::V4 => bare(PEERS[0], NODE, protocol, inner).build(),
        Family::V6 => bare_v6(PEERS6[0], NODE6, protocol, inner).build(),
    }
}

/// The tables see what arrives before a driver does, so they need none.
#[test(root, nft)]
fn each_rule_holds_in_all_four_combinations_of_families() {
    let v6 = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    let (host, far, third) = (v6("2001:db8:17::10"), v6("2001:db8:199::10"), v6("2001:db8:6400::10"));
    let [host4, far4, third4] = [[172, 16, 17, 10], [192, 168, 199, 10], [10, 64, 0, 5]].map(Ipv4Addr::from);
    let udp6 = |from, to| udp_v6(from, to, 100).build();
    let udp4 = |from, to| udp(from, to, 100).build();
    for outer in Family::BOTH {
        for both_underlays in [false, true] {
            let ns = node();
            let mut tables = tables(&ns);
            let underlays: &[Family] = if both_underlays { &Family::BOTH } else { &[outer] };
            let mut filter = hub_of_both(underlays, false);
            // Even a peer that owns such networks may not send from them.
            let first = [IpAddr::from(PEERS[0]), PEERS6[0].into()];
            for (_, networks) in filter.peers.iter_mut().filter(|(peer, _)| first.contains(peer)) {
                let more = ["fe80::/10", "ff00::/8", "::/96", "::ffff:0:0/96"];
                networks.extend(more.map(|network| network.parse::<IpNet>().expect("a network")));
            }
            tables.set(TABLE, &filter.rulesets()).expect("the kernel takes it");
            let has_own = |family| filter.underlay.iter().any(|own| Family::of(*own) == family);
            let nested = |is_ours, name| if is_ours { name } else { "inner-destination-not-ours" };
            let of_v6 = [
                (udp6(far, host), "accepted"),
                (udp6(far, third), "accepted"),
                (udp6(v6("2001:db8:200::7"), host), "accepted"),
                (udp6(v6("2001:db8:200::8"), host), "inner-source-not-from-peer"),
                (udp6(third, host), "inner-source-not-from-peer"),
                (udp6(v6("2001:db8:ff::1"), host), "inner-source-not-from-peer"),
                (udp6(v6("ff02::1"), host), "inner-source-not-from-peer"),
                (udp6(v6("fe80::1"), host), "inner-source-not-from-peer"),
                (udp6(v6("::1"), host), "inner-source-not-from-peer"),
                (udp6(v6("::10.9.9.9"), host), "inner-source-not-from-peer"),
                (udp6(v6("::ffff:10.9.9.9"), host), "inner-source-not-from-peer"),
                (udp6(host, host), "inner-source-is-own"),
                (udp6(v6("2001:db8:17::1"), host), "inner-source-is-own"),
                (udp6(far, v6("2001:db8:199::11")), "inner-destination-not-ours"),
                (udp6(far, v6("ff02::2")), "inner-destination-not-ours"),
                (udp6(far, NODE6), "inner-destination-not-ours"),
                (udp_v6(far, host, 100).hop_limit(0).build(), "decap-inner-ttl-zero"),
                (
                    bare_v6(far, NODE6, Protocol::IPV6, udp6(far, host)).build(),
                    nested(has_own(Family::V6), "nested-to-ourselves"),
                ),
                (
                    bare_v6(far, NODE6, Protocol::IPIP, udp4(far4, host4)).build(),
                    nested(has_own(Family::V6), "nested-to-ourselves"),
                ),
                (
                    icmp_v6((far, NODE6), [128, 0], 1, &[]).build(),
                    if has_own(Family::V6) { "accepted" } else { "inner-destination-not-ours" },
                ),
                (
                    icmp_v6((PEERS6[0], host), [3, 0], 0, &[]).build(),
                    if outer == Family::V6 { "accepted" } else { "inner-source-not-from-peer" },
                ),
                (udp4(far4, host4), "decap-inner-malformed"),
                (udp6(far, host)[..39].to_vec(), "decap-inner-malformed"),
            ];
            let of_v4 = [
                (udp4(far4, host4), "accepted"),
                (udp4(far4, third4), "accepted"),
                (udp4(third4, host4), "inner-source-not-from-peer"),
                (udp4(host4, host4), "inner-source-is-own"),
                (udp4(far4, far4), "inner-destination-not-ours"),
                (udp(far4, host4, 100).ttl(0).build(), "decap-inner-ttl-zero"),
                (
                    bare(far4, NODE, Protocol::IPV6, udp6(far, host)).build(),
                    nested(has_own(Family::V4), "nested-to-ourselves"),
                ),
                (udp6(far, host), "decap-inner-not-ipv4"),
                (udp4(far4, host4)[..19].to_vec(), "decap-inner-malformed"),
            ];
            let all =
                of_v6.map(|row| (Family::V6, row)).into_iter().chain(of_v4.map(|row| (Family::V4, row)));
            for (number, (inner, (packet, expected))) in all.enumerate() {
                let what = format!("{inner:?} in {outer:?}, {underlays:?}, row {number}");
                expect_counts(&ns, &mut tables, &what, &[tunneled(outer, inner, packet)], &[expected]);
            }
            let from_unknown = match outer {
                Family::V4 => bare([10, 1, 1, 77].into(), NODE, Protocol::IPV6, udp6(far, host)).build(),
                Family::V6 => bare_v6(third, NODE6, Protocol::IPV6, udp6(far, host)).build(),
            };
            expect_counts(&ns, &mut tables, "an unknown source", &[from_unknown], &["outer-source-unknown"]);
        }
    }
}

/// The kernel reassembles IPv6 behind the tables: the first fragment is checked.
#[test(root, nft)]
fn what_a_fragment_of_ipv6_carries_is_checked_in_the_first() {
    let v6 = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    let (host, far) = (v6("2001:db8:17::10"), v6("2001:db8:199::10"));
    let ns = node();
    let mut tables = tables(&ns);
    tables.set(TABLE, &hub_of_both(&[Family::V6], false).rulesets()).expect("the kernel takes it");
    let outer = |source| bare_v6(PEERS6[0], NODE6, Protocol::IPV6, udp_v6(source, host, 100).build());
    let limited = |source| outer(source).extension(Protocol(60), [0, 4, 1, 4, 1, 0, 0]);
    for (what, packet, expected) in [
        ("allowed", outer(far), "accepted"),
        ("behind destination options", limited(far), "accepted"),
        ("forged", outer(NODE6), "inner-source-is-own"),
        ("forged behind destination options", limited(NODE6), "inner-source-is-own"),
    ] {
        let (first, second) = (packet.clone().piece(0, 64), packet.piece(64, 36));
        // The second is not counted, whatever it carries.
        expect_counts(&ns, &mut tables, what, &[second.build(), first.build()], &[expected]);
    }
    let tiny = [outer(far).piece(0, 8).build(), outer(far).piece(8, 92).build()];
    expect_counts(
        &ns,
        &mut tables,
        "a first fragment without the inner header",
        &tiny,
        &["decap-inner-malformed"],
    );
    let hidden = limited(NODE6).extension(Protocol(60), [0, 1, 4, 0, 0, 0, 0]);
    let hidden = [hidden.clone().piece(0, 8).build(), hidden.piece(8, 108).build()];
    let what = "a first fragment that does not name what is inside";
    expect_counts(&ns, &mut tables, what, &hidden, &["decap-inner-malformed"]);
    let what = "a first fragment without the inner destination";
    let short = [limited(far).piece(0, 40).build(), limited(far).piece(40, 68).build()];
    expect_counts(&ns, &mut tables, what, &short, &["inner-destination-not-ours"]);
}

/// The tables see what arrives before a driver does, so they need none.
#[test(root, nft)]
fn only_peers_of_a_listed_pair_reach_each_other() {
    let peers = PEERS;
    let hosts = [[192, 168, 199, 5], [10, 64, 0, 5]].map(Ipv4Addr::from);
    let refused = |ns: &NetNs| {
        let listed = nft(ns, &["list", "counter", "ip", "adit_a", "relay-refused"]);
        let packets = listed.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        packets.and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    let accepted = |tables: &mut Tables| {
        let counted = tables.elements(Family::V4, TABLE, RECEIVED).expect("they can be listed");
        counted.iter().map(|(_, counted)| counted.packets).sum::<u64>()
    };
    // Whether the second peer, and then the first, hears the other.
    for (relayed, expected) in [
        (None, [true, true]),
        (Some(vec![]), [false, false]),
        (Some(vec![(peers[0].into(), peers[1].into())]), [true, false]),
    ] {
        let ns = node();
        let filter = Filter { relayed: relayed.clone(), ..hub(true, true) };
        let mut tables = tables(&ns);
        tables.set(TABLE, &filter.rulesets()).expect("the kernel takes it");
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
    let rulesets = hub(false, true).rulesets();
    assert_eq!(tables.look(Family::V4, TABLE).expect("it can be looked at"), None);
    tables.set(TABLE, &rulesets).expect("the kernel takes it");
    let look = |tables: &mut Tables| {
        tables.look(Family::V4, TABLE).expect("it can be looked at").unwrap_or_default()
    };
    let rules = look(&mut tables).rules;
    assert!(look(&mut tables).is(&rulesets[0], rules));
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
        assert!(!look(&mut tables).is(&rulesets[0], rules), "{breakage}");
        tables.set(TABLE, &rulesets).expect(breakage);
        assert!(look(&mut tables).is(&rulesets[0], rules), "{breakage}: {}", nft(&ns, &["list", "ruleset"]));
    }
    assert!(tables.delete(TABLE).expect("it goes"));
    assert!(!tables.delete(TABLE).expect("it is gone"));
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
    let rulesets = hub(true, true).rulesets();
    tables.set(TABLE, &rulesets).expect("the kernel takes it");
    let found = tables.look(Family::V4, TABLE).expect("it can be looked at").expect("it is there");
    assert!(found.is(&rulesets[0], found.rules));
}

#[test(root, nft)]
fn a_change_removes_what_goes_and_keeps_the_counts_of_what_stays() {
    let ns = NetNs::fresh().expect("a namespace");
    let mut tables = tables(&ns);
    let mut filter = hub(true, true);
    tables.set(TABLE, &filter.rulesets()).expect("the kernel takes it");
    // As if the peer had sent something.
    nft(&ns, &["delete element ip adit_a received { 10.1.1.2 }"]);
    nft(&ns, &["add element ip adit_a received { 10.1.1.2 counter packets 7 bytes 700 }"]);
    filter.peers.pop();
    filter.devices.push("another".to_owned());
    filter.mss_clamp = false;
    let rulesets = filter.rulesets();
    tables.set(TABLE, &rulesets).expect("the kernel takes it");
    let found = tables.look(Family::V4, TABLE).expect("it can be looked at").expect("it is there");
    assert!(found.is(&rulesets[0], found.rules), "{found:#?}");
    let counted = tables.elements(Family::V4, TABLE, RECEIVED).expect("they can be listed");
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
            IpAddr::from(Ipv4Addr::from_bits(0x0a02_0000 + n)),
            networks.map(|text| text.parse().expect("a network")).collect(),
        )
    };
    let mut filter = hub(true, true);
    filter.peers = (0..10_000).map(peer).collect();
    let rulesets = filter.rulesets();
    let start = Instant::now();
    tables.set(TABLE, &rulesets).expect("the kernel takes it");
    let set = start.elapsed();
    let found = tables.look(Family::V4, TABLE).expect("it can be looked at").expect("it is there");
    assert!(found.is(&rulesets[0], found.rules));
    let look = start.elapsed() - set;
    filter.peers.pop();
    let rulesets = filter.rulesets();
    let start = Instant::now();
    tables.set(TABLE, &rulesets).expect("the kernel takes it");
    eprintln!("set {set:?}, looked at {look:?}, a peer less {:?}", start.elapsed());
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
