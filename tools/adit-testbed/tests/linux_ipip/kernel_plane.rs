//! The kernel data plane with IPv6, inside and outside: Linux's drivers sit and ip6tnl with Adit's
//! tables, and each of the planes at the far end.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::Duration;

use adit_config::DataplaneChoice::{self, Ebpf, Kernel, Userspace};
use adit_control::Overlay;
use adit_fixtures::PacketV6;
use adit_fixtures::packet_v6::{bare_v6, udp_v6};
use adit_lab::capture::{Frame, Tap};
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{
    CONFIG_A, CONFIG_B, HOST_A6, HOST_B6, TwoSites, UNDERLAY_A, UNDERLAY_A6, UNDERLAY_B, UNDERLAY_B6,
    bring_up, over_both, over_ipv6, with_ipv6_networks,
};
use adit_linux::family::Family;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_testbed::needs::{ebpf, ip6tnl, sit};
use adit_testbed::test_planes::with_plane;
use adit_wire::Protocol;
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::icmpv6::Icmpv6Error;

use crate::support::stream::Stream;
use crate::support::{WAIT_TIMEOUT, outer_packets_from};
use crate::testbed::{End, expect_packets_of_up_to_1280_bytes};

/// Brings Adit up at one end, for networks of both families.
fn adit(network: &TwoSites, end: End, underlay: Family, plane: DataplaneChoice) -> Overlay {
    let config = match end {
        End::A => CONFIG_A,
        End::B => CONFIG_B,
    };
    let config = with_plane(&with_ipv6_networks(config), plane);
    let config = match underlay {
        Family::V4 => config,
        Family::V6 => over_ipv6(&config),
    };
    bring_up(end.gateway(network), &config).unwrap()
}

fn network(underlay: Family) -> TwoSites {
    match underlay {
        Family::V4 => TwoSites::build_with_ipv6(),
        Family::V6 => TwoSites::build_over_ipv6(),
    }
    .unwrap()
}

/// The largest packet that fits into 1500 bytes.
fn mtu(underlay: Family) -> u16 {
    match underlay {
        Family::V4 => 1480,
        Family::V6 => 1460,
    }
}

/// Pings from the host of one site to the other's, of each family.
fn ask(network: &TwoSites, from: End, size: usize) -> [Answer; 2] {
    let host = from.host(network);
    let v6 = host.run(|| ping(from.other().addresses_v6().1, size, 64, WAIT_TIMEOUT)).unwrap();
    [host.run(|| ping(from.other().addresses().1, size, 64, WAIT_TIMEOUT)).unwrap(), v6]
}

/// Pings of every size class, what is too big, and a transfer, from both sides and of both
/// families.
fn networks_of_both_families_are_joined(underlay: Family, planes: [DataplaneChoice; 2]) {
    let network = network(underlay);
    let [_b, _a] =
        [(End::B, planes[1]), (End::A, planes[0])].map(|(end, plane)| adit(&network, end, underlay, plane));
    let mtu = mtu(underlay);
    for from in End::BOTH {
        for size in [48, 104, 1280, mtu] {
            let answers = ask(&network, from, size.into());
            assert!(answers.iter().all(Answer::is_reply), "{size} bytes from {from:?}: {answers:?}");
        }
        let too_big = [
            Answer::Refused { by: from.addresses().0, error: Icmpv4Error::TooBig { mtu } },
            Answer::RefusedV6 { by: from.addresses_v6().0, error: Icmpv6Error::TooBig { mtu: mtu.into() } },
        ];
        assert_eq!(ask(&network, from, usize::from(mtu) + 1), too_big, "from {from:?}");
        let ends = (from.host(&network), from.other().host(&network));
        let stream = Stream { seed: 64, len: 1 << 20, write: 65_536, nodelay: false };
        for to in [from.other().addresses_v6().1.into(), IpAddr::from(from.other().addresses().1)] {
            let (sent, received) = stream.send(ends, to);
            assert_eq!(received, sent, "to {to}");
        }
    }
}

