//! The network of Linux's pmtu.sh, with hosts behind the tunnel's ends: two path_routers between the gateways, and on
//! each a link between two routers that is narrower than any of the gateways'.
//!
//! ```text
//!                        ┌─ way 0 ──(narrow)──┐
//!   host A ── gateway A ─┤                    middle ── gateway B ── host B
//!                        └─ way 1 ──(narrow)──┘
//! ```

use std::net::Ipv4Addr;

use adit_config::DataplaneChoice;
use adit_lab::host::Host;
use adit_lab::two_sites::{HOST_A, HOST_B, INSIDE_A, INSIDE_B, Tunnels, UNDERLAY_A, UNDERLAY_B, bring_up};
use adit_linux::netlink::Route;
use adit_testbed::test_planes::with_plane;
use ipnet::Ipv4Net;

use crate::support::{config_a, config_b};

/// The network, without a tunnel; traffic takes way 0.
pub(crate) struct TwoPaths {
    pub(crate) host_a: Host,
    /// Its interfaces are `way0` and `way1`.
    pub(crate) gateway_a: Host,
    /// Their interfaces are `toA` and, the narrow one, `toM`.
    pub(crate) path_routers: [Host; 2],
    /// Its interfaces are `to0`, `to1` (narrow) and `toB`.
    pub(crate) middle: Host,
    pub(crate) gateway_b: Host,
    pub(crate) host_b: Host,
}

/// The address of the near (1) or the far (2) end of one of the network's cables.
fn on_cable(cable: u8, end: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, cable, end)
}

fn prefix(address: Ipv4Addr, len: u8) -> Ipv4Net {
    Ipv4Net::new(address, len).expect("a length up to 32")
}

/// Lays a cable between two, with an address for each end.
fn connect(cable: u8, (near, near_device): (&Host, &str), (far, far_device): (&Host, &str)) {
    near.connect(near_device, far, far_device).unwrap();
    near.address(near_device, prefix(on_cable(cable, 1), 30)).unwrap();
    far.address(far_device, prefix(on_cable(cable, 2), 30)).unwrap();
}

impl TwoPaths {
    /// Builds it; the narrow link of each way has one of these MTUs.
    pub(crate) fn build(narrow: [u32; 2]) -> Self {
        let host = |name| Host::new(name).unwrap();
        let network = Self {
            host_a: host("host A"),
            gateway_a: host("gateway A"),
            path_routers: [host("way 0"), host("way 1")],
            middle: host("middle"),
            gateway_b: host("gateway B"),
            host_b: host("host B"),
        };
        let insides = [
            (&network.host_a, &network.gateway_a, HOST_A, INSIDE_A),
            (&network.host_b, &network.gateway_b, HOST_B, INSIDE_B),
        ];
        for (host, gateway, address, inside) in insides {
            gateway.connect("inside", host, "eth0").unwrap();
            gateway.address("inside", prefix(inside, 24)).unwrap();
            host.address("eth0", prefix(address, 24)).unwrap();
            host.route(Ipv4Net::default(), Some(inside), None).unwrap();
        }
        for router in [
            &network.gateway_a,
            &network.path_routers[0],
            &network.path_routers[1],
            &network.middle,
            &network.gateway_b,
        ] {
            router.forward().unwrap();
            // Every datagram of a test that is too big has to be told of.
            router.sysctl("ipv4/icmp_ratelimit", "0").unwrap();
        }
        for (number, way) in network.path_routers.iter().enumerate() {
            let cable = number as u8;
            connect(cable, (&network.gateway_a, &format!("way{number}")), (way, "toA"));
            connect(2 + cable, (way, "toM"), (&network.middle, &format!("to{number}")));
            way.mtu("toM", narrow[number]).unwrap();
            network.middle.mtu(&format!("to{number}"), narrow[number]).unwrap();
            way.route(prefix(UNDERLAY_A, 32), Some(on_cable(cable, 1)), None).unwrap();
            way.route(Ipv4Net::default(), Some(on_cable(2 + cable, 2)), None).unwrap();
        }
        connect(4, (&network.middle, "toB"), (&network.gateway_b, "underlay"));
        network.middle.route(prefix(UNDERLAY_B, 32), Some(on_cable(4, 2)), None).unwrap();
        network.gateway_b.route(Ipv4Net::default(), Some(on_cable(4, 1)), None).unwrap();
        network.gateway_a.address("lo", prefix(UNDERLAY_A, 32)).unwrap();
        network.gateway_b.address("lo", prefix(UNDERLAY_B, 32)).unwrap();
        network.use_path(0);
        network
    }

    /// Has the traffic between the gateways take this way, both there and back.
    pub(crate) fn use_path(&self, way: u8) {
        let route = |destination, gateway| Route {
            destination: prefix(destination, 32),
            gateway: Some(gateway),
            ..Route::default()
        };
        let replace = |host: &Host, route: &Route| host.netlink().unwrap().replace_route(route).unwrap();
        replace(&self.gateway_a, &route(UNDERLAY_B, on_cable(way, 2)));
        replace(&self.middle, &route(UNDERLAY_A, on_cable(2 + way, 1)));
    }

    /// Brings the tunnel up on both gateways, with these lines in the `[tunnel]` of both.
    pub(crate) fn bring_up(&self, plane: DataplaneChoice, tunnel: &str) -> Tunnels {
        let up = |gateway, config: String| bring_up(gateway, &with_plane(&config, plane)).unwrap();
        Tunnels { a: up(&self.gateway_a, config_a(tunnel)), b: up(&self.gateway_b, config_b(tunnel)) }
    }
}
