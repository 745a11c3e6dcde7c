//! Lines in the format of `tcpdump -t -n`.
//!
//! The lines of the two-site network are the text of a published capture. The others are what
//! tcpdump 4.99.3 printed for such datagrams with other addresses, except for `(ipip-proto-4)`: the
//! older tcpdump of that capture prints it, 4.99.3 does not.

use std::net::Ipv6Addr;

use adit_wire::icmpv4::{EchoKind, Icmpv4Error, MAX_ERROR_LEN, build_echo, build_error};
use adit_wire::icmpv6::{self, Icmpv6Error};
use adit_wire::print::{Dissection, FlowTable};
use etherparse::{IpNumber, Ipv6Header, TcpHeader, TcpOptionElement};

use crate::packets::{A, B, GATEWAY_A, GATEWAY_B, datagram, tcp_datagram};

/// The port of the client, and the first sequence numbers of both ends, in the capture.
const CLIENT_PORT: u16 = 39_820;
const CLIENT_SEQUENCE: u32 = 3_149_930_231;
const SERVER_SEQUENCE: u32 = 667_467_579;

/// A segment of the captured connection. Its numbers count from the SYN.
struct Segment {
    from_client: bool,
    flags: &'static str,
    sequence: u32,
    acknowledgment: Option<u32>,
    window: u16,
    timestamps: (u32, u32),
    payload: Vec<u8>,
}

impl Segment {
    fn encapsulated(&self) -> Vec<u8> {
        let (ours, theirs) = match self.from_client {
            true => (CLIENT_SEQUENCE, SERVER_SEQUENCE),
            false => (SERVER_SEQUENCE, CLIENT_SEQUENCE),
        };
        let mut header = TcpHeader::new(0, 0, ours.wrapping_add(self.sequence), self.window);
        header.syn = self.flags.contains('S');
        header.fin = self.flags.contains('F');
        header.psh = self.flags.contains('P');
        if let Some(acknowledgment) = self.acknowledgment {
            header.ack = true;
            header.acknowledgment_number = theirs.wrapping_add(acknowledgment);
        }
        let timestamps = TcpOptionElement::Timestamp(self.timestamps.0, self.timestamps.1);
        let options: &[TcpOptionElement] = if header.syn {
            &[
                TcpOptionElement::MaximumSegmentSize(1440),
                TcpOptionElement::SelectiveAcknowledgementPermitted,
                timestamps,
                TcpOptionElement::Noop,
                TcpOptionElement::WindowScale(7),
            ]
        } else {
            &[TcpOptionElement::Noop, TcpOptionElement::Noop, timestamps]
        };
        header.set_options(options).expect("at most 40 bytes");
        let (client, server) = ((A, CLIENT_PORT), (B, 80));
        if self.from_client {
            let inner = tcp_datagram(client, server, header, &self.payload);
            datagram(4, GATEWAY_A, GATEWAY_B, &inner)
        } else {
            let inner = tcp_datagram(server, client, header, &self.payload);
            datagram(4, GATEWAY_B, GATEWAY_A, &inner)
        }
    }
}

/// Returns a text of `len` bytes that starts with `beginning`.
fn text(beginning: &str, len: usize) -> Vec<u8> {
    let mut bytes = beginning.as_bytes().to_vec();
    bytes.resize(len, b'x');
    bytes
}

