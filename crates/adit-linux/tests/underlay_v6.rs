//! The senders and receivers of an IPv6 underlay, across a veth between two namespaces.

#[macro_use(test)]
extern crate adit_harness;

mod common;
#[path = "common/pair_v6.rs"]
mod pair_v6;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use adit_linux::flow_source::FlowSource;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Netlink, Route};
use adit_linux::netns::NetNs;
use adit_linux::nftables::TunnelDropRule;
use adit_linux::sockets::arena::Arena;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER, REFUSED_LEN, Sent};
use adit_linux::sockets::icmpv6_socket::Icmpv6Socket;
use adit_linux::sockets::packet::PacketSender;
use adit_linux::sockets::packet_ring::{PacketRing, Ready};
use adit_linux::sockets::poll::readable_within;
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_linux::sysctl;
use adit_linux::tunnel_protocol::TunnelProtocol;
use common::{TIMEOUT, await_running};
use pair_v6::{HERE, PairV6, THERE};

const BOTH: [TunnelProtocol; 2] = [TunnelProtocol::Ipip, TunnelProtocol::Ipv6];
const IPIP: u8 = 4;
const IPV6: u8 = 41;
const FRAGMENT: u8 = 44;
const OPTIONS: u8 = 60;
/// A number for experiments (RFC 3692).
const EXPERIMENT: u8 = 253;
const BEYOND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);

/// Returns a datagram from `HERE` with the traffic class 0xb9 and the flow label 0.
fn datagram(next_header: u8, destination: Ipv6Addr, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x6b, 0x90, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next_header, hop_limit]);
    bytes.extend(HERE.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

/// The Destination Options header that Linux's ip6tnl writes: a limit of four encapsulations.
fn options(next_header: u8) -> [u8; 8] {
    [next_header, 0, 4, 1, 4, 1, 0, 0]
}

fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|number| number as u8).collect()
}

/// Returns the fragments of a datagram, of at most 1000 bytes of payload each.
fn fragments(next_header: u8, payload: &[u8], identification: u32) -> Vec<Vec<u8>> {
    let pieces: Vec<&[u8]> = payload.chunks(1000).collect();
    let last = pieces.len() - 1;
    let piece = |(index, piece): (usize, &&[u8])| {
        let offset = (index as u16 * 1000) | u16::from(index < last);
        let mut bytes = vec![next_header, 0];
        bytes.extend(offset.to_be_bytes());
        bytes.extend(identification.to_be_bytes());
        bytes.extend(*piece);
        datagram(FRAGMENT, THERE, 61, &bytes)
    };
    pieces.iter().enumerate().map(piece).collect()
}

fn sender(pair: &PairV6) -> RawFrameSender {
    pair.here.run(|| RawFrameSender::open_from(HERE.into(), 2000, 16)).unwrap().unwrap()
}

fn send(sender: &mut dyn FrameSender, datagrams: &[Vec<u8>]) -> Sent {
    for datagram in datagrams {
        sender.frame()[LINK_HEADER..][..datagram.len()].copy_from_slice(datagram);
        sender.commit(datagram.len(), None);
    }
    sender.flush();
    sender.take_sent()
}

/// Takes the next datagram from one of the rings.
fn next_in(rings: &mut [PacketRing]) -> Vec<u8> {
    for _ in 0..1000 {
        for ring in &mut *rings {
            if let Some(ready) = ring.take() {
                let Ready::Datagram(received) = ready else { panic!("{ready:?}") };
                let bytes = ring.bytes(received.datagram).to_vec();
                ring.release();
                return bytes;
            }
        }
        readable_within(&rings[0], Duration::from_millis(5)).unwrap();
    }
    panic!("no datagram arrives");
}

fn rings(pair: &PairV6, device: Option<u32>, count: usize) -> Vec<PacketRing> {
    pair.there.run(|| PacketRing::open_group(THERE, &BOTH, device, count, 1500)).unwrap().unwrap()
}

fn tunneled(pair: &PairV6, protocol: TunnelProtocol) -> RawSocket {
    pair.there.run(|| RawSocket::tunneled(THERE, protocol)).unwrap().unwrap()
}

