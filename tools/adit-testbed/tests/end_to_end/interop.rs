//! Interoperation with independent programs: tcpdump and scapy.

mod combinations;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use adit_lab::capture::{Frame, Tap};
use adit_lab::http::{self, Server};
use adit_lab::pcapng::write_pcapng;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{HOST_A, HOST_B, INSIDE_A, INSIDE_B, TwoSites, UNDERLAY_A, UNDERLAY_B, bring_up};
use adit_linux::sockets::raw::RawSocket;
use adit_linux::tunnel_protocol::TunnelProtocol;
use adit_wire::Protocol;
use adit_wire::ipv4::{Ipv4Packet, Ipv4Repr};
use adit_wire::print::{Dissection, FlowTable};
use adit_wire::validation::Validation;

use crate::support::{ANSWER_TIMEOUT, config_a, mac};

const TCPDUMP: &str = "/usr/bin/tcpdump";
const PYTHON: &str = "/usr/bin/python3";

/// Sends all kinds of traffic through the tunnel, and returns the outer datagrams that the router
/// sees.
fn capture(network: &TwoSites) -> Vec<Frame> {
    let tap = Tap::start(&network.router, "toA").unwrap();
    let page = "a page\n".repeat(1000);
    let server = Server::start(&network.gateway_b, INSIDE_B, 80, page.clone()).unwrap();
    let fetched = network.gateway_a.ns().run(|| http::get(SocketAddrV4::new(INSIDE_B, 80))).unwrap();
    assert_eq!(fetched.expect("the page is served"), page);
    drop(server);
    for (to, size, ttl) in [(HOST_B, 28, 64), (HOST_B, 1480, 64), (INSIDE_B, 29, 9), (HOST_B, 84, 2)] {
        let answer = network.host_a.run(|| ping(to, size, ttl, ANSWER_TIMEOUT)).unwrap();
        assert!(matches!(answer, Answer::Reply { .. } | Answer::Refused { .. }), "{answer:?}");
    }
    send_to_a_closed_port(network, HOST_A.into(), HOST_B.into());
    let frames: Vec<Frame> =
        tap.finish().into_iter().filter(|frame| frame.ipv4().is_some_and(is_ipip)).collect();
    assert!(frames.len() > 20, "only {} frames", frames.len());
    frames
}

/// Sends datagrams of several lengths from host A. Each yields an ICMP error with a quote.
fn send_to_a_closed_port(network: &TwoSites, from: IpAddr, to: IpAddr) {
    let socket = network.host_a.ns().run(|| UdpSocket::bind(SocketAddr::new(from, 4000))).unwrap();
    let socket = socket.expect("the port is free");
    socket.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("there are timeouts");
    socket.connect(SocketAddr::new(to, 4001)).expect("there is a route");
    for payload in [&[][..], b"odd", &[0xa5; 1000]] {
        socket.send(payload).expect("it is sent");
        let refused = socket.recv(&mut [0; 1]).expect_err("the port is closed");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

fn is_ipip(bytes: &[u8]) -> bool {
    Ipv4Packet::parse(bytes, Validation::Lenient).is_ok_and(|packet| packet.protocol() == Protocol::IPIP)
}

/// Runs a program with this input, and returns its output.
fn output(command: &mut Command, input: &[u8]) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    std::thread::scope(|scope| {
        // The program may end before it has read everything.
        scope.spawn(move || stdin.write_all(input));
        let done = child.wait_with_output().expect("the program ends");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command:?}: {}\n{errors}", done.status);
        String::from_utf8(done.stdout).expect("it prints text")
    })
}

fn pcapng(frames: &[Frame]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("there is room for a file");
    let path = directory.path().join("capture.pcapng");
    write_pcapng(&path, "toA", frames).unwrap();
    std::fs::read(path).expect("it was written")
}

/// What tcpdump prints for these frames. Each must be the line of [`Dissection`].
fn tcpdump_lines(frames: &[Frame]) -> String {
    let theirs = output(Command::new(TCPDUMP).args(["-n", "-t", "-r", "-"]), &pcapng(frames));
    // Older versions of tcpdump end a line of IPv4 in IPv4 with this; 4.99.3 does not.
    const SUFFIX: &str = " (ipip-proto-4)";
    let with_suffix = theirs.contains(SUFFIX);
    let mut flows = FlowTable::<16>::new();
    let ours: Vec<String> = frames
        .iter()
        .filter_map(|frame| frame.ipv4().or(frame.ipv6()))
        .map(|bytes| Dissection::new(bytes).with_flow(&mut flows).to_string())
        .map(|line| if with_suffix { line } else { line.trim_end_matches(SUFFIX).to_owned() })
        .collect();
    let different: Vec<_> =
        ours.iter().map(String::as_str).zip(theirs.lines()).filter(|(a, b)| a != b).collect();
    assert!(different.is_empty(), "ours, and tcpdump's: {different:#?}");
    assert_eq!(ours.len(), theirs.lines().count());
    theirs
}

