//! Forged ICMP errors from an unknown source, about datagrams that the tunnel has not sent: all
//! types and codes, every mistake, truncated at every length, and 100,000 at full speed; and about
//! datagrams that it might have sent, while a pair is not used, in use, or answers no echoes. The
//! tunnel believes none, traffic continues, and they cost neither memory nor much processor time.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_dataplane::DataPlane;
use adit_lab::host::Host;
use adit_lab::ping::ping;
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{HOST_A, HOST_B, TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_testbed::loss_stream::{LossStream, StreamOptions};
use adit_testbed::transfer::Transfer;
use adit_tunnel::{DropReason, PeerIndex, Reachability, Totals, UNANSWERED_TIMEOUT};
use adit_wire::icmpv4::{Icmpv4Error, MAX_ERROR_LEN, build_error};
use adit_wire::{Protocol, checksum};

use crate::planes::bring_up_with;
use crate::support::{
    Injector, WAIT_TIMEOUT, drops_since, in_own_process, ipv4, ipv4_with, mend_checksum, resident, wait_until,
};

const UNKNOWN_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 77);
const PEER: PeerIndex = PeerIndex::new(0);
/// Bytes of the IPv4 and the ICMP header, before a message's quote.
const QUOTE: usize = 28;
/// The kernel delivers no shorter message to a raw socket that filters by type.
const ICMP_HEADER: usize = 8;
const FLOOD: usize = 100_000;
const FORGED_PER_SECOND: usize = 500;
/// Of a transfer meanwhile, in bits per second.
const TRANSFER_RATE: u64 = 20_000_000;
/// Messages between two reads of the counters.
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
    let no_peer = Ipv4Addr::new(10, 1, 1, 99);
    let outside = Ipv4Addr::new(203, 0, 113, 9);
    let inner = |source, destination| {
        ipv4_with(source, destination, Protocol::UDP, &[0; 1400], |inner| inner.dont_fragment = true)
    };
    let valid = inner(HOST_A, HOST_B);
    let outer = |source, destination, protocol, inner: &[u8]| {
        ipv4_with(source, destination, protocol, inner, |outer| outer.dont_fragment = true)
    };
    let from_tunnel = |inner: &[u8]| outer(UNDERLAY_A, UNDERLAY_B, Protocol::IPIP, inner);
    let mut later_fragment = from_tunnel(&valid);
    later_fragment[6..8].copy_from_slice(&0x00b9u16.to_be_bytes());
    mend_checksum(&mut later_fragment);
    vec![
        outer(UNKNOWN_SOURCE, UNDERLAY_B, Protocol::IPIP, &valid),
        outer(UNDERLAY_B, UNDERLAY_A, Protocol::IPIP, &valid),
        outer(UNDERLAY_A, no_peer, Protocol::IPIP, &valid),
        outer(UNDERLAY_A, UNDERLAY_B, Protocol::UDP, &valid),
        from_tunnel(&inner(outside, HOST_B)),
        from_tunnel(&inner(HOST_B, HOST_A)),
        from_tunnel(&inner(HOST_A, outside)),
        from_tunnel(&inner(HOST_A, UNKNOWN_SOURCE)),
        later_fragment,
    ]
}

/// A message from the unknown source to gateway A.
fn message(error: Icmpv4Error, quoted: &[u8]) -> Vec<u8> {
    let mut out = [0; MAX_ERROR_LEN];
    let len = build_error(&mut out, UNKNOWN_SOURCE, UNDERLAY_A, error, quoted);
    assert!(len > QUOTE, "an error has a quote");
    out[..len].to_vec()
}