fn next_of(socket: &RawSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_575];
    assert!(readable_within(socket, TIMEOUT).unwrap(), "a datagram arrives");
    let len = socket.recv(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

fn is_empty(socket: &RawSocket) -> bool {
    socket.recv(&mut [0; 2000]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test(root)]
fn a_ring_receives_what_a_raw_sender_sends() {
    let pair = PairV6::new();
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3);
    let far = pair.far;
    let prefix = format!("{other}/64").parse().unwrap();
    pair.there.run(|| Netlink::open()?.add_address(far, prefix)).unwrap().unwrap();
    for (device, count) in [(None, 1), (Some(pair.far), 1), (None, 2)] {
        let mut rings = rings(&pair, device, count);
        let mut sender = sender(&pair);
        let with_options = [&options(IPV6)[..], &numbered(60)].concat();
        let mut passed = vec![
            datagram(IPV6, THERE, 61, &numbered(100)),
            datagram(IPIP, THERE, 1, &numbered(1460)),
            datagram(OPTIONS, THERE, 255, &with_options),
        ];
        passed.extend(fragments(IPV6, &numbered(1500), 7));
        let mut all = vec![datagram(EXPERIMENT, THERE, 64, &[]), datagram(IPV6, other, 64, &numbered(40))];
        all.extend(passed.clone());
        let sent = send(&mut sender, &all);
        assert_eq!((sent.taken, sent.refused), (7, 0), "{sent:?}");
        let mut received: Vec<_> = passed.iter().map(|_| next_in(&mut rings)).collect();
        if count > 1 {
            // They are of several flows.
            received.sort();
            passed.sort();
        }
        assert_eq!(received, passed, "{device:?}, {count} rings");
        assert!(rings.iter_mut().all(|ring| ring.take().is_none()));
    }
}

#[test(root)]
fn a_frame_of_ipv6_is_received_and_one_for_another_host_by_the_interface_only() {
    let pair = PairV6::new();
    let (near, far) = (pair.near, pair.far);
    let mac = |ns: &NetNs, index| {
        ns.run(|| Netlink::open()?.link_by_index(index)).unwrap().unwrap().unwrap().mac.unwrap()
    };
    let (ours, theirs) = (mac(&pair.here, near), mac(&pair.there, far));
    let (mut bound, mut unbound) = (rings(&pair, Some(far), 1), rings(&pair, None, 1));
    let mut sender = pair.here.run(|| PacketSender::open(near, 1500, 4)).unwrap().unwrap();
    let elsewhere = datagram(IPV6, THERE, 64, b"for another host");
    let for_host = datagram(IPV6, THERE, 64, b"for this host");
    for (destination, datagram) in [([2, 0, 0, 0, 0, 9], &elsewhere), (theirs, &for_host)] {
        let frame = sender.frame();
        frame[..6].copy_from_slice(&destination);
        frame[6..12].copy_from_slice(&ours);
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[LINK_HEADER..][..datagram.len()].copy_from_slice(datagram);
        sender.commit(datagram.len(), None);
    }
    sender.flush();
    assert_eq!(next_in(&mut bound), elsewhere);
    assert_eq!(next_in(&mut bound), for_host);
    assert_eq!(next_in(&mut unbound), for_host);
}

#[test(root, nft)]
fn the_kernel_knows_the_protocol_of_a_frame_that_it_sends() {
    let pair = PairV6::new();
    let mut rings = rings(&pair, Some(pair.far), 1);
    let nft = |text: &str| {
        let ran = pair.here.run(|| Command::new("/usr/sbin/nft").arg(text).output()).unwrap().unwrap();
        assert!(ran.status.success(), "{text}: {ran:?}");
    };
    nft("table netdev t { chain c { type filter hook egress device near priority 0; }; }");
    nft("add rule netdev t c meta protocol ip6 ip6 hoplimit 9 drop");
    let near = pair.near;
    let mut sender = pair.here.run(|| PacketSender::open(near, 1500, 4)).unwrap().unwrap();
    for hop_limit in [9, 10] {
        let datagram = datagram(IPV6, THERE, hop_limit, &numbered(40));
        let frame = sender.frame();
        frame[..12].fill(0xff);
        frame[6] = 2;
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[0] = 2;
        frame[LINK_HEADER..][..datagram.len()].copy_from_slice(&datagram);
        sender.commit(datagram.len(), None);
    }
    sender.flush();
    assert_eq!(next_in(&mut rings)[7], 10, "the first was dropped as one of IPv6");
}

#[test(root)]
fn a_raw_socket_gives_the_header_of_ipv6_too() {
    let pair = PairV6::new();
    let mut sender = sender(&pair);
    for (protocol, number) in [(TunnelProtocol::Ipip, IPIP), (TunnelProtocol::Ipv6, IPV6)] {
        let socket = tunneled(&pair, protocol);
        assert!(is_empty(&socket));
        let plain = datagram(number, THERE, 61, &numbered(1460));
        let with_options = [&options(number)[..], &numbered(60)].concat();
        let reassembled = numbered(5000);
        let mut all = vec![plain.clone(), datagram(OPTIONS, THERE, 61, &with_options)];
        all.extend(fragments(number, &reassembled, 7));
        // A group of all hosts: the kernel receives it, and the socket must not.
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        all.push(datagram(number, group, 61, &numbered(20)));
        all.push(datagram(number, THERE, 1, &[]));
        let sent = send(&mut sender, &all);
        assert_eq!(sent.refused, 0, "{sent:?}");
        assert_eq!(next_of(&socket), plain);
        assert_eq!(next_of(&socket), datagram(number, THERE, 61, &numbered(60)), "without the options");
        assert_eq!(next_of(&socket), datagram(number, THERE, 61, &reassembled), "reassembled");
        assert_eq!(next_of(&socket), datagram(number, THERE, 1, &[]), "empty, and the last");
        assert!(is_empty(&socket));
    }
}

#[test(root)]
fn a_buffer_may_be_shorter_than_the_datagram() {
    let pair = PairV6::new();
    let mut sender = sender(&pair);
    let socket = tunneled(&pair, TunnelProtocol::Ipv6);
    let sent = datagram(IPV6, THERE, 61, &numbered(100));
    send(&mut sender, &[sent.clone(), sent.clone()]);
    assert!(readable_within(&socket, TIMEOUT).unwrap());
    let mut buffer = [0; 60];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 60);
    assert_eq!(buffer, sent[..60], "the header has the whole length");
    assert_eq!(socket.recv(&mut [0; 39]).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test(root)]
fn a_raw_socket_receives_only_from_these_sources_and_interfaces() {
    let pair = PairV6::new();
    let mut sender = sender(&pair);
    let socket = tunneled(&pair, TunnelProtocol::Ipv6);
    let probe = |number: u8| datagram(IPV6, THERE, 64, &[number]);
    let peers = |last: u16, count: u16| -> Vec<IpAddr> {
        let mut peers: Vec<IpAddr> =
            (1..count).map(|number| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, number, 1])).collect();
        peers.push(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]));
        peers
    };
    // Each of the four words is compared; an address of IPv4 is none of the sources.
    let differ = [[0x2001, 0xdb9, 0, 0, 0, 0, 0, 1], [0x2001, 0xdb8, 0, 1, 0, 0, 0, 1]].map(IpAddr::from);
    for (number, (sources, passes)) in [
        (vec![IpAddr::from(HERE)], true),
        (vec![], false),
        (vec![IpAddr::from([192, 0, 2, 1])], false),
        (differ.to_vec(), false),
        (peers(2, 5), false),
        (peers(1, 150), true),
        (peers(2, 150), false),
        // More than a filter compares.
        (peers(2, 451), true),
    ]
    .into_iter()
    .enumerate()
    {
        socket.only_from(&sources).unwrap();
        send(&mut sender, &[probe(number as u8)]);
        if passes {
            assert_eq!(next_of(&socket)[40], number as u8, "number {number}");
        } else {
            assert!(!readable_within(&socket, Duration::from_millis(20)).unwrap(), "number {number}");
        }
    }
    // More than the kernel takes. Older kernels have one limit for all namespaces, left alone here.
    let is_small = pair.there.run(|| sysctl::write("net/core/optmem_max", "4096")).unwrap().is_ok();
    if is_small {
        socket.only_from(&peers(2, 150)).unwrap();
        send(&mut sender, &[probe(99)]);
        assert_eq!(next_of(&socket)[40], 99);
    }
    socket.only_from_others_than(&[77, pair.far]).unwrap();
    send(&mut sender, &[probe(100)]);
    assert!(!readable_within(&socket, Duration::from_millis(20)).unwrap());
    socket.only_from_others_than(&[77]).unwrap();
    send(&mut sender, &[probe(101)]);
    assert_eq!(next_of(&socket)[40], 101);
}

