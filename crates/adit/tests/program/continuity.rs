//! What a restart, an upgrade and another overlay's end cost: under a TCP transfer and each way
//! 10,000 datagrams a second of IPv4 and 2,000 of IPv6, on the program as it is installed. Of the
//! eBPF data plane: nothing.
//!
//! `-- --nocapture` shows the figures.

use crate::support::testbed::Side::{self, A, B};
use crate::support::testbed::Testbed;
use adit_testbed::needs::ebpf;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::support::load::Load;
use crate::support::programs::{attached, pinned, pins};
use crate::support::sites::{View, view};
use adit_config::DataplaneChoice;
use adit_testbed::test_planes::plane_name;
use ipnet::Ipv4Net;
use nix::sys::signal::Signal;

/// Long enough that anything with a clock in it would notice.
const DEAD: Duration = Duration::from_secs(2);
/// Bits a second of each transfer where a process built for debugging has to keep up.
const SLOW: u64 = 50_000_000;

/// The testbed with both daemons, and what each gateway had before.
struct Loaded {
    testbed: Testbed,
    plane: DataplaneChoice,
    before: [View; 2],
}

impl Deref for Loaded {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.testbed
    }
}

impl DerefMut for Loaded {
    fn deref_mut(&mut self) -> &mut Testbed {
        &mut self.testbed
    }
}

impl Loaded {
    fn new(plane: DataplaneChoice) -> Self {
        Self::of(Testbed::with_ipv6(plane), plane)
    }

    fn of(mut testbed: Testbed, plane: DataplaneChoice) -> Self {
        let before = Side::BOTH.map(|side| view(testbed.side(side)));
        testbed.start(A);
        testbed.start(B);
        testbed.sites.assert_joined();
        Self { testbed, plane, before }
    }

    fn load(&self) -> Load {
        let rate = (self.plane == DataplaneChoice::Userspace).then_some(SLOW);
        Load::start(&self.sites.network, rate).with_ipv6(&self.sites.network)
    }

    /// The programs of a side's overlay.
    fn programs(&self, side: Side) -> Vec<u32> {
        pinned(&self.sites.machine, side.name()).into_values().collect()
    }

    /// Takes both overlays down; nothing of them is left.
    #[track_caller]
    fn assert_leaves_nothing(mut self) {
        let nothing = (vec![], String::new());
        for side in Side::BOTH {
            let (gateway, name) = (self.side(side).clone(), side.name());
            let has_programs = attached(&self.sites.machine, gateway.ns(), side.underlay()) != nothing;
            assert_eq!(
                has_programs,
                self.plane == DataplaneChoice::Ebpf,
                "the same question has another answer"
            );
            self.sites.machine.adit(gateway.ns(), &["down", name]).ok();
            let (status, said) = self.take(side).wait();
            assert!(status.success(), "{status}: {said}");
            assert_eq!(view(&gateway), self.before[side as usize], "device and routes");
            assert_eq!(pins(&self.sites.machine, name), [] as [std::path::PathBuf; 0]);
            assert_eq!(attached(&self.sites.machine, gateway.ns(), side.underlay()), nothing);
        }
        assert_eq!(self.sites.machine.files(), [] as [std::path::PathBuf; 0]);
    }
}

/// What the others are compared with.
#[test(alone, root, ebpf)]
fn nothing_happens() {
    let bed = Loaded::new(DataplaneChoice::Ebpf);
    let load = bed.load();
    std::thread::sleep(DEAD);
    load.finish("ebpf: nothing happens").assert_lossless();
    bed.assert_leaves_nothing();
}

/// Ends one daemon under load, leaves it dead for a while, starts it again.
fn restarted(plane: DataplaneChoice, signal: Signal) {
    let mut bed = Loaded::new(plane);
    let load = bed.load();
    bed.end(A, signal);
    std::thread::sleep(DEAD);
    bed.start(A);
    let outcome = load.finish(&format!("{}: {signal}, {DEAD:?} of nothing, a new start", plane_name(plane)));
    // Userspace forwards nothing while it is dead, and how much that costs is for reading.
    if plane == DataplaneChoice::Ebpf {
        outcome.assert_lossless();
    } else {
        assert!(outcome.probes.iter().all(|probe| probe.lost() > 0), "{outcome}");
    }
    bed.assert_leaves_nothing();
}

#[test(alone, root, ebpf)]
fn killed_and_started_again() {
    restarted(DataplaneChoice::Ebpf, Signal::SIGKILL);
}

#[test(alone, root, ebpf)]
fn terminated_and_started_again() {
    restarted(DataplaneChoice::Ebpf, Signal::SIGTERM);
}

#[test(alone, root)]
fn userspace_comes_back_when_it_is_killed_and_started_again() {
    restarted(DataplaneChoice::Userspace, Signal::SIGKILL);
}

/// As under `ip netns exec`: what is mounted there ends with the process, so the programs stay as
/// filters. A machine whose own BPF file system can be reached has pins all the same.
#[test(alone, root, ebpf)]
fn programs_stay_without_a_bpf_file_system_that_lasts() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let testbed = Testbed::with_ipv6(DataplaneChoice::Ebpf);
        testbed.sites.machine.without_bpffs();
        let mut bed = Loaded::of(testbed, DataplaneChoice::Ebpf);
        let site = bed.adit(&["status", "a", "-j"]).ok().json()["overlays"][0]["site"].clone();
        let why = site["dataplane_reason"].as_str().unwrap();
        assert!(why.contains("by clsact, because the BPF file system") || why.contains("by TCX"), "{why}");
        let load = bed.load();
        bed.end(A, signal);
        std::thread::sleep(DEAD);
        bed.start(A);
        bed.end(A, signal);
        bed.start(A);
        load.finish(&format!("ebpf without lasting pins: {signal}, twice")).assert_lossless();
        bed.assert_leaves_nothing();
    }
}

