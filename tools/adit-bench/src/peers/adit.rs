//! Adit itself: `adit run` on both sides, with one of its data planes, and one peer or many.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use adit_config::Config;
use adit_control::api::client;
use adit_control::state::paths::RuntimePaths;
use adit_lab::host::Host;
use adit_linux::netlink::Route;
use ipnet::{IpNet, Ipv4Net};

use crate::error::BenchError;
use crate::process::{self, Process};
use crate::testbed::{self, CABLE_MTU, Side, Testbed};

use super::{Families, Running, Tools};

const DEVICE: &str = "adit0";
/// Time to come up: 100,000 routes among it.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Peers of the large overlay; the one that is measured is in their middle.
pub(crate) const MANY: usize = 10_000;
/// Networks of each of them.
pub(crate) const NETWORKS: usize = 10;
/// The first of those networks: as many below those of the bench as above them, so that the one
/// that is measured lies among them for a search as well.
const FIRST: u32 = 0x0966_c600;
/// The first of the underlay addresses of the peers that are not measured.
const FIRST_PEER: u32 = 0xac10_0000;
/// All of those.
const OTHER_PEERS: (Ipv4Addr, u8) = (Ipv4Addr::new(172, 16, 0, 0), 12);

/// Which Adit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flavour {
    /// As the configuration and the status call it.
    pub(crate) dataplane: &'static str,
    /// Part of the sites' names.
    pub(crate) tag: &'static str,
    /// Whether it has [`MANY`] peers.
    pub(crate) is_large: bool,
    /// Whether it is the earlier `adit`.
    pub(crate) is_before: bool,
    /// What it has instead of IPv4 in IPv4.
    pub(crate) families: Option<Families>,
}

impl Flavour {
    /// One peer, on the `adit` that is measured.
    pub(crate) const DEFAULT: Self =
        Self { dataplane: "auto", tag: "", is_large: false, is_before: false, families: None };

    /// The cable's less the outer header.
    fn mtu(self) -> u32 {
        CABLE_MTU - if self.families.is_some_and(Families::is_v6_outside) { 40 } else { 20 }
    }

    fn program(self, tools: &Tools) -> &std::path::Path {
        tools.before.as_deref().filter(|_| self.is_before).unwrap_or(&tools.adit)
    }
}

pub(super) fn start(testbed: &Testbed, tools: &Tools, flavour: Flavour) -> Result<Running, BenchError> {
    let mut sites = Vec::new();
    for side in &testbed.sides {
        sites.push(Site::start(testbed, side, tools, flavour)?);
    }
    for site in &mut sites {
        site.wait_until_ready()?;
        site.insist(flavour)?;
    }
    let (processes, cleanup) = sites.into_iter().map(|site| (site.process, site.cleanup)).unzip();
    Ok(Running {
        server: if flavour.families.is_some_and(Families::is_v6_inside) {
            testbed.sides[1].private_v6().into()
        } else {
            testbed.sides[1].private().into()
        },
        processes,
        mtu: flavour.mtu(),
        version: process::version(flavour.program(tools), "--version"),
        _cleanup: cleanup,
    })
}

/// One `adit run`.
pub(crate) struct Site {
    process: Process,
    cleanup: Cleanup,
}

impl Site {
    /// Starts it on a side of the testbed.
    pub(crate) fn start(
        testbed: &Testbed,
        side: &Side,
        tools: &Tools,
        flavour: Flavour,
    ) -> Result<Self, BenchError> {
        let program = flavour.program(tools);
        if !program.is_file() {
            return Err(BenchError::Missing {
                program: program.display().to_string(),
                remedy: "build it: cargo build --release --package adit",
            });
        }
        let name = name(side, flavour);
        let file = testbed.directory().join(format!("{name}.toml"));
        testbed::write(&file, &configuration(&Sites::of(side, flavour), flavour)?)?;
        if flavour.is_large {
            // They have to be somewhere: behind the other side, as behind a router.
            let (address, len) = OTHER_PEERS;
            side.host.netlink()?.replace_route(&Route {
                destination: testbed::net(address, len).into(),
                gateway: Some(side.other_underlay().into()),
                ..Route::default()
            })?;
        }
        let mut command = Command::new(program);
        command.args(["run", "--on-exit", "remove"]).arg(&file);
        let cleanup = Cleanup { name: name.clone(), host: side.host.clone() };
        Ok(Self { process: Process::start(&side.host, &name, command, testbed.directory())?, cleanup })
    }

    /// Waits until packets pass; how long after the start of its program that was.
    pub(crate) fn wait_until_ready(&mut self) -> Result<Duration, BenchError> {
        self.process.wait_for_word("ready", READY_TIMEOUT)?;
        Ok(self.process.age())
    }

    /// Ends it in order.
    pub(crate) fn end(mut self) -> Result<(), BenchError> {
        self.process.end(READY_TIMEOUT)
    }

    /// That it runs the data plane that was asked for: figures of another one would be a lie.
    pub(crate) fn insist(&self, flavour: Flavour) -> Result<(), BenchError> {
        let status = client::status(&RuntimePaths::of(&self.cleanup.name))?;
        if status.site.dataplane == flavour.dataplane {
            return Ok(());
        }
        Err(BenchError::OtherPlane {
            asked: flavour.dataplane,
            found: status.site.dataplane,
            why: status.site.dataplane_reason,
        })
    }
}