/// The type, the code and the word behind them of an error, and the first two bytes of the quoted
/// payload.
fn next_error(errors: &RawSocket) -> (u8, u8, u32, [u8; 2]) {
    let bytes = next_of(errors);
    assert_eq!((bytes[6], &bytes[24..40]), (58, &HERE.octets()[..]));
    let icmp = &bytes[40..];
    (icmp[0], icmp[1], u32::from_be_bytes(icmp[4..8].try_into().unwrap()), [icmp[48], icmp[49]])
}

fn errors(pair: &PairV6) -> RawSocket {
    pair.here.run(|| RawSocket::icmp_errors(HERE)).unwrap().unwrap()
}

#[test(root)]
fn a_placeholder_of_ipv6_stops_the_answer_that_nobody_knows_the_protocol() {
    let pair = PairV6::new();
    let mut sender = sender(&pair);
    let errors = errors(&pair);
    let probe = |protocol, number| datagram(protocol, THERE, 64, &[0xad, number]);
    for protocol in BOTH {
        let number = protocol.number();
        send(&mut sender, &[probe(number, 1)]);
        // Parameter Problem, unrecognized next header, at byte 6 of the header.
        assert_eq!(next_error(&errors), (4, 1, 6, [0xad, 1]), "{protocol:?}: without a placeholder");
        let placeholder = pair.there.run(|| RawSocket::placeholder(THERE, protocol)).unwrap().unwrap();
        // A sentinel: the kernel answers protocol 253 in any case, and after the datagram before
        // it.
        send(&mut sender, &[probe(number, 2), probe(EXPERIMENT, 3)]);
        assert_eq!(next_error(&errors), (4, 1, 6, [0xad, 3]), "{protocol:?}: with a placeholder");
        assert!(!readable_within(&placeholder, Duration::ZERO).unwrap(), "it receives nothing");
        drop(placeholder);
        send(&mut sender, &[probe(number, 4)]);
        assert_eq!(next_error(&errors), (4, 1, 6, [0xad, 4]), "{protocol:?}: after it is closed");
    }
}