fn captured_segments() -> Vec<Segment> {
    let segment = |from_client, flags, sequence, acknowledgment, window, timestamps| Segment {
        from_client,
        flags,
        sequence,
        acknowledgment,
        window,
        timestamps,
        payload: Vec::new(),
    };
    let with = |segment: Segment, payload| Segment { payload, ..segment };
    vec![
        segment(true, "S", 0, None, 64_800, (3_845_009_178, 0)),
        segment(false, "S", 0, Some(1), 64_260, (137_618_351, 3_845_009_178)),
        segment(true, "", 1, Some(1), 507, (3_845_009_179, 137_618_351)),
        with(
            segment(true, "P", 1, Some(1), 507, (3_845_009_179, 137_618_351)),
            text("GET / HTTP/1.1\r\nHost: 192.168.199.1\r\n", 140),
        ),
        segment(false, "", 1, Some(141), 501, (137_618_352, 3_845_009_179)),
        with(
            segment(false, "P", 1, Some(141), 501, (137_618_353, 3_845_009_179)),
            text("HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6\r\n", 154),
        ),
        segment(true, "", 141, Some(155), 506, (3_845_009_181, 137_618_353)),
        with(
            segment(false, "P", 155, Some(141), 501, (137_618_354, 3_845_009_181)),
            text("<!DOCTYPE HTML PUBLIC>\n<html>\n", 531),
        ),
        segment(true, "", 141, Some(686), 502, (3_845_009_181, 137_618_354)),
        segment(false, "F", 686, Some(141), 501, (137_618_354, 3_845_009_181)),
        segment(true, "F", 141, Some(687), 502, (3_845_009_181, 137_618_354)),
        segment(false, "", 687, Some(142), 501, (137_618_354, 3_845_009_181)),
    ]
}

const ARTICLE: [&str; 12] = [
    "IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1.39820 > 192.168.199.1.80: Flags [S], seq 3149930231, win 64800, options [mss 1440,sackOK,TS val 3845009178 ecr 0,nop,wscale 7], length 0 (ipip-proto-4)",
    "IP 10.1.1.2 > 10.1.1.1: IP 192.168.199.1.80 > 172.16.17.1.39820: Flags [S.], seq 667467579, ack 3149930232, win 64260, options [mss 1440,sackOK,TS val 137618351 ecr 3845009178,nop,wscale 7], length 0 (ipip-proto-4)",
    "IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1.39820 > 192.168.199.1.80: Flags [.], ack 1, win 507, options [nop,nop,TS val 3845009179 ecr 137618351], length 0 (ipip-proto-4)",
    "IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1.39820 > 192.168.199.1.80: Flags [P.], seq 1:141, ack 1, win 507, options [nop,nop,TS val 3845009179 ecr 137618351], length 140: HTTP: GET / HTTP/1.1 (ipip-proto-4)",
    "IP 10.1.1.2 > 10.1.1.1: IP 192.168.199.1.80 > 172.16.17.1.39820: Flags [.], ack 141, win 501, options [nop,nop,TS val 137618352 ecr 3845009179], length 0 (ipip-proto-4)",
    "IP 10.1.1.2 > 10.1.1.1: IP 192.168.199.1.80 > 172.16.17.1.39820: Flags [P.], seq 1:155, ack 141, win 501, options [nop,nop,TS val 137618353 ecr 3845009179], length 154: HTTP: HTTP/1.0 200 OK (ipip-proto-4)",
    "IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1.39820 > 192.168.199.1.80: Flags [.], ack 155, win 506, options [nop,nop,TS val 3845009181 ecr 137618353], length 0 (ipip-proto-4)",
    "IP 10.1.1.2 > 10.1.1.1: IP 192.168.199.1.80 > 172.16.17.1.39820: Flags [P.], seq 155:686, ack 141, win 501, options [nop,nop,TS val 137618354 ecr 3845009181], length 531: HTTP (ipip-proto-4)",
    "IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1.39820 > 192.168.199.1.80: Flags [.], ack 686, win 502, options [nop,nop,TS val 3845009181 ecr 137618354], length 0 (ipip-proto-4)",
    "IP 10.1.1.2 > 10.1.1.1: IP 192.168.199.1.80 > 172.16.17.1.39820: Flags [F.], seq 686, ack 141, win 501, options [nop,nop,TS val 137618354 ecr 3845009181], length 0 (ipip-proto-4)",
    "IP 10.1.1.1 > 10.1.1.2: IP 172.16.17.1.39820 > 192.168.199.1.80: Flags [F.], seq 141, ack 687, win 502, options [nop,nop,TS val 3845009181 ecr 137618354], length 0 (ipip-proto-4)",
    "IP 10.1.1.2 > 10.1.1.1: IP 192.168.199.1.80 > 172.16.17.1.39820: Flags [.], ack 142, win 501, options [nop,nop,TS val 137618354 ecr 3845009181], length 0 (ipip-proto-4)",
];

