//! ICMP errors from routers whose own address is in nobody's networks.
//!
//! Routers inside a site often have addresses that no configuration lists, and their errors carry
//! path MTU and traceroute. So such an error is judged by its quote: it goes to the sender of the
//! quoted datagram, which was on its way to the site that the error comes from.

use core::net::Ipv4Addr;

use adit_wire::Protocol;
use adit_wire::icmpv4::types;
use adit_wire::ipv4::Ipv4Header;

use crate::admission::{Delivery, OwnerLookup};
use crate::peer::{Owner, PeerIndex};

/// Source and destination of the datagram that an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// Its source: who gets the error.
    pub source: Ipv4Addr,
    /// Its destination.
    pub destination: Ipv4Addr,
}

/// Whether a datagram may be a router's error, by its header and the type of its ICMP message:
/// Destination Unreachable, Time Exceeded or Parameter Problem, whole. A program leaves those that
/// the other rules refuse to userspace, which reads the quote and limits their rate.
#[inline(always)]
pub fn may_be_router_error(header: &Ipv4Header, icmp_type: u8) -> bool {
    header.protocol() == Protocol::ICMP
        && !header.more_fragments()
        && header.fragment_offset() == 0
        && matches!(
            icmp_type,
            types::DESTINATION_UNREACHABLE | types::TIME_EXCEEDED | types::PARAMETER_PROBLEM
        )
}

/// The peer to send a router's error to; `None` if its quote does not allow that. The error is from
/// our own site, or on a hub from another peer.
pub fn router_error_encap<D: OwnerLookup<Ipv4Addr>>(
    lookup: &D,
    error: &Ipv4Header,
    quoted: Quoted,
) -> Option<PeerIndex> {
    let Some(Owner::Peer(to)) = lookup.owner(error.destination()) else { return None };
    let from = lookup.owner(quoted.destination)?;
    let is_admitted = from != Owner::Peer(to)
        && quoted.source == error.destination()
        && may_be_from(lookup, error.source(), from);
    is_admitted.then_some(to)
}

/// Where a router's error that came from a peer goes; `None` if its quote does not allow that.
pub fn router_error_decap<D: OwnerLookup<Ipv4Addr>>(
    lookup: &D,
    from: PeerIndex,
    error: &Ipv4Header,
    quoted: Quoted,
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
fn may_be_from<D: OwnerLookup<Ipv4Addr>>(lookup: &D, source: Ipv4Addr, from: Owner) -> bool {
    let is_router = lookup.peer_by_underlay(source).is_none_or(|gateway| Owner::Peer(gateway) == from);
    is_router
        && lookup.owner(source).is_none()
        && !lookup.is_local(source)
        && source != lookup.underlay()
        && !is_special(source)
}

/// Addresses that no router sends from: 0/8, loopback, link-local, multicast, and beyond.
fn is_special(source: Ipv4Addr) -> bool {
    let [first, ..] = source.octets();
    first == 0 || first >= 224 || source.is_loopback() || source.is_link_local()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::admission::PeerLookup;
    use adit_wire::ipv4::Ipv4Repr;
    use std::vec::Vec;

    const US: [u8; 4] = [10, 0, 0, 1];
    const PEERS: [[u8; 4]; 2] = [[10, 0, 1, 1], [10, 0, 2, 1]];

    /// Ours: 172.16.0.0/16. Peer n: 192.168.n.0/24. Local: also 100.64.9.9 and 192.168.1.8.
    struct Site;

    impl PeerLookup for Site {
        fn underlay(&self) -> Ipv4Addr {
            US.into()
        }

        fn peer_by_underlay(&self, underlay: Ipv4Addr) -> Option<PeerIndex> {
            (0..2).map(PeerIndex::new).find(|peer| self.underlay_of(*peer) == Some(underlay))
        }

        fn underlay_of(&self, peer: PeerIndex) -> Option<Ipv4Addr> {
            PEERS.get(peer.index()).map(|octets| (*octets).into())
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
                    let is_gateway = Site.peer_by_underlay(source).map(Owner::Peer);
                    let is_router = Site.owner(source).is_none()
                        && !Site.is_local(source)
                        && !is_special(source)
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
}
