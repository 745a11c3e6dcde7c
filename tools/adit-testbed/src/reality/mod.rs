//! Situations that gateways meet in practice, as namespaces that tests share.

/// A gateway behind 1:1 NAT.
pub mod nat;
/// An uplink without Ethernet, such as PPP.
pub mod point_to_point;
/// A second uplink, chosen by routing rules.
pub mod second_uplink;
/// A firewall that lets in only what belongs to a flow from inside.
pub mod stateful_firewall;
/// A router inside a site, whose addresses no configuration lists.
pub mod unlisted_router;
/// Two gateways that share an underlay address.
pub mod vrrp;