#[test]
fn the_lines_of_the_two_site_network_are_those_of_the_capture() {
    let mut flows = FlowTable::<256>::new();
    let segments = captured_segments();
    assert_eq!(segments.len(), ARTICLE.len());
    for (segment, expected) in segments.iter().zip(ARTICLE) {
        let bytes = segment.encapsulated();
        assert_eq!(Dissection::new(&bytes).with_flow(&mut flows).to_string(), expected);
    }
}

#[test]
fn without_a_flow_table_numbers_are_absolute() {
    let bytes = captured_segments()[3].encapsulated();
    let line = Dissection::new(&bytes).to_string();
    assert!(line.contains("seq 3149930232:3149930372, ack 667467580,"), "{line}");
}

fn shown(bytes: &[u8]) -> String {
    Dissection::new(bytes).to_string()
}

fn icmp_error(error: Icmpv4Error, offending: &[u8]) -> String {
    let mut out = [0; MAX_ERROR_LEN];
    let len = build_error(&mut out, GATEWAY_A, A, error, offending);
    shown(&out[..len])
}

/// UDP to port 2000.
fn udp(payload_len: usize) -> Vec<u8> {
    let header = etherparse::UdpHeader::without_ipv4_checksum(1000, 2000, payload_len).expect("short");
    datagram(17, A, B, &[&header.to_bytes()[..], &vec![7; payload_len]].concat())
}

#[test]
fn an_icmp_echo_has_its_id_and_sequence() {
    let mut out = [0; 64];
    let len = build_echo(&mut out, 1, 1, &[0; 56], EchoKind::Request).expect("room");
    let line = shown(&datagram(1, A, B, &out[..len]));
    assert_eq!(line, "IP 172.16.17.1 > 192.168.199.1: ICMP echo request, id 1, seq 1, length 64");
    let len = build_echo(&mut out, 7, 65_535, &[0; 56], EchoKind::Reply).expect("room");
    let line = shown(&datagram(1, B, A, &out[..len]));
    assert_eq!(line, "IP 192.168.199.1 > 172.16.17.1: ICMP echo reply, id 7, seq 65535, length 64");
}

#[test]
fn an_icmp_unreachable_has_the_text_of_its_code() {
    for (code, expected) in [
        (0, "net 192.168.199.1 unreachable"),
        (1, "host 192.168.199.1 unreachable"),
        (2, "192.168.199.1 protocol 17 unreachable"),
        (3, "192.168.199.1 udp port 2000 unreachable"),
        (5, "192.168.199.1 unreachable - source route failed"),
        (6, "net 192.168.199.1 unreachable - unknown"),
        (7, "host 192.168.199.1 unreachable - unknown"),
        (8, "192.168.199.1 unreachable - source host isolated"),
        (9, "net 192.168.199.1 unreachable - admin prohibited"),
        (10, "host 192.168.199.1 unreachable - admin prohibited"),
        (11, "net 192.168.199.1 unreachable - tos prohibited"),
        (12, "host 192.168.199.1 unreachable - tos prohibited"),
        (13, "host 192.168.199.1 unreachable - admin prohibited filter"),
        (14, "host 192.168.199.1 unreachable - host precedence violation"),
        (15, "host 192.168.199.1 unreachable - precedence cutoff"),
        (16, "192.168.199.1 unreachable - #16"),
    ] {
        let line = icmp_error(Icmpv4Error::DestinationUnreachable { code }, &udp(20));
        assert_eq!(line, format!("IP 10.1.1.1 > 172.16.17.1: ICMP {expected}, length 56"));
    }
}

