//! Raw and UDP sockets against the running kernel, across a veth between two namespaces.

#[macro_use(test)]
extern crate adit_harness;

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use adit_linux::netlink::{Netlink, Route};
use adit_linux::netns::NetNs;
use adit_linux::sockets::arena::Arena;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::packet_ring::{PacketRing, Ready};
use adit_linux::sockets::poll::readable_within;
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_linux::sockets::udp::{Origin, PathSocket};
use adit_linux::sysctl;
use adit_linux::tunnel_protocol::TunnelProtocol;
use common::{TIMEOUT, await_running};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::IpMtu;

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const BEYOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// Two namespaces with a veth between them, `HERE` and `THERE`.
struct Pair {
    here: NetNs,
    there: NetNs,
    there_netlink: Netlink,
}

impl Pair {
    fn new() -> Self {
        let here = NetNs::fresh().unwrap();
        let there = NetNs::fresh().unwrap();
        let mut here_netlink = here.run(Netlink::open).unwrap().unwrap();
        let mut there_netlink = there.run(Netlink::open).unwrap().unwrap();
        here_netlink.add_veth("a", "b", &there).unwrap();
        for (netlink, name, address) in [(&mut here_netlink, "a", HERE), (&mut there_netlink, "b", THERE)] {
            let index = netlink.link(name).unwrap().unwrap().index;
            netlink.add_address(index, format!("{address}/24").parse().unwrap()).unwrap();
            netlink.set_up(index).unwrap();
        }
        let beyond = Route {
            destination: format!("{BEYOND}/32").parse().unwrap(),
            gateway: Some(THERE.into()),
            ..Route::default()
        };
        here_netlink.add_route(&beyond).unwrap();
        await_running(&here, "a");
        await_running(&there, "b");
        // The tests cause several errors at once, of which the kernel would suppress most.
        there.run(|| sysctl::write("net/ipv4/icmp_ratelimit", "0")).unwrap().unwrap();
        Self { here, there, there_netlink }
    }
}

/// Returns an IPv4 datagram. The kernel fills in the source and the checksum.
fn datagram(protocol: u8, destination: Ipv4Addr, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, ttl, protocol, 0, 0, 0, 0, 0, 0];
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

/// The ICMP message in a datagram: type, code, and the identification that the quoted datagram's
/// payload starts with.
fn icmp(datagram: &[u8]) -> (u8, u8, [u8; 2]) {
    let header = usize::from(datagram[0] & 15) * 4;
    let icmp = &datagram[header..];
    let quoted = &icmp[8..];
    let payload = &quoted[usize::from(quoted[0] & 15) * 4..];
    (icmp[0], icmp[1], [payload[0], payload[1]])
}

fn next_error(errors: &RawSocket) -> (u8, u8, [u8; 2]) {
    let mut buffer = [0; 2048];
    assert!(readable_within(errors, TIMEOUT).unwrap(), "an ICMP error arrives");
    let len = errors.recv(&mut buffer).unwrap();
    icmp(&buffer[..len])
}

#[test(root)]
fn a_protocol4_placeholder_stops_protocol_unreachable() {
    let pair = Pair::new();
    let sender = pair.here.run(RawSocket::sender).unwrap().unwrap();
    let errors = pair.here.run(|| RawSocket::icmp_errors(HERE)).unwrap().unwrap();
    let probe =
        |number: u8, protocol| sender.send(&datagram(protocol, THERE, 64, &[0xad, number, 0, 0, 0, 0, 0, 0]));

    for protocol in [TunnelProtocol::Ipip, TunnelProtocol::Ipv6] {
        let number = protocol.number();
        probe(1, number).unwrap();
        assert_eq!(next_error(&errors), (3, 2, [0xad, 1]), "{protocol:?}: without a placeholder");

        let placeholder = pair.there.run(|| RawSocket::placeholder(THERE, protocol)).unwrap().unwrap();
        probe(2, number).unwrap();
        // A sentinel: the kernel answers protocol 253 in any case, and after the datagram before
        // it.
        probe(3, 253).unwrap();
        assert_eq!(next_error(&errors), (3, 2, [0xad, 3]), "{protocol:?}: with a placeholder, no answer");
        assert!(!readable_within(&placeholder, Duration::ZERO).unwrap(), "it receives nothing");

        drop(placeholder);
        probe(4, number).unwrap();
        assert_eq!(next_error(&errors), (3, 2, [0xad, 4]), "{protocol:?}: after it is closed");
    }
}

