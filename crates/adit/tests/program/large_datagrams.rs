//! Datagrams that are larger than others expect: those of a peer whose tunnel has a larger MTU, and
//! packets that the kernel has not cut into segments yet, nor given their checksum. Every byte
//! arrives at the far host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_lab::host::Host;
use adit_lab::ping::ping;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, HOST_A, HOST_B, INSIDE_A, INSIDE_B};
use adit_testbed::needs::{ebpf, ipip, sctp};
use adit_testbed::test_planes::with_plane;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{UdpGroSegment, UdpGsoSegment};

use crate::support::testbed::{Side, Testbed};

/// Bytes of the IPv4 and UDP headers.
const UDP_HEADERS: usize = 28;
const PORT: u16 = 7000;
const PATIENCE: Duration = Duration::from_secs(5);
/// MTUs of the tunnel interfaces of A and B where they differ.
const SMALL: usize = 1400;
const LARGE: usize = 1480;

/// A host and its address.
type Place<'a> = (&'a Host, Ipv4Addr);

/// Bytes that differ from those of another seed, and from their neighbours.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at + seed * 97) % 251) as u8).collect()
}

/// Sends datagrams of these sizes, each `times` in one packet for the kernel to cut, where that is
/// more than one. Each packet arrives before the next is sent.
fn udp_arrives(what: &str, from: Place<'_>, to: Place<'_>, sizes: &[(usize, usize)], with_gro: bool) {
    let bind = |(host, address): Place<'_>| {
        host.ns().run(|| UdpSocket::bind(SocketAddrV4::new(address, 0))).unwrap().unwrap()
    };
    let (sender, receiver) = (bind(from), bind(to));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    setsockopt(&receiver, UdpGroSegment, &with_gro).unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    let mut buffer = vec![0; 1 << 16];
    for (seed, &(size, times)) in sizes.iter().enumerate() {
        // The last segment is a short one.
        let sent = pattern(size * times - times / 2, seed);
        setsockopt(&sender, UdpGsoSegment, &if times > 1 { size as i32 } else { 0 }).unwrap();
        sender.send(&sent).unwrap();
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let len = receiver.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("{what}: {} of {} bytes ({times} of {size}): {error}", received.len(), sent.len())
            });
            assert!(with_gro || len == size || received.len() + len == sent.len(), "{what}: {len} of {size}");
            received.extend_from_slice(&buffer[..len]);
        }
        assert!(received == sent, "{what}: {times} of {size}: other bytes");
    }
}

/// A stream of some megabytes.
fn tcp_arrives(what: &str, from: Place<'_>, to: Place<'_>) {
    let sent = pattern(4 << 20, 5);
    let at = SocketAddrV4::new(to.1, PORT);
    let listener = to.0.ns().run(|| TcpListener::bind(at)).unwrap().unwrap();
    let received = thread::scope(|scope| {
        let received = scope.spawn(|| {
            let mut received = Vec::new();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.read_to_end(&mut received).map(|_| received)
        });
        let connect = || TcpStream::connect_timeout(&at.into(), PATIENCE);
        let mut stream = from.0.ns().run(connect).unwrap().unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&sent).unwrap();
        drop(stream);
        received.join().unwrap()
    });
    assert!(received.unwrap_or_else(|error| panic!("{what}: {error}")) == sent, "{what}: other bytes");
}

/// B's tunnel takes 80 bytes more than A's. B's hosts cannot know that.
fn what_exceeds_our_mtu_arrives(plane: DataplaneChoice) {
    let with_mtu = |config: &str, mtu| {
        let changed = format!("[tunnel]\nmtu = {mtu}\nmss-clamp = false\n");
        with_plane(config, plane).replacen("[tunnel]\n", &changed, 1)
    };
    let mut bed = Testbed::with_configs(&with_mtu(CONFIG_A, SMALL), &with_mtu(CONFIG_B, LARGE));
    bed.start(Side::B);
    bed.start(Side::A);
    let network = &bed.sites.network;
    let (a, b) = ((&network.host_a, HOST_A), (&network.host_b, HOST_B));
    let largest = LARGE - UDP_HEADERS;
    // Up to 14 bytes more, and 4 of a VLAN tag, pass a veth all the same.
    let sizes = [SMALL, SMALL + 1, SMALL + 18, SMALL + 19, LARGE].map(|size| (size - UDP_HEADERS, 1));
    udp_arrives("DF", b, a, &sizes, false);
    let answer = b.0.run(|| ping(HOST_A, LARGE, 64, PATIENCE)).unwrap();
    assert!(answer.is_reply(), "ping: {answer:?}");
    tcp_arrives("the larger MTU's stream", b, a);
    tcp_arrives("the smaller MTU's stream", a, b);
    udp_arrives("segments", b, a, &[(largest, 20), (largest, 2)], false);
    // The kernel sets DF no more.
    network.host_b.sysctl("ipv4/ip_no_pmtu_disc", "1").unwrap();
    udp_arrives("no DF", b, a, &sizes, false);
    // Datagrams that are fragments before they enter B's tunnel.
    udp_arrives("fragments", b, a, &[(4000, 1), (60_000, 1)], false);
    assert_eq!(bed.status()["drops"], serde_json::json!({}));
}

#[test(root, ebpf)]
fn what_exceeds_our_mtu_arrives_with_ebpf() {
    what_exceeds_our_mtu_arrives(DataplaneChoice::Ebpf);
}

