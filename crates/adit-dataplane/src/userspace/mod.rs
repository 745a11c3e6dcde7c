//! The userspace data plane: TUN on the inside, packet sockets on the outside, and a thread for
//! each direction of each queue that runs every packet to completion. It does not allocate, lock or
//! log per packet.
//!
//! ```text
//!   TUN ──► outbound ──► tunnel.encapsulate ──► segment ──► outer header ──► tx_path
//!   TUN ◄── coalesce ◄── tunnel.decapsulate ◄── inbound ◄── packet socket
//!                        tunnel.on_underlay_icmp ◄── watcher ◄── raw ICMP socket, netlink
//! ```
//!
//! It is the complete data plane. An offload may run in front of it and carry ordinary packets.
//! `tx_path` sends by AF_XDP, a packet socket or a raw socket.

mod busy_poll;
mod catch_all;
mod coalesce;
mod commands;
mod dedup;
#[cfg(test)]
mod gso_tests;
mod host_link;
mod icmp_replies;
mod inbound;
mod interface_receivers;
pub(crate) mod offload;
mod offload_sync;
#[cfg(test)]
mod offload_tests;
mod outbound;
mod plane;
mod policy_receiver;
mod prober_thread;
mod probing;
mod protocol_claim;
mod raw_senders;
mod receivers;
pub(crate) mod segment;
mod threads;
mod tx_path;
mod underlay;
mod watcher;

pub use plane::UserspacePlane;
