//! Routers: each rule changes what passes, and removing it restores the traffic.

#[macro_use(test)]
extern crate adit_harness;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use adit_lab::cable::{CableEnd, connect_to_gateway};
use adit_lab::capture::{Frame, Tap};
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::router::Router;
use adit_linux::sockets::raw::RawSocket;
use adit_wire::Protocol;
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::ipv4::Ipv4Repr;

const INNER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
const OUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const ROUTER_INNER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const ROUTER_OUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// A router with one host on each side: `inner` on port `lan`, `outer` on port `wan`.
struct Network {
    inner: Host,
    router: Router,
    outer: Host,
}

impl Network {
    fn build() -> Self {
        let network = Self {
            inner: Host::new("inner host").unwrap(),
            router: Router::new("router").unwrap(),
            outer: Host::new("outer host").unwrap(),
        };
        let router = &network.router;
        for (host, address, port, gateway) in
            [(&network.inner, INNER, "lan", ROUTER_INNER), (&network.outer, OUTER, "wan", ROUTER_OUTER)]
        {
            let port = CableEnd::new(router, port, gateway);
            connect_to_gateway(CableEnd::new(host, "eth0", address), port, 24).unwrap();
        }
        assert!(network.ping(84).is_reply());
        network
    }

    /// Pings the outer host from the inner one, with DF.
    fn ping(&self, size: usize) -> Answer {
        self.inner.run(|| ping(OUTER, size, 64, PING_TIMEOUT)).unwrap()
    }
}