/// Makes `there` a router to a network behind an interface with an MTU of 1400, and `BEYOND` a host
/// there.
fn add_router(pair: &mut PairV6) -> NetNs {
    let beyond = NetNs::fresh().unwrap();
    pair.there
        .run(|| {
            sysctl::write("net/ipv6/conf/all/forwarding", "1").unwrap();
            let mut netlink = Netlink::open().unwrap();
            let narrow = netlink.add_veth("narrow", "end", &beyond).unwrap();
            netlink.set_mtu(narrow, 1400).unwrap();
            netlink.add_address(narrow, "2001:db8:1::1/64".parse().unwrap()).unwrap();
            netlink.set_up(narrow).unwrap();
            netlink.set_neighbour(narrow, BEYOND, [2, 0, 0, 0, 0, 7]).unwrap();
        })
        .unwrap();
    beyond
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            let end = netlink.link("end").unwrap().unwrap().index;
            netlink.set_up(end).unwrap();
        })
        .unwrap();
    await_running(&pair.there, "narrow");
    let route = Route {
        destination: "2001:db8:1::/64".parse().unwrap(),
        gateway: Some(THERE.into()),
        ..Route::default()
    };
    pair.here_netlink.add_route(&route).unwrap();
    beyond
}

#[test(root)]
fn an_icmp_error_socket_of_ipv6_receives_errors_only() {
    let mut pair = PairV6::new();
    let _beyond = add_router(&mut pair);
    let mut sender = sender(&pair);
    let errors = errors(&pair);
    assert!(is_empty(&errors));
    // A message of a type without a meaning, and an echo request, whose answer is no error. Nor are
    // the advertisements of neighbours.
    let back = pair.there.run(|| Icmpv6Socket::sender_in(&NetScope::default())).unwrap().unwrap();
    back.send(&[5, 0, 0, 0, 0, 0, 0, 0], HERE).unwrap();
    let echo = pair.here.run(|| Icmpv6Socket::sender_in(&NetScope::default())).unwrap().unwrap();
    echo.send(&[128, 0, 0, 0, 0, 1, 0, 1], THERE).unwrap();
    let probe = |hop_limit, number, len: usize| {
        let mut payload = numbered(len);
        payload[..2].copy_from_slice(&[0xad, number]);
        datagram(IPV6, BEYOND, hop_limit, &payload)
    };
    send(&mut sender, &[probe(1, 1, 40), probe(64, 2, 1400)]);
    assert_eq!(next_error(&errors), (3, 0, 0, [0xad, 1]), "Time Exceeded, and nothing before it");
    assert_eq!(next_error(&errors), (2, 0, 1400, [0xad, 2]), "Packet Too Big");
    // The kernel has not learned it: there was no socket of protocol 41 that is connected.
    let lookup = pair.here_netlink.route_to(BEYOND, Some(HERE.into())).unwrap();
    assert_eq!(lookup.mtu, None);
}

