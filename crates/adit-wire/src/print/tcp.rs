//! The line of a TCP segment, with the first line of HTTP.

use core::fmt;

use super::{Payload, SequenceBases};
use crate::tcp::{TcpError, TcpFlags, TcpHeader, TcpOption, TcpOptions};

/// The ports on which tcpdump expects HTTP.
const HTTP_PORTS: [u16; 3] = [80, 3128, 8080];

/// The methods of requests (RFC 9110 section 9 and WebDAV, RFC 4918).
const HTTP_METHODS: [&[u8]; 17] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"COPY",
    b"LOCK",
    b"MKCOL",
    b"MOVE",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"SUBSCRIBE",
    b"UNLOCK",
];

const FLAG_LETTERS: [(TcpFlags, &str); 8] = [
    (TcpFlags::FIN, "F"),
    (TcpFlags::SYN, "S"),
    (TcpFlags::RST, "R"),
    (TcpFlags::PSH, "P"),
    (TcpFlags::ACK, "."),
    (TcpFlags::URG, "U"),
    (TcpFlags::ECE, "E"),
    (TcpFlags::CWR, "W"),
];

pub(super) fn write(f: &mut fmt::Formatter<'_>, payload: &Payload<'_>, bases: SequenceBases) -> fmt::Result {
    let &[a, b, c, d, ..] = payload.bytes else {
        payload.write_addresses(f)?;
        return f.write_str(" [|tcp]");
    };
    let (from, to) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    payload.write_ports(f, from, to)?;
    let segment = match TcpHeader::parse(payload.bytes) {
        Ok(segment) => segment,
        Err(TcpError::Truncated { .. }) => return f.write_str(" [|tcp]"),
        Err(TcpError::DataOffset { found }) => {
            let rest = payload.len.saturating_sub(found);
            return write!(f, " tcp {rest} [bad hdr length {found} - too short, < 20]");
        }
    };
    write_flags(f, segment.flags())?;
    // By the length field: a capture may hold fewer bytes.
    let length = payload.len.saturating_sub(segment.header_len());
    write_numbers(f, &segment, bases, length)?;
    if !write_options(f, segment.options(), bases.sack)? {
        return Ok(());
    }
    write!(f, ", length {length}")?;
    let is_http = HTTP_PORTS.contains(&from) || HTTP_PORTS.contains(&to);
    if is_http && length > 0 { write_http(f, segment.payload()) } else { Ok(()) }
}

fn write_flags(f: &mut fmt::Formatter<'_>, flags: TcpFlags) -> fmt::Result {
    f.write_str("Flags [")?;
    if flags == TcpFlags(0) {
        f.write_str("none")?;
    }
    for (flag, letter) in FLAG_LETTERS {
        if flags.contains(flag) {
            f.write_str(letter)?;
        }
    }
    f.write_str("]")
}

fn write_numbers(
    f: &mut fmt::Formatter<'_>,
    segment: &TcpHeader<'_>,
    bases: SequenceBases,
    length: usize,
) -> fmt::Result {
    let flags = segment.flags();
    let sequence = segment.sequence().wrapping_sub(bases.sequence);
    if length > 0 {
        write!(f, ", seq {sequence}:{}", sequence.wrapping_add(length as u32))?;
    } else if flags.0 & TcpFlags::SYN.union(TcpFlags::FIN).union(TcpFlags::RST).0 != 0 {
        write!(f, ", seq {sequence}")?;
    }
    if flags.contains(TcpFlags::ACK) {
        let acknowledgment = segment.acknowledgment().wrapping_sub(bases.acknowledgment);
        write!(f, ", ack {acknowledgment}")?;
    }
    write!(f, ", win {}", segment.window())?;
    if flags.contains(TcpFlags::URG) {
        write!(f, ", urg {}", segment.urgent_pointer())?;
    }
    Ok(())
}

/// Returns false if an option was malformed: tcpdump prints nothing after such a list.
fn write_options(f: &mut fmt::Formatter<'_>, options: TcpOptions<'_>, base: u32) -> Result<bool, fmt::Error> {
    let mut separator = ", options [";
    let mut any = false;
    for option in options {
        f.write_str(separator)?;
        separator = ",";
        any = true;
        match option {
            TcpOption::End => f.write_str("eol")?,
            TcpOption::NoOperation => f.write_str("nop")?,
            TcpOption::MaximumSegmentSize(mss) => write!(f, "mss {mss}")?,
            TcpOption::WindowScale(shift) => write!(f, "wscale {shift}")?,
            TcpOption::SackPermitted => f.write_str("sackOK")?,
            TcpOption::Sack(edges) => write_sack(f, edges, base)?,
            TcpOption::Timestamps { value, echo } => write!(f, "TS val {value} ecr {echo}")?,
            TcpOption::Other { kind, data } => {
                write!(f, "unknown-{kind}")?;
                if !data.is_empty() {
                    f.write_str(" 0x")?;
                }
                for byte in data {
                    write!(f, "{byte:02x}")?;
                }
            }
            TcpOption::Malformed => {
                f.write_str("[bad opt]")?;
                return Ok(false);
            }
        }
    }
    if any {
        f.write_str("]")?;
    }
    Ok(true)
}

fn write_sack(f: &mut fmt::Formatter<'_>, edges: &[u8], base: u32) -> fmt::Result {
    let (edges, _) = edges.as_chunks::<8>();
    write!(f, "sack {} ", edges.len())?;
    for &[a, b, c, d, e, g, h, i] in edges {
        let left = u32::from_be_bytes([a, b, c, d]).wrapping_sub(base);
        let right = u32::from_be_bytes([e, g, h, i]).wrapping_sub(base);
        write!(f, "{{{left}:{right}}}")?;
    }
    Ok(())
}

/// Writes `: HTTP`, and the first line of the payload if it is that of a request or a response.
fn write_http(f: &mut fmt::Formatter<'_>, payload: &[u8]) -> fmt::Result {
    f.write_str(": HTTP")?;
    let end = payload.iter().position(|&byte| byte == b'\n');
    let line = payload.get(..end.unwrap_or(payload.len())).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let printable = line.iter().all(|&byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
    let mut words = line.split(|&byte| byte == b' ');
    let first = words.next().unwrap_or_default();
    let is_request = HTTP_METHODS.iter().any(|method| method.eq_ignore_ascii_case(first));
    let is_response = words
        .find(|word| !word.is_empty())
        .is_some_and(|word| word.len() == 3 && word.iter().all(u8::is_ascii_digit));
    if !printable || !(is_request || is_response) {
        return Ok(());
    }
    f.write_str(": ")?;
    f.write_str(core::str::from_utf8(line).unwrap_or_default())?;
    if end.is_none() {
        f.write_str(" [|http]")?;
    }
    Ok(())
}
