//! The network of Linux's pmtu.sh, with hosts behind the tunnel's ends: two paths between
//! the gateways. Each has a link between two routers that is narrower than the gateways' links.
//!
//! ```text
//!                        ┌─ path 0 ─(narrow)──┐
//!   host A ── gateway A ─┤                    middle ── gateway B ── host B
//!                        └─ path 1 ─(narrow)──┘
//! ```

use std::net::Ipv4Addr;

use adit_config::DataplaneChoice;
use adit_lab::cable::{self, CableEnd};
use adit_lab::host::Host;
use adit_lab::router::Router;
use adit_lab::two_sites::{HOST_A, HOST_B, INSIDE_A, INSIDE_B, Tunnels, UNDERLAY_A, UNDERLAY_B, bring_up};
use adit_linux::netlink::Route;
use adit_linux::sockets::icmp_socket::IcmpSocket;
use adit_testbed::test_planes::with_plane;
use ipnet::Ipv4Net;

use crate::support::{config_a, config_b};

/// The network without a tunnel. Traffic takes path 0.
pub(crate) struct TwoPaths {
    pub(crate) host_a: Host,
    /// Has the underlay interfaces `path0` and `path1`.
    pub(crate) gateway_a: Host,
    /// Have the interfaces `toA` and the narrow `toM`.
    pub(crate) path_routers: [Router; 2],
    /// Has the interfaces `to0` and `to1`, which are narrow, and `toB`.
    pub(crate) middle: Router,
    pub(crate) gateway_b: Host,
    pub(crate) host_b: Host,
    /// The kernel delivers an ICMP error to raw sockets first. Then it stores the path MTU, but
    /// only if a raw socket exists. That of `ping` may be closed by then, so each host keeps one
    /// open.
    _raw_sockets: [IcmpSocket; 2],
}

/// The address of the near (1) or far (2) end of a cable.
fn on_cable(cable: u8, end: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, cable, end)
}

/// Connects two hosts by the cable with this number.
fn connect(number: u8, (near, near_device): (&Host, &str), (far, far_device): (&Host, &str)) {
    let near = CableEnd::new(near, near_device, on_cable(number, 1));
    cable::connect(near, CableEnd::new(far, far_device, on_cable(number, 2)), 30).unwrap();
}

impl TwoPaths {
    /// Builds the network. The narrow link of each path has one of these MTUs.
    pub(crate) fn build(narrow: [u32; 2]) -> Self {
        let host = |name| Host::new(name).unwrap();
        let router = |name| Router::new(name).unwrap();
        let (host_a, host_b) = (host("host A"), host("host B"));
        let network = Self {
            _raw_sockets: [&host_a, &host_b].map(|host| host.run(IcmpSocket::open).unwrap()),
            host_a,
            gateway_a: host("gateway A"),
            path_routers: [router("path 0"), router("path 1")],
            middle: router("middle"),
            gateway_b: host("gateway B"),
            host_b,
        };
        let insides = [
            (&network.host_a, &network.gateway_a, HOST_A, INSIDE_A),
            (&network.host_b, &network.gateway_b, HOST_B, INSIDE_B),
        ];
        for (host, gateway, address, inside) in insides {
            let inside = CableEnd::new(gateway, "inside", inside);
            cable::connect_to_gateway(CableEnd::new(host, "eth0", address), inside, 24).unwrap();
            gateway.forward().unwrap();
        }
        let [path_0, path_1] = &network.path_routers;
        let routers: [&Host; 5] = [&network.gateway_a, path_0, path_1, &network.middle, &network.gateway_b];
        for router in routers {
            // A test expects an error for every datagram that is too big.
            router.sysctl("ipv4/icmp_ratelimit", "0").unwrap();
        }
        for (number, path) in network.path_routers.iter().enumerate() {
            let cable = number as u8;
            connect(cable, (&network.gateway_a, &format!("path{number}")), (path, "toA"));
            connect(2 + cable, (path, "toM"), (&network.middle, &format!("to{number}")));
            path.mtu("toM", narrow[number]).unwrap();
            network.middle.mtu(&format!("to{number}"), narrow[number]).unwrap();
            path.route(Ipv4Net::from(UNDERLAY_A), Some(on_cable(cable, 1)), None).unwrap();
            path.route(Ipv4Net::default(), Some(on_cable(2 + cable, 2)), None).unwrap();
        }
        connect(4, (&network.middle, "toB"), (&network.gateway_b, "underlay"));
        network.middle.route(Ipv4Net::from(UNDERLAY_B), Some(on_cable(4, 2)), None).unwrap();
        network.gateway_b.route(Ipv4Net::default(), Some(on_cable(4, 1)), None).unwrap();
        network.gateway_a.address("lo", Ipv4Net::from(UNDERLAY_A)).unwrap();
        network.gateway_b.address("lo", Ipv4Net::from(UNDERLAY_B)).unwrap();
        network.use_path(0);
        network
    }

    /// Routes the traffic between the gateways over this path, in both directions.
    pub(crate) fn use_path(&self, path: u8) {
        let route = |destination, gateway: Ipv4Addr| Route {
            destination: Ipv4Net::from(destination).into(),
            gateway: Some(gateway.into()),
            ..Route::default()
        };
        let replace = |host: &Host, route: &Route| host.netlink().unwrap().replace_route(route).unwrap();
        replace(&self.gateway_a, &route(UNDERLAY_B, on_cable(path, 2)));
        replace(&self.middle, &route(UNDERLAY_A, on_cable(2 + path, 1)));
    }

    /// Brings the tunnel up on both gateways, with these lines in each `[tunnel]` section.
    pub(crate) fn bring_up(&self, plane: DataplaneChoice, tunnel: &str) -> Tunnels {
        let up = |gateway, config: String| bring_up(gateway, &with_plane(&config, plane)).unwrap();
        Tunnels { a: up(&self.gateway_a, config_a(tunnel)), b: up(&self.gateway_b, config_b(tunnel)) }
    }
}
