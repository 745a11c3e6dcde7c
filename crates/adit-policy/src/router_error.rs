//! ICMP errors from routers whose own address is in nobody's networks.
//!
//! Routers inside a site often have addresses that no configuration lists, and their errors carry
//! path MTU and traceroute. So such an error is judged by its quote: it goes to the sender of the
//! quoted datagram, which was on its way to the site that the error comes from.

use crate::admission::{Delivery, OwnerLookup, is_our_end};
use crate::inner::{InnerAddress, InnerHeader};
use crate::peer::{Owner, PeerIndex};

/// Source and destination of the packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted<A> {
    /// Its source: who gets the error.
    pub source: A,
    /// Its destination.
    pub destination: A,
}

/// Whether a packet may be a router's error, by its header and the type of its ICMP message:
/// Destination Unreachable, Packet Too Big, Time Exceeded or Parameter Problem, whole. A program
/// leaves those that the other rules refuse to userspace, which reads the quote and limits their
/// rate.
#[inline(always)]
pub fn may_be_router_error<H: InnerHeader>(header: &H, icmp_type: u8) -> bool {
    header.is_icmp() && !header.is_fragment() && H::is_router_error(icmp_type)
}

/// The peer to send a router's error to; `None` if its quote does not allow that. The error is from
/// our own site, or on a hub from another peer.
pub fn router_error_encap<H: InnerHeader, D: OwnerLookup<H::Address>>(
    lookup: &D,
    error: &H,
    quoted: Quoted<H::Address>,
) -> Option<PeerIndex> {
    let Some(Owner::Peer(to)) = lookup.owner(error.destination()) else { return None };
    let from = lookup.owner(quoted.destination)?;
    let is_admitted = from != Owner::Peer(to)
        && quoted.source == error.destination()
        && may_be_from(lookup, error.source(), from);
    is_admitted.then_some(to)
}

/// Where a router's error that came from a peer goes; `None` if its quote does not allow that.
pub fn router_error_decap<H: InnerHeader, D: OwnerLookup<H::Address>>(
    lookup: &D,
    from: PeerIndex,
    error: &H,
    quoted: Quoted<H::Address>,
) -> Option<Delivery> {
    let is_admitted = quoted.source == error.destination()
        && lookup.owner(quoted.destination) == Some(Owner::Peer(from))
        && may_be_from(lookup, error.source(), Owner::Peer(from));
    if !is_admitted {
        return None;
    }
    match lookup.owner(error.destination())? {
        Owner::Ours => Some(Delivery::Here),
        // The kernel would deliver to an address of its own instead of relaying.
        Owner::Peer(to) => (to != from && !lookup.is_local(error.destination())).then_some(Delivery::To(to)),
    }
}