/// A sends over IPv6, and B over IPv4. Each accepts what comes over the other family.
fn gateways_that_prefer_different_families_hear_each_other(planes: [DataplaneChoice; 2]) {
    let network = network(Family::V6);
    let up = |gateway, text: &str, plane, first| {
        bring_up(gateway, &with_plane(&over_both(&with_ipv6_networks(text), first), plane)).unwrap()
    };
    let _a = up(&network.gateway_a, CONFIG_A, planes[0], Family::V6);
    let _b = up(&network.gateway_b, CONFIG_B, planes[1], Family::V4);
    let tap = Tap::start(&network.router, "toA").unwrap();
    for from in End::BOTH {
        for size in [48, 1280, 1460] {
            let answers = ask(&network, from, size);
            assert!(answers.iter().all(Answer::is_reply), "{size} bytes from {from:?}: {answers:?}");
        }
    }
    let frames = tap.finish();
    let [_, of_a] = outer_packets_from(UNDERLAY_A, UNDERLAY_A6, &frames);
    let [of_b, _] = outer_packets_from(UNDERLAY_B, UNDERLAY_B6, &frames);
    assert!(of_a >= 12, "A sends over IPv6");
    assert!(of_b >= 12, "B sends over IPv4");
    let ends = (&network.host_a, &network.host_b);
    let stream = Stream { seed: 64, len: 1 << 20, write: 65_536, nodelay: false };
    let (sent, received) = stream.send(ends, HOST_B6);
    assert_eq!(received, sent);
}

#[test(root, sit, ip6tnl)]
fn over_both_to_the_same_plane() {
    gateways_that_prefer_different_families_hear_each_other([Kernel, Kernel]);
}

#[test(root, sit, ip6tnl, ebpf)]
fn over_both_to_the_programs() {
    gateways_that_prefer_different_families_hear_each_other([Kernel, Ebpf]);
}

#[test(root, sit, ip6tnl)]
fn over_both_to_userspace() {
    gateways_that_prefer_different_families_hear_each_other([Userspace, Kernel]);
}

#[test(root, sit)]
fn over_ipv4_to_the_same_plane() {
    networks_of_both_families_are_joined(Family::V4, [Kernel, Kernel]);
}

#[test(root, sit)]
fn over_ipv4_to_userspace() {
    networks_of_both_families_are_joined(Family::V4, [Kernel, Userspace]);
}

#[test(root, sit, ebpf)]
fn over_ipv4_to_the_programs() {
    networks_of_both_families_are_joined(Family::V4, [Ebpf, Kernel]);
}

#[test(root, ip6tnl)]
fn over_ipv6_to_the_same_plane() {
    networks_of_both_families_are_joined(Family::V6, [Kernel, Kernel]);
}

#[test(root, ip6tnl)]
fn over_ipv6_to_userspace() {
    networks_of_both_families_are_joined(Family::V6, [Kernel, Userspace]);
}

#[test(root, ip6tnl, ebpf)]
fn over_ipv6_to_the_programs() {
    networks_of_both_families_are_joined(Family::V6, [Ebpf, Kernel]);
}

/// RFC 4213 section 3.2.2: sit sends what the path does not carry without DF.
#[test(root, sit)]
fn a_packet_of_1280_bytes_passes_a_narrower_underlay_of_ipv4() {
    let network = network(Family::V4);
    network.set_underlay_mtus(1000).unwrap();
    let _overlays = End::BOTH.map(|end| adit(&network, end, Family::V4, Kernel));
    for size in [980, 981, 1280] {
        let [_, answer] = ask(&network, End::A, size);
        assert!(answer.is_reply(), "{size} bytes: {answer:?}");
    }
}

/// The far end sends packets of up to 1280 bytes in outer fragments (RFC 2473 section 7.1). The
/// kernel reassembles them behind our table.
#[test(root, ip6tnl)]
fn outer_fragments_of_ipv6_arrive() {
    let network = network(Family::V6);
    network.set_underlay_mtus(1280).unwrap();
    let _kernel = adit(&network, End::A, Family::V6, Kernel);
    let _userspace = adit(&network, End::B, Family::V6, Userspace);
    expect_packets_of_up_to_1280_bytes(&network, End::B);
}

