//! Situations that gateways meet in practice, as namespaces that tests share.

/// An uplink without Ethernet, such as PPP.
pub mod point_to_point;
/// A second uplink, chosen by routing rules.
pub mod second_uplink;
/// A router inside a site, whose addresses no configuration lists.
pub mod unlisted_router;
/// Two gateways that share an underlay address.
pub mod vrrp;
