//! The two-site network with `adit run` on its gateways and files that a test changes: what most
//! topics begin with.

use std::fs;

use adit_config::DataplaneChoice;
use adit_lab::host::Host;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, HOST_B, over_both, over_ipv6, with_ipv6_networks};
use adit_linux::family::Family;
use adit_testbed::test_planes::with_plane;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Said;
use super::machine::Running;
use super::sites::{Sites, is_answered, reaches};

/// A gateway of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The name of the side's overlay. Its file is `NAME.toml`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The interface to the underlay.
    pub(crate) fn underlay(self) -> &'static str {
        match self {
            Self::A => "underlayA",
            Self::B => "underlayB",
        }
    }
}

/// Both sites, a folder with the files `a.toml` and `b.toml`, and the daemons that run.
pub(crate) struct Testbed {
    pub(crate) sites: Sites,
    folder: tempfile::TempDir,
    daemons: [Option<Running>; 2],
}

impl Testbed {
    /// No daemon runs. The files are those of the two-site network, with this data plane.
    pub(crate) fn new(plane: DataplaneChoice) -> Self {
        Self::with_configs(&with_plane(CONFIG_A, plane), &with_plane(CONFIG_B, plane))
    }

    /// The same, with private networks of both families.
    pub(crate) fn with_ipv6(plane: DataplaneChoice) -> Self {
        let [a, b] = [CONFIG_A, CONFIG_B].map(|config| with_plane(&with_ipv6_networks(config), plane));
        Self::of(Sites::with_ipv6(), &a, &b)
    }

    /// The same over an underlay of IPv6.
    pub(crate) fn over_ipv6(plane: DataplaneChoice) -> Self {
        let text = |config: &str| with_plane(&over_ipv6(&with_ipv6_networks(config)), plane);
        Self::of(Sites::over_ipv6(), &text(CONFIG_A), &text(CONFIG_B))
    }

    /// Over underlays of both families: A sends over IPv6, and B over IPv4.
    pub(crate) fn over_both(plane: DataplaneChoice) -> Self {
        let text = |config: &str, first| with_plane(&over_both(&with_ipv6_networks(config), first), plane);
        Self::of(Sites::over_ipv6(), &text(CONFIG_A, Family::V6), &text(CONFIG_B, Family::V4))
    }

    /// No daemon runs. The files have these texts.
    pub(crate) fn with_configs(a: &str, b: &str) -> Self {
        Self::of(Sites::new(), a, b)
    }

    fn of(sites: Sites, a: &str, b: &str) -> Self {
        let testbed = Self { sites, folder: tempfile::tempdir().unwrap(), daemons: [None, None] };
        testbed.write("a.toml", a);
        testbed.write("b.toml", b);
        testbed
    }

    /// Both daemons are ready.
    pub(crate) fn running(plane: DataplaneChoice) -> Self {
        let mut testbed = Self::new(plane);
        testbed.start(Side::B);
        testbed.start(Side::A);
        testbed
    }

    pub(crate) fn side(&self, side: Side) -> &Host {
        match side {
            Side::A => &self.sites.network.gateway_a,
            Side::B => &self.sites.network.gateway_b,
        }
    }

    /// Gateway A.
    pub(crate) fn gateway(&self) -> &Host {
        self.side(Side::A)
    }

    /// The path of a file in the testbed's folder.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).into_os_string().into_string().unwrap()
    }

    /// Writes a file into the folder; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.file(name), text).unwrap();
        self.file(name)
    }

    /// Writes a file like `a.toml`, changed; its path.
    pub(crate) fn write_changed(&self, name: &str, change: impl FnOnce(String) -> String) -> String {
        self.write(name, &change(fs::read_to_string(self.file("a.toml")).unwrap()))
    }

    /// Starts the side's daemon with its file, and waits until it is ready.
    pub(crate) fn start(&mut self, side: Side) {
        self.start_with(side, &self.file(&format!("{}.toml", side.name())));
    }

    /// The same with another file.
    pub(crate) fn start_with(&mut self, side: Side, file: &str) {
        let mut running = self.sites.machine.start(self.side(side).ns(), &["run", file]);
        running.wait_for("ready");
        self.daemons[side as usize] = Some(running);
    }

    /// Starts a daemon with `a.toml` on gateway A, which need not become ready.
    pub(crate) fn spawn(&self, options: &[&str]) -> Running {
        let file = self.file("a.toml");
        let mut arguments = vec!["run", file.as_str()];
        arguments.extend(options);
        self.sites.machine.start(self.gateway().ns(), &arguments)
    }

    /// The same; it is ready.
    pub(crate) fn ready(&self) -> Running {
        let mut running = self.spawn(&[]);
        running.wait_for("ready");
        running
    }

    /// Takes over a daemon on gateway A that the test has started.
    pub(crate) fn keep(&mut self, daemon: Running) {
        self.daemons[Side::A as usize] = Some(daemon);
    }

    /// The daemon of a side that runs.
    pub(crate) fn daemon(&self, side: Side) -> &Running {
        self.daemons[side as usize].as_ref().expect("it runs")
    }

    /// Reads on in what the side's daemon says, until a line has this in it.
    pub(crate) fn wait_for(&mut self, side: Side, part: &str) {
        let daemon = self.daemons[side as usize].as_mut().expect("it runs");
        while !daemon.wait_for("").contains(part) {}
    }

    /// The daemon of a side that runs, which the testbed has no longer.
    pub(crate) fn take(&mut self, side: Side) -> Running {
        self.daemons[side as usize].take().expect("it runs")
    }

    /// Ends the side's daemon; with SIGKILL it can do nothing about it.
    pub(crate) fn end(&mut self, side: Side, signal: Signal) {
        let daemon = self.take(side);
        if signal == Signal::SIGKILL { daemon.kill() } else { daemon.end(signal) }
    }

    /// Runs `adit` on gateway A.
    pub(crate) fn adit(&self, arguments: &[&str]) -> Said {
        self.sites.machine.adit(self.gateway().ns(), arguments)
    }

    /// Runs `ip` on gateway A.
    pub(crate) fn ip(&self, arguments: &str) {
        self.gateway().program("ip", &arguments.split(' ').collect::<Vec<_>>()).unwrap();
    }

    /// The status of overlay a.
    pub(crate) fn status(&self) -> Value {
        self.status_of(Side::A)
    }

    /// The status of a side's overlay.
    pub(crate) fn status_of(&self, side: Side) -> Value {
        let said = self.sites.machine.adit(self.side(side).ns(), &["status", side.name(), "-j"]);
        said.ok().json()["overlays"][0].clone()
    }

    /// How many repairs overlay a counts, of all objects.
    pub(crate) fn repairs(&self) -> u64 {
        self.status()["repairs"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
    }

    /// How many packets overlay a dropped for this reason.
    pub(crate) fn drops(&self, reason: &str) -> u64 {
        self.status()["drops"][reason]["count"].as_u64().unwrap_or(0)
    }

    /// Whether an echo from host A comes back from host B, however busy the machine is.
    pub(crate) fn is_answered(&self) -> bool {
        is_answered(&self.sites.network.host_a, HOST_B)
    }

    /// Whether an echo from host A comes back from host B at once.
    pub(crate) fn reaches(&self) -> bool {
        reaches(&self.sites.network.host_a, HOST_B)
    }
}
