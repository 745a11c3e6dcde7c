//! Support for the tests: hand-made datagrams, injected frames, and waiting for a condition.

pub(crate) mod stream;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};

use adit_control::Overlay;
use adit_lab::capture::Frame;
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{HOST_A, HOST_B, Tunnels, UNDERLAY_A, UNDERLAY_B};
use adit_testbed::wire_tap;
use adit_tunnel::{DropReason, Totals};
use adit_wire::ipv4::Ipv4Repr;
use adit_wire::{Protocol, checksum, icmpv4};

/// How long a test waits for a condition before it fails. Nothing takes nearly so long, even beside
/// other work.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a test waits for an answer that must come. It comes at once, except beside other work.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt waits for an answer that may not come.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a condition without a notification is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out after {WAIT_TIMEOUT:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Returns true in a process that runs only `test`, where nothing else allocates or counts.
/// In any other process it starts such a process, and fails if that fails.
pub(crate) fn in_own_process(test: &str) -> bool {
    const MARK: &str = "ADIT_TEST_IN_OWN_PROCESS";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a test knows its own program");
    let done = Command::new(program)
        .args([test, "--exact", "--nocapture"])
        .env(MARK, "1")
        .output()
        .expect("the test's own program starts");
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{printed}{}", String::from_utf8_lossy(&done.stderr));
    assert!(printed.contains("1 passed"), "{test} is not the name of one test: {printed}");
    false
}

/// Bytes of memory that this process uses.
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has the memory");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
    kilobytes * 1024
}

/// Pseudo-random numbers that are the same in every run (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number in `range`.
    pub(crate) fn within(&mut self, range: std::ops::Range<usize>) -> usize {
        range.start + (self.next() % range.len() as u64) as usize
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}

/// An IPv4 datagram, DF clear, TTL 64.
pub(crate) fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    ipv4_with(source, destination, protocol, payload, |_| {})
}

/// The same with some fields changed.
pub(crate) fn ipv4_with(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: Protocol,
    payload: &[u8],
    change: impl FnOnce(&mut Ipv4Repr),
) -> Vec<u8> {
    let mut repr = Ipv4Repr {
        source,
        destination,
        protocol,
        ttl: 64,
        tos: 0,
        identification: 0x1234,
        dont_fragment: false,
        payload_len: u16::try_from(payload.len()).expect("a payload fits into a datagram"),
    };
    change(&mut repr);
    [&repr.emit()[..], payload].concat()
}