#[test(root)]
fn what_exceeds_our_mtu_arrives_with_userspace() {
    what_exceeds_our_mtu_arrives(DataplaneChoice::Userspace);
}

/// Between hosts, whose packets the gateways forward, and between the gateways themselves.
fn what_is_not_cut_into_segments_yet_arrives(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    let network = &bed.sites.network;
    let (a, b) = ((&network.host_a, HOST_A), (&network.host_b, HOST_B));
    let (inside_a, inside_b) = ((&network.gateway_a, INSIDE_A), (&network.gateway_b, INSIDE_B));
    // As QUIC sends: full datagrams and small ones.
    let sizes = [(1200, 40), (1452, 44), (1452, 2), (100, 60), (1, 3)];
    for (from, to) in [(a, b), (b, a), (inside_a, inside_b), (a, inside_b)] {
        for with_gro in [false, true] {
            let what = format!("{} to {}, GRO: {with_gro}", from.0.name(), to.0.name());
            udp_arrives(&what, from, to, &sizes, with_gro);
        }
        tcp_arrives(&format!("{} to {}", from.0.name(), to.0.name()), from, to);
    }
    assert_eq!(bed.status()["drops"], serde_json::json!({}));
}

#[test(root, ebpf)]
fn what_is_not_cut_into_segments_yet_arrives_with_ebpf() {
    what_is_not_cut_into_segments_yet_arrives(DataplaneChoice::Ebpf);
}

#[test(root)]
fn what_is_not_cut_into_segments_yet_arrives_with_userspace() {
    what_is_not_cut_into_segments_yet_arrives(DataplaneChoice::Userspace);
}

/// VXLAN between the gateways: segments inside of UDP.
fn vxlan_passes(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    let ends = [
        (Side::A, INSIDE_A, INSIDE_B, Ipv4Addr::new(10, 9, 0, 1)),
        (Side::B, INSIDE_B, INSIDE_A, Ipv4Addr::new(10, 9, 0, 2)),
    ];
    for (side, local, remote, address) in ends {
        // 50 bytes of the tunnel's 1480 are headers.
        let commands = [
            format!("link add vx type vxlan id 7 dstport 4789 local {local} remote {remote}"),
            format!("address add {address}/24 dev vx"),
            "link set vx mtu 1430 up".to_owned(),
        ];
        for command in commands {
            let words: Vec<&str> = command.split(' ').collect();
            bed.side(side).program("ip", &words).unwrap();
        }
    }
    let [a, b] = ends.map(|(side, .., address)| (bed.side(side), address));
    let largest = 1430 - UDP_HEADERS;
    for (from, to) in [(a, b), (b, a)] {
        tcp_arrives("VXLAN", from, to);
        udp_arrives("VXLAN", from, to, &[(largest, 1), (largest, 40), (1200, 3)], false);
    }
    assert_eq!(bed.status()["drops"], serde_json::json!({}));
}

#[test(root, ebpf)]
fn vxlan_passes_with_ebpf() {
    vxlan_passes(DataplaneChoice::Ebpf);
}

#[test(root)]
fn vxlan_passes_with_userspace() {
    vxlan_passes(DataplaneChoice::Userspace);
}

/// Sends a pattern of some hundreds of kilobytes by an SCTP association and waits for the same
/// bytes from the other side; or is that side.
const SCTP: &str = r#"
import socket, sys
role, address = sys.argv[1:]
sent = bytes(at % 251 for at in range(300_000))
def everything(association):
    parts = b""
    while len(parts) < len(sent):
        part = association.recv(1 << 16)
        if not part:
            break
        parts += part
    return parts
def send(association):
    for at in range(0, len(sent), 9000):
        association.sendall(sent[at:at + 9000])
socket.setdefaulttimeout(30)
end = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)
if role == "server":
    end.bind((address, 7000))
    end.listen()
    print("listening", flush=True)
    association, _ = end.accept()
    assert everything(association) == sent, "other bytes at the server"
    send(association)
    association.recv(1)
else:
    end.connect((address, 7000))
    send(end)
    assert everything(end) == sent, "other bytes at the client"
    print("the same bytes")
"#;

/// SCTP's checksum is not one that a reader of the pair could compute, so the kernel has to.
fn an_sctp_association_passes(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    let (a, b) = (&bed.sites.network.host_a, &bed.sites.network.host_b);
    let command = |role: &str| {
        let mut command = std::process::Command::new("python3");
        command.args(["-c", SCTP, role, &HOST_B.to_string()]);
        command
    };
    let mut server = bed.sites.machine.start_command(b.ns(), command("server"));
    server.wait_for("listening");
    let said = bed.sites.machine.run(a.ns(), &mut command("client")).ok().stdout;
    assert_eq!(said, "the same bytes\n");
    let (status, said) = server.wait();
    assert!(status.success(), "{said}");
    assert_eq!(bed.status()["drops"], serde_json::json!({}));
}

#[test(root, ebpf, sctp)]
fn an_sctp_association_passes_with_ebpf() {
    an_sctp_association_passes(DataplaneChoice::Ebpf);
}

#[test(root, sctp)]
fn an_sctp_association_passes_with_userspace() {
    an_sctp_association_passes(DataplaneChoice::Userspace);
}

#[test(root, ipip, sctp)]
fn an_sctp_association_passes_with_linuxs_ipip() {
    an_sctp_association_passes(DataplaneChoice::Kernel);
}
