//! What a restart, an upgrade and another overlay's end cost: under a TCP transfer and 10,000 datagrams a
//! second each way, on the program as it is installed. Of the eBPF data plane: nothing.
//!
//! `-- --nocapture` shows the figures.

use adit_testbed::needs::ebpf;
use std::fs;
use std::time::Duration;

use crate::support::load::Load;
use crate::support::machine::Running;
use crate::support::programs::{attached, pinned, pins};
use crate::support::sites::{Sites, View, view};
use adit_config::DataplaneChoice;
use adit_lab::host::Host;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B};
use adit_testbed::test_planes::{plane_name, with_plane};
use nix::sys::signal::Signal;

/// Long enough that anything with a clock in it would notice.
const DEAD: Duration = Duration::from_secs(2);
/// Bits a second of each transfer where a process built for debugging has to keep up.
const SLOW: u64 = 50_000_000;

/// A gateway of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    A,
    B,
}

use Side::{A, B};

/// Both sites, with a daemon on each gateway.
struct Bed {
    sites: Sites,
    folder: tempfile::TempDir,
    plane: DataplaneChoice,
    before: [View; 2],
    daemons: [Option<Running>; 2],
}

impl Bed {
    /// Both overlays are up; `None` where this machine cannot run the test.
    fn new(plane: DataplaneChoice) -> Self {
        let (sites, folder) = (Sites::new(), tempfile::tempdir().unwrap());
        for (name, config) in [("a.toml", CONFIG_A), ("b.toml", CONFIG_B)] {
            fs::write(folder.path().join(name), with_plane(config, plane)).unwrap();
        }
        let before = [&sites.network.gateway_a, &sites.network.gateway_b].map(view);
        let mut bed = Self { sites, folder, plane, before, daemons: [None, None] };
        bed.start(A);
        bed.start(B);
        bed.sites.assert_joined();
        bed
    }

    fn gateway(&self, side: Side) -> &Host {
        match side {
            A => &self.sites.network.gateway_a,
            B => &self.sites.network.gateway_b,
        }
    }

    /// What the side's overlay is called.
    fn name(side: Side) -> &'static str {
        match side {
            A => "a",
            B => "b",
        }
    }

    fn run(&self, gateway: &Host, file: &str) -> Running {
        let file = self.folder.path().join(file);
        let mut running = self.sites.machine.start(gateway.ns(), &["run", file.to_str().unwrap()]);
        running.wait_for("ready");
        running
    }

    /// Starts the daemon and waits until it is ready.
    fn start(&mut self, side: Side) {
        let running = self.run(self.gateway(side), &format!("{}.toml", Self::name(side)));
        self.daemons[side as usize] = Some(running);
    }

    /// Ends the daemon; with SIGKILL it has no say in it.
    fn end(&mut self, side: Side, signal: Signal) {
        let daemon = self.daemons[side as usize].take().expect("it runs");
        if signal == Signal::SIGKILL { daemon.kill() } else { daemon.end(signal) }
    }

    fn load(&self) -> Load {
        let rate = (self.plane == DataplaneChoice::Userspace).then_some(SLOW);
        Load::start(&self.sites.network, rate)
    }

    /// The programs of a side's overlay.
    fn programs(&self, side: Side) -> Vec<u32> {
        pinned(&self.sites.machine, Self::name(side)).into_values().collect()
    }

    /// Takes both overlays down; nothing of them is left.
    #[track_caller]
    fn assert_leaves_nothing(mut self) {
        let nothing = (vec![], String::new());
        for side in [A, B] {
            let (gateway, name) = (self.gateway(side).clone(), Self::name(side));
            let underlay = ["underlayA", "underlayB"][side as usize];
            let has_programs = attached(&self.sites.machine, gateway.ns(), underlay) != nothing;
            assert_eq!(
                has_programs,
                self.plane == DataplaneChoice::Ebpf,
                "the same question has another answer"
            );
            self.sites.machine.adit(gateway.ns(), &["down", name]).ok();
            let (status, said) = self.daemons[side as usize].take().expect("it ran").wait();
            assert!(status.success(), "{status}: {said}");
            assert_eq!(view(&gateway), self.before[side as usize], "device and routes");
            assert_eq!(pins(&self.sites.machine, name), [] as [std::path::PathBuf; 0]);
            assert_eq!(attached(&self.sites.machine, gateway.ns(), underlay), nothing);
        }
        assert_eq!(self.sites.machine.files(), [] as [std::path::PathBuf; 0]);
    }
}

/// What the others are compared with.
#[test(alone, root, ebpf)]
fn nothing_happens() {
    let bed = Bed::new(DataplaneChoice::Ebpf);
    let load = bed.load();
    std::thread::sleep(DEAD);
    load.finish("ebpf: nothing happens").assert_lossless();
    bed.assert_leaves_nothing();
}

/// Ends one daemon under load, leaves it dead for a while, starts it again.
fn restarted(plane: DataplaneChoice, signal: Signal) {
    let mut bed = Bed::new(plane);
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

#[test(alone, root, ebpf)]
fn twenty_restarts() {
    let mut bed = Bed::new(DataplaneChoice::Ebpf);
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

/// Every start brings programs of its own and puts them in the place of those that were there.
#[test(alone, root, ebpf)]
fn programs_are_replaced_without_a_gap() {
    let mut bed = Bed::new(DataplaneChoice::Ebpf);
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

/// Another overlay on the same gateway and the same underlay: it comes and goes, and takes only its own.
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
    let bed = Bed::new(DataplaneChoice::Ebpf);
    let gateway = bed.gateway(A);
    fs::write(bed.folder.path().join("other.toml"), OTHER).unwrap();
    gateway.address("underlayA", "10.1.1.3/24".parse().unwrap()).unwrap();
    let load = bed.load();
    let ours = bed.programs(A);
    let up = view(gateway);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let other = bed.run(gateway, "other.toml");
        assert_eq!(pinned(&bed.sites.machine, "other").len(), 2);
        if signal == Signal::SIGKILL {
            other.kill()
        } else {
            other.end(signal)
        }
        // After SIGINT there is nothing to remove any more.
        let other = bed.sites.machine.adit(gateway.ns(), &["down", "other"]).ok();
        assert_eq!(other.stdout.contains("was not up"), signal == Signal::SIGINT, "{other:?}");
        assert_eq!(pins(&bed.sites.machine, "other"), [] as [std::path::PathBuf; 0]);
        assert_eq!(bed.programs(A), ours, "not ours");
        assert_eq!(view(gateway), up);
    }
    load.finish("ebpf: another overlay comes and goes, three times").assert_lossless();
}
