//! The two-site network with Adit at one end and the kernel's driver at the other.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, UdpSocket};

use adit_config::DataplaneChoice;
use adit_control::Overlay;
use adit_lab::host::Host;
use adit_lab::two_sites::{
    HOST_A, HOST_A6, HOST_B, HOST_B6, INSIDE_A, INSIDE_A6, INSIDE_B, INSIDE_B6, TwoSites, UNDERLAY_A,
    UNDERLAY_A6, UNDERLAY_B, UNDERLAY_B6, bring_up,
};
use adit_testbed::test_planes::with_plane;

use crate::support::{ATTEMPT_TIMEOUT, WAIT_TIMEOUT, config_a, config_b};

/// One of the two sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    A,
    B,
}

impl End {
    /// Both sites.
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The addresses of its gateway and its host in its private network.
    pub(crate) fn addresses(self) -> (Ipv4Addr, Ipv4Addr) {
        match self {
            Self::A => (INSIDE_A, HOST_A),
            Self::B => (INSIDE_B, HOST_B),
        }
    }

    /// The same of IPv6.
    pub(crate) fn addresses_v6(self) -> (Ipv6Addr, Ipv6Addr) {
        match self {
            Self::A => (INSIDE_A6, HOST_A6),
            Self::B => (INSIDE_B6, HOST_B6),
        }
    }

    pub(crate) fn underlay_v6(self) -> Ipv6Addr {
        match self {
            Self::A => UNDERLAY_A6,
            Self::B => UNDERLAY_B6,
        }
    }

    pub(crate) fn underlay(self) -> Ipv4Addr {
        match self {
            Self::A => UNDERLAY_A,
            Self::B => UNDERLAY_B,
        }
    }

    fn network(self) -> &'static str {
        match self {
            Self::A => "172.16.17.0/24",
            Self::B => "192.168.199.0/24",
        }
    }

    /// The tunnel interface.
    pub(crate) fn device(self) -> &'static str {
        match self {
            Self::A => "ipipA",
            Self::B => "ipipB",
        }
    }

    pub(crate) fn gateway(self, network: &TwoSites) -> &Host {
        match self {
            Self::A => &network.gateway_a,
            Self::B => &network.gateway_b,
        }
    }

    pub(crate) fn host(self, network: &TwoSites) -> &Host {
        match self {
            Self::A => &network.host_a,
            Self::B => &network.host_b,
        }
    }

    /// A UDP socket on its host without path MTU discovery, so that routers may fragment.
    pub(crate) fn socket(self, network: &TwoSites) -> UdpSocket {
        let host = self.host(network);
        host.sysctl("ipv4/ip_no_pmtu_disc", "1").unwrap();
        let bound = host.ns().run(|| UdpSocket::bind(SocketAddrV4::new(self.addresses().1, 0))).unwrap();
        let socket = bound.expect("a port is free");
        socket.set_read_timeout(Some(2 * ATTEMPT_TIMEOUT)).expect("there are timeouts");
        socket
    }
}

/// The options of the kernel's tunnel device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Linux {
    /// One peer, a fixed outer TTL, DF set: the usual options.
    Usual,
    /// One peer, and outer datagrams that may be fragmented. The driver allows no fixed outer TTL
    /// with that.
    NoPathMtuDiscovery,
    /// Any peer; each route names one.
    RemoteAny,
}

/// Brings Adit up at one end.
///
/// Both gateways share one kernel here. If it has loaded the driver for one of them, it also sends
/// Port Unreachable for the other: one for every outer datagram without a tunnel of the driver. The
/// driver at the far end would treat the peer as unreachable. Adit suppresses these errors.
pub(crate) fn adit(network: &TwoSites, end: End, plane: DataplaneChoice) -> Overlay {
    let gateway = end.gateway(network);
    let config = match end {
        End::A => config_a(""),
        End::B => config_b(""),
    };
    bring_up(gateway, &with_plane(&config, plane)).unwrap()
}

/// Brings the kernel's driver up at one end. The kernel loads its module on demand.
pub(crate) fn linux(network: &TwoSites, end: End, how: Linux) {
    let gateway = end.gateway(network);
    let ip = |arguments: &str| gateway.program("ip", &arguments.split(' ').collect::<Vec<_>>()).unwrap();
    let (device, local, remote) = (end.device(), end.underlay(), end.other().underlay());
    let (to, source) = (end.other().network(), end.addresses().0);
    match how {
        Linux::Usual => ip(&format!("link add {device} type ipip local {local} remote {remote} ttl 64")),
        Linux::NoPathMtuDiscovery => {
            ip(&format!("link add {device} type ipip local {local} remote {remote} ttl inherit nopmtudisc"));
        }
        Linux::RemoteAny => ip(&format!("link add {device} type ipip local {local} ttl 64")),
    }
    ip(&format!("link set {device} up"));
    match how {
        Linux::RemoteAny => ip(&format!("route add {to} via {remote} dev {device} onlink src {source}")),
        Linux::Usual | Linux::NoPathMtuDiscovery => ip(&format!("route add {to} dev {device} src {source}")),
    }
}

/// Sends UDP from the host of one site to the other's, in packets of IPv6 of as many bytes as every
/// path carries, and fails unless they arrive unchanged.
#[track_caller]
pub(crate) fn expect_packets_of_up_to_1280_bytes(network: &TwoSites, from: End) {
    const HEADERS: usize = 48;
    let bind = |end: End| {
        let address = SocketAddrV6::new(end.addresses_v6().1, 0, 0, 0);
        let socket = end.host(network).ns().run(|| UdpSocket::bind(address)).unwrap();
        socket.expect("a port is free")
    };
    let (sender, receiver) = (bind(from), bind(from.other()));
    receiver.set_read_timeout(Some(WAIT_TIMEOUT)).expect("there are timeouts");
    for len in [1240, 1241, 1279, 1280] {
        let payload: Vec<u8> = (0..len - HEADERS).map(|at| (at % 251) as u8).collect();
        expect_arrival(&sender, &receiver, &payload);
    }
}

/// Sends a payload, and fails unless it arrives unchanged.
#[track_caller]
pub(crate) fn expect_arrival(from: &UdpSocket, to: &UdpSocket, payload: &[u8]) {
    let mut buffer = vec![0; 65_536];
    let address = to.local_addr().expect("it is bound");
    assert_eq!(from.send_to(payload, address).expect("it is sent"), payload.len());
    match to.recv(&mut buffer) {
        Ok(len) => {
            assert!(buffer[..len] == *payload, "sent {} bytes, received {len} or other bytes", payload.len())
        }
        Err(error) => panic!("{} bytes to {address} did not arrive: {error}", payload.len()),
    }
}
