//! `adit lab`: the article, from the picture to the proof.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::capture::Tap;
use crate::checks::{self, Check};
use crate::diagram;
use crate::error::LabError;
use crate::pcapng;
use crate::throughput::{self, Flow};
use crate::two_sites::{INSIDE_B, TwoSites, UNDERLAY_B};

/// What a run leaves out or keeps.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// Where the underlay's capture is kept.
    pub pcap: Option<PathBuf>,
    /// Whether the throughput is measured.
    pub throughput: bool,
}

/// What happens during a run, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The network stands, and the tunnel is up.
    Picture(&'a str),
    /// What forwards, and why that.
    Plane(&'a str, &'a str),
    /// A check is done.
    Checked(&'a Check),
    /// What crossed the underlay while the page was fetched.
    Captured(&'a [String]),
    /// How fast the tunnel is beside the bare underlay.
    Measured(Throughput),
}

/// The outcome, in the shape of the contract.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the shape.
    pub schema: u32,
    /// Whether every check held.
    pub ok: bool,
    /// Which data plane forwarded.
    pub dataplane: String,
    /// All checks, in the order they were made.
    pub checks: Vec<Check>,
    /// Absent where it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Throughput>,
}

/// One TCP stream between the gateways, in Gb/s.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Throughput {
    /// Over the bare underlay.
    pub underlay_gbps: f64,
    /// Through the tunnel.
    pub tunnel_gbps: f64,
}

/// How long each of the two streams runs.
const MEASURE: Duration = Duration::from_millis(500);
/// The port of the underlay's router that is listened on: what passes there is what a stranger
/// on the public network would see.
const TAP: &str = "toA";

/// Builds the network, proves the claims, takes everything down.
///
/// # Errors
/// The network could not be built or the tunnel brought up; a check that fails is no error.
pub fn run(options: &LabOptions, tell: &mut dyn FnMut(Event<'_>)) -> Result<Report, LabError> {
    let network = TwoSites::build()?;
    let mut done = Vec::new();
    let mut checked = |check: Check, tell: &mut dyn FnMut(Event<'_>)| {
        tell(Event::Checked(&check));
        done.push(check);
    };

    let before = checks::isolated("isolated-before", &network)?;
    let tunnels = network.bring_up()?;
    let dataplane = tunnels.a.plane().kind().to_string();
    tell(Event::Picture(&diagram::draw(&network)?));
    tell(Event::Plane(&dataplane, tunnels.a.plane_reason()));
    checked(before, tell);
    checked(checks::ping_gateways(&network)?, tell);
    checked(checks::ping_hosts(&network)?, tell);

    let tap = Tap::start(&network.router, TAP)?;
    checked(checks::http(&network)?, tell);
    let frames = tap.finish();
    checked(checks::capture(&frames), tell);
    tell(Event::Captured(&checks::lines(&frames)));
    checked(checks::mtu(&network)?, tell);

    let throughput = if options.throughput { Some(measure(&network)?) } else { None };
    tunnels.a.close(adit_control::OnExit::Remove)?;
    tunnels.b.close(adit_control::OnExit::Remove)?;
    checked(checks::isolated("isolated-after", &network)?, tell);
    if let Some(throughput) = throughput {
        tell(Event::Measured(throughput));
    }
    if let Some(path) = &options.pcap {
        pcapng::write_pcapng(path, TAP, &frames)?;
    }
    let ok = done.iter().all(|check| check.ok);
    Ok(Report { schema: 1, ok, dataplane, checks: done, throughput })
}

fn measure(network: &TwoSites) -> Result<Throughput, LabError> {
    let path = |address| Flow { client: &network.gateway_a, server: &network.gateway_b, address };
    let gbps = |address| throughput::tcp(&path(address), 1, MEASURE).map(|bits| bits / 1e9);
    Ok(Throughput { underlay_gbps: gbps(UNDERLAY_B)?, tunnel_gbps: gbps(INSIDE_B)? })
}
