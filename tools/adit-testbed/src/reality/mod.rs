//! Situations that gateways meet in practice, as namespaces that tests share.

/// An uplink without Ethernet, such as PPP.
pub mod point_to_point;
/// A second uplink, chosen by routing rules.
pub mod second_uplink;
/// Two gateways that share an underlay address.
pub mod vrrp;
