//! The line of an ICMP message.

use core::fmt;

use super::Payload;
use crate::Protocol;
use crate::icmpv4::{EchoKind, Icmpv4Error, Icmpv4Message, Quote, unreachable};

pub(super) fn write(f: &mut fmt::Formatter<'_>, payload: &Payload<'_>) -> fmt::Result {
    let Ok(message) = Icmpv4Message::parse_lenient(payload.bytes) else {
        return f.write_str(" [|icmp]");
    };
    f.write_str("ICMP ")?;
    match (message.error(), message.quote(), message.echo()) {
        (Some(error), Some(quote), _) => write_error(f, error, &quote)?,
        // The quote is missing, and with it what the error is about.
        (Some(Icmpv4Error::DestinationUnreachable { .. } | Icmpv4Error::TooBig { .. }), None, _) => {
            return f.write_str("unreachable [|icmp]");
        }
        (Some(Icmpv4Error::Redirect { .. }), None, _) => return f.write_str("redirect [|icmp]"),
        (Some(error), None, _) => write_plain_error(f, error)?,
        (None, _, Some((identifier, sequence))) => {
            let kind = if message.echo_kind() == Some(EchoKind::Reply) { "reply" } else { "request" };
            write!(f, "echo {kind}, id {identifier}, seq {sequence}")?;
        }
        _ => write!(f, "type-#{}", message.message_type())?,
    }
    write!(f, ", length {}", payload.len)
}

fn write_error(f: &mut fmt::Formatter<'_>, error: Icmpv4Error, quote: &Quote<'_>) -> fmt::Result {
    let host = quote.packet().destination();
    match error {
        Icmpv4Error::DestinationUnreachable { code } => write_unreachable(f, code, quote),
        Icmpv4Error::TooBig { mtu: 0 } => write!(f, "{host} unreachable - need to frag"),
        Icmpv4Error::TooBig { mtu } => write!(f, "{host} unreachable - need to frag (mtu {mtu})"),
        Icmpv4Error::Redirect { code, gateway } => match code {
            0 => write!(f, "redirect {host} to net {gateway}"),
            1 => write!(f, "redirect {host} to host {gateway}"),
            2 => write!(f, "redirect-tos {host} to net {gateway}"),
            3 => write!(f, "redirect-tos {host} to host {gateway}"),
            _ => write!(f, "redirect-#{code} {host} to {gateway}"),
        },
        other => write_plain_error(f, other),
    }
}

/// Writes an error whose line does not mention the quoted datagram.
fn write_plain_error(f: &mut fmt::Formatter<'_>, error: Icmpv4Error) -> fmt::Result {
    match error {
        Icmpv4Error::TimeExceeded { code: 0 } => f.write_str("time exceeded in-transit"),
        Icmpv4Error::TimeExceeded { code: 1 } => f.write_str("ip reassembly time exceeded"),
        Icmpv4Error::TimeExceeded { code } => write!(f, "time exceeded-#{code}"),
        Icmpv4Error::ParameterProblem { code: 0, pointer } => {
            write!(f, "parameter problem - octet {pointer}")
        }
        Icmpv4Error::ParameterProblem { code, .. } => write!(f, "parameter problem - code {code}"),
        Icmpv4Error::SourceQuench => f.write_str("source quench"),
        Icmpv4Error::DestinationUnreachable { .. }
        | Icmpv4Error::TooBig { .. }
        | Icmpv4Error::Redirect { .. } => f.write_str("unreachable"),
    }
}

fn write_unreachable(f: &mut fmt::Formatter<'_>, code: u8, quote: &Quote<'_>) -> fmt::Result {
    let host = quote.packet().destination();
    let (what, why) = match code {
        unreachable::PROTOCOL => {
            return write!(f, "{host} protocol {} unreachable", quote.packet().protocol().0);
        }
        unreachable::PORT => return write_port_unreachable(f, quote),
        unreachable::NET => ("net ", ""),
        unreachable::HOST => ("host ", ""),
        unreachable::SOURCE_ROUTE_FAILED => ("", " - source route failed"),
        6 => ("net ", " - unknown"),
        7 => ("host ", " - unknown"),
        8 => ("", " - source host isolated"),
        9 => ("net ", " - admin prohibited"),
        10 => ("host ", " - admin prohibited"),
        11 => ("net ", " - tos prohibited"),
        12 => ("host ", " - tos prohibited"),
        unreachable::PROHIBITED => ("host ", " - admin prohibited filter"),
        14 => ("host ", " - host precedence violation"),
        15 => ("host ", " - precedence cutoff"),
        other => return write!(f, "{host} unreachable - #{other}"),
    };
    write!(f, "{what}{host} unreachable{why}")
}

fn write_port_unreachable(f: &mut fmt::Formatter<'_>, quote: &Quote<'_>) -> fmt::Result {
    let host = quote.packet().destination();
    let &[_, _, a, b, ..] = quote.payload() else {
        return write!(f, "{host} port unreachable");
    };
    let port = u16::from_be_bytes([a, b]);
    match quote.packet().protocol() {
        Protocol::TCP => write!(f, "{host} tcp port {port} unreachable"),
        Protocol::UDP => write!(f, "{host} udp port {port} unreachable"),
        Protocol(number) => write!(f, "{host} protocol {number} port {port} unreachable"),
    }
}