#[test(root)]
fn the_path_mtu_that_the_kernel_knows_stops_no_raw_sender() {
    let mut pair = PairV6::new();
    let path = pair.here.run(|| RawSocket::path_from(HERE.into())).unwrap().unwrap();
    assert_eq!(path.path_mtu(THERE).unwrap(), 1500);
    assert_eq!(path.path_mtu(BEYOND).unwrap_err().kind(), ErrorKind::NetworkUnreachable);
    let route = Route {
        destination: format!("{THERE}/128").parse().unwrap(),
        device: Some(pair.near),
        mtu: Some(1300),
        ..Route::default()
    };
    pair.here_netlink.add_route(&route).unwrap();
    assert_eq!(path.path_mtu(THERE).unwrap(), 1300);
    assert!(path.path_mtu([192, 0, 2, 1]).is_err(), "the other family");

    let mut rings = rings(&pair, None, 1);
    let mut sender = sender(&pair);
    let long = datagram(IPV6, THERE, 64, &numbered(1460));
    let too_long = datagram(IPV6, THERE, 64, &numbered(1461));
    let sent = send(&mut sender, &[long.clone(), too_long.clone()]);
    assert_eq!((sent.taken, sent.refused, sent.last_errno), (1, 1, libc::EMSGSIZE));
    assert_eq!(sent.last_refused.unwrap(), too_long[..REFUSED_LEN]);
    assert_eq!(next_in(&mut rings), long, "whole");
}

