//! Pings: a real ICMP exchange with DF set, and what came back, a reply or an ICMP error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use adit_linux::sockets::icmp_socket::IcmpSocket;
use adit_linux::sockets::icmpv6_socket::Icmpv6Socket;
use adit_wire::icmpv4::{self, EchoKind, Icmpv4Error};
use adit_wire::icmpv6::{self, Icmpv6Error};
use adit_wire::ipv4::{self, Ipv4Packet};
use adit_wire::ipv6;
use adit_wire::validation::Validation;

use crate::error::LabError;

/// The result of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The echo came back with the same bytes.
    Reply {
        /// The round-trip time.
        after: Duration,
        /// The reply's TTL; 0 if it is one of IPv6, whose hop limit is not read.
        ttl: u8,
    },
    /// An ICMP error came back.
    Refused {
        /// Its source address.
        by: Ipv4Addr,
        /// The error.
        error: Icmpv4Error,
    },
    /// An ICMP error of IPv6 came back.
    RefusedV6 {
        /// Its source address.
        by: Ipv6Addr,
        /// The error.
        error: Icmpv6Error,
    },
    /// The sending host refused to send it, with this `errno`.
    NotSent(i32),
    /// Nothing came back in time.
    Silence,
}

impl Answer {
    /// Returns true if the echo came back.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        matches!(self, Self::Reply { .. })
    }
}

/// Sends an echo request of `size` bytes, IP header included, from the calling thread's network
/// namespace, and waits up to `timeout` for a reply or an error.
///
/// # Errors
/// Fails if no raw socket can be opened or read.
pub fn ping(
    destination: impl Into<IpAddr>,
    size: usize,
    ttl: u8,
    timeout: Duration,
) -> Result<Answer, LabError> {
    match destination.into() {
        IpAddr::V4(destination) => ping_v4(destination, size, ttl, timeout),
        IpAddr::V6(destination) => ping_v6(destination, size, ttl, timeout),
    }
}

fn ping_v4(destination: Ipv4Addr, size: usize, ttl: u8, timeout: Duration) -> Result<Answer, LabError> {
    let socket = IcmpSocket::open()?;
    socket.set_ttl(ttl).map_err(LabError::io("set a TTL"))?;
    let (ident, sequence, payload) = echo(size, ipv4::HEADER_LEN);
    let mut request = vec![0; payload.len() + 8];
    let len = icmpv4::build_echo(&mut request, ident, sequence, &payload, EchoKind::Request).unwrap_or(0);
    let start = Instant::now();
    if let Err(error) = socket.send(&request[..len], destination) {
        return Ok(Answer::NotSent(error.raw_os_error().unwrap_or(0)));
    }
    let mut buffer = vec![0; 65_536];
    while let Some(left) = timeout.checked_sub(start.elapsed()) {
        let Some(len) = socket.receive(&mut buffer, left).map_err(LabError::io("receive ICMP"))? else {
            break;
        };
        let Ok(packet) = Ipv4Packet::parse(&buffer[..len], Validation::Datapath) else { continue };
        let Ok(message) = icmpv4::Icmpv4Message::parse(packet.payload()) else { continue };
        if message.message_type() == icmpv4::types::ECHO_REPLY
            && packet.source() == destination
            && message.echo() == Some((ident, sequence))
            && message.payload() == payload
        {
            return Ok(Answer::Reply { after: start.elapsed(), ttl: packet.ttl() });
        }
        let Some((error, quote)) = message.error().zip(message.quote()) else { continue };
        if quote.packet().destination() == destination
            && quote.payload().get(4..8) == Some(&[ident.to_be_bytes(), sequence.to_be_bytes()].concat()[..])
        {
            return Ok(Answer::Refused { by: packet.source(), error });
        }
    }
    Ok(Answer::Silence)
}

fn ping_v6(destination: Ipv6Addr, size: usize, hop_limit: u8, timeout: Duration) -> Result<Answer, LabError> {
    let socket = Icmpv6Socket::open()?;
    socket.set_hop_limit(hop_limit).map_err(LabError::io("set a hop limit"))?;
    let (ident, sequence, payload) = echo(size, ipv6::HEADER_LEN);
    let mut request = vec![0; payload.len() + icmpv6::HEADER_LEN];
    // The kernel chooses the source, and fills in the checksum that covers it.
    let addresses = (Ipv6Addr::UNSPECIFIED, destination);
    let kind = EchoKind::Request;
    let len = icmpv6::build_echo(&mut request, addresses, ident, sequence, &payload, kind).unwrap_or(0);
    let start = Instant::now();
    if let Err(error) = socket.send(&request[..len], destination) {
        return Ok(Answer::NotSent(error.raw_os_error().unwrap_or(0)));
    }
    let mut buffer = vec![0; 65_536];
    while let Some(left) = timeout.checked_sub(start.elapsed()) {
        let received = socket.receive(&mut buffer, left).map_err(LabError::io("receive ICMPv6"))?;
        let Some((len, source)) = received else { break };
        let Some(message) = icmpv6::Icmpv6Message::parse(&buffer[..len]) else { continue };
        if message.message_type() == icmpv6::types::ECHO_REPLY
            && source == destination
            && message.echo() == Some((ident, sequence))
            && message.payload() == payload
        {
            return Ok(Answer::Reply { after: start.elapsed(), ttl: 0 });
        }
        let Some((error, quote)) = message.error().zip(message.quote()) else { continue };
        let echo = [ident.to_be_bytes(), sequence.to_be_bytes()].concat();
        if quote.destination() == destination && quote.payload().get(4..8) == Some(&echo[..]) {
            return Ok(Answer::RefusedV6 { by: source, error });
        }
    }
    Ok(Answer::Silence)
}

/// The identifier, the sequence number and the payload of an echo of `size` bytes in all.
fn echo(size: usize, header_len: usize) -> (u16, u16, Vec<u8>) {
    let ident = (std::process::id() & 0xffff) as u16;
    let len = size.saturating_sub(header_len + icmpv4::HEADER_LEN);
    (ident, size as u16, (0..len).map(|at| (at % 251) as u8).collect())
}
