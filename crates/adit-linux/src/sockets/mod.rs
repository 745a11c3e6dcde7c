//! Sockets that carry and observe packets: packet, raw, AF_XDP, ICMP and UDP; and the control
//! socket.
//!
//! [`frames::FrameSender`] is what the senders to the underlay have in common.
//! [`packet::PacketSender`], [`xdp::XdpSender`] and [`raw_frames::RawFrameSender`] implement it.
//! [`packet_ring::PacketRing`] receives.

pub mod arena;
pub mod capture;
mod classic_bpf;
mod destinations;
mod frame_batch;
pub mod frames;
pub mod hidden_end;
pub mod icmp_socket;
pub mod icmpv6_socket;
mod mmap;
mod options;
pub mod packet;
pub mod packet_listeners;
pub mod packet_ring;
pub mod poll;
pub mod private_socket;
pub mod raw;
mod raw_filter;
pub mod raw_frames;
mod raw_v6;
mod ring_filter;
pub mod udp;
pub mod udp_batch;
pub mod virtio_net;
pub mod xdp;

pub(crate) use options::set_socket_option;
