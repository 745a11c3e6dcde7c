//! Two uplinks and rules that choose one: whatever sends to a peer takes the route that the rules
//! give, and nothing leaves by the other uplink.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use adit_config::DataplaneChoice;
use adit_control::Overlay;
use adit_lab::capture::{Frame, Tap};
use adit_lab::ping::{Answer, ping};
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, HOST_A, HOST_B, INSIDE_A, TwoSites, UNDERLAY_B, bring_up};
use adit_linux::sockets::raw::RawSocket;
use adit_testbed::needs::{ebpf, ipip, tun};
use adit_testbed::reality::second_uplink::{LinkKind, MARK, Rule, SECOND_A, SecondUplink};
use adit_testbed::test_planes::with_plane;
use adit_testbed::transfer::Transfer;
use adit_tunnel::{DropReason, PeerIndex};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};

use crate::support::{ANSWER_TIMEOUT, ATTEMPT_TIMEOUT, udp, wait_until};

const RULES: [Rule; 3] = [Rule::Source, Rule::Mark, Rule::Interface];
/// Bytes of the largest outer datagram that passes the second router.
const NARROW: u16 = 1300;
const PEER: PeerIndex = PeerIndex::new(0);

/// What sends, as seen by the inner datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    /// An ordinary datagram of a host.
    Datagram,
    /// A segment of a GSO packet.
    Segment,
    /// A fragment that the tunnel made.
    Fragment,
    /// A probe of the path.
    Probe,
}

/// The sender of the datagram in a frame, if that is one from our address to the peer's.
fn sender_of(frame: &Frame) -> Option<Sender> {
    // Without Ethernet a frame is the datagram itself.
    let bytes = frame.ipv4().unwrap_or(&frame.bytes);
    let outer = Ipv4Packet::parse(bytes, Validation::Datapath).ok()?;
    let is_ours = (outer.source(), outer.destination()) == (SECOND_A, UNDERLAY_B);
    if !is_ours || outer.protocol() != Protocol::IPIP {
        return None;
    }
    let inner = Ipv4Packet::parse(outer.payload(), Validation::Datapath).ok()?;
    Some(match inner.protocol() {
        _ if inner.is_fragment() => Sender::Fragment,
        Protocol::TCP => Sender::Segment,
        _ if inner.destination() == UNDERLAY_B => Sender::Probe,
        _ => Sender::Datagram,
    })
}

/// The senders in a capture, without repetitions.
fn senders(tap: Tap) -> Vec<Sender> {
    let mut senders: Vec<Sender> = tap.finish().iter().filter_map(sender_of).collect();
    senders.sort_unstable();
    senders.dedup();
    senders
}

struct Testbed {
    sites: TwoSites,
    second: SecondUplink,
    a: Overlay,
    _b: Overlay,
}

impl Testbed {
    fn new(plane: DataplaneChoice, link: LinkKind, rule: Rule) -> Self {
        let sites = TwoSites::build().unwrap();
        let second = SecondUplink::add(&sites, link).unwrap();
        let mark = if rule == Rule::Mark { format!("fwmark = {MARK}\n") } else { String::new() };
        let ours = format!("underlay = \"{SECOND_A}\"");
        let config_a = CONFIG_A
            .replace("underlay = \"10.1.1.1\"", &ours)
            .replace("[site]\n", &format!("[site]\n{mark}"));
        let config_b = CONFIG_B.replace("underlay = \"10.1.1.1\"", &ours);
        assert!(config_a.contains(&ours) && config_b.contains(&ours));
        let b = bring_up(&sites.gateway_b, &with_plane(&config_b, plane)).unwrap();
        let a = bring_up(&sites.gateway_a, &with_plane(&config_a, plane)).unwrap();
        Self { sites, second, a, _b: b }
    }

    /// A ping that may be lost.
    fn ping(&self, size: usize) -> Answer {
        self.sites.host_a.run(|| ping(HOST_B, size, 64, ATTEMPT_TIMEOUT)).unwrap()
    }

    /// A ping that must be answered.
    fn ask(&self, size: usize) -> Answer {
        self.sites.host_a.run(|| ping(HOST_B, size, 64, ANSWER_TIMEOUT)).unwrap()
    }

    /// A capture at the router of each uplink, towards A.
    fn taps(&self) -> (Tap, Tap) {
        let second = Tap::start(&self.second.router, "toA").unwrap();
        (Tap::start(&self.sites.router, "toA").unwrap(), second)
    }

    /// Waits until traffic leaves by the second uplink.
    fn wait_for_second(&self) {
        wait_until("traffic follows the rule", || {
            let (first, second) = self.taps();
            let _ = self.ping(84);
            senders(first).is_empty() && senders(second).contains(&Sender::Datagram)
        });
    }

