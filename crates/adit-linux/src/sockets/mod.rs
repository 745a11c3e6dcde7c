//! Sockets: packet, raw, AF_XDP, ICMP, UDP and Unix, and what is shared between them.

pub mod capture;
pub mod frames;
pub mod icmp_socket;
mod mmap;
pub mod packet;
pub mod packet_listeners;
pub mod packet_ring;
pub mod poll;
pub mod private_socket;
pub mod raw;
pub mod raw_frames;
pub mod udp;
pub mod udp_batch;
pub mod virtio_net;
pub mod xdp;
