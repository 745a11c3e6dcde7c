//! The decision which peers a policy of IPsec covers. Pure.
//!
//! A policy covers a peer if it concerns datagrams between our underlay address and the peer's, in
//! either direction, whatever protocol it names. The kernel's stack then decides what it means.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use adit_linux::flow_source::FlowSource;
use adit_linux::xfrm::{Direction, Policies, Policy};
use adit_tunnel::PeerIndex;
use ipnet::IpNet;

/// The covered peers among `peers`, and the policy that covers each. `own` is the source of our
/// datagrams.
pub(super) fn covered(
    seen: &Result<Policies, String>,
    own: FlowSource,
    peers: impl Iterator<Item = (PeerIndex, IpAddr)>,
) -> BTreeMap<PeerIndex, String> {
    let Policies { policies, blocks_by_default } = match seen {
        Ok(policies) => policies,
        // What cannot be read counts as a policy.
        Err(error) => return peers.map(|(peer, _)| (peer, error.clone())).collect(),
    };
    if *blocks_by_default {
        let policy = "the default policy is to block";
        return peers.map(|(peer, _)| (peer, policy.to_owned())).collect();
    }
    // Most policies are for one host, so that many peers and many policies stay cheap.
    let mut of_host: HashMap<IpAddr, &Policy> = HashMap::new();
    let mut of_network: Vec<(IpNet, &Policy)> = Vec::new();
    for policy in policies.iter().filter(|policy| can_matter(policy, own.mark)) {
        let Some(far) = far_side(policy, own.address) else { continue };
        if far.prefix_len() == far.max_prefix_len() {
            of_host.entry(far.addr()).or_insert(policy);
        } else {
            of_network.push((far, policy));
        }
    }
    let policy_of = |peer: IpAddr| {
        let wide = || of_network.iter().find(|(far, _)| far.contains(&peer)).map(|(_, policy)| *policy);
        of_host.get(&peer).copied().or_else(wide)
    };
    peers.filter_map(|(index, peer)| Some((index, described(policy_of(peer)?)))).collect()
}

/// False for policies that let everything pass as it is, for those of an xfrm interface, which the
/// tunnel's frames do not pass, and for those with a mark that the frames do not carry. What a peer
/// sends arrives without a mark.
fn can_matter(policy: &Policy, own_mark: u32) -> bool {
    let carried = if policy.direction == Direction::Out { own_mark } else { 0 };
    let (mark, mask) = policy.mark;
    (policy.blocks || policy.transforms) && policy.interface == 0 && carried & mask == mark
}

/// The other end's addresses, if `own` is at this end.
fn far_side(policy: &Policy, own: IpAddr) -> Option<IpNet> {
    let (near, far) = match policy.direction {
        Direction::Out => (policy.source, policy.destination),
        Direction::In => (policy.destination, policy.source),
        Direction::Forward => return None,
    };
    near.contains(&own).then_some(far)
}