/// The first `len` ICMP bytes of a message as a whole datagram, with a valid or an invalid ICMP
/// checksum.
fn cut(message: &[u8], len: usize, has_valid_checksum: bool) -> Vec<u8> {
    let mut icmp = message[20..20 + len].to_vec();
    if len >= 4 {
        icmp[2..4].fill(0);
        let sum = checksum::checksum(&icmp) ^ u16::from(!has_valid_checksum);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    ipv4(UNKNOWN_SOURCE, UNDERLAY_A, Protocol::ICMP, &icmp)
}

/// All forged messages: whole ones with every mistake, and two kinds cut at every length. The cut
/// ones have their mistake in the outer header or in the checksum, so that no cut removes it.
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

/// Returns true if the kernel delivers this message to the tunnel's socket.
fn is_delivered(datagram: &[u8]) -> bool {
    datagram.len() >= 20 + ICMP_HEADER
}

/// The ICMP messages that the tunnel has read from the underlay. It counts each one once.
fn counted(totals: &Totals) -> u64 {
    use DropReason::{IcmpMalformed, IcmpNotRelayed, IcmpUnbelievable};
    let refused: u64 =
        [IcmpMalformed, IcmpUnbelievable, IcmpNotRelayed].map(|reason| totals.drops_of(reason)).iter().sum();
    refused + totals.icmp.not_ours
}

/// The messages that the kernel dropped because the queue of gateway A's only raw ICMP socket, the
/// tunnel's, was full.
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
    assert!(!tunnel.has_pending_error(PEER), "an error is pending for the next sender");
    let icmp = plane.totals().icmp;
    assert_eq!((icmp.state_changed, icmp.relayed, icmp.sent), (0, 0, 0));
}

