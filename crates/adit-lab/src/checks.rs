//! What the lab proves, one check a claim. Each looks at what really happened, and can fail.

use std::net::SocketAddrV4;
use std::time::Duration;

use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::print::{Dissection, FlowTable};
use adit_wire::protocol::Protocol;
use adit_wire::validation::Validation;
use serde::Serialize;

use crate::capture::Frame;
use crate::error::LabError;
use crate::host::Host;
use crate::http;
use crate::ping::{Answer, ping};
use crate::two_sites::{HOST_A, HOST_B, INSIDE_A, INSIDE_B, ROUTER, TwoSites, UNDERLAY_A, UNDERLAY_B};

/// How long an answer may take. A refusal comes at once; only silence costs this much.
const PATIENCE: Duration = Duration::from_millis(500);
/// The inner MTU that a 1500 byte underlay leaves.
const INNER_MTU: usize = 1480;
const SMALL: usize = 84;
const TTL: u8 = 64;

/// The outcome of one check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name, as the contract has it.
    pub name: &'static str,
    /// Whether the claim held.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

fn check(name: &'static str, ok: bool, detail: String) -> Check {
    Check { name, ok, detail }
}

/// Nothing of A reaches B: neither its gateway nor its host.
///
/// # Errors
/// The attempt itself could not be made.
pub fn isolated(name: &'static str, network: &TwoSites) -> Result<Check, LabError> {
    let gateway = network.gateway_a.run(|| ping(INSIDE_B, SMALL, TTL, PATIENCE))?;
    let host = network.host_a.run(|| ping(HOST_B, SMALL, TTL, PATIENCE))?;
    let ok = !gateway.is_reply() && !host.is_reply();
    Ok(check(
        name,
        ok,
        format!("gateway A to {INSIDE_B}: {}; host A to {HOST_B}: {}", told(&gateway), told(&host)),
    ))
}

/// Gateway to gateway, as in the article.
///
/// # Errors
/// The attempt itself could not be made.
pub fn ping_gateways(network: &TwoSites) -> Result<Check, LabError> {
    let answer = network.gateway_a.run(|| ping(INSIDE_B, SMALL, TTL, PATIENCE))?;
    Ok(check("ping", answer.is_reply(), format!("{INSIDE_A} to {INSIDE_B}: {}", told(&answer))))
}

/// A host behind A to a host behind B. Two gateways forward it, so two hops are counted, and
/// the underlay's router must not be among them.
///
/// # Errors
/// The attempt itself could not be made.
pub fn ping_hosts(network: &TwoSites) -> Result<Check, LabError> {
    let answer = network.host_a.run(|| ping(HOST_B, SMALL, TTL, PATIENCE))?;
    let ok = matches!(answer, Answer::Reply { ttl, .. } if ttl == TTL - 2);
    Ok(check("ping-hosts", ok, format!("{HOST_A} to {HOST_B}: {}", told(&answer))))
}

/// A page fetched from a server in B's network.
///
/// # Errors
/// The server could not be started.
pub fn http(network: &TwoSites) -> Result<Check, LabError> {
    // Nothing but this run's server knows this page.
    let page = format!(
        "Private network B says hello to {INSIDE_A}: {:x}\n",
        std::process::id() as u64 * 2_654_435_761
    );
    let _server = http::Server::start(&network.gateway_b, INSIDE_B, 80, page.clone())?;
    let fetched = network.gateway_a.run(|| Ok::<_, LabError>(http::get(SocketAddrV4::new(INSIDE_B, 80))))?;
    Ok(match fetched {
        Ok(body) if body == page => check(
            "http",
            true,
            format!("GET http://{INSIDE_B}/ from {INSIDE_A}: 200 OK, {} bytes", body.len()),
        ),
        Ok(body) => check("http", false, format!("GET http://{INSIDE_B}/: another page came: {body:?}")),
        Err(error) => check("http", false, format!("GET http://{INSIDE_B}/: {error}")),
    })
}

/// A full-size datagram passes, a larger one with DF is refused with the MTU that would fit.
///
/// # Errors
/// The attempt itself could not be made.
pub fn mtu(network: &TwoSites) -> Result<Check, LabError> {
    let full = network.host_a.run(|| ping(HOST_B, INNER_MTU, TTL, PATIENCE))?;
    let over = network.host_a.run(|| ping(HOST_B, INNER_MTU + 1, TTL, PATIENCE))?;
    let refused = matches!(over, Answer::Refused { by, error: Icmpv4Error::TooBig { mtu } } if by == INSIDE_A && usize::from(mtu) == INNER_MTU);
    Ok(check(
        "mtu",
        full.is_reply() && refused,
        format!("{INNER_MTU} bytes: {}; {} bytes with DF: {}", told(&full), INNER_MTU + 1, told(&over)),
    ))
}

