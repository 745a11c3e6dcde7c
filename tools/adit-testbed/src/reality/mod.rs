//! Situations that gateways meet in practice, as namespaces that tests share.

/// A route of others to a peer's network: a backup, or one that wins.
pub mod foreign_route;
/// A LAN whose address comes late, goes and moves.
pub mod lan;
/// A gateway behind 1:1 NAT.
pub mod nat;
/// An operator's nf_tables rules.
pub mod nft_rules;
/// An uplink without Ethernet, such as PPP.
pub mod point_to_point;
/// An operator's qdisc.
pub mod qdisc;
/// A second overlay on the same gateways.
pub mod second_overlay;
/// A second uplink, chosen by routing rules.
pub mod second_uplink;
/// A firewall that lets in only what belongs to a flow from inside.
pub mod stateful_firewall;
/// A listener on a gateway's own interface.
pub mod tap;
/// A TCX program of others.
pub mod tcx_program;
/// A router inside a site, whose addresses no configuration lists.
pub mod unlisted_router;
/// Two gateways that share an underlay address.
pub mod vrrp;