/// The sites' sockets lie in one directory, whatever the network namespace.
fn name(side: &Side, flavour: Flavour) -> String {
    let shape = if side.is_gateway() { "g" } else { "" };
    format!("bench-{}{shape}-{}-{}", flavour.tag, side.letter, std::process::id())
}
/// The parts of a [`Side`] that its configuration mentions.
struct Sites {
    name: String,
    underlay: IpAddr,
    network: IpNet,
    other_name: &'static str,
    other_underlay: IpAddr,
    other_network: IpNet,
}

impl Sites {
    fn of(side: &Side, flavour: Flavour) -> Self {
        let (underlay, other_underlay) = if flavour.families.is_some_and(Families::is_v6_outside) {
            (side.underlay_v6().into(), side.other_underlay_v6().into())
        } else {
            (side.underlay().into(), side.other_underlay().into())
        };
        let (network, other_network) = if flavour.families.is_some_and(Families::is_v6_inside) {
            (side.private_network_v6().into(), side.other_private_network_v6().into())
        } else {
            (side.private_network().into(), side.other_private_network().into())
        };
        let (name, other_name) = (name(side, flavour), side.other_letter);
        Self { name, underlay, network, other_name, other_underlay, other_network }
    }
}

fn configuration(sites: &Sites, flavour: Flavour) -> Result<String, BenchError> {
    let mut text = format!(
        "[site]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [\"{}\"]\ndevice = \"{DEVICE}\"\n\
         dataplane = \"{}\"\n",
        sites.name, sites.underlay, sites.network, flavour.dataplane,
    );
    let mut others = if flavour.is_large { networks(sites) } else { Vec::new() }.into_iter();
    let count = if flavour.is_large { MANY } else { 1 };
    for number in 0..count {
        let (name, underlay, mut networks) = if number == count / 2 {
            (sites.other_name.to_owned(), sites.other_underlay, vec![sites.other_network])
        } else {
            (format!("peer-{number}"), Ipv4Addr::from_bits(FIRST_PEER + number as u32).into(), Vec::new())
        };
        networks.extend(others.by_ref().take(NETWORKS - networks.len()));
        let networks: Vec<String> = networks.iter().map(|network| format!("\"{network}\"")).collect();
        let networks = networks.join(", ");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n[[peer]]\nname = \"{name}\"\nunderlay = \"{underlay}\"\nnetworks = [{networks}]\n"
        );
    }
    match Config::parse("bench.toml", &text) {
        Ok(_) => Ok(text),
        Err(problems) => Err(BenchError::Failed {
            name: "the configuration of the bench".to_owned(),
            status: "a mistake in the bench itself".to_owned(),
            said: problems.to_string(),
        }),
    }
}

/// The networks of the peers that are not measured: one in each 256 addresses, of lengths from 24
/// to 28 by turns, around those of the bench and none of them.
fn networks(sites: &Sites) -> Vec<IpNet> {
    let ours = [IpNet::new_assert(sites.underlay, 24).trunc(), sites.network, sites.other_network];
    let network =
        |number: u32| Ipv4Net::new_assert(Ipv4Addr::from_bits(FIRST + number * 256), 24 + (number % 5) as u8);
    (0u32..)
        .map(|number| IpNet::from(network(number)))
        .filter(|network| !ours.iter().any(|ours| ours.contains(network)))
        .take(MANY * NETWORKS - 1)
        .collect()
}

/// Removes what a site that was killed could not remove: devices go with their namespace, but not
/// what is pinned for it, nor its files.
pub(crate) struct Cleanup {
    name: String,
    host: Host,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // Nothing is left to do about a failure.
        let _ = self.host.ns().run(|| adit_control::overlay::remove_leftovers(&self.name, None, None));
        let _ = RuntimePaths::of(&self.name).remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(is_large: bool) -> Result<Config, Box<dyn std::error::Error>> {
        let sites = Sites {
            name: "bench-a".to_owned(),
            underlay: Ipv4Addr::new(10, 1, 1, 1).into(),
            network: "10.42.21.0/24".parse()?,
            other_name: "b",
            other_underlay: Ipv4Addr::new(10, 1, 1, 2).into(),
            other_network: "10.42.22.0/24".parse()?,
        };
        let flavour = Flavour { dataplane: "userspace", tag: "test", is_large, ..Flavour::DEFAULT };
        Config::parse("bench.toml", &configuration(&sites, flavour)?)
            .map_err(|error| error.to_string().into())
    }

    #[test]
    fn its_configuration_has_no_mistakes() -> Result<(), Box<dyn std::error::Error>> {
        let config = configured(false)?;
        assert_eq!(config.site.networks, ["10.42.21.0/24".parse()?]);
        assert_eq!(config.peers.len(), 1);
        let peer = config.peers.iter().next().ok_or("no peer")?;
        assert_eq!(peer.networks, ["10.42.22.0/24".parse()?]);
        Ok(())
    }

    #[test]
    fn the_peer_that_is_measured_lies_in_the_middle_of_many() -> Result<(), Box<dyn std::error::Error>> {
        let config = configured(true)?;
        assert_eq!(config.peers.len(), MANY);
        assert!(config.peers.iter().all(|peer| peer.networks.len() == NETWORKS));
        let measured: ipnet::IpNet = "10.42.22.0/24".parse()?;
        let middle = config.peers.iter().nth(MANY / 2).ok_or("no peer in the middle")?;
        assert!(middle.networks.contains(&measured));
        let below =
            config.peers.iter().flat_map(|peer| &peer.networks).filter(|network| **network < measured);
        let part = below.count() as f64 / (MANY * NETWORKS) as f64;
        assert!((0.49..0.51).contains(&part), "{part} of the networks lie below it");
        Ok(())
    }
}
