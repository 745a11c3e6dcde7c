//! Changes of the underlay under a running tunnel, after which traffic returns by itself.

use adit_lab::checks::reaches;
use adit_lab::two_sites::{HOST_B, TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_linux::netlink::Route;
use adit_testbed::reality::tap::{ForeignTap, SeenDatagram};
use ipnet::Ipv4Net;

use crate::support::{Injector, mac, set_mac, wait_until};

const NEW_MAC: [u8; 6] = [0x02, 0xad, 0x17, 0, 0, 0x42];

#[track_caller]
fn wait_for_traffic(network: &TwoSites) {
    wait_until("host A reaches host B", || reaches(&network.host_a, HOST_B).unwrap());
}

/// The next hop gets another Ethernet address without an announcement. The kernel detects it only
/// because the tunnel reports that the neighbour entry is in use.
#[test(root)]
fn a_next_hop_with_a_new_mac_is_found_again() {
    let network = TwoSites::build().unwrap();
    // The default times would take about 40 seconds.
    let gateway = &network.gateway_a;
    for (knob, value) in
        [("base_reachable_time_ms", "500"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "100")]
    {
        gateway.sysctl(&format!("ipv4/neigh/underlayA/{knob}"), value).unwrap();
    }
    let _tunnels = network.bring_up().unwrap();
    assert!(reaches(&network.host_a, HOST_B).unwrap());
    set_mac(&network.router, "toA", NEW_MAC);
    wait_for_traffic(&network);
    let neighbour = gateway.netlink().unwrap().neighbour(gateway.index("underlayA").unwrap(), UNDERLAY_B);
    assert_eq!(neighbour.unwrap().and_then(|neighbour| neighbour.mac), Some(NEW_MAC));
}

/// With the default times, the next hop announces its new Ethernet address by a gratuitous ARP
/// reply (RFC 5227 section 3).
#[test(root)]
fn an_announced_mac_is_used_at_once() {
    let network = TwoSites::build().unwrap();
    let _tunnels = network.bring_up().unwrap();
    assert!(reaches(&network.host_a, HOST_B).unwrap());
    let gateway = &network.gateway_a;
    // The kernel does not replace a neighbour that was confirmed within the last second
    // (`locktime`).
    gateway.sysctl("ipv4/neigh/underlayA/locktime", "0").unwrap();
    set_mac(&network.router, "toA", NEW_MAC);
    Injector::new(&network.router, "toA", gateway, "underlayA").send_arp_reply(UNDERLAY_B, UNDERLAY_A);
    let neighbour = || gateway.netlink().unwrap().neighbour(gateway.index("underlayA").unwrap(), UNDERLAY_B);
    wait_until("the kernel accepts the announcement", || {
        neighbour().unwrap().and_then(|entry| entry.mac) == Some(NEW_MAC)
    });
    wait_for_traffic(&network);
}

#[test(root)]
fn traffic_returns_after_the_underlay_interface_was_down() {
    let network = TwoSites::build().unwrap();
    let _tunnels = network.bring_up().unwrap();
    assert!(reaches(&network.host_a, HOST_B).unwrap());
    for _ in 0..3 {
        network.gateway_a.down("underlayA").unwrap();
        assert!(!reaches(&network.host_a, HOST_B).unwrap(), "traffic passes although the interface is down");
        network.gateway_a.up("underlayA").unwrap();
        wait_for_traffic(&network);
    }
}

/// The other end of the cable goes down, and the router loses its routes.
#[test(root)]
fn traffic_returns_after_the_carrier_was_gone() {
    let network = TwoSites::build().unwrap();
    let _tunnels = network.bring_up().unwrap();
    assert!(reaches(&network.host_a, HOST_B).unwrap());
    network.router.down("toA").unwrap();
    assert!(!reaches(&network.host_a, HOST_B).unwrap(), "the cable is pulled");
    network.router.up("toA").unwrap();
    network.router.route(Ipv4Net::from(UNDERLAY_A), None, Some("toA")).unwrap();
    wait_for_traffic(&network);
}

/// The route moves to a second cable, and then the first one goes down.
#[test(root)]
fn traffic_follows_the_route_to_another_interface() {
    let network = TwoSites::build().unwrap();
    let _tunnels = network.bring_up().unwrap();
    assert!(reaches(&network.host_a, HOST_B).unwrap());
    let (gateway, router) = (&network.gateway_a, &network.router);
    gateway.connect("second", router, "toA2").unwrap();
    router.proxy_arp("toA2").unwrap();
    gateway.route(Ipv4Net::from(UNDERLAY_B), None, Some("second")).unwrap();
    let return_route = Route {
        destination: Ipv4Net::from(UNDERLAY_A).into(),
        device: Some(router.index("toA2").unwrap()),
        ..Route::default()
    };
    router.netlink().unwrap().replace_route(&return_route).unwrap();
    router.down("toA").unwrap();
    wait_for_traffic(&network);

    // The traffic uses the new cable and not the kernel's fallback.
    let tap = ForeignTap::listen(router, "toA2").unwrap();
    assert!(reaches(&network.host_a, HOST_B).unwrap());
    let sender = mac(gateway, "second");
    let expected = SeenDatagram { source: UNDERLAY_A, destination: UNDERLAY_B, sender };
    let seen = tap.seen().unwrap();
    assert!(seen.contains(&expected), "{seen:?}");
}

/// A capture on the gateway's own interface, such as `tcpdump`, sees datagrams of both directions.
#[test(root)]
fn a_capture_on_the_gateway_sees_both_directions() {
    let network = TwoSites::build().unwrap();
    let _tunnels = network.bring_up().unwrap();
    assert!(reaches(&network.host_a, HOST_B).unwrap());
    let gateway = &network.gateway_a;
    for _ in 0..2 {
        let tap = ForeignTap::listen(gateway, "underlayA").unwrap();
        wait_until("the capture sees both directions", || {
            assert!(reaches(&network.host_a, HOST_B).unwrap(), "a capture must not cost a datagram");
            let seen = tap.seen().unwrap();
            let has = |from, to| seen.iter().any(|frame| (frame.source, frame.destination) == (from, to));
            has(UNDERLAY_A, UNDERLAY_B) && has(UNDERLAY_B, UNDERLAY_A)
        });
        drop(tap);
        assert!(reaches(&network.host_a, HOST_B).unwrap(), "traffic stopped with the capture");
    }
}
