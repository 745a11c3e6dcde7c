//! ICMP errors from inside the tunnel, which quote as much of the outer datagram as real routers
//! do.

use std::net::Ipv4Addr;

use adit_fixtures::packet::mend;
use adit_wire::icmpv4::{self, Icmpv4Error, MAX_ERROR_LEN};
use adit_wire::{checksum, ipv4};

use crate::site::{ROUTER, UNDERLAY};

/// How much of a datagram a router quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quote {
    /// The outer header and 8 bytes, the minimum of RFC 792.
    Eight,
    /// The outer header and 28 bytes: the inner header and 8 bytes more.
    TwentyEight,
    /// As much as fits into 576 bytes, as RFC 1812 asks for.
    Full,
    /// 128 bytes and an extension (RFC 4884).
    Extended,
}

/// The bytes of a quote with extensions.
const BEFORE_EXTENSIONS: usize = 128;

impl Quote {
    pub(crate) const ALL: [Self; 4] = [Self::Eight, Self::TwentyEight, Self::Full, Self::Extended];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Eight => "8 bytes",
            Self::TwentyEight => "28 bytes",
            Self::Full => "full",
            Self::Extended => "extended",
        }
    }

    fn len(self, outer: &[u8]) -> usize {
        let len = match self {
            Self::Eight => ipv4::HEADER_LEN + 8,
            Self::TwentyEight => ipv4::HEADER_LEN + 28,
            Self::Full => outer.len(),
            Self::Extended => BEFORE_EXTENSIONS,
        };
        len.min(outer.len())
    }
}

/// An error from the router about an outer datagram.
pub(crate) fn error_about(outer: &[u8], error: Icmpv4Error, quote: Quote) -> Vec<u8> {
    error_from(ROUTER, outer, error, quote)
}

/// An error from any source about an outer datagram.
pub(crate) fn error_from(source: Ipv4Addr, outer: &[u8], error: Icmpv4Error, quote: Quote) -> Vec<u8> {
    let mut room = [0; MAX_ERROR_LEN];
    let len = icmpv4::build_error(&mut room, source, UNDERLAY, error, &outer[..quote.len(outer)]);
    let mut datagram = room[..len].to_vec();
    if quote == Quote::Extended {
        extend(&mut datagram);
    }
    datagram
}

/// Adds an extension with one object, an MPLS label (RFC 4950), as routers do.
fn extend(datagram: &mut Vec<u8>) {
    const LENGTH: usize = ipv4::HEADER_LEN + 5;
    datagram.resize(ipv4::HEADER_LEN + icmpv4::HEADER_LEN + BEFORE_EXTENSIONS, 0);
    datagram[LENGTH] = (BEFORE_EXTENSIONS / 4) as u8;
    let mut extension = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0x00, 0x3e, 0x81, 0x40];
    let sum = checksum::checksum(&extension);
    extension[2..4].copy_from_slice(&sum.to_be_bytes());
    datagram.extend(extension);
    let len = datagram.len() as u16;
    datagram[2..4].copy_from_slice(&len.to_be_bytes());
    mend(datagram);
    mend_icmp(datagram);
}

/// Corrects the checksum of the ICMP message in a datagram.
pub(crate) fn mend_icmp(datagram: &mut [u8]) {
    let message = &mut datagram[ipv4::HEADER_LEN..];
    message[2..4].fill(0);
    let sum = checksum::checksum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use adit_wire::icmpv4::Icmpv4Message;

    use super::*;
    use crate::site::Site;

    #[test]
    fn each_quote_is_an_error_that_reads_as_it_was_written() {
        let site = Site::all().next().unwrap();
        let outer = site.there(1400).build();
        for quote in Quote::ALL {
            let datagram = error_about(&outer, Icmpv4Error::TooBig { mtu: 1300 }, quote);
            let packet = crate::reaction::view(&datagram).unwrap();
            assert_eq!(packet.as_bytes().len(), datagram.len(), "{quote:?}");
            let message = Icmpv4Message::parse(packet.payload()).unwrap();
            assert_eq!(message.error(), Some(Icmpv4Error::TooBig { mtu: 1300 }), "{quote:?}");
            let quoted = message.quote().unwrap();
            let expected = if quote == Quote::Full { 548 } else { quote.len(&outer) };
            assert_eq!(quoted.datagram(), &outer[..expected], "{quote:?}");
        }
    }
}
