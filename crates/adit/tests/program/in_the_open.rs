//! Nothing that is meant for a peer leaves in the open, by the default route: whatever becomes of
//! the tunnel's interface, its routes and the daemon. A capture on the default route shows it.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{HOST_B, INSIDE_A, ROUTER};
use adit_linux::netlink::RouteKind;
use adit_linux::sysctl;
use adit_testbed::needs::{ebpf, ipip};
use adit_testbed::reality::lan::Lan;
use adit_testbed::test_planes::plane_name;
use ipnet::{IpNet, Ipv4Net};
use nix::sys::signal::Signal;

use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);
/// The datagrams that are sent while a state is observed, by each sender.
const OBSERVED: u64 = 100;
/// Between two datagrams of a sender.
const INTERVAL: Duration = Duration::from_micros(500);

/// Senders of datagrams to host B: a host behind the gateway, and the gateway itself. They go on
/// when the kernel refuses one, and pause while nobody captures.
struct Senders {
    stop: Arc<AtomicBool>,
    is_paused: Arc<AtomicBool>,
    sent: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    fn start(bed: &Testbed) -> Self {
        let (stop, is_paused) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        let mut senders = Self { stop, is_paused, sent: Vec::new(), threads: Vec::new() };
        for from in [&bed.sites.network.host_a, bed.gateway()] {
            senders.add(from);
        }
        senders
    }

    fn add(&mut self, from: &Host) {
        let socket = from.ns().run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        let (stop, is_paused) = (Arc::clone(&self.stop), Arc::clone(&self.is_paused));
        let sent = Arc::new(AtomicU64::new(0));
        self.sent.push(Arc::clone(&sent));
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if !is_paused.load(Ordering::Relaxed) {
                    // Refused where there is no route, or by the guard.
                    let _ = socket.send_to(b"private", (HOST_B, 9));
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(INTERVAL);
            }
        }));
    }

    /// Waits until each has sent some more.
    fn go_on(&self) {
        let count = || -> Vec<u64> { self.sent.iter().map(|sent| sent.load(Ordering::Relaxed)).collect() };
        let before = count();
        wait_until(PATIENCE, "datagrams are sent", || {
            count().iter().zip(&before).all(|(now, before)| *now >= before + OBSERVED)
        });
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// Counts the frames with a destination in B's network: what the tunnel sends has B's gateway as
/// its destination.
fn in_the_open(frames: &[Frame]) -> usize {
    let network: Ipv4Net = "192.168.199.0/24".parse().unwrap();
    let is_open = |datagram: &&[u8]| {
        let destination: [u8; 4] = datagram[16..20].try_into().unwrap();
        network.contains(&Ipv4Addr::from(destination))
    };
    frames.iter().filter_map(Frame::ipv4).filter(is_open).count()
}

/// A capture on the default route of gateway A, while datagrams are sent.
struct Watch<'a> {
    senders: &'a Senders,
    tap: Tap,
}

impl<'a> Watch<'a> {
    fn start(bed: &Testbed, senders: &'a Senders) -> Self {
        let tap = Tap::start(&bed.sites.network.router, "toA").unwrap();
        senders.is_paused.store(false, Ordering::Relaxed);
        Self { senders, tap }
    }

    /// Returns how many frames have left in the open.
    fn finish(self) -> usize {
        // A capture ends once nothing comes any more.
        self.senders.is_paused.store(true, Ordering::Relaxed);
        in_the_open(&self.tap.finish())
    }
}

/// What happens to the interface and the routes, as commands of `ip`.
const EVENTS: &[&str] = &[
    "link delete ipipA",
    "link set ipipA down",
    "route delete 192.168.199.0/24",
    "route delete unreachable 192.168.199.0/24",
    "address delete 172.16.17.1/24 dev dummyA",
];

/// The same for the hidden end of the interface, which the kernel plane has not.
const EVENTS_OF_HIDDEN_END: &[&str] = &["link delete ipipA-h", "link set ipipA-h down"];

/// When the daemon is killed: before the event, or so many milliseconds after it. A repair begins
/// some 100 ms after the event.
const MOMENTS: &[Option<u64>] = &[None, Some(0), Some(100)];

