//! Outer datagrams that arrive on an interface to which no route leads.

use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_lab::ping::ping;
use adit_lab::two_sites::{HOST_B, TwoSites, UNDERLAY_B};
use adit_linux::netlink::Route;
use ipnet::Ipv4Net;

use crate::planes::{bring_up_with, on_every_plane};
use crate::support::drops_since;

/// The return path in the underlay differs from the forward path, as with two providers. No
/// datagram is lost, not even the first.
fn traffic_passes_when_the_return_path_differs(plane: DataplaneChoice) {
    const ECHOES: u64 = 5;
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_with(&network, plane, "probe = false");
    let (gateway, router) = (&network.gateway_b, &network.router);
    gateway.connect("second", router, "toB2").unwrap();
    for device in ["all", "second"] {
        gateway.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0").unwrap();
    }
    let return_route = Route {
        destination: Ipv4Net::from(UNDERLAY_B).into(),
        device: Some(router.index("toB2").unwrap()),
        ..Route::default()
    };
    router.netlink().unwrap().replace_route(&return_route).unwrap();

    let before = tunnels.b.plane().totals();
    for _ in 0..ECHOES {
        let answer = network.host_a.run(|| ping(HOST_B, 84, 64, Duration::from_secs(3))).unwrap();
        assert!(answer.is_reply(), "{answer:?}");
    }
    let after = tunnels.b.plane().totals();
    assert_eq!(after.peers[0].rx_packets - before.peers[0].rx_packets, ECHOES);
    assert_eq!(drops_since(&before, &after), []);
}

on_every_plane! {
    traffic_passes_when_the_return_path_differs,
}