#[test]
fn other_icmp_errors_have_the_text_of_tcpdump() {
    let gateway = GATEWAY_B;
    for (error, expected) in [
        (Icmpv4Error::TooBig { mtu: 1400 }, "192.168.199.1 unreachable - need to frag (mtu 1400)"),
        (Icmpv4Error::TooBig { mtu: 0 }, "192.168.199.1 unreachable - need to frag"),
        (Icmpv4Error::TimeExceeded { code: 0 }, "time exceeded in-transit"),
        (Icmpv4Error::TimeExceeded { code: 1 }, "ip reassembly time exceeded"),
        (Icmpv4Error::ParameterProblem { code: 0, pointer: 10 }, "parameter problem - octet 10"),
        (Icmpv4Error::ParameterProblem { code: 1, pointer: 0 }, "parameter problem - code 1"),
        (Icmpv4Error::SourceQuench, "source quench"),
        (Icmpv4Error::Redirect { code: 0, gateway }, "redirect 192.168.199.1 to net 10.1.1.2"),
        (Icmpv4Error::Redirect { code: 1, gateway }, "redirect 192.168.199.1 to host 10.1.1.2"),
        (Icmpv4Error::Redirect { code: 3, gateway }, "redirect-tos 192.168.199.1 to host 10.1.1.2"),
    ] {
        let line = icmp_error(error, &udp(20));
        assert_eq!(line, format!("IP 10.1.1.1 > 172.16.17.1: ICMP {expected}, length 56"));
    }
}

#[test]
fn udp_has_its_length_and_other_protocols_their_number() {
    assert_eq!(shown(&udp(64)), "IP 172.16.17.1.1000 > 192.168.199.1.2000: UDP, length 64");
    let other = datagram(253, A, B, &[0; 40]);
    assert_eq!(shown(&other), "IP 172.16.17.1 > 192.168.199.1:  ip-proto-253 40");
    let twice = datagram(4, GATEWAY_A, GATEWAY_B, &datagram(4, GATEWAY_A, GATEWAY_B, &udp(1)));
    assert_eq!(
        shown(&twice),
        "IP 10.1.1.1 > 10.1.1.2: IP 10.1.1.1 > 10.1.1.2: \
         IP 172.16.17.1.1000 > 192.168.199.1.2000: UDP, length 1 (ipip-proto-4) (ipip-proto-4)"
    );
}

#[test]
fn fragments_and_short_captures_are_marked() {
    let mut later = udp(64);
    later[7] = 3;
    assert_eq!(shown(&later), "IP 172.16.17.1 > 192.168.199.1: ip-proto-17");
    let mut first = udp(64);
    first[6] = 0x20;
    assert_eq!(shown(&first), "IP 172.16.17.1.1000 > 192.168.199.1.2000: UDP, length 64");
    let whole = udp(20);
    assert_eq!(
        shown(&whole[..30]),
        "IP truncated-ip - 18 bytes missing! 172.16.17.1.1000 > 192.168.199.1.2000: UDP, length 20"
    );
    assert_eq!(
        shown(&whole[..22]),
        "IP truncated-ip - 26 bytes missing! 172.16.17.1 > 192.168.199.1:  [|udp]"
    );
    assert_eq!(shown(&whole[..17]), "IP  [|ip]");
    assert_eq!(shown(&[]), "IP  [|ip]");
}

/// Returns a segment between two ports, with ACK unless `acknowledgment` is 0.
fn segment(ports: (u16, u16), sequence: u32, acknowledgment: u32, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(0, 0, sequence, 500);
    header.ack = acknowledgment != 0;
    header.acknowledgment_number = acknowledgment;
    header.set_options_raw(options).expect("at most 40 bytes");
    let (from, to) = if ports.0 > ports.1 { (A, B) } else { (B, A) };
    tcp_datagram((from, ports.0), (to, ports.1), header, payload)
}