/// As `ip xfrm policy` writes it.
fn described(policy: &Policy) -> String {
    let Policy { source, destination, protocol, direction, blocks, .. } = policy;
    let protocol = if *protocol == 0 { String::new() } else { format!(" proto {protocol}") };
    let action = if *blocks { " action block" } else { "" };
    format!("xfrm policy src {source} dst {destination}{protocol} dir {}{action}", direction.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const OWN: FlowSource = FlowSource { address: IpAddr::V4(Ipv4Addr::new(10, 1, 1, 1)), mark: 0 };
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 1));
    const C: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 3, 1));

    fn policy(source: &str, destination: &str, direction: Direction) -> Policy {
        Policy {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 0,
            direction,
            blocks: false,
            transforms: true,
            mark: (0, 0),
            interface: 0,
        }
    }

    /// The covered ones of B and C.
    fn covered_by(policy: Policy, own: FlowSource) -> String {
        let seen = Ok(Policies { policies: vec![policy], blocks_by_default: false });
        names(&covered(&seen, own, peers()))
    }

    fn peers() -> impl Iterator<Item = (PeerIndex, IpAddr)> {
        (0..).map(PeerIndex::new).zip([B, C])
    }

    fn names(covered: &BTreeMap<PeerIndex, String>) -> String {
        covered.keys().map(|peer| ["B", "C"][peer.index()]).collect()
    }

    #[test]
    fn a_policy_covers_the_peers_at_its_other_end() {
        let out = |source, destination| policy(source, destination, Direction::Out);
        let rows = [
            (out("10.1.1.1/32", "10.1.2.1/32"), "B"),
            (out("10.1.1.0/24", "10.1.0.0/16"), "BC"),
            (out("0.0.0.0/0", "0.0.0.0/0"), "BC"),
            (policy("10.1.3.1/32", "10.1.1.1/32", Direction::In), "C"),
            (Policy { protocol: 17, ..out("10.1.1.1/32", "10.1.2.1/32") }, "B"),
            (Policy { blocks: true, transforms: false, ..out("10.1.1.1/32", "10.1.2.1/32") }, "B"),
            // Another address of ours, the other direction, and what is only forwarded.
            (out("10.1.1.2/32", "10.1.2.1/32"), ""),
            (out("10.1.2.1/32", "10.1.1.1/32"), ""),
            (policy("10.1.2.1/32", "10.1.1.1/32", Direction::Forward), ""),
            // Lets everything pass as it is; of an xfrm interface; of another mark.
            (Policy { transforms: false, ..out("10.1.1.1/32", "10.1.2.1/32") }, ""),
            (Policy { interface: 5, ..out("0.0.0.0/0", "0.0.0.0/0") }, ""),
            (Policy { mark: (5, 0xff), ..out("0.0.0.0/0", "0.0.0.0/0") }, ""),
            (Policy { mark: (0, 0xff), ..out("0.0.0.0/0", "0.0.0.0/0") }, "BC"),
        ];
        for (policy, expected) in rows {
            assert_eq!(covered_by(policy.clone(), OWN), expected, "{policy:?}");
        }
    }

    #[test]
    fn a_policy_with_a_mark_covers_only_datagrams_that_carry_it() {
        let everything = |direction, mark, mask| Policy {
            mark: (mark, mask),
            ..policy("0.0.0.0/0", "0.0.0.0/0", direction)
        };
        // Our mark, the policy's mark and mask, and whether it covers what we send, and receive.
        for (own, mark, mask, sent, received) in [
            (0, 0, 0, "BC", "BC"),
            (0, 0, 0xff, "BC", "BC"),
            (0, 5, 0xff, "", ""),
            (5, 0, 0, "BC", "BC"),
            (5, 5, 0xff, "BC", ""),
            (0x105, 5, 0xff, "BC", ""),
            (5, 0x105, 0xffff, "", ""),
            (6, 5, 0xff, "", ""),
            (5, 0, 0xff, "", "BC"),
            // Bits outside of the mask: the kernel matches it with nothing.
            (5, 0x105, 0xff, "", ""),
        ] {
            let own = FlowSource { mark: own, ..OWN };
            let found = [Direction::Out, Direction::In]
                .map(|direction| covered_by(everything(direction, mark, mask), own));
            assert_eq!(found, [sent, received], "{own:?} {mark:#x}/{mask:#x}");
        }
    }

    #[test]
    fn a_default_to_block_and_policies_that_cannot_be_read_cover_everybody() {
        let blocks = Ok(Policies { policies: Vec::new(), blocks_by_default: true });
        assert_eq!(names(&covered(&blocks, OWN, peers())), "BC");
        assert_eq!(names(&covered(&Err("refused".to_owned()), OWN, peers())), "BC");
        assert_eq!(names(&covered(&Ok(Policies::default()), OWN, peers())), "");
    }

    #[test]
    fn a_policy_is_named_as_ip_writes_it() {
        let policy =
            Policy { protocol: 4, blocks: true, ..policy("10.1.1.1/32", "10.1.2.1/32", Direction::Out) };
        assert_eq!(
            described(&policy),
            "xfrm policy src 10.1.1.1/32 dst 10.1.2.1/32 proto 4 dir out action block"
        );
    }
}
