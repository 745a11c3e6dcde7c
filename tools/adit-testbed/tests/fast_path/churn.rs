//! Changes of the underlay under a stream of 10,000 datagrams a second in each direction. Datagrams
//! are lost only during a change.

use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_lab::two_sites::{HOST_A, HOST_B, TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_linux::netlink::{Neighbour, Netlink, Route};
use adit_testbed::loss_stream::{LossStream, StreamOptions, StreamReport};
use ipnet::Ipv4Net;

use crate::planes::{bring_up_on, on_every_plane};
use crate::support::{Injector, WAIT_TIMEOUT, set_mac, wait_until};

/// Long enough to see that a stream flows.
const STEADY: Duration = Duration::from_millis(300);
/// How long a cable is down, long enough to lose datagrams.
const OUTAGE: Duration = Duration::from_millis(200);
/// How soon the kernel must know the next hop again. It then has not waited for its timer of one
/// second.
const PROMPT: Duration = Duration::from_millis(500);
/// Time for datagrams in flight when a test ends.
const GRACE: Duration = Duration::from_millis(500);

/// How long before and after the event it may cost datagrams. Probes leave in a burst every
/// millisecond, some milliseconds late on a busy machine, and are in flight for a moment.
const MARGIN: Duration = Duration::from_millis(20);

/// The cost of a change.
struct Cost {
    began: Instant,
    over: Instant,
    plane: DataplaneChoice,
    /// From host A, and from host B.
    reports: [StreamReport; 2],
}

/// Starts both streams, runs `event`, and returns the reports.
fn during(network: &TwoSites, plane: DataplaneChoice, what: &str, event: impl FnOnce()) -> Cost {
    let start = |from, to, address| {
        LossStream::start(from, to, address, StreamOptions::default(), WAIT_TIMEOUT).unwrap()
    };
    let probes =
        [start(&network.host_a, &network.host_b, HOST_B), start(&network.host_b, &network.host_a, HOST_A)];
    std::thread::sleep(STEADY);
    let began = Instant::now();
    event();
    let over = Instant::now();
    for probe in &probes {
        assert!(probe.wait_for_arrival(WAIT_TIMEOUT), "{what}: traffic does not return");
    }
    std::thread::sleep(STEADY);
    let cost = Cost { began, over, plane, reports: probes.map(|probe| probe.finish(GRACE).unwrap()) };
    cost.print(what);
    cost
}

impl Cost {
    #[expect(clippy::print_stderr, reason = "the figures are what the test is for")]
    fn print(&self, what: &str) {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        eprintln!("{what}: it took {:.1} ms", ms(self.over - self.began));
        for (direction, report) in ["A to B", "B to A"].iter().zip(&self.reports) {
            let last = report.losses.last().map(|loss| loss.until);
            let late = last.map_or(0.0, |last| ms(last.saturating_duration_since(self.over)));
            eprintln!("  {direction}: {report}\n  the last loss was sent {late:.1} ms after the change");
        }
    }

    /// Asserts that every lost datagram was sent during the event.
    #[track_caller]
    fn assert_contained(&self) {
        let (from, until) = (self.began - MARGIN, self.over + MARGIN);
        self.assert_all(|report| report.duplicated == 0 && report.lost_outside(from, until) == 0);
    }

    /// Asserts that nothing was lost.
    #[track_caller]
    fn assert_lossless(&self) {
        self.assert_all(StreamReport::is_complete);
    }

    /// Asserts a condition for the eBPF plane. On a busy machine the userspace process also loses
    /// datagrams while it is not scheduled. Its figures are only printed, and the test has checked
    /// that traffic returned.
    #[track_caller]
    fn assert_all(&self, holds: impl Fn(&StreamReport) -> bool) {
        for report in &self.reports {
            assert_eq!(report.dropped_by_receiver, 0, "{report}");
            assert!(self.plane != DataplaneChoice::Ebpf || holds(report), "{report}");
        }
    }
}

/// Gateway A's neighbour entry for the next hop to gateway B.
struct NextHop {
    netlink: Netlink,
    device: u32,
}

impl NextHop {
    fn new(network: &TwoSites) -> Self {
        let gateway = &network.gateway_a;
        Self { netlink: gateway.netlink().unwrap(), device: gateway.index("underlayA").unwrap() }
    }

    fn known(&mut self) -> Option<Neighbour> {
        self.netlink.neighbour(self.device, UNDERLAY_B).unwrap()
    }

    /// Waits for the kernel to resolve the next hop, and returns how long that took. A kernel
    /// forgets the neighbours of a lost link. It sends one ARP request a second
    /// (`retrans_time_ms`), and the last one may have been lost.
    fn wait_until_known(&mut self) -> Duration {
        let began = Instant::now();
        wait_until("the kernel knows the next hop again", || {
            self.known().is_some_and(|known| known.state.is_usable())
        });
        began.elapsed()
    }
}

/// Waits until both ends of gateway A's cable run again. The kernel handles changed links once a
/// second (`linkwatch`), all of the machine together, and sends nothing over them before.
fn wait_for_the_cable(network: &TwoSites) {
    let ends = [(&network.gateway_a, "underlayA"), (&network.router, "toA")];
    for (host, device) in ends {
        let mut netlink = host.netlink().unwrap();
        wait_until("both ends of the cable run again", || {
            netlink.link(device).unwrap().is_some_and(|link| link.running)
        });
    }
}

/// The route to the peer moves to a second cable, and then the first one goes down.
fn a_route_change_causes_no_loss_afterwards(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let _tunnels = bring_up_on(&network, plane);
    let (gateway, router) = (&network.gateway_a, &network.router);
    gateway.connect("second", router, "toA2").unwrap();
    router.proxy_arp("toA2").unwrap();
    let return_route = Route {
        destination: Ipv4Net::from(UNDERLAY_A).into(),
        device: Some(router.index("toA2").unwrap()),
        ..Route::default()
    };
    let moved = during(&network, plane, "the route moves to another interface", || {
        gateway.route(Ipv4Net::from(UNDERLAY_B), None, Some("second")).unwrap();
        router.netlink().unwrap().replace_route(&return_route).unwrap();
    });
    moved.assert_contained();
    let unused_down = during(&network, plane, "the interface that is no longer used goes down", || {
        router.down("toA").unwrap();
    });
    unused_down.assert_lossless();
}

/// The next hop gets another Ethernet address, and announces it by a gratuitous ARP reply (RFC 5227
/// section 3).
fn a_new_mac_of_the_next_hop_causes_no_loss_afterwards(plane: DataplaneChoice) {
    const NEW_MAC: [u8; 6] = [0x02, 0xad, 0x17, 0, 0, 0x42];
    let network = TwoSites::build().unwrap();
    let _tunnels = bring_up_on(&network, plane);
    let (gateway, router) = (&network.gateway_a, &network.router);
    // The kernel does not replace a neighbour that was confirmed within the last second
    // (`locktime`).
    gateway.sysctl("ipv4/neigh/underlayA/locktime", "0").unwrap();
    let mut next_hop = NextHop::new(&network);
    let cost = during(&network, plane, "the next hop changes its MAC", || {
        set_mac(router, "toA", NEW_MAC);
        Injector::new(router, "toA", gateway, "underlayA").send_arp_reply(UNDERLAY_B, UNDERLAY_A);
        wait_until("the kernel accepts the announcement", || {
            next_hop.known().and_then(|known| known.mac) == Some(NEW_MAC)
        });
    });
    cost.assert_contained();
}

fn a_link_flap_causes_no_loss_afterwards(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let _tunnels = bring_up_on(&network, plane);
    let (mut next_hop, gateway) = (NextHop::new(&network), &network.gateway_a);
    for _ in 0..3 {
        let mut took = Duration::ZERO;
        let cost = during(&network, plane, "the link flaps", || {
            gateway.down("underlayA").unwrap();
            std::thread::sleep(OUTAGE);
            gateway.up("underlayA").unwrap();
            wait_for_the_cable(&network);
            took = next_hop.wait_until_known();
        });
        cost.assert_contained();
        // The kernel did not wait for the timer of an entry that it requested during the outage.
        assert!(plane != DataplaneChoice::Ebpf || took < PROMPT, "it took {took:?}");
        assert!(cost.reports[0].lost() > 0, "the outage cost no datagram");
    }
}

/// The other end of the cable goes down, and the router loses its route.
fn a_carrier_outage_causes_no_loss_afterwards(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let _tunnels = bring_up_on(&network, plane);
    let (mut next_hop, router) = (NextHop::new(&network), &network.router);
    let mut took = Duration::ZERO;
    let cost = during(&network, plane, "the other end loses its carrier", || {
        router.down("toA").unwrap();
        std::thread::sleep(OUTAGE);
        router.up("toA").unwrap();
        router.route(Ipv4Net::from(UNDERLAY_A), None, Some("toA")).unwrap();
        wait_for_the_cable(&network);
        took = next_hop.wait_until_known();
    });
    cost.assert_contained();
    assert!(plane != DataplaneChoice::Ebpf || took < PROMPT, "it took {took:?}");
    assert!(cost.reports[0].lost() > 0, "the outage cost no datagram");
}

/// The baseline of the other tests.
fn no_datagram_is_lost_without_a_change(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let _tunnels = bring_up_on(&network, plane);
    during(&network, plane, "no change", || std::thread::sleep(Duration::from_secs(2))).assert_lossless();
}

on_every_plane! {
    alone;
    no_datagram_is_lost_without_a_change,
    a_route_change_causes_no_loss_afterwards,
    a_new_mac_of_the_next_hop_causes_no_loss_afterwards,
    a_link_flap_causes_no_loss_afterwards,
    a_carrier_outage_causes_no_loss_afterwards,
}