/// Corrects the header checksum, over the length that the IHL states.
pub(crate) fn mend_checksum(datagram: &mut [u8]) {
    let header_len = (usize::from(datagram[0] & 0x0f) * 4).clamp(20, datagram.len());
    datagram[10..12].fill(0);
    let sum = checksum::checksum(&datagram[..header_len]);
    datagram[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An outer datagram from gateway B to gateway A.
pub(crate) fn from_peer(inner: &[u8]) -> Vec<u8> {
    ipv4(UNDERLAY_B, UNDERLAY_A, Protocol::IPIP, inner)
}

/// A UDP datagram, from port 4000.
pub(crate) fn udp(source: Ipv4Addr, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len() + 8).expect("a payload fits into a datagram");
    let mut segment = Vec::new();
    segment.extend(4000u16.to_be_bytes());
    segment.extend(destination.port().to_be_bytes());
    segment.extend(len.to_be_bytes());
    segment.extend([0; 2]);
    segment.extend(payload);
    let sum = checksum::pseudo_header_v4(source, *destination.ip(), Protocol::UDP, len).add_bytes(&segment);
    let sum = match sum.checksum() {
        0 => 0xffff,
        sum => sum,
    };
    segment[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv4(source, *destination.ip(), Protocol::UDP, &segment)
}

/// An echo request from host B to host A.
pub(crate) fn echo_request(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; payload.len() + icmpv4::HEADER_LEN];
    icmpv4::build_echo(&mut message, 77, sequence, payload, icmpv4::EchoKind::Request)
        .expect("there is room");
    ipv4(HOST_B, HOST_A, Protocol::ICMP, &message)
}

/// [`wire_tap::Injector`] for tests: an error fails the test.
pub(crate) struct Injector(wire_tap::Injector);

impl Injector {
    /// Sends from an interface of `host` to the interface at the cable's other end.
    pub(crate) fn new(host: &Host, device: &str, other: &Host, other_device: &str) -> Self {
        Self(wire_tap::Injector::new(host, device, other, other_device).unwrap())
    }

    /// Queues a datagram.
    pub(crate) fn add(&mut self, datagram: &[u8]) {
        self.0.add(datagram);
    }

    /// Sends all queued datagrams.
    pub(crate) fn flush(&mut self) {
        self.0.flush().unwrap();
    }

    /// Sends an unsolicited ARP reply to `to`: `address` is at the Ethernet address of the sender.
    pub(crate) fn send_arp_reply(&mut self, address: Ipv4Addr, to: Ipv4Addr) {
        self.0.send_arp_reply(address, to).unwrap();
    }

    /// Sends a datagram at once.
    pub(crate) fn send(&mut self, datagram: &[u8]) {
        self.0.send(datagram).unwrap();
    }

    /// Sends an IPv6 packet at once.
    pub(crate) fn send_ipv6(&mut self, packet: &[u8]) {
        self.0.send_ipv6(packet).unwrap();
    }
}

/// The Ethernet address of an interface.
pub(crate) fn mac(host: &Host, device: &str) -> [u8; 6] {
    wire_tap::mac(host, device).unwrap()
}

/// Gives an interface another Ethernet address.
pub(crate) fn set_mac(host: &Host, device: &str, mac: [u8; 6]) {
    let text = mac.map(|byte| format!("{byte:02x}")).join(":");
    host.program("ip", &["link", "set", device, "address", &text]).unwrap();
}

/// How many outer packets of a tunnel a gateway with these addresses has sent from each.
pub(crate) fn outer_packets_from(v4: Ipv4Addr, v6: Ipv6Addr, frames: &[Frame]) -> [usize; 2] {
    let is_tunnel = |protocol: u8| matches!(protocol, 4 | 41);
    let is_v4 = |bytes: &&[u8]| is_tunnel(bytes[9]) && bytes[12..16] == v4.octets();
    let is_v6 = |bytes: &&[u8]| is_tunnel(bytes[6]) && bytes[8..24] == v6.octets();
    [
        frames.iter().filter_map(Frame::ipv4).filter(is_v4).count(),
        frames.iter().filter_map(Frame::ipv6).filter(is_v6).count(),
    ]
}

/// The drop reasons whose counts grew, with the growth.
pub(crate) fn drops_since(before: &Totals, after: &Totals) -> Vec<(DropReason, u64)> {
    let grown = after.drops_by_reason().zip(before.drops_by_reason());
    grown.map(|((reason, now), (_, then))| (reason, now - then)).filter(|(_, n)| *n > 0).collect()
}

/// Pings `to` with `size` bytes. The ping must be answered, by a reply or an error.
pub(crate) fn ask(from: &Host, to: impl Into<IpAddr>, size: usize) -> Answer {
    let to = to.into();
    from.run(|| ping(to, size, 64, ANSWER_TIMEOUT)).unwrap()
}

/// Asserts that neither end of the tunnel has dropped anything.
pub(crate) fn assert_no_drops(tunnels: &Tunnels) {
    for end in [&tunnels.a, &tunnels.b] {
        let totals = end.plane().totals();
        assert_eq!(totals.dropped(), 0, "{:?}", totals.drops_by_reason().collect::<Vec<_>>());
    }
}

/// Waits until as many packets are dropped since `before` as there are reasons, and asserts that it
/// was for these reasons, in any order.
#[track_caller]
pub(crate) fn assert_dropped(overlay: &Overlay, before: &Totals, reasons: impl Iterator<Item = DropReason>) {
    let mut expected: Vec<(DropReason, u64)> = Vec::new();
    let mut all = 0;
    for reason in reasons {
        all += 1;
        match expected.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => expected.push((reason, 1)),
        }
    }
    wait_until("all are counted", || overlay.plane().totals().dropped() - before.dropped() >= all);
    let mut found = drops_since(before, &overlay.plane().totals());
    found.sort_by_key(|(reason, _)| *reason as usize);
    expected.sort_by_key(|(reason, _)| *reason as usize);
    assert_eq!(found, expected);
}

/// The configuration of gateway A with these lines in its `[tunnel]` section.
pub(crate) fn config_a(tunnel: &str) -> String {
    config(("a", UNDERLAY_A, "172.16.17.0/24"), ("b", UNDERLAY_B, "192.168.199.0/24"), "ipipA", tunnel)
}

/// The same for gateway B.
pub(crate) fn config_b(tunnel: &str) -> String {
    config(("b", UNDERLAY_B, "192.168.199.0/24"), ("a", UNDERLAY_A, "172.16.17.0/24"), "ipipB", tunnel)
}

type Side = (&'static str, Ipv4Addr, &'static str);

fn config(ours: Side, theirs: Side, device: &str, tunnel: &str) -> String {
    let side = |(name, underlay, network): Side| {
        format!("name = \"{name}\"\nunderlay = \"{underlay}\"\nnetworks = [\"{network}\"]\n")
    };
    format!("[site]\n{}device = \"{device}\"\n[tunnel]\n{tunnel}\n[[peer]]\n{}", side(ours), side(theirs))
}

/// A counter of `/proc/net/snmp` on a host, such as `FragCreates` of `Ip`.
pub(crate) fn snmp(host: &Host, protocol: &str, name: &str) -> u64 {
    let text = host
        .ns()
        .run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))
        .unwrap()
        .expect("the kernel counts");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = lines.next().zip(lines.next()).expect("it counts this protocol");
    let at = names.split(' ').position(|found| found == name).expect("it counts this");
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).expect("a number")
}
