//! `adit lab`: builds the two-site network, checks that the tunnel works, and removes everything.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::capture::Tap;
use crate::checks::{self, Check};
use crate::crossing;
use crate::diagram;
use crate::error::LabError;
use crate::pcapng;
use crate::throughput::{self, Flow};
use crate::two_sites::{INSIDE_B, Tunnels, TwoSites, UNDERLAY_B};

/// Options of a run.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// The file for the underlay's capture, if it is wanted.
    pub pcap: Option<PathBuf>,
    /// Whether to measure the throughput.
    pub throughput: bool,
}

/// A step of a run, reported as soon as it is done.
#[derive(Debug)]
pub enum Event<'a> {
    /// The network is built and the tunnel is up: its diagram.
    Diagram(&'a str),
    /// The data plane that forwards, and the reason for its choice.
    Dataplane(&'a str, &'a str),
    /// The tunnel is up anew, over IPv6: the data plane that forwards, and the reason for its
    /// choice.
    OverIpv6(&'a str, &'a str),
    /// A check is done.
    Checked(&'a Check),
    /// The packets of some traffic that crossed the underlay, one a line.
    Captured {
        /// The traffic, such as "the HTTP request".
        what: &'static str,
        /// The lines.
        lines: &'a [String],
    },
    /// The throughput is measured.
    Measured(Throughput),
}

/// The outcome of a run, and the JSON of `adit lab --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the shape.
    pub schema: u32,
    /// Whether all checks passed.
    pub ok: bool,
    /// The data plane that forwarded.
    pub dataplane: String,
    /// All checks in the order in which they were made.
    pub checks: Vec<Check>,
    /// Absent if it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Throughput>,
}

/// The goodput of one TCP stream between the gateways, in Gb/s.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Throughput {
    /// Over the bare underlay.
    pub underlay_gbps: f64,
    /// Through the tunnel.
    pub tunnel_gbps: f64,
}

/// How long each of the two streams runs.
const STREAM_TIME: Duration = Duration::from_millis(500);
/// The router's port for the capture. It sees what an observer on the public network sees.
const CAPTURE_PORT: &str = "toA";

/// Builds the network, makes all checks, and removes everything. Reports each step to `tell`.
///
/// # Errors
/// Fails if the network cannot be built or the tunnel cannot be brought up. A check that fails is
/// not an error.
pub fn run(options: &LabOptions, tell: &mut dyn FnMut(Event<'_>)) -> Result<Report, LabError> {
    // A kernel without IPv6 still shows the rest.
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    let network = if has_ipv6 { TwoSites::build_over_ipv6()? } else { TwoSites::build()? };
    let mut done = Vec::new();
    let mut checked = |check: Check, tell: &mut dyn FnMut(Event<'_>)| {
        tell(Event::Checked(&check));
        done.push(check);
    };

    let before = checks::isolated("isolated-before", &network)?;
    let tunnels = if has_ipv6 { network.bring_up_with_ipv6()? } else { network.bring_up()? };
    let dataplane = tunnels.a.plane().kind().to_string();
    tell(Event::Diagram(&diagram::draw(&network)?));
    tell(Event::Dataplane(&dataplane, tunnels.a.plane_reason()));
    checked(before, tell);
    checked(checks::ping_gateways(&network)?, tell);
    checked(checks::ping_hosts(&network)?, tell);

    let tap = Tap::start(&network.router, CAPTURE_PORT)?;
    checked(checks::http(&network)?, tell);
    let mut frames = tap.finish();
    checked(crossing::HTTP.check(&frames), tell);
    tell(Event::Captured { what: "the HTTP request", lines: &crossing::HTTP.lines(&frames) });
    if has_ipv6 {
        let tap = Tap::start(&network.router, CAPTURE_PORT)?;
        checked(checks::ping_ipv6(&network)?, tell);
        let pings = tap.finish();
        checked(crossing::PING_6IN4.check(&pings), tell);
        tell(Event::Captured { what: "the ping of IPv6", lines: &crossing::PING_6IN4.lines(&pings) });
        frames.extend(pings);
    }
    checked(checks::mtu(&network)?, tell);
    if has_ipv6 {
        checked(checks::mtu_ipv6(&network)?, tell);
    }

    let throughput = if options.throughput { Some(measure(&network)?) } else { None };
    close(tunnels)?;
    if has_ipv6 {
        let tunnels = network.bring_up_over_ipv6()?;
        tell(Event::OverIpv6(tunnels.a.plane().kind().as_str(), tunnels.a.plane_reason()));
        let tap = Tap::start(&network.router, CAPTURE_PORT)?;
        for check in checks::over_ipv6(&network)? {
            checked(check, tell);
        }
        let pings = tap.finish();
        let crossings = [crossing::PING_4IN6, crossing::PING_6IN6];
        crossings.iter().for_each(|crossing| checked(crossing.check(&pings), tell));
        let lines: Vec<String> = crossings.iter().flat_map(|crossing| crossing.lines(&pings)).collect();
        tell(Event::Captured { what: "these pings", lines: &lines });
        frames.extend(pings);
        close(tunnels)?;
    }
    checked(checks::isolated("isolated-after", &network)?, tell);
    if let Some(throughput) = throughput {
        tell(Event::Measured(throughput));
    }
    if let Some(path) = &options.pcap {
        pcapng::write_pcapng(path, CAPTURE_PORT, &frames)?;
    }
    let ok = done.iter().all(|check| check.ok);
    Ok(Report { schema: 1, ok, dataplane, checks: done, throughput })
}

fn close(tunnels: Tunnels) -> Result<(), LabError> {
    tunnels.a.close(adit_control::OnExit::Remove)?;
    Ok(tunnels.b.close(adit_control::OnExit::Remove)?)
}

fn measure(network: &TwoSites) -> Result<Throughput, LabError> {
    let gbps = |address: Ipv4Addr| {
        let address = address.into();
        let flow = Flow { client: &network.gateway_a, server: &network.gateway_b, address };
        throughput::tcp(&flow, 1, STREAM_TIME).map(|bits| bits / 1e9)
    };
    Ok(Throughput { underlay_gbps: gbps(UNDERLAY_B)?, tunnel_gbps: gbps(INSIDE_B)? })
}
