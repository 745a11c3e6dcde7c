//! A second overlay on the gateways of the two-site network, beside that of the examples: one
//! between the same underlay addresses with networks of its own, or one of gateway A that claims
//! the network of the first.

use std::net::Ipv4Addr;

use adit_config::DataplaneChoice;
use adit_lab::LabError;
use adit_lab::cable::network;
use adit_lab::two_sites::{INSIDE_A, INSIDE_B, TwoSites, UNDERLAY_A, UNDERLAY_B};
use ipnet::Ipv4Net;

use crate::test_planes::plane_name;

/// The address of gateway A in its second private network.
pub const SECOND_INSIDE_A: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 1);
/// The same of gateway B.
pub const SECOND_INSIDE_B: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 1);
/// The names of both ends.
pub const NAMES: [&str; 2] = ["a2", "b2"];

const PREFIX_LEN: u8 = 16;

/// A side of an overlay.
struct End {
    name: &'static str,
    underlay: Ipv4Addr,
    network: Ipv4Net,
}

fn ends() -> [End; 2] {
    let [name_a, name_b] = NAMES;
    let end = |name, underlay, inside| End { name, underlay, network: network(inside, PREFIX_LEN).trunc() };
    [end(name_a, UNDERLAY_A, SECOND_INSIDE_A), end(name_b, UNDERLAY_B, SECOND_INSIDE_B)]
}

/// Adds the second private networks to the gateways.
///
/// # Errors
/// Fails if the kernel refuses an address.
pub fn add_networks(sites: &TwoSites) -> Result<(), LabError> {
    sites.gateway_a.address("dummyA", network(SECOND_INSIDE_A, PREFIX_LEN))?;
    sites.gateway_b.address("dummyB", network(SECOND_INSIDE_B, PREFIX_LEN))
}

/// The configurations of gateway A and gateway B between the second private networks.
#[must_use]
pub fn configs(plane: DataplaneChoice) -> [String; 2] {
    let [a, b] = ends();
    [config(&a, &b, plane), config(&b, &a, plane)]
}

/// A configuration of gateway A, named `second`, that has B's network at another peer.
#[must_use]
pub fn rival(plane: DataplaneChoice) -> String {
    let (ours, theirs) = (network(INSIDE_A, 24).trunc(), network(INSIDE_B, 24).trunc());
    let site = End { name: "second", underlay: UNDERLAY_A, network: ours };
    let peer = End { name: "b", underlay: Ipv4Addr::new(10, 1, 1, 78), network: theirs };
    config(&site, &peer, plane)
}

fn config(site: &End, peer: &End, plane: DataplaneChoice) -> String {
    format!(
        "[site]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [\"{}\"]\ndevice = \"two0\"\n\
         dataplane = \"{}\"\n[[peer]]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [\"{}\"]\n",
        site.name,
        site.underlay,
        site.network,
        plane_name(plane),
        peer.name,
        peer.underlay,
        peer.network,
    )
}
