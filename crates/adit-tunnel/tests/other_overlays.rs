//! Several overlays on one underlay address: what one refuses may be another's.

mod common;

use std::net::Ipv4Addr;

use adit_tunnel::{Decapsulated, DropReason, HostFacts};
use adit_wire::Protocol;

use common::{A, B, GATEWAY_A, Gateway, HOST_A, HOST_B, HOST_C, STRANGER, datagram};

/// Hosts in a network of another overlay, and behind this gateway for that overlay.
const THEIR_HOST: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 9);
const OUR_HOST: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 9);

#[test]
fn what_may_be_another_overlays_is_left_to_it_and_not_counted() {
    use DropReason::{InnerDestinationNotOurs, InnerSourceNotFromPeer, OuterSourceUnknown};
    let refused = |reason| (Decapsulated::Drop(reason), vec![(reason, 1)]);
    let to_other = || (Decapsulated::NotOurs, vec![]);
    let theirs = datagram(THEIR_HOST, OUR_HOST).inside(B, A).build();
    let of_their_peer = datagram(THEIR_HOST, OUR_HOST).inside(STRANGER, A).build();
    let forged = datagram(HOST_C, HOST_A).inside(B, A).build();
    let unknown = datagram(HOST_B, HOST_A).inside(STRANGER, A).build();
    let to_themselves = datagram(THEIR_HOST, THEIR_HOST).inside(B, A).build();
    let answer = datagram(B, OUR_HOST).protocol(Protocol::ICMP).payload(vec![0; 8]).inside(B, A).build();
    let facts = |networks: &[&str]| HostFacts {
        local_addresses: vec![GATEWAY_A.into(), OUR_HOST.into()],
        probe: None,
        other_networks: networks.iter().map(|text| text.parse().expect("a network")).collect(),
    };
    for (what, outer, alone, beside) in [
        ("the answer to their probe", &answer, refused(InnerDestinationNotOurs), to_other()),
        ("a common peer's", &theirs, refused(InnerSourceNotFromPeer), to_other()),
        ("their own peer's", &of_their_peer, refused(OuterSourceUnknown), to_other()),
        ("whose destination is wrong", &to_themselves, refused(InnerSourceNotFromPeer), to_other()),
        ("nobody's, by a peer", &forged, refused(InnerSourceNotFromPeer), refused(InnerSourceNotFromPeer)),
        ("nobody's", &unknown, refused(OuterSourceUnknown), refused(OuterSourceUnknown)),
    ] {
        for (others, expected) in [(vec![], alone), (vec!["10.60.0.0/16"], beside)] {
            let mut gateway = Gateway::default();
            gateway.tunnel = gateway.tunnel.on_host(facts(&others));
            assert_eq!((gateway.decapsulate(outer), gateway.drops()), expected, "{what} {others:?}");
        }
    }
}

#[test]
fn a_tunnel_on_a_machine_that_has_changed_keeps_what_it_has_learned() {
    let gateway = Gateway::default();
    let peer = gateway.tunnel.lookup_outer(B.into()).expect("a peer");
    let facts = HostFacts { local_addresses: vec![OUR_HOST.into()], probe: None, other_networks: Vec::new() };
    let followed = gateway.tunnel.on_host(facts);
    assert_eq!(followed.local_addresses(), [OUR_HOST]);
    gateway.tunnel.set_underlay_mtu(peer, 1300);
    assert_eq!(followed.underlay_mtu(peer), 1300, "they share the soft state of peers");
}