#[test(root)]
fn an_icmp_error_socket_receives_errors_only() {
    let mut pair = Pair::new();
    let there = pair.there_netlink.link("b").unwrap().unwrap().index;
    let beyond = Route {
        destination: format!("{BEYOND}/32").parse().unwrap(),
        device: Some(there),
        ..Route::default()
    };
    pair.there_netlink.add_route(&beyond).unwrap();
    let sender = pair.here.run(RawSocket::sender).unwrap().unwrap();
    let errors = pair.here.run(|| RawSocket::icmp_errors(HERE)).unwrap().unwrap();
    assert_eq!(errors.recv(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // An echo request, which is answered with type 0, and a message of a type above 31.
    let echo = [8, 0, 0xf7, 0xfe, 0, 1, 0, 0];
    sender.send(&datagram(1, THERE, 64, &echo)).unwrap();
    let back = pair.there.run(RawSocket::sender).unwrap().unwrap();
    back.send(&datagram(1, HERE, 64, &[42, 0, 0xd5, 0xff, 0, 0, 0, 0])).unwrap();
    pair.there.run(|| sysctl::write("net/ipv4/ip_forward", "1")).unwrap().unwrap();
    sender.send(&datagram(253, BEYOND, 1, &[0xad, 9, 0, 0, 0, 0, 0, 0])).unwrap();
    assert_eq!(next_error(&errors), (11, 0, [0xad, 9]), "Time Exceeded, and nothing before it");
}

#[test(root)]
fn a_sender_refuses_cut_headers_and_datagrams_above_the_mtu() {
    let pair = Pair::new();
    let sender = pair.here.run(RawSocket::sender).unwrap().unwrap();
    let errors = pair.here.run(|| RawSocket::icmp_errors(HERE)).unwrap().unwrap();
    for number in 0..8 {
        sender.send(&datagram(253, THERE, 64, &[0xba, number, 0, 0, 0, 0, 0, 0])).unwrap();
    }
    for number in 0..8 {
        assert_eq!(next_error(&errors), (3, 2, [0xba, number]));
    }
    assert_eq!(sender.send(&[0x45; 19]).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    let long = datagram(253, THERE, 64, &[0; 1481]);
    assert_eq!(sender.send(&long).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
}

#[test(root)]
fn a_placeholder_needs_an_address_of_this_host() {
    let error =
        Pair::new().here.run(|| RawSocket::placeholder(THERE, TunnelProtocol::Ipip)).unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot bind a raw socket to 192.0.2.2: Cannot assign requested address (os error 99); \
         no interface has this address: `ip address` shows those there are"
    );
}

#[test(root)]
fn a_raw_socket_and_a_ring_receive_from_peers() {
    let pair = Pair::new();
    let both = [TunnelProtocol::Ipip, TunnelProtocol::Ipv6];
    let socket = pair.there.run(|| RawSocket::tunneled(THERE, both[1])).unwrap().unwrap();
    let mut rings = pair.there.run(|| PacketRing::open_group(THERE, &both, None, 1, 1500)).unwrap().unwrap();
    let mut sender = pair.here.run(|| RawFrameSender::open_from(HERE.into(), 1500, 4)).unwrap().unwrap();
    let others: Vec<IpAddr> = (0..500).map(|number| Ipv4Addr::from_bits(number).into()).collect();
    let mut send = |protocol, number: u8| {
        let datagram = datagram(protocol, THERE, 64, &[number]);
        sender.frame()[LINK_HEADER..][..datagram.len()].copy_from_slice(&datagram);
        sender.commit(datagram.len(), None);
        sender.flush();
        assert_eq!(sender.take_sent().refused, 0);
    };
    socket.only_from(&others).unwrap();
    send(41, 1);
    assert!(!readable_within(&socket, Duration::from_millis(20)).unwrap());
    socket.only_from(&["2001:db8::1".parse().unwrap(), HERE.into()]).unwrap();
    send(41, 2);
    assert!(readable_within(&socket, TIMEOUT).unwrap());
    let mut buffer = [0; 64];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 21);
    assert_eq!((&buffer[12..16], buffer[20]), (&HERE.octets()[..], 2));
    send(253, 3);
    send(4, 4);
    for expected in [1, 2, 4] {
        assert!(readable_within(&rings[0], TIMEOUT).unwrap());
        let Some(Ready::Datagram(received)) = rings[0].take() else { panic!("number {expected}") };
        assert_eq!(rings[0].bytes(received.datagram)[20], expected);
        rings[0].release();
    }
}

#[test(root)]
fn the_path_mtu_of_a_protocol_is_that_of_the_route() {
    let pair = Pair::new();
    let socket = pair.here.run(|| RawSocket::path_from(HERE.into())).unwrap().unwrap();
    assert_eq!(socket.path_mtu(THERE).unwrap(), 1500);
    let narrow = Ipv4Addr::new(203, 0, 113, 7);
    let route = Route {
        destination: ipnet::Ipv4Net::from(narrow).into(),
        gateway: Some(THERE.into()),
        mtu: Some(1300),
        ..Route::default()
    };
    pair.here.run(|| Netlink::open()?.add_route(&route)).unwrap().unwrap();
    assert_eq!(socket.path_mtu(narrow).unwrap(), 1300);
    assert_eq!(socket.path_mtu(THERE).unwrap(), 1500);
}

#[test(root)]
fn a_path_error_has_its_origin_reason_and_mtu() {
    let mut pair = Pair::new();
    let open = |remote| {
        let local = SocketAddrV4::new(HERE, 0);
        pair.here.run(|| PathSocket::connect(local, SocketAddrV4::new(remote, 9))).unwrap().unwrap()
    };
    let path_mtu = |socket: &PathSocket| getsockopt(socket, IpMtu).unwrap();
    let refused = open(THERE);
    assert_eq!(path_mtu(&refused), 1500);
    assert_eq!(refused.take_error().unwrap(), None);
    refused.send(b"nobody listens").unwrap();
    let error = refused.take_error_within(TIMEOUT).unwrap().expect("Port Unreachable arrives");
    assert_eq!((error.origin, error.errno, error.kind, error.code), (Origin::Icmp, libc::ECONNREFUSED, 3, 3));
    assert_eq!((error.offender, error.mtu), (Some(THERE), None));

    assert_eq!(refused.send(&[0; 1473]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    let error = refused.take_error().unwrap().expect("an error of this host");
    assert_eq!((error.origin, error.errno, error.mtu), (Origin::Local, libc::EMSGSIZE, Some(1500)));

    // A router with a smaller MTU behind it.
    let far = NetNs::fresh().unwrap();
    pair.there_netlink.add_veth("c", "d", &far).unwrap();
    let narrow = pair.there_netlink.link("c").unwrap().unwrap().index;
    pair.there_netlink.set_mtu(narrow, 1300).unwrap();
    pair.there_netlink.add_address(narrow, "198.51.100.1/24".parse().unwrap()).unwrap();
    pair.there_netlink.set_up(narrow).unwrap();
    pair.there.run(|| sysctl::write("net/ipv4/ip_forward", "1")).unwrap().unwrap();
    pair.there_netlink.set_neighbour(narrow, BEYOND, [2, 0, 0, 0, 0, 7]).unwrap();
    let mut far_netlink = far.run(Netlink::open).unwrap().unwrap();
    let far_index = far_netlink.link("d").unwrap().unwrap().index;
    far_netlink.set_up(far_index).unwrap();
    await_running(&pair.there, "c");

    let path = open(BEYOND);
    path.send(&[0; 1400]).unwrap();
    let error = path.take_error_within(TIMEOUT).unwrap().expect("Fragmentation Needed arrives");
    assert_eq!((error.origin, error.errno, error.kind, error.code), (Origin::Icmp, libc::EMSGSIZE, 3, 4));
    assert_eq!((error.offender, error.mtu), (Some(THERE), Some(1300)));
    assert_eq!(path_mtu(&path), 1300);
    // A route lookup returns the MTU learned by ICMP too.
    let lookup = pair.here.run(|| Netlink::open()?.route_to(BEYOND, Some(HERE.into()))).unwrap().unwrap();
    assert_eq!(lookup.mtu, Some(1300));
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