#[test]
fn a_connection_seen_from_its_middle_counts_from_there() {
    let mut flows = FlowTable::<8>::new();
    let mut line = |bytes: &[u8]| {
        let line = Dissection::new(bytes).with_flow(&mut flows).to_string();
        line.split_once("Flags ").expect("a TCP line").1.to_owned()
    };
    assert_eq!(line(&segment((5, 2), 100, 200, &[], b"abc")), "[.], seq 100:103, ack 200, win 500, length 3");
    assert_eq!(line(&segment((5, 2), 103, 200, &[], b"abc")), "[.], seq 3:6, ack 1, win 500, length 3");
    assert_eq!(line(&segment((2, 5), 200, 106, &[], b"abcd")), "[.], seq 1:5, ack 6, win 500, length 4");
    assert_eq!(line(&segment((2, 5), 200, 0, &[], b"abcd")), "[none], seq 200:204, win 500, length 4");
    let sack = [1, 1, 5, 10, 0, 0, 0, 0x6a, 0, 0, 0, 0x70];
    assert_eq!(
        line(&segment((2, 5), 200, 103, &sack, b"")),
        "[.], ack 3, win 500, options [nop,nop,sack 1 {6:12}], length 0"
    );
}

#[test]
fn a_full_flow_table_forgets_what_was_used_least_recently() {
    let mut flows = FlowTable::<4>::new();
    let mut is_relative = |port: u16| {
        let bytes = segment((port, 2), 100, 200, &[], b"");
        Dissection::new(&bytes).with_flow(&mut flows).to_string().contains("ack 1,")
    };
    for port in 11..=14 {
        assert!(!is_relative(port), "{port} is new");
    }
    assert!((11..=14).all(&mut is_relative), "four fit");
    assert!(is_relative(11));
    assert!(!is_relative(15), "the fifth is new");
    assert!(is_relative(11), "used more recently than 12");
    assert!(!is_relative(12), "forgotten");
}

#[test]
fn tcp_flags_and_odd_options_have_the_text_of_tcpdump() {
    let line = |options: &[u8]| {
        let line = shown(&segment((9, 2), 1, 2000, options, b""));
        line.split_once("win 500").expect("a TCP line").1.to_owned()
    };
    assert_eq!(line(&[]), ", length 0");
    assert_eq!(line(&[253, 4, 0xf9, 0x89]), ", options [unknown-253 0xf989], length 0");
    assert_eq!(line(&[99, 2, 1, 1]), ", options [unknown-99,nop,nop], length 0");
    assert_eq!(line(&[0, 1, 1, 1]), ", options [eol], length 0");
    assert_eq!(line(&[8, 0, 1, 1]), ", options [[bad opt]");

    let mut bytes = segment((9, 2), 100, 200, &[], b"");
    bytes[33] = 0xff;
    bytes[39] = 9;
    let expected = "Flags [FSRP.UEW], seq 100, ack 200, win 500, urg 9, length 0";
    assert!(shown(&bytes).ends_with(expected), "{}", shown(&bytes));
}

#[test]
fn http_segments_end_in_their_first_line() {
    for (payload, expected) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n"[..], ": HTTP: GET / HTTP/1.1"),
        (b"HTTP/1.0 404 Not Found\r\n", ": HTTP: HTTP/1.0 404 Not Found"),
        (b"hello world\r\n", ": HTTP"),
        (b"POST /a\n", ": HTTP: POST /a"),
        (b"get / x\r\n", ": HTTP: get / x"),
        (b"GETX / \r\n", ": HTTP"),
        (b"HTTP/1.1 2x0 a\r\n", ": HTTP"),
        (b"200 OK\r\n", ": HTTP"),
        (b"GET \x01\xff\r\n", ": HTTP"),
        (b"GET /", ": HTTP: GET / [|http]"),
    ] {
        let expected = format!("length {}{expected}", payload.len());
        for port in [80, 8080] {
            let line = shown(&segment((39_820, port), 1, 1, &[], payload));
            assert!(line.ends_with(&expected), "{line}");
        }
        let line = shown(&segment((39_820, 81), 1, 1, &[], payload));
        assert!(line.ends_with(&format!("length {}", payload.len())), "{line}");
    }
}

const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x17, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x199, 0, 0, 0, 0, 1);
const GATEWAY_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xa, 0, 0, 0, 1);
const GATEWAY_B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xb, 0, 0, 0, 1);

