//! Forged ICMP errors from an unknown source, about datagrams that the tunnel has not sent: all
//! types and codes, every mistake, truncated at every length, and 100,000 at full speed. The tunnel
//! believes none, traffic continues, and they cost neither memory nor much processor time.

use std::net::Ipv4Addr;
use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_dataplane::DataPlane;
use adit_lab::host::Host;
use adit_lab::two_sites::{HOST_A, HOST_B, TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_testbed::loss_stream::{LossStream, StreamOptions};
use adit_tunnel::{DropReason, PeerIndex, Reachability, Totals};
use adit_wire::icmpv4::{Icmpv4Error, MAX_ERROR_LEN, build_error};
use adit_wire::{Protocol, checksum};

use crate::planes::bring_up_with;
use crate::support::{
    Injector, WAIT_TIMEOUT, drops_since, in_own_process, ipv4, ipv4_with, mend_checksum, resident, wait_until,
};

const UNKNOWN_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 77);
const PEER: PeerIndex = PeerIndex::new(0);
/// The outer IPv4 header, and ICMP's: a message's quote is behind them.
const QUOTE: usize = 28;
/// Shorter ones the kernel shows no raw socket that filters by type.
const ICMP_HEADER: usize = 8;
const FLOOD: usize = 100_000;
/// Enough for the messages whose fate has to be seen one by one.
const BURST: usize = 64;

/// Every type and code of an ICMP error.
fn errors() -> Vec<Icmpv4Error> {
    let gateway = UNKNOWN_SOURCE;
    let unreachable = (0..=15).filter(|code| *code != 4);
    let mut errors: Vec<_> = unreachable.map(|code| Icmpv4Error::DestinationUnreachable { code }).collect();
    errors.extend([0, 68, 600, 1300, 1499].map(|mtu| Icmpv4Error::TooBig { mtu }));
    errors.push(Icmpv4Error::SourceQuench);
    errors.extend((0..=3).map(|code| Icmpv4Error::Redirect { code, gateway }));
    errors.extend((0..=1).map(|code| Icmpv4Error::TimeExceeded { code }));
    errors.extend([0, 1, 8, 20].map(|pointer| Icmpv4Error::ParameterProblem { code: 0, pointer }));
    errors
}

/// Outer datagrams that gateway A has not sent: each has one mistake.
fn not_ours() -> Vec<Vec<u8>> {
    let somebody = Ipv4Addr::new(10, 1, 1, 99);
    let outside = Ipv4Addr::new(203, 0, 113, 9);
    let inner = |source, destination| {
        ipv4_with(source, destination, Protocol::UDP, &[0; 1400], |inner| inner.dont_fragment = true)
    };
    let ours = inner(HOST_A, HOST_B);
    let outer = |source, destination, protocol, inner: &[u8]| {
        ipv4_with(source, destination, protocol, inner, |outer| outer.dont_fragment = true)
    };
    let tunnels = |inner: &[u8]| outer(UNDERLAY_A, UNDERLAY_B, Protocol::IPIP, inner);
    let mut later = tunnels(&ours);
    later[6..8].copy_from_slice(&0x00b9u16.to_be_bytes());
    mend_checksum(&mut later);
    vec![
        outer(UNKNOWN_SOURCE, UNDERLAY_B, Protocol::IPIP, &ours),
        outer(UNDERLAY_B, UNDERLAY_A, Protocol::IPIP, &ours),
        outer(UNDERLAY_A, somebody, Protocol::IPIP, &ours),
        outer(UNDERLAY_A, UNDERLAY_B, Protocol::UDP, &ours),
        tunnels(&inner(outside, HOST_B)),
        tunnels(&inner(HOST_B, HOST_A)),
        tunnels(&inner(HOST_A, outside)),
        tunnels(&inner(HOST_A, UNKNOWN_SOURCE)),
        later,
    ]
}

/// A message from the unknown source to gateway A.
fn message(error: Icmpv4Error, quoted: &[u8]) -> Vec<u8> {
    let mut out = [0; MAX_ERROR_LEN];
    let len = build_error(&mut out, UNKNOWN_SOURCE, UNDERLAY_A, error, quoted);
    assert!(len > QUOTE, "an error has a quote");
    out[..len].to_vec()
}

