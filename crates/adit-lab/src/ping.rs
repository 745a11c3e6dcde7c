//! Pings: a real ICMP exchange with DF set, and what came back, a reply or an ICMP error.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use adit_linux::sockets::icmp_socket::IcmpSocket;
use adit_wire::icmpv4::{self, EchoKind, Icmpv4Error};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::validation::Validation;

use crate::error::LabError;

/// Bytes of the IPv4 and ICMP headers before an echo's payload.
const HEADERS: usize = 28;

/// The result of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The echo came back with the same bytes.
    Reply {
        /// The round-trip time.
        after: Duration,
        /// The reply's TTL.
        ttl: u8,
    },
    /// An ICMP error came back.
    Refused {
        /// Its source address.
        by: Ipv4Addr,
        /// The error.
        error: Icmpv4Error,
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

/// Sends an echo request of `size` bytes, IPv4 header included, from the calling thread's network
/// namespace, and waits up to `timeout` for a reply or an error.
///
/// # Errors
/// Fails if no raw socket can be opened or read.
pub fn ping(destination: Ipv4Addr, size: usize, ttl: u8, timeout: Duration) -> Result<Answer, LabError> {
    let socket = IcmpSocket::open()?;
    socket.set_ttl(ttl).map_err(LabError::io("set a TTL"))?;
    let ident = (std::process::id() & 0xffff) as u16;
    let sequence = size as u16;
    let payload: Vec<u8> = (0..size.saturating_sub(HEADERS)).map(|at| (at % 251) as u8).collect();
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