fn packet_v6(next_header: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: payload.len() as u16,
        next_header: IpNumber(next_header),
        hop_limit: 64,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    };
    [&header.to_bytes()[..], payload].concat()
}

/// UDP to port 2000 without its header.
fn udp_datagram(payload_len: usize) -> Vec<u8> {
    let header = etherparse::UdpHeader::without_ipv4_checksum(1000, 2000, payload_len).expect("short");
    [&header.to_bytes()[..], &vec![7; payload_len]].concat()
}

fn udp_v6(payload_len: usize) -> Vec<u8> {
    packet_v6(17, A6, B6, &udp_datagram(payload_len))
}

#[test]
fn packets_of_both_families_are_shown_in_those_of_both() {
    let inner_v4 = "IP 172.16.17.1.1000 > 192.168.199.1.2000: UDP, length 5";
    let inner_v6 = "IP6 2001:db8:17::1.1000 > 2001:db8:199::1.2000: UDP, length 5";
    let outer_v4 = "IP 10.1.1.1 > 10.1.1.2: ";
    let outer_v6 = "IP6 2001:db8:1:a::1 > 2001:db8:1:b::1: ";
    let over_v4 = |protocol, inner: &[u8]| shown(&datagram(protocol, GATEWAY_A, GATEWAY_B, inner));
    let over_v6 = |protocol, inner: &[u8]| shown(&packet_v6(protocol, GATEWAY_A6, GATEWAY_B6, inner));
    assert_eq!(over_v4(41, &udp_v6(5)), format!("{outer_v4}{inner_v6}"));
    assert_eq!(over_v6(4, &udp(5)), format!("{outer_v6}{inner_v4}"));
    assert_eq!(over_v6(41, &udp_v6(5)), format!("{outer_v6}{inner_v6}"));
    assert_eq!(over_v6(41, &udp(20)), format!("{outer_v6}IP6 version error: 4 != 6"));
    assert_eq!(over_v6(41, &udp_v6(5)[..20]), format!("{outer_v6}IP6  [|ip6]"));
}

#[test]
fn extension_headers_stand_between_the_addresses_and_the_ports() {
    let start = "IP6 2001:db8:17::1 > 2001:db8:199::1: ";
    let behind = |kind: u8, header: [u8; 8]| {
        shown(&packet_v6(kind, A6, B6, &[&header[..], &udp_datagram(8)].concat()))
    };
    assert_eq!(behind(0, [17, 0, 1, 4, 0, 0, 0, 0]), format!("{start}HBH 1000 > 2000: UDP, length 8"));
    assert_eq!(behind(60, [17, 0, 1, 4, 0, 0, 0, 0]), format!("{start}DSTOPT 1000 > 2000: UDP, length 8"));
    let fragment = |offset_flags| [17, 0, 0, offset_flags, 0, 0, 0x12, 0x34];
    assert_eq!(behind(44, fragment(1)), format!("{start}frag (0|16) 1000 > 2000: UDP, length 8"));
    assert_eq!(behind(44, fragment(17)), format!("{start}frag (16|16)"));
    assert_eq!(behind(59, [0; 8]), format!("{start} ip-proto-59 24"));
    // It ends beyond the packet.
    assert_eq!(behind(60, [17, 9, 0, 0, 0, 0, 0, 0]), format!("{start} ip-proto-60 24"));
}