/// Processor time that the threads of all data planes in this process have taken.
fn planes_time() -> Duration {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("there is a /proc").flatten() {
        // A thread that has ended meanwhile belongs to no data plane of the test.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, fields)) = stat.split_once(") ") else { continue };
        if name.contains("(adit-") {
            let time = |at| fields.split(' ').nth(at).and_then(|n: &str| n.parse::<u64>().ok());
            // utime and stime, fields 14 and 15 of proc(5). `fields` begins with field 3.
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
    let mut delivered = 0;
    for burst in forged().chunks(BURST) {
        for datagram in burst {
            underlay.add(datagram);
            delivered += u64::from(is_delivered(datagram));
        }
        underlay.flush();
        wait_until("every message of a burst is counted", || {
            counted(&plane.totals()) >= counted(&before) + delivered
        });
        assert_eq!(counted(&plane.totals()), counted(&before) + delivered, "more was counted than was sent");
        assert_nothing_learned(plane);
    }
    assert_eq!(lost_in_queue(&network.gateway_a), 0);
    let reasons: Vec<DropReason> =
        drops_since(&before, &plane.totals()).into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, [DropReason::IcmpMalformed, DropReason::IcmpUnbelievable]);
    assert!(
        plane.totals().icmp.not_ours > before.icmp.not_ours,
        "a quoted UDP datagram is not counted as foreign"
    );
}

#[expect(clippy::print_stderr, reason = "the figures are what the test is for")]
fn expect_flood_to_change_nothing(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_with(&network, plane, "probe = false");
    let (choice, plane) = (plane, tunnels.a.plane());
    let mut underlay = Injector::new(&network.router, "toA", &network.gateway_a, "underlayA");
    // A full queue also counts the messages that are too short to be delivered, so they are left
    // out.
    let forged: Vec<Vec<u8>> = forged().into_iter().filter(|datagram| is_delivered(datagram)).collect();
    let mut flood = |count: usize| {
        forged.iter().cycle().take(count).for_each(|datagram| underlay.add(datagram));
        underlay.flush();
        count as u64
    };
    // Every message is counted by the tunnel or dropped at the full queue of its socket.
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
    assert!(probe.wait_for_arrival(WAIT_TIMEOUT), "traffic stopped after the flood");
    let (grown, busy) = (resident().saturating_sub(memory), planes_time() - time);
    let report = probe.finish(WAIT_TIMEOUT).unwrap();
    let read = counted(&plane.totals()) - read_before;
    eprintln!(
        "{FLOOD} forged errors in {took:?}: {read} read, {} lost in the socket's queue; \
         {busy:?} of processor time, \
         {grown} bytes; meanwhile {report}",
        lost_in_queue(&network.gateway_a)
    );
    // The limit is 32 bytes for each error.
    assert!(grown < 32 * FLOOD, "the process grew by {grown} bytes");
    // The time of an unoptimised build for the errors, and that for the stream's own datagrams.
    let limit = Duration::from_micros(50) * u32::try_from(read).expect("fewer than 100,000") + took;
    assert!(busy < limit, "the data planes took {busy:?} of processor time");
    assert_eq!(report.dropped_by_receiver, 0, "{report}");
    // The userspace process also loses datagrams while it is not scheduled.
    let max_lost = if choice == DataplaneChoice::Ebpf { 0 } else { report.sent / 10 };
    assert!(report.lost() <= max_lost, "{report}");
}

/// Errors whose quotes are right, 500 a second for longer than an error is held, while hosts make
/// connections and one of them carries 20 Mbit/s. It prints what came of it. The whole matrix of
/// types, pairs, peers and rates is in adit-tunnel's `forged_matrix.rs`, in virtual time.
#[expect(clippy::print_stderr, reason = "the figures are worth reading")]
fn well_quoted_errors_harm_no_connection(plane: DataplaneChoice) {
    let choice = plane;
    for is_mute in [false, true] {
        let network = TwoSites::build().unwrap();
        if is_mute {
            network.gateway_b.sysctl("ipv4/icmp_echo_ignore_all", "1").unwrap();
        }
        let tunnels = bring_up_with(&network, plane, "");
        let plane = tunnels.a.plane();
        let inner = ipv4_with(HOST_A, HOST_B, Protocol::UDP, &[0; 1400], |inner| inner.dont_fragment = true);
        let outer = ipv4_with(UNDERLAY_A, UNDERLAY_B, Protocol::IPIP, &inner, |outer| {
            outer.dont_fragment = true;
        });
        let forged: Vec<Vec<u8>> = errors().into_iter().map(|error| message(error, &outer)).collect();
        let mut underlay = Injector::new(&network.router, "toA", &network.gateway_a, "underlayA");
        let mut forge = |count: usize, from: usize| {
            forged.iter().cycle().skip(from).take(count).for_each(|datagram| underlay.add(datagram));
            underlay.flush();
        };
        // The pair was never used.
        forge(forged.len(), 0);
        wait_until("every error is counted", || plane.totals().dropped() >= forged.len() as u64);
        assert_nothing_learned(plane);
        assert_eq!(plane.totals().probes.sent, 0, "they cost nothing");
        // It is in use.
        let begin = Instant::now();
        let (mut sent, mut transfer) = (0, None);
        let flow = Flow { client: &network.host_a, server: &network.host_b, address: HOST_B.into() };
        while begin.elapsed() < UNANSWERED_TIMEOUT + Duration::from_secs(2) {
            let due = begin.elapsed().as_millis() as usize * FORGED_PER_SECOND / 1000;
            forge(due - sent, sent);
            sent = due;
            let answer = network.host_a.run(|| ping(HOST_B, 84, 64, WAIT_TIMEOUT)).unwrap();
            assert!(answer.is_reply(), "after {sent} errors: {answer:?}");
            if sent > 0 && transfer.is_none() {
                transfer = Some(Transfer::start(&flow, Some(TRANSFER_RATE)).unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let report = transfer.expect("errors were sent").finish().unwrap();
        eprintln!("{choice:?}, mute {is_mute}: {sent} forged errors, {:?}; {report}", plane.totals().probes);
        // A busy machine may take half.
        assert!(report.rate > TRANSFER_RATE as f64 / 2.0, "{report}");
        assert_nothing_learned(plane);
        let totals = plane.totals();
        assert_eq!(totals.drops_of(DropReason::PeerUnreachable), 0, "{totals:?}");
        assert!(totals.drops_of(DropReason::IcmpUnproven) > 0, "{totals:?}");
        // One confirmation every two seconds, or to a mute peer its last and few small probes.
        assert!(totals.probes.sent <= 20, "{:?} for {sent} errors", totals.probes);
    }
}

/// Runs the flood in a process of its own, where nothing else allocates memory.
fn a_flood_of_forged_errors_changes_nothing(plane: DataplaneChoice) {
    let name = format!(
        "forged_icmp::flood::{}::a_flood_of_forged_errors_changes_nothing",
        adit_testbed::test_planes::plane_name(plane)
    );
    if in_own_process(&name) {
        expect_flood_to_change_nothing(plane);
    }
}

crate::planes::on_every_plane! {
    each_forged_error_is_refused,
    well_quoted_errors_harm_no_connection,
}

mod flood {
    use super::a_flood_of_forged_errors_changes_nothing;

    crate::planes::on_every_plane! {
        alone;
        a_flood_of_forged_errors_changes_nothing,
    }
}
