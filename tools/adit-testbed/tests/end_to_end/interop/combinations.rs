//! Every combination of an inner and an outer family, as scapy and tcpdump read it.

use std::net::IpAddr;
use std::process::Command;

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::ping::ping;
use adit_lab::two_sites::{
    CONFIG_A, CONFIG_B, HOST_A, HOST_A6, HOST_B, HOST_B6, INSIDE_A, INSIDE_A6, INSIDE_B, INSIDE_B6, TwoSites,
    UNDERLAY_A, UNDERLAY_A6, UNDERLAY_B, UNDERLAY_B6, bring_up, over_ipv6, with_ipv6_networks,
};
use adit_testbed::needs::ebpf;
use adit_testbed::test_planes::with_plane;

use super::{NO_OFFLOAD, PYTHON, TCPDUMP, output, pcapng, send_to_a_closed_port, tcpdump_lines};
use crate::support::ANSWER_TIMEOUT;
use crate::support::stream::Stream;

/// The addresses of both sites in one family, and the names of the family in the output.
struct Family {
    name: &'static str,
    icmp: &'static str,
    inside_a: IpAddr,
    inside_b: IpAddr,
    host_a: IpAddr,
    host_b: IpAddr,
}

const IPV4: Family = Family {
    name: "IP",
    icmp: "ICMP",
    inside_a: IpAddr::V4(INSIDE_A),
    inside_b: IpAddr::V4(INSIDE_B),
    host_a: IpAddr::V4(HOST_A),
    host_b: IpAddr::V4(HOST_B),
};

const IPV6: Family = Family {
    name: "IP6",
    icmp: "ICMP6",
    inside_a: IpAddr::V6(INSIDE_A6),
    inside_b: IpAddr::V6(INSIDE_B6),
    host_a: IpAddr::V6(HOST_A6),
    host_b: IpAddr::V6(HOST_B6),
};

/// Dissects every frame, builds it again with scapy's lengths and checksums, and compares the
/// bytes. Prints one line for each frame.
const DISSECT: &str = r#"
import sys
from io import BytesIO
from scapy.all import ICMP, IP, IPv6, TCP, UDP, Raw, raw, rdpcap
from scapy.layers.inet6 import _ICMPv6

near = sys.argv[1]
labels = {}

def rebuild(layer):
    layer = layer.copy()
    part = layer
    while part and not isinstance(part, Raw):
        # A quote in an ICMP error stays as it is: it may be cut short.
        if "error" in type(part).__name__:
            break
        for field in ("chksum", "cksum", "len", "plen"):
            if field in part.fields:
                delattr(part, field)
        part = part.payload
    return raw(layer)

def length(packet):
    return packet.len if isinstance(packet, IP) else packet.plen + 40

def traffic_class(packet):
    return packet.tos if isinstance(packet, IP) else packet.tc

def kind(segment):
    names = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", _ICMPv6: "ICMP6"}
    return next(name for layer, name in names.items() if isinstance(segment, layer))

for packet in rdpcap(BytesIO(sys.stdin.buffer.read())):
    outer = packet.payload
    inner = outer.payload
    assert isinstance(outer, (IP, IPv6)) and isinstance(inner, (IP, IPv6)), packet.summary()
    protocol = 4 if isinstance(inner, IP) else 41
    # Packets from gateway B have passed one hop, the router.
    hops = 64 if outer.src == near else 63
    if isinstance(outer, IP):
        header = 20
        assert (outer.proto, outer.ihl, outer.flags, outer.ttl) == (protocol, 5, "DF", hops), outer.show(dump=True)
    else:
        header = 40
        assert (outer.nh, outer.hlim) == (protocol, hops) and outer.fl, outer.show(dump=True)
        if isinstance(inner.payload, (TCP, UDP)):
            flow = (inner.src, inner.dst, inner.payload.sport, inner.payload.dport)
            assert labels.setdefault(flow, outer.fl) == outer.fl, "two labels in a flow:\n" + outer.show(dump=True)
    assert length(outer) == length(inner) + header, outer.show(dump=True)
    assert traffic_class(outer) == traffic_class(inner), outer.show(dump=True)
    assert rebuild(outer) == raw(packet)[14:], "scapy writes other bytes:\n" + packet.show(dump=True)
    print(outer.src, outer.dst, inner.src, inner.dst, kind(inner.payload))
"#;

#[test(root, tcpdump, scapy)]
fn over_ipv4_in_userspace() {
    over_ipv4(DataplaneChoice::Userspace);
}

#[test(root, ebpf, tcpdump, scapy)]
fn over_ipv4_by_ebpf() {
    over_ipv4(DataplaneChoice::Ebpf);
}

fn over_ipv4(plane: DataplaneChoice) {
    let network = TwoSites::build_with_ipv6().unwrap();
    let configs = [CONFIG_A, CONFIG_B].map(|text| with_plane(&with_ipv6_networks(text), plane));
    assert_valid_outer_packets(&network, configs, ("IP", UNDERLAY_A.into(), UNDERLAY_B.into()), 20);
}

#[test(root, tcpdump, scapy)]
fn over_ipv6_in_userspace() {
    over_ipv6_with(DataplaneChoice::Userspace);
}