fn bind(host: &Host, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = host.ns().run(|| UdpSocket::bind(SocketAddrV4::new(address, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(PING_TIMEOUT)).unwrap();
    socket
}

/// Sends a datagram and returns the source that the receiver sees.
fn source_seen(from: &UdpSocket, to: &UdpSocket, address: Ipv4Addr) -> std::io::Result<SocketAddrV4> {
    from.send_to(b"hello", SocketAddrV4::new(address, to.local_addr()?.port()))?;
    match to.recv_from(&mut [0; 16])?.1 {
        std::net::SocketAddr::V4(source) => Ok(source),
        other => Err(std::io::Error::other(other.to_string())),
    }
}

#[test(root)]
fn a_lower_mtu_is_reported_and_a_black_hole_is_silent() {
    let network = Network::build();
    let too_big = Answer::Refused { by: ROUTER_INNER, error: Icmpv4Error::TooBig { mtu: 1300 } };
    let narrow = network.router.limit_mtu("wan", 1300).unwrap();
    assert_eq!(network.ping(1400), too_big);
    narrow.remove().unwrap();
    assert!(network.ping(1400).is_reply());

    let hole = network.router.black_hole("wan", 1300, &[INNER]).unwrap();
    assert_eq!(network.ping(1400), Answer::Silence);
    assert!(network.ping(1300).is_reply(), "what fits still passes");
    hole.remove().unwrap();
    assert!(network.ping(1400).is_reply());
}

#[test(root)]
fn own_packets_are_dropped_and_forwarded_ones_pass() {
    let network = Network::build();
    let ask_router = || network.inner.run(|| ping(ROUTER_INNER, 84, 64, PING_TIMEOUT)).unwrap();
    let silent = network.router.drop_own_packets_to(&[INNER]).unwrap();
    assert_eq!(ask_router(), Answer::Silence);
    assert!(network.ping(84).is_reply());
    silent.remove().unwrap();
    assert!(ask_router().is_reply());
}

#[test(root, nft)]
fn a_filtered_protocol_is_dropped_and_others_pass() {
    let network = Network::build();
    let sender = network.inner.run(RawSocket::sender).unwrap();
    let repr = Ipv4Repr {
        source: INNER,
        destination: OUTER,
        protocol: Protocol::IPIP,
        ttl: 64,
        tos: 0,
        identification: 1,
        dont_fragment: true,
        payload_len: 0,
    };
    // Counts the protocol 4 datagrams that pass, before a ping that ends the wait.
    let passed = || {
        let tap = Tap::start(&network.outer, "eth0").unwrap();
        sender.send(&repr.emit()).unwrap();
        assert!(network.ping(84).is_reply());
        tap.finish().iter().filter_map(Frame::ipv4).filter(|bytes| bytes[9] == 4).count()
    };
    assert_eq!(passed(), 1);
    let filter = network.router.drop_protocol(4).unwrap();
    assert_eq!(passed(), 0);
    filter.remove().unwrap();
    assert_eq!(passed(), 1);
}

#[test(root, nft)]
fn forwarded_icmp_errors_are_dropped_and_replies_pass() {
    let network = Network::build();
    let socket = bind(&network.inner, INNER, 0);
    socket.connect(SocketAddrV4::new(OUTER, 9)).unwrap();
    // Nobody listens there, so the outer host sends Port Unreachable.
    let error = || {
        socket.send(b"hello").unwrap();
        socket.recv(&mut [0; 1]).unwrap_err().kind()
    };
    assert_eq!(error(), ErrorKind::ConnectionRefused);
    let filter = network.router.drop_icmp_errors().unwrap();
    assert_eq!(error(), ErrorKind::WouldBlock);
    assert!(network.ping(84).is_reply());
    filter.remove().unwrap();
    assert_eq!(error(), ErrorKind::ConnectionRefused);
}

#[test(root, nft)]
fn nat_translates_addresses_until_it_is_removed() {
    const MAPPED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
    let network = Network::build();
    let inner = bind(&network.inner, INNER, 4000);
    let outer = bind(&network.outer, OUTER, 5000);
    let seen = || *source_seen(&inner, &outer, OUTER).unwrap().ip();
    assert_eq!(seen(), INNER);

    // The kernel remembers the translation of a flow, so each one has a port of its own.
    let masquerade = network.router.masquerade("wan").unwrap();
    let second = bind(&network.inner, INNER, 4001);
    assert_eq!(*source_seen(&second, &outer, OUTER).unwrap().ip(), ROUTER_OUTER);
    masquerade.remove().unwrap();
    let third = bind(&network.inner, INNER, 4002);
    assert_eq!(*source_seen(&third, &outer, OUTER).unwrap().ip(), INNER);

    network.router.proxy_arp("wan").unwrap();
    network.router.route(MAPPED.into(), None, Some("lan")).unwrap();
    let mapping = network.router.map_address("wan", INNER, MAPPED).unwrap();
    let fourth = bind(&network.inner, INNER, 4003);
    assert_eq!(*source_seen(&fourth, &outer, OUTER).unwrap().ip(), MAPPED);
    let from_outside = source_seen(&bind(&network.outer, OUTER, 5001), &fourth, MAPPED).unwrap();
    assert_eq!(from_outside, SocketAddrV4::new(OUTER, 5001));
    mapping.remove().unwrap();
    let fifth = bind(&network.inner, INNER, 4004);
    assert_eq!(*source_seen(&fifth, &outer, OUTER).unwrap().ip(), INNER);
}

#[test(root)]
fn a_rate_limit_slows_what_leaves_the_port() {
    const DATAGRAMS: usize = 20;
    const PAYLOAD: usize = 1400;
    let network = Network::build();
    let inner = bind(&network.inner, INNER, 0);
    let outer = bind(&network.outer, OUTER, 5000);
    // Sends one datagram as soon as the one before has arrived.
    let time = || {
        let start = Instant::now();
        for _ in 0..DATAGRAMS {
            inner.send_to(&[7; PAYLOAD], SocketAddrV4::new(OUTER, 5000)).unwrap();
            outer.recv(&mut [0; 2048]).unwrap();
        }
        start.elapsed()
    };
    let limit = network.router.limit_rate("wan", 1000).unwrap();
    // 28,000 bytes less a burst of 16 KiB take 90 ms at 1 Mbit/s.
    let slow = time();
    assert!(slow > Duration::from_millis(80), "{slow:?}");
    limit.remove().unwrap();
    let fast = time();
    assert!(fast < slow, "{fast:?} without the limit, {slow:?} with it");
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
