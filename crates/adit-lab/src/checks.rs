//! The checks of `adit lab`. Each makes one claim, tests it with real traffic, and can fail.

use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::icmpv6::Icmpv6Error;
use serde::Serialize;

use crate::error::LabError;
use crate::host::Host;
use crate::http;
use crate::ping::{Answer, ping};
use crate::two_sites::{HOST_A, HOST_A6, HOST_B, HOST_B6, INSIDE_A, INSIDE_A6, INSIDE_B, TwoSites};

/// How long a ping waits. Only a ping without any answer takes this long.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// The inner MTU that an underlay of 1500 bytes leaves, of IPv4 and of IPv6.
const INNER_MTU: usize = 1480;
const INNER_MTU_OVER_V6: usize = 1460;
/// Bytes of a small ping with its headers.
const SMALL: usize = 84;
const SMALL_V6: usize = 104;
const TTL: u8 = 64;

/// The outcome of one check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// Whether the claim holds.
    pub ok: bool,
    /// What was observed.
    pub detail: String,
}

pub(crate) fn check(name: &'static str, ok: bool, detail: String) -> Check {
    Check { name, ok, detail }
}

/// Checks that neither A's gateway nor its host reaches B.
///
/// # Errors
/// Fails if a ping cannot be sent.
pub fn isolated(name: &'static str, network: &TwoSites) -> Result<Check, LabError> {
    let gateway = network.gateway_a.run(|| ping(INSIDE_B, SMALL, TTL, PING_TIMEOUT))?;
    let host = network.host_a.run(|| ping(HOST_B, SMALL, TTL, PING_TIMEOUT))?;
    let ok = !gateway.is_reply() && !host.is_reply();
    Ok(check(
        name,
        ok,
        format!(
            "gateway A to {INSIDE_B}: {}; host A to {HOST_B}: {}",
            answer_text(&gateway),
            answer_text(&host)
        ),
    ))
}

/// Checks that gateway A reaches gateway B by its private address.
///
/// # Errors
/// Fails if a ping cannot be sent.
pub fn ping_gateways(network: &TwoSites) -> Result<Check, LabError> {
    let answer = network.gateway_a.run(|| ping(INSIDE_B, SMALL, TTL, PING_TIMEOUT))?;
    Ok(check("ping", answer.is_reply(), format!("{INSIDE_A} to {INSIDE_B}: {}", answer_text(&answer))))
}

/// Checks that a host behind A reaches a host behind B. The two gateways count the TTL down, and
/// the underlay's router must not.
///
/// # Errors
/// Fails if a ping cannot be sent.
pub fn ping_hosts(network: &TwoSites) -> Result<Check, LabError> {
    let answer = network.host_a.run(|| ping(HOST_B, SMALL, TTL, PING_TIMEOUT))?;
    let ok = matches!(answer, Answer::Reply { ttl, .. } if ttl == TTL - 2);
    Ok(check("ping-hosts", ok, format!("{HOST_A} to {HOST_B}: {}", answer_text(&answer))))
}

/// Checks that a host behind A reaches a host behind B by its IPv6 address.
///
/// # Errors
/// Fails if a ping cannot be sent.
pub fn ping_ipv6(network: &TwoSites) -> Result<Check, LabError> {
    let answer = network.host_a.run(|| ping(HOST_B6, SMALL_V6, TTL, PING_TIMEOUT))?;
    Ok(check("ping-ipv6", answer.is_reply(), format!("{HOST_A6} to {HOST_B6}: {}", answer_text(&answer))))
}

/// As [`mtu`], of IPv6.
///
/// # Errors
/// Fails if a ping cannot be sent.
pub fn mtu_ipv6(network: &TwoSites) -> Result<Check, LabError> {
    largest("mtu-ipv6", network, HOST_B6.into(), INNER_MTU)
}

/// The same checks of both families over the underlay of IPv6: hosts reach each other, and the
/// largest packet passes.
///
/// # Errors
/// Fails if a ping cannot be sent.
pub fn over_ipv6(network: &TwoSites) -> Result<[Check; 4], LabError> {
    let reach = |name, from: IpAddr, to: IpAddr, size| {
        let answer = network.host_a.run(|| ping(to, size, TTL, PING_TIMEOUT))?;
        let ok = answer.is_reply();
        Ok::<_, LabError>(check(name, ok, format!("{from} to {to}: {}", answer_text(&answer))))
    };
    Ok([
        reach("ping-4in6", HOST_A.into(), HOST_B.into(), SMALL)?,
        reach("ping-6in6", HOST_A6.into(), HOST_B6.into(), SMALL_V6)?,
        largest("mtu-4in6", network, HOST_B.into(), INNER_MTU_OVER_V6)?,
        largest("mtu-6in6", network, HOST_B6.into(), INNER_MTU_OVER_V6)?,
    ])
}