#[test(root, ebpf, tcpdump, scapy)]
fn over_ipv6_by_ebpf() {
    over_ipv6_with(DataplaneChoice::Ebpf);
}

fn over_ipv6_with(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let configs = [CONFIG_A, CONFIG_B].map(|text| with_plane(&over_ipv6(&with_ipv6_networks(text)), plane));
    assert_valid_outer_packets(&network, configs, ("IP6", UNDERLAY_A6.into(), UNDERLAY_B6.into()), 40);
}

/// Sends all kinds of traffic of both families through the tunnel, and lets both programs read what
/// the router sees.
fn assert_valid_outer_packets(
    network: &TwoSites,
    [config_a, config_b]: [String; 2],
    (outer, near, far): (&str, IpAddr, IpAddr),
    overhead: usize,
) {
    for (gateway, device) in [(&network.gateway_a, "underlayA"), (&network.gateway_b, "underlayB")] {
        gateway.ns().run(|| output(Command::new(PYTHON).args(["-c", NO_OFFLOAD, device]), &[])).unwrap();
    }
    let _a = bring_up(&network.gateway_a, &config_a).unwrap();
    let _b = bring_up(&network.gateway_b, &config_b).unwrap();
    let tap = Tap::start(&network.router, "toA").unwrap();
    for family in [IPV4, IPV6] {
        send_traffic(network, &family, 1500 - overhead);
    }
    let frames: Vec<Frame> = tap.finish().into_iter().filter(is_tunneled).collect();
    let capture = pcapng(&frames);

    let dissect = ["-c", DISSECT, &near.to_string()];
    let printed = output(Command::new(PYTHON).args(dissect), &capture);
    assert_eq!(printed.lines().count(), frames.len());
    for Family { icmp, inside_a, inside_b, host_a, host_b, .. } in [IPV4, IPV6] {
        for (from, to, inner_from, inner_to, kind) in [
            (near, far, inside_a, inside_b, "TCP"),
            (far, near, inside_b, inside_a, "TCP"),
            (near, far, host_a, host_b, icmp),
            (far, near, host_b, host_a, icmp),
            (far, near, inside_b, host_a, icmp),
            (near, far, host_a, host_b, "UDP"),
        ] {
            let line = format!("{from} {to} {inner_from} {inner_to} {kind}");
            assert!(printed.lines().any(|found| found == line), "scapy did not print {line}:\n{printed}");
        }
    }

    let printed = tcpdump_lines(&frames);
    for Family { name, inside_a, inside_b, host_a, host_b, .. } in [IPV4, IPV6] {
        for (start, part) in [
            (format!("{outer} {near} > {far}: {name} {inside_a}."), "Flags [S]"),
            (format!("{outer} {far} > {near}: {name} {inside_b}."), "Flags [S.]"),
            (format!("{outer} {near} > {far}: {name} {host_a} > {host_b}: "), "echo request"),
            (format!("{outer} {far} > {near}: {name} {host_b} > {host_a}: "), "echo reply"),
            (format!("{outer} {far} > {near}: {name} {host_b} > {host_a}: "), "udp port 4001"),
        ] {
            let found = printed.lines().any(|line| line.starts_with(&start) && line.contains(part));
            assert!(found, "tcpdump did not print {start} … {part}:\n{printed}");
        }
    }
    // With -vv it verifies lengths and checksums of each header.
    let printed = output(Command::new(TCPDUMP).args(["-n", "-t", "-vv", "-r", "-"]), &capture);
    for mistake in ["incorrect", " bad", "[bad", "wrong", "truncated", "[|"] {
        assert!(!printed.contains(mistake), "{mistake}:\n{printed}");
    }
    for verified in ["(correct)", "udp sum ok", "icmp6 sum ok"] {
        assert!(printed.contains(verified), "{verified}:\n{printed}");
    }
}

fn is_tunneled(frame: &Frame) -> bool {
    const PROTOCOL_AT: usize = 9;
    const NEXT_HEADER_AT: usize = 6;
    let protocol = frame.ipv4().and_then(|bytes| bytes.get(PROTOCOL_AT));
    let next_header = frame.ipv6().and_then(|bytes| bytes.get(NEXT_HEADER_AT));
    matches!(protocol.or(next_header), Some(4 | 41))
}

/// A stream, pings of all sizes up to `largest`, an expired packet and a closed port.
fn send_traffic(network: &TwoSites, family: &Family, largest: usize) {
    let stream = Stream { seed: 1, len: 20_000, write: 20_000, nodelay: false };
    let (sent, received) = stream.send((&network.gateway_a, &network.gateway_b), family.inside_b);
    assert_eq!(received, sent, "to {}", family.inside_b);
    let expired = 2;
    for (to, size, hops) in [
        (family.host_b, 48, 64),
        (family.host_b, 577, 64),
        (family.host_b, largest, 64),
        (family.inside_b, 84, 9),
        (family.host_b, 84, expired),
    ] {
        let answer = network.host_a.run(|| ping(to, size, hops, ANSWER_TIMEOUT)).unwrap();
        assert_eq!(answer.is_reply(), hops != expired, "{to} {size} {hops}: {answer:?}");
    }
    send_to_a_closed_port(network, family.host_a, family.host_b);
}