/// The first `len` bytes of a message, as a whole datagram, with a checksum that fits what is left,
/// or does not.
fn cut(message: &[u8], len: usize, is_mended: bool) -> Vec<u8> {
    let mut icmp = message[20..20 + len].to_vec();
    if len >= 4 {
        icmp[2..4].fill(0);
        let sum = checksum::checksum(&icmp) ^ u16::from(!is_mended);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    ipv4(UNKNOWN_SOURCE, UNDERLAY_A, Protocol::ICMP, &icmp)
}

/// All of them: whole with every mistake; and cut at every length, where what is left of the quote
/// is wrong in the outer header or the checksum. (Were the mistake beyond the cut, nothing would be
/// wrong with the rest.)
fn forged() -> Vec<Vec<u8>> {
    let (errors, quotes) = (errors(), not_ours());
    let mut all: Vec<Vec<u8>> =
        errors.iter().flat_map(|error| quotes.iter().map(|quoted| message(*error, quoted))).collect();
    for error in [Icmpv4Error::TooBig { mtu: 600 }, Icmpv4Error::DestinationUnreachable { code: 1 }] {
        let [elsewhere, inner] = [2, 4].map(|mistake| message(error, &quotes[mistake]));
        for len in 0..elsewhere.len() - 20 {
            all.push(cut(&elsewhere, len, true));
            all.push(cut(&inner, len, false));
        }
    }
    all
}

/// Whether the kernel shows it to the tunnel's socket.
fn is_shown(datagram: &[u8]) -> bool {
    datagram.len() >= 20 + ICMP_HEADER
}

/// What the tunnel has counted about ICMP from the underlay: each message it read is one of these.
fn counted(totals: &Totals) -> u64 {
    use DropReason::{IcmpMalformed, IcmpNotRelayed, IcmpUnbelievable};
    let refused: u64 =
        [IcmpMalformed, IcmpUnbelievable, IcmpNotRelayed].map(|reason| totals.drops_of(reason)).iter().sum();
    refused + totals.icmp.not_ours
}

/// What the kernel has had no room for in gateway A's raw sockets for ICMP, of which the tunnel's
/// is the only one.
fn lost_in_queue(gateway: &Host) -> u64 {
    let table = gateway
        .ns()
        .run(|| std::fs::read_to_string("/proc/thread-self/net/raw"))
        .unwrap()
        .expect("it is there");
    let of_icmp = table
        .lines()
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(":0001")));
    let drops: Vec<u64> = of_icmp
        .map(|line| line.split_whitespace().last().and_then(|n| n.parse().ok()).expect("a number"))
        .collect();
    assert_eq!(drops.len(), 1, "{table}");
    drops[0]
}

#[track_caller]
fn assert_nothing_learned(plane: &dyn DataPlane) {
    let tunnel = plane.tunnel();
    let path = tunnel.path_mtu(PEER);
    assert_eq!((path.mtu, path.learned, path.expires), (1500, None, None));
    assert_eq!(tunnel.reachability(PEER), Reachability::Assumed);
    assert!(!tunnel.has_pending_error(PEER), "an error waits for the next sender");
    let icmp = plane.totals().icmp;
    assert_eq!((icmp.state_changed, icmp.relayed, icmp.sent), (0, 0, 0));
}

/// Processor time that the threads of all data planes in this process have taken.
fn planes_time() -> Duration {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("there is a /proc").flatten() {
        // One that has ended meanwhile is none of the planes'.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, fields)) = stat.split_once(") ") else { continue };
        if name.contains("(adit-") {
            let time = |at| fields.split(' ').nth(at).and_then(|n: &str| n.parse::<u64>().ok());
            // utime and stime, the fields 14 and 15 of proc(5); the first here is the third there.
            ticks += time(11).zip(time(12)).map(|(user, system)| user + system).expect("numbers");
        }
    }
    // USER_HZ, 100 on every Linux.
    Duration::from_millis(ticks * 10)
}