#[test(root)]
fn a_raw_sender_needs_its_address_only_when_it_is_opened() {
    let mut pair = PairV6::new();
    let mut rings = rings(&pair, None, 1);
    let mut sender = sender(&pair);
    let probe = datagram(IPV6, THERE, 64, b"without an address");
    pair.here_netlink.delete_address(pair.near, format!("{HERE}/64").parse().unwrap()).unwrap();
    pair.ip_here("-6 route add 2001:db8::/64 dev near");
    assert_eq!(send(&mut sender, std::slice::from_ref(&probe)).refused, 0);
    assert_eq!(next_in(&mut rings), probe);

    // Without the address, and while it is checked for duplicates, nothing can be opened.
    let open =
        |pair: &PairV6| pair.here.run(|| RawFrameSender::open_from(HERE.into(), 1500, 1).err()).unwrap();
    assert_eq!(open(&pair).unwrap().errno(), Some(libc::EADDRNOTAVAIL));
    pair.here
        .run(|| {
            sysctl::write("net/ipv6/conf/near/accept_dad", "1").unwrap();
            sysctl::write("net/ipv6/conf/near/dad_transmits", "10000").unwrap();
        })
        .unwrap();
    pair.ip_here(&format!("-6 address add {HERE}/64 dev near"));
    assert_eq!(open(&pair).unwrap().errno(), Some(libc::EADDRNOTAVAIL), "tentative");
    let error = pair.here.run(|| RawSocket::icmp_errors(HERE)).unwrap().unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("tentative")), "{error}");
    let lookup = pair.here_netlink.route_to(THERE, Some(HERE.into())).unwrap_err();
    assert_eq!(lookup.errno(), Some(libc::EINVAL), "{lookup}");
}

#[test(root)]
fn rules_see_the_protocol_and_the_mark_of_a_raw_sender() {
    let pair = PairV6::new();
    pair.ip_here("-6 rule add ipproto 41 fwmark 7 unreachable");
    let open = |mark| {
        let source = FlowSource { mark, ..HERE.into() };
        pair.here.run(|| RawFrameSender::open_from(source, 1500, 8)).unwrap().unwrap()
    };
    let [v4, v6] = [IPIP, IPV6].map(|protocol| datagram(protocol, THERE, 64, &numbered(40)));
    let behind = datagram(OPTIONS, THERE, 64, &options(IPV6));
    let all = [vec![v4, v6, behind], fragments(IPV6, &numbered(20), 7)].concat();
    let sent = send(&mut open(7), &all);
    assert_eq!((sent.taken, sent.refused, sent.without_route), (1, 3, 3), "{sent:?}");
    assert_eq!(send(&mut open(0), &all).refused, 0);
}

#[test(root, nft)]
fn a_drop_rule_leaves_fragments_to_the_raw_socket_and_drops_the_answer() {
    let pair = PairV6::new();
    let mut sender = sender(&pair);
    let (errors, socket) = (errors(&pair), tunneled(&pair, TunnelProtocol::Ipv6));
    let mut rings = rings(&pair, None, 1);
    let whole = datagram(IPV6, THERE, 61, &numbered(100));
    let with_options = datagram(OPTIONS, THERE, 61, &[&options(IPV6)[..], &numbered(100)].concat());
    let cut = fragments(IPV6, &numbered(1500), 7);
    let answers = pair.there.run(|| Icmpv6Socket::sender_in(&NetScope::default())).unwrap().unwrap();
    let answer = |code, about: &[u8]| {
        let sent = answers.send(&[&[1, code, 0, 0, 0, 0, 0, 0][..], about].concat(), HERE);
        sent.map_err(|error| error.kind())
    };
    let rule = pair.there.run(|| TunnelDropRule::start("adit-a", THERE.into(), &[HERE.into()], &BOTH));
    let rule = rule.unwrap().unwrap();
    send(&mut sender, &[vec![whole.clone(), with_options.clone()], cut.clone()].concat());
    for expected in [&whole, &with_options, &cut[0], &cut[1]] {
        assert_eq!(next_in(&mut rings), *expected, "a ring receives it before it is dropped");
    }
    assert_eq!(next_of(&socket), datagram(IPV6, THERE, 61, &numbered(1500)), "the first that passes");
    // Port Unreachable about protocol 41 is dropped, about others and of another code it is not.
    assert_eq!(answer(4, &whole), Err(ErrorKind::PermissionDenied));
    assert_eq!(answer(3, &whole), Ok(()));
    assert_eq!(answer(4, &datagram(17, THERE, 64, &numbered(20))), Ok(()));
    assert_eq!(next_error(&errors).1, 3);
    assert_eq!(next_error(&errors).1, 4);
    assert!(is_empty(&errors));
    drop(rule);
    send(&mut sender, std::slice::from_ref(&whole));
    assert_eq!(next_of(&socket), whole);
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