/// Whether gateway A has the tunnel's interface with its route, and the guard behind it.
fn is_whole(bed: &Testbed) -> bool {
    let network: IpNet = "192.168.199.0/24".parse().unwrap();
    let routes = bed.gateway().netlink().unwrap().routes().unwrap();
    let has = |kind| routes.iter().any(|route| route.destination == network && route.kind == kind);
    has(RouteKind::Unicast) && has(RouteKind::Unreachable)
}

fn nothing_leaves(plane: DataplaneChoice, ignores_linkdown: &str) {
    let mut bed = Testbed::new(plane);
    let name = plane_name(plane);
    let lan = Lan::of_a(&bed.sites.network);
    let gateway = bed.gateway();
    gateway.route(Ipv4Net::default(), Some(ROUTER), Some("underlayA")).unwrap();
    let knob = "net/ipv4/conf/all/ignore_routes_with_linkdown";
    gateway.run(|| sysctl::write(knob, ignores_linkdown)).unwrap();
    let senders = Senders::start(&bed);
    let watch = Watch::start(&bed, &senders);
    senders.go_on();
    assert!(watch.finish() as u64 > OBSERVED, "without Adit it leaves in the open: the capture sees it");

    bed.start(Side::B);
    bed.start(Side::A);
    let of_hidden_end: &[&str] = if plane == DataplaneChoice::Kernel { &[] } else { EVENTS_OF_HIDDEN_END };
    for event in EVENTS.iter().chain(of_hidden_end) {
        let what = format!("{name}, ignore_routes_with_linkdown={ignores_linkdown}, `ip {event}`");
        let watch = Watch::start(&bed, &senders);
        bed.ip(event);
        wait_until(PATIENCE, "it is repaired", || is_whole(&bed));
        lan.assign().unwrap();
        wait_until(PATIENCE, "it reaches B again", || bed.reaches());
        senders.go_on();
        assert_eq!(watch.finish(), 0, "{what}");
        for moment in MOMENTS {
            let watch = Watch::start(&bed, &senders);
            let daemon = bed.take(Side::A);
            match moment {
                None => {
                    daemon.kill();
                    bed.ip(event);
                }
                Some(milliseconds) => {
                    bed.ip(event);
                    // The moment that is tried, not one that is waited for.
                    std::thread::sleep(Duration::from_millis(*milliseconds));
                    daemon.kill();
                }
            }
            senders.go_on();
            bed.start(Side::A);
            lan.assign().unwrap();
            wait_until(PATIENCE, "it reaches B again", || bed.reaches());
            wait_until(PATIENCE, "everything is there again", || is_whole(&bed));
            assert_eq!(watch.finish(), 0, "{what}, killed at {moment:?}");
        }
    }

    // A daemon that ends leaves the guard, even where somebody takes the interface away.
    let watch = Watch::start(&bed, &senders);
    bed.end(Side::A, Signal::SIGTERM);
    senders.go_on();
    bed.ip("link delete ipipA");
    senders.go_on();
    assert_eq!(watch.finish(), 0, "{name}: after SIGTERM");
    // The kernel limits how many errors it sends to a host: after many, there is one about every
    // two seconds, if nothing else is refused in between.
    wait_until(PATIENCE, "the sender gets an error", || {
        let answer = bed.sites.network.host_a.run(|| ping(HOST_B, 84, 64, Duration::from_secs(3)));
        matches!(answer.unwrap(), Answer::Refused { by: INSIDE_A, .. })
    });

    // `adit down` finds its guards though nothing else is left.
    bed.sites.machine.with_files(|| fs::remove_dir_all("/var/lib/adit/a")).unwrap();
    bed.adit(&["down", "a"]).ok();
    let routes = bed.gateway().netlink().unwrap().routes().unwrap();
    assert!(routes.iter().all(|route| route.kind != RouteKind::Unreachable), "{routes:?}");
}

#[test(root, ebpf)]
fn nothing_leaves_in_the_open_with_ebpf() {
    nothing_leaves(DataplaneChoice::Ebpf, "0");
    nothing_leaves(DataplaneChoice::Ebpf, "1");
}

#[test(root)]
fn nothing_leaves_in_the_open_with_userspace() {
    nothing_leaves(DataplaneChoice::Userspace, "0");
    nothing_leaves(DataplaneChoice::Userspace, "1");
}

#[test(root, ipip)]
fn nothing_leaves_in_the_open_with_the_kernel_plane() {
    nothing_leaves(DataplaneChoice::Kernel, "0");
    nothing_leaves(DataplaneChoice::Kernel, "1");
}