/// The MSS option of the first segment that reaches host B from host A and from gateway A, over
/// IPv6.
fn offered(underlay: Family) -> Vec<u16> {
    let network = network(underlay);
    let _overlays = End::BOTH.map(|end| adit(&network, end, underlay, Kernel));
    let tap = Tap::start(&network.host_b, "eth0").unwrap();
    for host in [&network.host_a, &network.gateway_a] {
        let to = (End::B.addresses_v6().1, 80).into();
        host.ns().run(|| drop(TcpStream::connect_timeout(&to, Duration::from_secs(2)))).unwrap();
    }
    let mss = |frame: &Frame| {
        let packet = frame.ipv6()?;
        let is_syn = packet.get(6) == Some(&6) && packet.get(53) == Some(&0x02);
        let option: [u8; 4] = packet.get(60..64)?.try_into().ok()?;
        (is_syn && option.starts_with(&[2, 4])).then(|| u16::from_be_bytes([option[2], option[3]]))
    };
    tap.finish().iter().filter_map(mss).collect()
}

#[test(root, sit)]
fn tcp_over_ipv6_is_told_what_fits_in_ipv4() {
    assert_eq!(offered(Family::V4), [1420, 1420]);
}

#[test(root, ip6tnl)]
fn tcp_over_ipv6_is_told_what_fits_in_ipv6() {
    assert_eq!(offered(Family::V6), [1400, 1400]);
}

/// The kernel reassembles outer fragments of IPv6 behind our table, which checks the first. What
/// hides the inner header from it must not arrive.
#[test(root, ip6tnl)]
fn what_hides_in_a_later_fragment_does_not_arrive() {
    const DESTINATION_OPTIONS: Protocol = Protocol(60);
    const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
    let network = network(Family::V6);
    let _overlay = adit(&network, End::A, Family::V6, Kernel);
    let bound = || UdpSocket::bind(SocketAddrV6::new(HOST_A6, 4242, 0, 0));
    let socket = network.host_a.ns().run(bound).unwrap().expect("the port is free");
    socket.set_read_timeout(Some(WAIT_TIMEOUT)).expect("there are timeouts");
    let forger: Ipv6Addr = "2001:db8:99::9".parse().expect("an address");
    let outer = |source, len| {
        let inner = udp_v6(source, HOST_A6, len).build();
        bare_v6(UNDERLAY_B6, UNDERLAY_A6, Protocol::IPV6, inner)
    };
    let hidden = |source, len| {
        let packet = outer(source, len).extension(DESTINATION_OPTIONS, PADDING);
        packet.extension(DESTINATION_OPTIONS, PADDING)
    };
    // Of each packet another one: the second fragment of a packet whose first was dropped waits.
    let identification = Cell::new(1u32);
    let cut = |packet: PacketV6, at: usize, len: usize| {
        const IDENTIFICATION: std::ops::Range<usize> = 44..48;
        identification.set(identification.get() + 1);
        [packet.clone().piece(0, at), packet.piece(at, len - at)].map(|piece| {
            let mut bytes = piece.build();
            bytes[IDENTIFICATION].copy_from_slice(&identification.get().to_be_bytes());
            bytes
        })
    };
    let send = |packets: &[Vec<u8>]| {
        let sent = network.router.run(|| {
            let mut sender = RawFrameSender::open_from(ROUTER_A6.into(), 2000, 1)?;
            for packet in packets {
                sender.frame()[LINK_HEADER..][..packet.len()].copy_from_slice(packet);
                sender.commit(packet.len(), None);
                sender.flush();
            }
            Ok::<u64, adit_linux::error::Error>(sender.take_sent().taken)
        });
        assert_eq!(sent.unwrap(), packets.len() as u64);
    };
    // Each has its own length, by which it is known.
    for (case, forged) in [
        ("the inner header", cut(outer(forger, 101), 8, 101)),
        ("half of the inner header", cut(outer(forger, 102), 24, 102)),
        ("the header that names what is inside", cut(hidden(forger, 103), 8, 119)),
        ("the inner header behind options", cut(hidden(forger, 104), 16, 120)),
        ("nothing", cut(outer(forger, 105), 64, 105)),
    ] {
        send(&forged);
        // What is allowed comes behind it, in fragments too.
        for (allowed, len) in
            [(cut(outer(HOST_B6, 201), 64, 201), 201), (cut(hidden(HOST_B6, 202), 64, 218), 202)]
        {
            send(&allowed);
            let mut buffer = [0; 2000];
            let received = socket.recv_from(&mut buffer);
            let (received, from) = received.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!((received + 48, from.ip()), (len, HOST_B6.into()), "{case}");
        }
    }
}

const ROUTER_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xa, 0, 0, 0, 0xfe);