/// What crossed the underlay was protocol 4 between the gateways, with the private datagrams in
/// it, both ways.
#[must_use]
pub fn capture(frames: &[Frame]) -> Check {
    let seen = |from, to, inner_from, inner_to| {
        frames.iter().filter_map(Frame::ipv4).any(|bytes| {
            let outer = Ipv4Packet::parse(bytes, Validation::Datapath).ok();
            let Some(outer) = outer.filter(|outer| outer.protocol() == Protocol::IPIP) else { return false };
            let inner = Ipv4Packet::parse(outer.payload(), Validation::Strict).ok();
            (outer.source(), outer.destination()) == (from, to)
                && inner.is_some_and(|inner| {
                    (inner.source(), inner.destination(), inner.protocol())
                        == (inner_from, inner_to, Protocol::TCP)
                })
        })
    };
    let there = seen(UNDERLAY_A, UNDERLAY_B, INSIDE_A, INSIDE_B);
    let back = seen(UNDERLAY_B, UNDERLAY_A, INSIDE_B, INSIDE_A);
    let private = frames
        .iter()
        .filter_map(Frame::ipv4)
        .filter_map(|bytes| Ipv4Packet::parse(bytes, Validation::Lenient).ok())
        .filter(|packet| ![UNDERLAY_A, UNDERLAY_B, ROUTER].contains(&packet.source()))
        .count();
    check(
        "capture",
        there && back && private == 0,
        format!(
            "{} frames on the underlay; {INSIDE_A} > {INSIDE_B} inside {UNDERLAY_A} > {UNDERLAY_B}: {}, and back: {}; \
             private addresses in the open: {private}",
            frames.len(),
            yes(there),
            yes(back),
        ),
    )
}

/// The captured TCP exchange, a line a datagram, as tcpdump prints it.
#[must_use]
pub fn lines(frames: &[Frame]) -> Vec<String> {
    let mut flows = FlowTable::<16>::new();
    frames
        .iter()
        .filter_map(|frame| Some((frame, frame.ipv4()?)))
        .filter(|(_, bytes)| carries_tcp(bytes))
        .map(|(frame, bytes)| {
            format!("{} {}", clock(frame.time), Dissection::new(bytes).with_flow(&mut flows))
        })
        .collect()
}

fn carries_tcp(bytes: &[u8]) -> bool {
    Ipv4Packet::parse(bytes, Validation::Lenient)
        .ok()
        .filter(|outer| outer.protocol() == Protocol::IPIP)
        .and_then(|outer| Ipv4Packet::parse(outer.payload(), Validation::Lenient).ok())
        .is_some_and(|inner| inner.protocol() == Protocol::TCP)
}

/// Time of day in UTC, to the microsecond.
fn clock(time: std::time::SystemTime) -> String {
    let since = time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let day = since.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:06}", day / 3600, day / 60 % 60, day % 60, since.subsec_micros())
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Reply { after, ttl } => format!("answered in {:.2} ms, ttl {ttl}", after.as_secs_f64() * 1e3),
        Answer::Refused { by, error } => format!("refused by {by}: {}", words(*error)),
        Answer::NotSent(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
        Answer::Silence => format!("nothing within {} ms", PATIENCE.as_millis()),
    }
}

fn words(error: Icmpv4Error) -> String {
    match error {
        Icmpv4Error::TooBig { mtu } => format!("too big, mtu {mtu}"),
        Icmpv4Error::DestinationUnreachable { code: 0 } => "net unreachable".to_owned(),
        Icmpv4Error::DestinationUnreachable { code: 1 } => "host unreachable".to_owned(),
        Icmpv4Error::DestinationUnreachable { code } => format!("unreachable, code {code}"),
        Icmpv4Error::TimeExceeded { .. } => "time exceeded".to_owned(),
        other => format!("{other:?}"),
    }
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// Whether a host can be reached at all, for tests.
///
/// # Errors
/// The attempt itself could not be made.
pub fn reaches(from: &Host, to: std::net::Ipv4Addr) -> Result<bool, LabError> {
    Ok(from.run(|| ping(to, SMALL, TTL, PATIENCE))?.is_reply())
}