/// Checks that a packet of `mtu` bytes passes, and that a larger one is refused with that MTU.
fn largest(name: &'static str, network: &TwoSites, to: IpAddr, mtu: usize) -> Result<Check, LabError> {
    let full = network.host_a.run(|| ping(to, mtu, TTL, PING_TIMEOUT))?;
    let over = network.host_a.run(|| ping(to, mtu + 1, TTL, PING_TIMEOUT))?;
    let refused = match to {
        IpAddr::V4(_) => Answer::Refused { by: INSIDE_A, error: Icmpv4Error::TooBig { mtu: mtu as u16 } },
        IpAddr::V6(_) => Answer::RefusedV6 { by: INSIDE_A6, error: Icmpv6Error::TooBig { mtu: mtu as u32 } },
    };
    let df = if to.is_ipv4() { " with DF" } else { "" };
    let ok = full.is_reply() && over == refused;
    let (full, over) = (answer_text(&full), answer_text(&over));
    Ok(check(name, ok, format!("{mtu} bytes: {full}; {} bytes{df}: {over}", mtu + 1)))
}

/// Checks that gateway A can fetch a page from a server in B's network.
///
/// # Errors
/// Fails if the server cannot be started.
pub fn http(network: &TwoSites) -> Result<Check, LabError> {
    // Only this run's server has this page.
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
        Ok(body) => check("http", false, format!("GET http://{INSIDE_B}/: wrong page: {body:?}")),
        Err(error) => check("http", false, format!("GET http://{INSIDE_B}/: {error}")),
    })
}

/// Checks that a full-size datagram passes, and that a larger one with DF is refused with the MTU
/// that fits.
///
/// # Errors
/// Fails if a ping cannot be sent.
pub fn mtu(network: &TwoSites) -> Result<Check, LabError> {
    largest("mtu", network, HOST_B.into(), INNER_MTU)
}

fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Reply { after, ttl: 0 } => format!("reply after {:.2} ms", after.as_secs_f64() * 1e3),
        Answer::Reply { after, ttl } => {
            format!("reply after {:.2} ms, TTL {ttl}", after.as_secs_f64() * 1e3)
        }
        Answer::Refused { by, error } => format!("{} from {by}", error_text(*error)),
        Answer::RefusedV6 { by, error } => format!("{} from {by}", error_text_v6(*error)),
        Answer::NotSent(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
        Answer::Silence => format!("no reply within {} ms", PING_TIMEOUT.as_millis()),
    }
}

fn error_text(error: Icmpv4Error) -> String {
    match error {
        Icmpv4Error::TooBig { mtu } => format!("Datagram Too Big (MTU {mtu})"),
        Icmpv4Error::DestinationUnreachable { code: 0 } => "Net Unreachable".to_owned(),
        Icmpv4Error::DestinationUnreachable { code: 1 } => "Host Unreachable".to_owned(),
        Icmpv4Error::DestinationUnreachable { code } => format!("Destination Unreachable (code {code})"),
        Icmpv4Error::TimeExceeded { .. } => "Time Exceeded".to_owned(),
        other => format!("{other:?}"),
    }
}

fn error_text_v6(error: Icmpv6Error) -> String {
    match error {
        Icmpv6Error::TooBig { mtu } => format!("Packet Too Big (MTU {mtu})"),
        Icmpv6Error::DestinationUnreachable { code: 0 } => "No Route".to_owned(),
        Icmpv6Error::DestinationUnreachable { code: 3 } => "Address Unreachable".to_owned(),
        Icmpv6Error::DestinationUnreachable { code } => format!("Destination Unreachable (code {code})"),
        Icmpv6Error::TimeExceeded { .. } => "Time Exceeded".to_owned(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// Returns true if `from` gets a reply to a ping of `to`.
///
/// # Errors
/// Fails if a ping cannot be sent.
pub fn reaches(from: &Host, to: std::net::Ipv4Addr) -> Result<bool, LabError> {
    Ok(from.run(|| ping(to, SMALL, TTL, PING_TIMEOUT))?.is_reply())
}
