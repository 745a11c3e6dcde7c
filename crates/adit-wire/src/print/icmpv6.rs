//! The line of an ICMPv6 message.

use core::fmt;

use super::Payload;
use crate::Protocol;
use crate::icmpv4::EchoKind;
use crate::icmpv6::{Icmpv6Error, Icmpv6Message, parameter, unreachable};
use crate::ipv6::{Ipv6Packet, extension};

pub(super) fn write(f: &mut fmt::Formatter<'_>, payload: &Payload<'_>) -> fmt::Result {
    let Some(message) = Icmpv6Message::parse(payload.bytes) else {
        return f.write_str("ICMP6 [|icmp6]");
    };
    f.write_str("ICMP6, ")?;
    match (message.error(), message.echo()) {
        (Some(error), _) => {
            if write_error(f, error, message.quote())?.is_none() {
                return f.write_str(" [|icmp6]");
            }
        }
        (None, Some((identifier, sequence))) => {
            let kind = if message.echo_kind() == Some(EchoKind::Reply) { "reply" } else { "request" };
            write!(f, "echo {kind}, id {identifier}, seq {sequence}")?;
        }
        (None, None) => write!(f, "type-#{}", message.message_type())?,
    }
    write!(f, ", length {}", payload.len)
}

/// Writes an error. Returns `None` if the quote lacks what its line mentions.
fn write_error(
    f: &mut fmt::Formatter<'_>,
    error: Icmpv6Error,
    quote: Option<Ipv6Packet<'_>>,
) -> Result<Option<()>, fmt::Error> {
    match error {
        Icmpv6Error::TooBig { mtu } => write!(f, "packet too big, mtu {mtu}")?,
        Icmpv6Error::ParameterProblem { code, pointer } => {
            f.write_str("parameter problem, ")?;
            match code {
                parameter::HEADER_FIELD => f.write_str("erroneous")?,
                parameter::NEXT_HEADER => f.write_str("next header")?,
                parameter::OPTION => f.write_str("option")?,
                code => write!(f, "code-#{code}")?,
            }
            write!(f, " - octet {pointer}")?;
        }
        Icmpv6Error::TimeExceeded { code } => {
            f.write_str("time exceeded in-transit")?;
            let Some(quote) = quote else { return Ok(None) };
            match code {
                0 => write!(f, " for {}", quote.destination())?,
                1 => f.write_str(" (reassembly)")?,
                code => write!(f, ", unknown code ({code})")?,
            }
        }
        Icmpv6Error::DestinationUnreachable { code } => {
            f.write_str("destination unreachable, ")?;
            return write_unreachable(f, code, quote);
        }
    }
    Ok(Some(()))
}

fn write_unreachable(
    f: &mut fmt::Formatter<'_>,
    code: u8,
    quote: Option<Ipv6Packet<'_>>,
) -> Result<Option<()>, fmt::Error> {
    f.write_str(match code {
        unreachable::NO_ROUTE => "unreachable route",
        // With one more space, as tcpdump has it.
        unreachable::PROHIBITED => " unreachable prohibited",
        unreachable::BEYOND_SCOPE => "beyond scope",
        unreachable::ADDRESS => "unreachable address",
        unreachable::PORT => "unreachable port",
        code => {
            write!(f, "unknown unreach code ({code})")?;
            return Ok(Some(()));
        }
    })?;
    let Some(quote) = quote else { return Ok(None) };
    let host = quote.destination();
    match code {
        unreachable::PORT => {
            let Some((protocol, port)) = quoted_port(&quote) else { return Ok(None) };
            write!(f, ", {host} {protocol} port {port}")?;
        }
        unreachable::BEYOND_SCOPE => write!(f, " {host}, source address {}", quote.source())?,
        _ => write!(f, " {host}")?,
    }
    Ok(Some(()))
}

/// The name of the quoted protocol, and the port that nobody listens on.
fn quoted_port(quote: &Ipv6Packet<'_>) -> Option<(&'static str, u16)> {
    let upper = extension::walk(quote.as_bytes(), quote.next_header()).ok()?;
    let protocol = match upper.protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        _ => return None,
    };
    match *quote.as_bytes().get(upper.offset..)? {
        [_, _, a, b, ..] => Some((protocol, u16::from_be_bytes([a, b]))),
        _ => None,
    }
}