#[test]
fn icmpv6_has_the_text_of_tcpdump() {
    let mut echo = [0; 64];
    let len = icmpv6::build_echo(&mut echo, (A6, B6), 7, 9, &[0; 20], EchoKind::Request).expect("room");
    let line = shown(&packet_v6(58, A6, B6, &echo[..len]));
    assert_eq!(line, "IP6 2001:db8:17::1 > 2001:db8:199::1: ICMP6, echo request, id 7, seq 9, length 28");
    for (error, expected) in [
        (
            Icmpv6Error::DestinationUnreachable { code: 0 },
            "destination unreachable, unreachable route 2001:db8:199::1",
        ),
        (
            Icmpv6Error::DestinationUnreachable { code: 1 },
            "destination unreachable,  unreachable prohibited 2001:db8:199::1",
        ),
        (
            Icmpv6Error::DestinationUnreachable { code: 2 },
            "destination unreachable, beyond scope 2001:db8:199::1, source address 2001:db8:17::1",
        ),
        (
            Icmpv6Error::DestinationUnreachable { code: 3 },
            "destination unreachable, unreachable address 2001:db8:199::1",
        ),
        (
            Icmpv6Error::DestinationUnreachable { code: 4 },
            "destination unreachable, unreachable port, 2001:db8:199::1 udp port 2000",
        ),
        (Icmpv6Error::TooBig { mtu: 1280 }, "packet too big, mtu 1280"),
        (Icmpv6Error::TimeExceeded { code: 0 }, "time exceeded in-transit for 2001:db8:199::1"),
        (Icmpv6Error::TimeExceeded { code: 1 }, "time exceeded in-transit (reassembly)"),
        (Icmpv6Error::ParameterProblem { code: 0, pointer: 44 }, "parameter problem, erroneous - octet 44"),
        (Icmpv6Error::ParameterProblem { code: 1, pointer: 44 }, "parameter problem, next header - octet 44"),
        (Icmpv6Error::ParameterProblem { code: 2, pointer: 44 }, "parameter problem, option - octet 44"),
    ] {
        let mut out = [0; icmpv6::MAX_ERROR_LEN];
        let len = icmpv6::build_error(&mut out, GATEWAY_A6, A6, error, &udp_v6(2));
        let start = "IP6 2001:db8:1:a::1 > 2001:db8:17::1: ICMP6, ";
        assert_eq!(shown(&out[..len]), format!("{start}{expected}, length 58"));
    }
    let unquoted = |bytes: [u8; 8]| shown(&packet_v6(58, A6, B6, &bytes));
    assert!(unquoted([1, 4, 0, 0, 0, 0, 0, 0]).ends_with("unreachable port [|icmp6]"));
    assert!(unquoted([3, 0, 0, 0, 0, 0, 0, 0]).ends_with("time exceeded in-transit [|icmp6]"));
    assert!(unquoted([135, 0, 0, 0, 0, 0, 0, 0]).ends_with("ICMP6, type-#135, length 8"));
}

#[test]
fn short_captures_of_ipv6_are_marked() {
    let whole = udp_v6(20);
    assert_eq!(
        shown(&whole[..50]),
        "IP6 truncated-ip6 - 18 bytes missing!2001:db8:17::1.1000 > 2001:db8:199::1.2000: UDP, length 20"
    );
    assert_eq!(
        shown(&whole[..42]),
        "IP6 truncated-ip6 - 26 bytes missing!2001:db8:17::1 > 2001:db8:199::1:  [|udp]"
    );
    assert_eq!(shown(&whole[..39]), "IP6  [|ip6]");
}

#[test]
fn numbers_of_a_connection_count_from_its_start_over_ipv6_too() {
    let mut flows = FlowTable::<8>::new();
    let mut line = |from_a: bool, sequence: u32, acknowledgment: u32| {
        let (from, to) = if from_a { (A6, B6) } else { (B6, A6) };
        let ports = if from_a { (5, 2) } else { (2, 5) };
        let mut header = TcpHeader::new(ports.0, ports.1, sequence, 500);
        (header.ack, header.acknowledgment_number) = (true, acknowledgment);
        let segment = packet_v6(6, from, to, &header.to_bytes());
        let bytes = packet_v6(41, GATEWAY_A6, GATEWAY_B6, &segment);
        let line = Dissection::new(&bytes).with_flow(&mut flows).to_string();
        line.split_once("ack ").expect("a TCP line").1.to_owned()
    };
    assert_eq!(line(true, 100, 200), "200, win 500, length 0");
    assert_eq!(line(true, 100, 201), "2, win 500, length 0");
    assert_eq!(line(false, 200, 103), "3, win 500, length 0");
}
