//! What the rules ask of an inner packet. Its family is a type: each rule is written once, and a
//! program for one family has nothing in it of the other.

use core::net::{Ipv4Addr, Ipv6Addr};

use adit_wire::Protocol;
use adit_wire::ipv4::Ipv4Header;
use adit_wire::ipv6::Ipv6Header;

use crate::outer::OuterAddress;

/// The header of an inner packet, which is valid.
pub trait InnerHeader {
    /// The addresses of its family.
    type Address: InnerAddress;
    /// The source address.
    fn source(&self) -> Self::Address;
    /// The destination address.
    fn destination(&self) -> Self::Address;
    /// The hops that are left: the TTL, or the hop limit.
    fn hops_left(&self) -> u8;
    /// What follows the header. In IPv6 that may be an extension header.
    fn protocol(&self) -> Protocol;
    /// Whether ICMP of this family follows.
    fn is_icmp(&self) -> bool;
    /// Whether it is a fragment. In IPv6 another header says so, and no ICMP follows this one.
    fn is_fragment(&self) -> bool;
    /// Whether an ICMP message of this type is an error that a router sends about a packet.
    fn is_router_error(icmp_type: u8) -> bool;
    /// Whether it is an echo request or its reply.
    fn is_echo(icmp_type: u8) -> bool;
}

/// An address of an inner packet.
pub trait InnerAddress: Copy + Eq {
    /// The same as an address of the underlay; `None` if that is of the other family.
    fn on_underlay<O: OuterAddress>(self) -> Option<O>;
    /// Whether nothing that leaves a tunnel may come from it, whoever has a network around it: it
    /// never leaves a link, is no address of one host, or stands for an IPv4 address (RFC 4213
    /// section 3.6). The rules of IPv4 name no such address; the owners of the networks decide.
    fn is_never_a_source(self) -> bool;
    /// Whether no router sends from it: it is of one link or one host, or of no host.
    fn is_no_routers(self) -> bool;
}

impl InnerHeader for Ipv4Header {
    type Address = Ipv4Addr;

    #[inline(always)]
    fn source(&self) -> Ipv4Addr {
        self.source()
    }

    #[inline(always)]
    fn destination(&self) -> Ipv4Addr {
        self.destination()
    }

    #[inline(always)]
    fn hops_left(&self) -> u8 {
        self.ttl()
    }

    #[inline(always)]
    fn protocol(&self) -> Protocol {
        self.protocol()
    }

    #[inline(always)]
    fn is_icmp(&self) -> bool {
        self.protocol() == Protocol::ICMP
    }

    #[inline(always)]
    fn is_fragment(&self) -> bool {
        self.is_fragment()
    }

    #[inline(always)]
    fn is_router_error(icmp_type: u8) -> bool {
        use adit_wire::icmpv4::types;
        matches!(icmp_type, types::DESTINATION_UNREACHABLE | types::TIME_EXCEEDED | types::PARAMETER_PROBLEM)
    }

    #[inline(always)]
    fn is_echo(icmp_type: u8) -> bool {
        use adit_wire::icmpv4::types;
        matches!(icmp_type, types::ECHO_REQUEST | types::ECHO_REPLY)
    }
}

impl InnerAddress for Ipv4Addr {
    #[inline(always)]
    fn on_underlay<O: OuterAddress>(self) -> Option<O> {
        O::of_v4(self)
    }

    #[inline(always)]
    fn is_never_a_source(self) -> bool {
        false
    }

    /// 0/8, loopback, link-local, multicast, and beyond.
    #[inline(always)]
    fn is_no_routers(self) -> bool {
        let [first, ..] = self.octets();
        first == 0 || first >= 224 || self.is_loopback() || self.is_link_local()
    }
}

impl InnerHeader for Ipv6Header {
    type Address = Ipv6Addr;

    #[inline(always)]
    fn source(&self) -> Ipv6Addr {
        self.source()
    }

    #[inline(always)]
    fn destination(&self) -> Ipv6Addr {
        self.destination()
    }

    #[inline(always)]
    fn hops_left(&self) -> u8 {
        self.hop_limit()
    }

    #[inline(always)]
    fn protocol(&self) -> Protocol {
        self.next_header()
    }

    #[inline(always)]
    fn is_icmp(&self) -> bool {
        self.next_header() == Protocol::ICMPV6
    }

    #[inline(always)]
    fn is_fragment(&self) -> bool {
        false
    }

    #[inline(always)]
    fn is_router_error(icmp_type: u8) -> bool {
        use adit_wire::icmpv6::types;
        matches!(
            icmp_type,
            types::DESTINATION_UNREACHABLE
                | types::PACKET_TOO_BIG
                | types::TIME_EXCEEDED
                | types::PARAMETER_PROBLEM
        )
    }

    #[inline(always)]
    fn is_echo(icmp_type: u8) -> bool {
        use adit_wire::icmpv6::types;
        matches!(icmp_type, types::ECHO_REQUEST | types::ECHO_REPLY)
    }
}

impl InnerAddress for Ipv6Addr {
    #[inline(always)]
    fn on_underlay<O: OuterAddress>(self) -> Option<O> {
        O::of_v6(self)
    }

    /// ff00::/8, fe80::/10, ::ffff:0:0/96, and ::/96 with ::1 (RFC 4213 section 3.6). The
    /// unspecified address is among them: who has no address yet sends to its own link only.
    #[inline(always)]
    fn is_never_a_source(self) -> bool {
        let [first, second, .., mark_a, mark_b, _, _, _, _] = self.octets();
        let is_in_zero = self.octets().iter().take(10).all(|octet| *octet == 0);
        let is_of_ipv4 = is_in_zero && mark_a == mark_b && (mark_a == 0 || mark_a == 0xff);
        first == 0xff || first == 0xfe && second & 0xc0 == 0x80 || is_of_ipv4
    }

    #[inline(always)]
    fn is_no_routers(self) -> bool {
        self.is_never_a_source()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn what_never_leaves_a_link_or_stands_for_ipv4_is_no_source() {
        for (address, expected) in [
            ("::", true),
            ("::1", true),
            ("::10.1.1.1", true),
            ("::ffff:10.1.1.1", true),
            ("fe80::1", true),
            ("febf:ffff::1", true),
            ("ff02::1", true),
            ("2001:db8::1", false),
            ("fd00::1", false),
            ("fec0::1", false),
            ("64:ff9b::10.1.1.1", false),
            ("::1:0:0:1", false),
            ("::ff:0:0", false),
            ("::fffe:a01:101", false),
        ] {
            let found = address.parse().map(Ipv6Addr::is_never_a_source);
            assert_eq!(found, Ok(expected), "{address}");
        }
    }
}