/// Each forged error is counted by itself, and none is believed.
fn each_forged_error_is_refused(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_with(&network, plane, "probe = false");
    let plane = tunnels.a.plane();
    let mut underlay = Injector::new(&network.router, "toA", &network.gateway_a, "underlayA");
    let before = plane.totals();
    let mut shown = 0;
    for burst in forged().chunks(BURST) {
        for datagram in burst {
            underlay.add(datagram);
            shown += u64::from(is_shown(datagram));
        }
        underlay.flush();
        wait_until("every message of a burst is counted", || {
            counted(&plane.totals()) >= counted(&before) + shown
        });
        assert_eq!(counted(&plane.totals()), counted(&before) + shown, "more was counted than was sent");
        assert_nothing_learned(plane);
    }
    assert_eq!(lost_in_queue(&network.gateway_a), 0);
    let reasons: Vec<DropReason> =
        drops_since(&before, &plane.totals()).into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, [DropReason::IcmpMalformed, DropReason::IcmpUnbelievable]);
    assert!(plane.totals().icmp.not_ours > before.icmp.not_ours, "a quote of UDP is none of the tunnel's");
}

#[expect(clippy::print_stderr, reason = "the figures are what the test is for")]
fn expect_flood_to_change_nothing(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_with(&network, plane, "probe = false");
    let (choice, plane) = (plane, tunnels.a.plane());
    let mut underlay = Injector::new(&network.router, "toA", &network.gateway_a, "underlayA");
    // Of a full queue the kernel says that it had no room for the shortest ones either.
    let forged: Vec<Vec<u8>> = forged().into_iter().filter(|datagram| is_shown(datagram)).collect();
    let mut flood = |count: usize| {
        forged.iter().cycle().take(count).for_each(|datagram| underlay.add(datagram));
        underlay.flush();
        count as u64
    };
    // All is counted but what found the queue of the tunnel's socket full.
    let settled = |sent: u64| {
        wait_until("every message is counted, or was lost in the queue", || {
            counted(&plane.totals()) + lost_in_queue(&network.gateway_a) >= sent
        });
        assert_eq!(counted(&plane.totals()) + lost_in_queue(&network.gateway_a), sent);
    };
    let options = StreamOptions { rate: 2000, ..StreamOptions::default() };
    let probe = LossStream::start(&network.host_a, &network.host_b, HOST_B, options, WAIT_TIMEOUT).unwrap();
    // The warm-up uses every buffer once.
    let mut sent = flood(8192);
    settled(sent);
    let (memory, time, began) = (resident(), planes_time(), std::time::Instant::now());
    let read_before = counted(&plane.totals());
    sent += flood(FLOOD);
    let took = began.elapsed();
    settled(sent);
    assert_nothing_learned(plane);
    assert!(probe.wait_for_arrival(WAIT_TIMEOUT), "traffic goes on behind it");
    let (grown, busy) = (resident().saturating_sub(memory), planes_time() - time);
    let report = probe.finish(WAIT_TIMEOUT).unwrap();
    let read = counted(&plane.totals()) - read_before;
    eprintln!(
        "{FLOOD} forged errors in {took:?}: {read} read, {} lost in the socket's queue; {busy:?} of processor, \
         {grown} bytes; beside it {report}",
        lost_in_queue(&network.gateway_a)
    );
    // The limit is 32 bytes for each error.
    assert!(grown < 32 * FLOOD, "the process has grown by {grown} bytes");
    // As fast as an unoptimised build reads them, and what the probe's own datagrams take.
    let fair = Duration::from_micros(50) * u32::try_from(read).expect("fewer than 100,000") + took;
    assert!(busy < fair, "the data planes took {busy:?} of processor");
    assert_eq!(report.dropped_by_receiver, 0, "{report}");
    // The userspace process also loses datagrams while it gets no processor.
    let most = if choice == DataplaneChoice::Ebpf { 0 } else { report.sent / 10 };
    assert!(report.lost() <= most, "{report}");
}

/// Runs the flood in a process of its own, where nothing else allocates memory.
fn a_flood_of_forged_errors_changes_nothing(plane: DataplaneChoice) {
    let name = format!(
        "forged_icmp::{}::a_flood_of_forged_errors_changes_nothing",
        adit_testbed::test_planes::plane_name(plane)
    );
    if in_own_process(&name) {
        expect_flood_to_change_nothing(plane);
    }
}

crate::planes::on_every_plane! {
    each_forged_error_is_refused,
    a_flood_of_forged_errors_changes_nothing,
}