    fn transfer(&self) {
        let flow = Flow { client: &self.sites.host_a, server: &self.sites.host_b, address: HOST_B.into() };
        let transfer = Transfer::start(&flow, None).unwrap();
        wait_until("a transfer arrives", || transfer.received() > 1 << 20);
        transfer.finish().unwrap();
    }

    /// Lets the tunnel learn the path MTU of the second uplink, which takes a probe, and waits
    /// until what sends knows it: the programs learn it after the tunnel, and until then they send
    /// what a router drops.
    fn learn_path_mtu(&self) {
        let refused = || self.a.plane().totals().drops_of(DropReason::InnerTooBig);
        let before = refused();
        wait_until("what exceeds the path MTU is refused", || {
            let _ = self.ping(1480);
            refused() > before
        });
        assert_eq!(self.a.plane().tunnel().path_mtu(PEER).mtu, NARROW);
    }

    /// Uses the path until the tunnel has confirmed it by a probe, which came back.
    fn wait_for_probe(&self) {
        let answered = || self.a.plane().totals().probes.answered;
        let before = answered();
        wait_until("a probe is answered", || {
            let _ = self.ping(84);
            answered() > before
        });
    }

    /// Sends a datagram that the tunnel fragments, and waits until it has arrived: the programs let
    /// others overtake it, since userspace fragments.
    fn send_fragmented(&self) {
        let bind = || UdpSocket::bind(SocketAddrV4::new(HOST_B, 0));
        let receiver = self.sites.host_b.ns().run(bind).unwrap().expect("a port is free");
        receiver.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("there are timeouts");
        let SocketAddr::V4(to) = receiver.local_addr().expect("it is bound") else { unreachable!() };
        let datagram = udp(HOST_A, to, &[0; 1400]);
        let send = || RawSocket::sender().map(|socket| socket.send(&datagram).unwrap());
        self.sites.host_a.run(send).unwrap();
        assert_eq!(receiver.recv(&mut [0; 2000]).expect("it arrives"), 1400);
    }
}

fn every_sender_follows(plane: DataplaneChoice, link: LinkKind) {
    for rule in RULES {
        let bed = Testbed::new(plane, link, rule);
        if plane != DataplaneChoice::Kernel {
            // The control: the captures see what a rule does not choose.
            let (first, second) = bed.taps();
            let _ = bed.ping(84);
            assert!(senders(first).contains(&Sender::Datagram), "{rule:?}: without the rule");
            assert_eq!(senders(second), [], "{rule:?}: without the rule");
        }
        bed.second.choose_by(&bed.sites, rule).unwrap();
        bed.wait_for_second();

        let (first, second) = bed.taps();
        assert!(bed.ask(84).is_reply(), "{rule:?}");
        bed.transfer();
        let mut expected = vec![Sender::Datagram, Sender::Segment];
        if plane != DataplaneChoice::Kernel {
            let _narrow = bed.second.router.limit_mtu("toB", NARROW.into()).unwrap();
            bed.learn_path_mtu();
            // An error to a host inside has the address of this gateway there, and not the
            // underlay's.
            let answer = bed.ask(1480);
            assert!(matches!(answer, Answer::Refused { by: INSIDE_A, .. }), "{rule:?}: {answer:?}");
            bed.send_fragmented();
            bed.wait_for_probe();
            expected.extend([Sender::Fragment, Sender::Probe]);
            // What was sent before a reply has passed the routers before it.
            assert!(bed.ask(84).is_reply(), "{rule:?}");
        }
        assert_eq!(senders(first), [], "{rule:?}: nothing leaves by the other uplink");
        assert_eq!(senders(second), expected, "{rule:?}: everything leaves by the one that it chooses");
    }
}

#[test(root)]
fn every_sender_follows_rules_with_userspace() {
    every_sender_follows(DataplaneChoice::Userspace, LinkKind::Ethernet);
}

#[test(root, ebpf)]
fn every_sender_follows_rules_with_ebpf() {
    every_sender_follows(DataplaneChoice::Ebpf, LinkKind::Ethernet);
}

#[test(root, ipip)]
fn every_sender_follows_rules_with_the_kernel_plane() {
    every_sender_follows(DataplaneChoice::Kernel, LinkKind::Ethernet);
}

#[test(root, tun)]
fn every_sender_follows_rules_without_ethernet_with_userspace() {
    every_sender_follows(DataplaneChoice::Userspace, LinkKind::PointToPoint);
}

#[test(root, ebpf, tun)]
fn every_sender_follows_rules_without_ethernet_with_ebpf() {
    every_sender_follows(DataplaneChoice::Ebpf, LinkKind::PointToPoint);
}