/// Whether a source in nobody's networks may be a router in the site of `from`: a unicast address
/// that is not this gateway's, nor another peer's gateway.
fn may_be_from<A: InnerAddress, D: OwnerLookup<A>>(lookup: &D, source: A, from: Owner) -> bool {
    let on_underlay = source.on_underlay::<D::Underlay>();
    let gateway = on_underlay.and_then(|source| lookup.peer_by_underlay(source));
    gateway.is_none_or(|gateway| Owner::Peer(gateway) == from)
        && lookup.owner(source).is_none()
        && !lookup.is_local(source)
        && !is_our_end(lookup, source)
        && !source.is_no_routers()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::admission::PeerLookup;
    use adit_wire::Protocol;
    use adit_wire::ipv4::{Ipv4Header, Ipv4Repr};
    use adit_wire::ipv6::{Ipv6Header, Ipv6Repr};
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    const US: [u8; 4] = [10, 0, 0, 1];
    const PEERS: [[u8; 4]; 2] = [[10, 0, 1, 1], [10, 0, 2, 1]];

    /// Ours: 172.16.0.0/16. Peer n: 192.168.n.0/24. Local: also 100.64.9.9 and 192.168.1.8.
    struct Site;

    impl PeerLookup for Site {
        type Underlay = IpAddr;

        fn is_our_underlay(&self, address: IpAddr) -> bool {
            address == IpAddr::from(US)
        }

        fn peer_by_underlay(&self, address: IpAddr) -> Option<PeerIndex> {
            let place = PEERS.iter().position(|octets| address == IpAddr::from(*octets));
            place.map(|place| PeerIndex::new(place as u32))
        }

        fn may_relay(&self, _: PeerIndex, _: PeerIndex) -> bool {
            true
        }
    }

    impl OwnerLookup<Ipv4Addr> for Site {
        fn owner(&self, inner: Ipv4Addr) -> Option<Owner> {
            match inner.octets() {
                [172, 16, ..] => Some(Owner::Ours),
                [192, 168, n @ (0 | 1), _] => Some(Owner::Peer(PeerIndex::new(n.into()))),
                _ => None,
            }
        }

        fn is_local(&self, address: Ipv4Addr) -> bool {
            [US, [100, 64, 9, 9], [192, 168, 1, 8]].contains(&address.octets())
        }
    }

    fn header(source: Ipv4Addr, destination: Ipv4Addr, protocol: Protocol) -> Ipv4Header {
        let repr = Ipv4Repr {
            source,
            destination,
            protocol,
            ttl: 64,
            tos: 0,
            identification: 0,
            dont_fragment: false,
            payload_len: 36,
        };
        zerocopy::transmute!(repr.emit())
    }

    /// One address of each kind, and whether a router's error may have it as its source if it comes
    /// from peer 0.
    fn sources() -> [(Ipv4Addr, bool); 15] {
        [
            ([100, 64, 0, 2].into(), true),
            ([203, 0, 113, 7].into(), true),
            ([10, 0, 1, 2].into(), true),
            // The sending gateway itself.
            (PEERS[0].into(), true),
            (PEERS[1].into(), false),
            (US.into(), false),
            ([100, 64, 9, 9].into(), false),
            ([172, 16, 0, 3].into(), false),
            ([192, 168, 1, 3].into(), false),
            ([127, 0, 0, 1].into(), false),
            ([0, 0, 0, 0].into(), false),
            ([0, 1, 2, 3].into(), false),
            ([169, 254, 1, 1].into(), false),
            ([224, 0, 0, 1].into(), false),
            ([255, 255, 255, 255].into(), false),
        ]
    }

    fn hosts() -> Vec<Ipv4Addr> {
        let hosts =
            [[172, 16, 0, 9], [192, 168, 0, 9], [192, 168, 1, 9], [192, 168, 1, 8], [198, 51, 100, 9]];
        hosts.map(Ipv4Addr::from).into()
    }

    #[test]
    fn an_error_from_a_peer_goes_to_the_quoted_sender_if_the_quoted_destination_is_that_peers() {
        let from = PeerIndex::new(0);
        for (source, is_router) in sources() {
            for (to, sender, destination) in hosts()
                .into_iter()
                .flat_map(|to| hosts().into_iter().map(move |sender| (to, sender)))
                .flat_map(|(to, sender)| {
                    hosts().into_iter().map(move |destination| (to, sender, destination))
                })
            {
                let error = header(source, to, Protocol::ICMP);
                let found = router_error_decap(&Site, from, &error, Quoted { source: sender, destination });
                let is_quote_right = to == sender && Site.owner(destination) == Some(Owner::Peer(from));
                let expected = match Site.owner(to) {
                    Some(Owner::Ours) => Some(Delivery::Here),
                    Some(Owner::Peer(peer)) if peer != from && !Site.is_local(to) => Some(Delivery::To(peer)),
                    _ => None,
                };
                let expected = expected.filter(|_| is_router && is_quote_right);
                assert_eq!(found, expected, "{source} to {to}, quoting {sender} to {destination}");
            }
        }
    }

    #[test]
    fn an_error_to_a_peer_goes_there_if_the_quoted_destination_is_ours_or_another_peers() {
        for (source, _) in sources() {
            for to in hosts() {
                for destination in hosts() {
                    let error = header(source, to, Protocol::ICMP);
                    let found = router_error_encap(&Site, &error, Quoted { source: to, destination });
                    let from = Site.owner(destination);
                    let is_gateway = Site.peer_by_underlay(source.into()).map(Owner::Peer);
                    let is_router = Site.owner(source).is_none()
                        && !Site.is_local(source)
                        && !source.is_no_routers()
                        && (is_gateway.is_none() || is_gateway == from);
                    let expected = match Site.owner(to) {
                        Some(Owner::Peer(peer))
                            if is_router && from.is_some_and(|from| from != Owner::Peer(peer)) =>
                        {
                            Some(peer)
                        }
                        _ => None,
                    };
                    assert_eq!(found, expected, "{source} to {to}, quoting a datagram to {destination}");
                    let other = Quoted { source: [172, 16, 0, 1].into(), destination };
                    assert_eq!(router_error_encap(&Site, &error, other), None, "another's datagram");
                }
            }
        }
    }

    #[test]
    fn only_whole_errors_of_three_types_are_routers() {
        let (router, host) = ([100, 64, 0, 2].into(), [172, 16, 0, 9].into());
        let admitted: Vec<u8> = (0..=255)
            .filter(|kind| may_be_router_error(&header(router, host, Protocol::ICMP), *kind))
            .collect();
        assert_eq!(admitted, [3, 11, 12]);
        assert!(!may_be_router_error(&header(router, host, Protocol::UDP), 3));
    }

    /// Ours: 2001:db8:a::/48. Peer n: 2001:db8:n::/48. Local: also 2001:db8:1::8.
    impl OwnerLookup<Ipv6Addr> for Site {
        fn owner(&self, inner: Ipv6Addr) -> Option<Owner> {
            match inner.segments() {
                [0x2001, 0xdb8, 0xa, ..] => Some(Owner::Ours),
                [0x2001, 0xdb8, n @ (0 | 1), ..] => Some(Owner::Peer(PeerIndex::new(n.into()))),
                _ => None,
            }
        }

        fn is_local(&self, address: Ipv6Addr) -> bool {
            address == Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 8)
        }
    }

    #[expect(clippy::expect_used, reason = "the text is in this file")]
    fn v6(text: &str) -> Ipv6Addr {
        text.parse().expect("an address")
    }

    fn header_v6(source: &str, destination: &str, next_header: Protocol) -> Ipv6Header {
        let repr = Ipv6Repr {
            source: v6(source),
            destination: v6(destination),
            next_header,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            payload_len: 56,
        };
        zerocopy::transmute!(repr.emit())
    }

    #[test]
    fn an_ipv6_error_goes_to_the_quoted_sender_from_a_router_that_there_can_be() {
        let (ours, of_0, of_1) = ("2001:db8:a::9", "2001:db8:0::9", "2001:db8:1::9");
        let quoted =
            |source: &str, destination: &str| Quoted { source: v6(source), destination: v6(destination) };
        let from = PeerIndex::new(0);
        for (router, is_one) in [
            ("2001:db8:ffff::1", true),
            ("fd00::1", true),
            ("2001:db8:1::3", false),
            ("2001:db8:a::3", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::", false),
            ("::1", false),
            ("::ffff:10.0.1.1", false),
        ] {
            let decap = |to: &str, sender: &str, destination: &str| {
                let error = header_v6(router, to, Protocol::ICMPV6);
                router_error_decap(&Site, from, &error, quoted(sender, destination))
            };
            let expected = |delivery| Some(delivery).filter(|_| is_one);
            assert_eq!(decap(ours, ours, of_0), expected(Delivery::Here), "{router}");
            assert_eq!(decap(of_1, of_1, of_0), expected(Delivery::To(PeerIndex::new(1))), "{router}");
            assert_eq!(decap(ours, of_1, of_0), None, "{router}: about another's packet");
            assert_eq!(decap(ours, ours, of_1), None, "{router}: about a packet to another peer");
            assert_eq!(decap(of_0, of_0, of_0), None, "{router}: back to where it came from");
            let local = "2001:db8:1::8";
            assert_eq!(decap(local, local, of_0), None, "{router}: to an address of this gateway");
            let encap = |to: &str, destination: &str| {
                let error = header_v6(router, to, Protocol::ICMPV6);
                router_error_encap(&Site, &error, quoted(to, destination))
            };
            assert_eq!(encap(of_0, ours), Some(from).filter(|_| is_one), "{router}");
            assert_eq!(encap(of_0, of_1), Some(from).filter(|_| is_one), "{router}");
            assert_eq!(encap(of_0, of_0), None, "{router}: about a packet to the same peer");
        }
    }

    #[test]
    fn only_icmpv6_errors_of_four_types_are_routers() {
        let of = |protocol| header_v6("2001:db8:ffff::1", "2001:db8:a::9", protocol);
        let admitted: Vec<u8> =
            (0..=255).filter(|kind| may_be_router_error(&of(Protocol::ICMPV6), *kind)).collect();
        assert_eq!(admitted, [1, 2, 3, 4]);
        assert!(!may_be_router_error(&of(Protocol::ICMP), 1));
        assert!(!may_be_router_error(&of(Protocol::FRAGMENT), 1));
    }
}