#[test(root, tcpdump)]
fn our_packet_lines_match_those_of_tcpdump() {
    let network = TwoSites::build().unwrap();
    let _tunnels = network.bring_up().unwrap();
    let lines = tcpdump_lines(&capture(&network));
    let has = |what: &str| lines.lines().any(|line| line.contains(what));
    let there = format!("IP {UNDERLAY_A} > {UNDERLAY_B}: IP {INSIDE_A}.");
    assert!(has(&there) && has("Flags [S]") && has("echo reply") && has("udp port 4001"));
}

#[test(tcpdump)]
fn tcpdump_reads_the_nanoseconds_of_a_capture() {
    let repr = Ipv4Repr {
        source: UNDERLAY_A,
        destination: UNDERLAY_B,
        protocol: Protocol::IPIP,
        ttl: 64,
        tos: 0,
        identification: 0,
        dont_fragment: true,
        payload_len: 0,
    };
    let bytes = [&[0; 12][..], &[0x08, 0x00], &repr.emit()].concat();
    let frames = [1, 999_999_999].map(|nanoseconds| Frame {
        time: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, nanoseconds),
        bytes: bytes.clone(),
    });
    let mut command = Command::new(TCPDUMP);
    let printed = output(command.args(["-n", "-tt", "--nano", "-r", "-"]), &pcapng(&frames));
    let times: Vec<&str> = printed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(times, ["1700000000.000000001", "1700000000.999999999"], "{printed}");
}

/// Switches checksum offload of an interface off. With it, nothing completes the checksums between
/// two interfaces of one machine, and a capture would show incomplete ones.
const NO_OFFLOAD: &str = r#"
import ctypes, fcntl, socket, struct, sys
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
request = struct.pack("16sP16x", sys.argv[1].encode(), ctypes.addressof(value))
fcntl.ioctl(socket.socket(), SIOCETHTOOL, request)
"#;

/// Acts as gateway B and a host behind it. Scapy builds an echo request, whole and in outer
/// fragments. The reply must be the encapsulated echo with correct checksums.
const EXCHANGE: &str = r#"
import sys
from scapy.all import Ether, ICMP, IP, AsyncSniffer, fragment, raw, sendp

mac, underlay_a, underlay_b, host_a, host_b = sys.argv[1:]

def exchange(sequence, size, cut):
    payload = bytes((sequence + at) % 256 for at in range(size))
    request = IP(src=underlay_b, dst=underlay_a, id=sequence) / IP(src=host_b, dst=host_a, ttl=9) \
        / ICMP(id=4711, seq=sequence) / payload
    pieces = fragment(IP(raw(request)), fragsize=cut) if cut else [request]
    assert not cut or len(pieces) > 1
    frames = [Ether(dst=mac) / piece for piece in pieces]

    def is_answer(frame):
        return IP in frame and frame[IP].proto == 4 and frame[IP].src == underlay_a

    sniffer = AsyncSniffer(iface="underlayB", lfilter=is_answer, count=1, timeout=5,
                           started_callback=lambda: sendp(frames, iface="underlayB", verbose=False))
    sniffer.start()
    sniffer.join()
    assert len(sniffer.results) == 1, f"no answer to request {sequence}"
    outer = sniffer.results[0][IP]
    inner = outer.payload
    assert (outer.src, outer.dst, inner.src, inner.dst) == (underlay_a, underlay_b, host_a, host_b), outer.summary()
    echo = inner.payload
    assert (echo.type, echo.id, echo.seq, raw(echo.payload)) == (0, 4711, sequence, payload), outer.show(dump=True)
    rebuilt = outer.copy()
    del rebuilt.chksum, rebuilt.payload.chksum, rebuilt.payload.payload.chksum
    assert raw(rebuilt) == raw(outer), "wrong checksums:\n" + outer.show(dump=True)

for sequence, (size, cut) in enumerate([(0, 0), (1, 0), (56, 0), (1452, 0), (56, 40), (1400, 576), (1400, 24)]):
    exchange(sequence + 1, size, cut)
print("done")
"#;

#[test(root, scapy)]
fn the_tunnel_answers_scapy_as_its_peer() {
    let network = TwoSites::build().unwrap();
    let tunnel = bring_up(&network.gateway_a, &config_a("probe = false")).unwrap();
    // Gateway B's kernel has no tunnel, and must not answer the datagrams for scapy.
    let _placeholder =
        network.gateway_b.run(|| RawSocket::placeholder(UNDERLAY_B, TunnelProtocol::Ipip)).unwrap();
    let router = mac(&network.router, "toB").map(|byte| format!("{byte:02x}")).join(":");
    let addresses = [UNDERLAY_A, UNDERLAY_B, HOST_A, HOST_B].map(|address| address.to_string());
    let printed = network
        .gateway_b
        .ns()
        .run(|| output(Command::new(PYTHON).args(["-c", EXCHANGE, &router]).args(&addresses), &[]))
        .unwrap();
    assert_eq!(printed, "done\n");
    let totals = tunnel.plane().totals();
    assert_eq!((totals.peers[0].rx_packets, totals.peers[0].tx_packets, totals.dropped()), (7, 7, 0));
}
