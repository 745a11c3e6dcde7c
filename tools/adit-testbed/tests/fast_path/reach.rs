//! What a peer may reach of this gateway: its networks, the addresses that its file lists, and the
//! underlay address by ICMP.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use adit_config::DataplaneChoice;
use adit_lab::checks::reaches;
use adit_lab::two_sites::{CONFIG_B, HOST_B, INSIDE_A, Tunnels, TwoSites, UNDERLAY_A, bring_up};
use adit_testbed::test_planes::with_plane;
use adit_tunnel::DropReason;

use crate::planes::on_every_plane;
use crate::support::{Injector, WAIT_TIMEOUT, config_a, drops_since, from_peer, udp, wait_until};

const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Listed in the file.
const LISTED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const PORT: u16 = 514;

/// UDP is the worst case: it needs no answer.
fn a_peer_reaches_networks_and_listed_addresses_only(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let gateway = &network.gateway_a;
    for address in [MANAGEMENT, LISTED] {
        gateway.program("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"]).unwrap();
    }
    // As kube-proxy does.
    gateway.program("sysctl", &["-qw", "net.ipv4.conf.all.route_localnet=1"]).unwrap();
    let config = config_a("probe = false").replacen("device", &format!("local = [\"{LISTED}\"]\ndevice"), 1);
    let tunnels = Tunnels {
        a: bring_up(gateway, &with_plane(&config, plane)).unwrap(),
        b: bring_up(&network.gateway_b, &with_plane(CONFIG_B, plane)).unwrap(),
    };
    let tunnel = tunnels.a.plane();
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT));
    let socket = gateway.ns().run(bind).unwrap().unwrap();
    socket.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let mut underlay = Injector::new(&network.router, "toA", gateway, "underlayA");
    let mut send = |destination: Ipv4Addr| {
        let payload = destination.octets();
        underlay.add(&from_peer(&udp(HOST_B, SocketAddrV4::new(destination, PORT), &payload)));
        underlay.flush();
    };
    let mut buffer = [0; 64];
    for destination in [INSIDE_A, LISTED] {
        send(destination);
        let len = socket.recv(&mut buffer).expect("it arrives");
        assert_eq!(buffer[..len], destination.octets());
    }
    let before = tunnel.totals();
    let refused = [MANAGEMENT, UNDERLAY_A, Ipv4Addr::LOCALHOST];
    refused.into_iter().for_each(&mut send);
    let is_counted = || tunnel.totals().dropped() - before.dropped() >= refused.len() as u64;
    wait_until("each is counted", is_counted);
    let counted = [(DropReason::InnerDestinationNotOurs, refused.len() as u64)];
    assert_eq!(drops_since(&before, &tunnel.totals()), counted);
    // The next datagram that arrives is the one that may.
    send(INSIDE_A);
    let len = socket.recv(&mut buffer).expect("it arrives");
    assert_eq!(buffer[..len], INSIDE_A.octets(), "another one came first");

    assert!(reaches(&network.host_b, INSIDE_A).unwrap(), "a host behind the peer pings the gateway");
}

on_every_plane! {
    a_peer_reaches_networks_and_listed_addresses_only,
}