#[test(alone, root, ebpf)]
fn twenty_restarts() {
    let mut bed = Loaded::new(DataplaneChoice::Ebpf);
    let load = bed.load();
    for number in 0..20 {
        let side = if number % 2 == 0 { A } else { B };
        // So that each side dies in both ways.
        bed.end(side, if number / 2 % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM });
        bed.start(side);
    }
    load.finish("ebpf: twenty restarts, on either side in turn").assert_lossless();
    bed.assert_leaves_nothing();
}

/// Ends of both kinds on both sides, over an underlay of IPv6.
#[test(alone, root, ebpf)]
fn restarts_over_an_underlay_of_ipv6() {
    let mut bed = Loaded::of(Testbed::over_ipv6(DataplaneChoice::Ebpf), DataplaneChoice::Ebpf);
    let load = bed.load();
    for (side, signal) in
        [(A, Signal::SIGKILL), (B, Signal::SIGKILL), (A, Signal::SIGTERM), (B, Signal::SIGTERM)]
    {
        bed.end(side, signal);
        std::thread::sleep(DEAD / 4);
        bed.start(side);
    }
    load.finish("ebpf over IPv6: killed and terminated on either side").assert_lossless();
    bed.assert_leaves_nothing();
}

/// Ends and another order of the addresses on both sides, which send over different families.
#[test(alone, root, ebpf)]
fn restarts_and_switches_of_path_over_underlays_of_both_families() {
    let mut bed = Loaded::of(Testbed::over_both(DataplaneChoice::Ebpf), DataplaneChoice::Ebpf);
    let path = |bed: &Loaded, side: Side| {
        bed.status_of(side)["peers"][0]["underlay"].as_str().expect("an address").contains(':')
    };
    assert_eq!((path(&bed, A), path(&bed, B)), (true, false), "over IPv6 from A, over IPv4 from B");
    let load = bed.load();
    for side in [A, B] {
        bed.end(side, Signal::SIGKILL);
        std::thread::sleep(DEAD / 4);
        bed.start(side);
        let name = format!("{}.toml", side.name());
        let text = std::fs::read_to_string(bed.file(&name)).unwrap();
        let (site, peer) = text.split_at(text.find("[[peer]]").expect("a peer"));
        let file = bed.write(&name, &format!("{site}{}", in_other_order(peer)));
        bed.sites.machine.adit(bed.side(side).ns(), &["apply", &file]).ok();
    }
    assert_eq!((path(&bed, A), path(&bed, B)), (false, true), "and the other way round");
    load.finish("ebpf over both: killed, and switched by apply").assert_lossless();
    bed.assert_leaves_nothing();
}

/// The peer's section with its underlay addresses in the other order.
fn in_other_order(peer: &str) -> String {
    let (_, list) = peer.split_once("underlay = [").expect("a list");
    let (list, _) = list.split_once(']').expect("a list");
    let (first, second) = list.split_once(", ").expect("two addresses");
    peer.replace(list, &format!("{second}, {first}"))
}

/// Every start brings programs of its own and puts them in the place of those that were there.
#[test(alone, root, ebpf)]
fn programs_are_replaced_without_a_gap() {
    let mut bed = Loaded::new(DataplaneChoice::Ebpf);
    let load = bed.load();
    for side in [A, B] {
        let before = bed.programs(side);
        assert_eq!(before.len(), 2, "one for each way");
        bed.end(side, Signal::SIGKILL);
        assert_eq!(bed.programs(side), before, "they go on without it");
        bed.start(side);
        let after = bed.programs(side);
        assert_eq!(after.len(), 2, "one for each way");
        assert!(after.iter().all(|id| !before.contains(id)), "{before:?} became {after:?}");
    }
    load.finish("ebpf: the programs of both sides are replaced").assert_lossless();
    bed.assert_leaves_nothing();
}

/// Another overlay on the same gateway and the same underlay: it comes and goes, and takes only its
/// own.
#[test(alone, root, ebpf)]
fn another_overlay_comes_and_goes() {
    const OTHER: &str = r#"
        [site]
        name = "other"
        underlay = "10.1.1.3"
        networks = ["172.16.18.0/24"]
        device = "ipipOther"
        dataplane = "ebpf"
        [[peer]]
        name = "far"
        underlay = "10.1.1.4"
        networks = ["192.168.200.0/24"]
    "#;
    let bed = Loaded::new(DataplaneChoice::Ebpf);
    let gateway = bed.side(A);
    let file = bed.write("other.toml", OTHER);
    gateway.address("underlayA", "10.1.1.3/24".parse::<Ipv4Net>().unwrap()).unwrap();
    let load = bed.load();
    let ours = bed.programs(A);
    let up = view(gateway);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mut other = bed.sites.machine.start(gateway.ns(), &["run", &file]);
        other.wait_for("ready");
        assert_eq!(pinned(&bed.sites.machine, "other").len(), 2);
        if signal == Signal::SIGKILL {
            other.kill()
        } else {
            other.end(signal)
        }
        // After SIGINT there is nothing to remove any more.
        let other = bed.sites.machine.adit(gateway.ns(), &["down", &file]).ok();
        assert_eq!(other.stdout.contains("was not up"), signal == Signal::SIGINT, "{other:?}");
        assert_eq!(pins(&bed.sites.machine, "other"), [] as [std::path::PathBuf; 0]);
        assert_eq!(bed.programs(A), ours, "not ours");
        assert_eq!(view(gateway), up);
    }
    load.finish("ebpf: another overlay comes and goes, three times").assert_lossless();
}
