//! Every system call Adit makes: TUN, sockets, netlink, namespaces. Nothing here decides
//! anything; and whoever calls has no `unsafe` and knows no file descriptor by number.
#![expect(unsafe_code, reason = "the one crate that talks to the kernel directly")]

pub mod bpffs;
pub mod capture;
pub mod clock;
pub mod error;
pub mod ethtool;
pub mod frames;
pub mod icmp_socket;
pub mod inside;
mod mapping;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod packet;
pub mod packet_ring;
pub mod poll;
pub mod private_socket;
pub mod privileges;
pub mod process;
pub mod raw;
pub mod raw_frames;
mod seccomp;
pub mod signal;
pub mod sysctl;
pub mod taps;
pub mod tcx;
#[doc(hidden)]
pub mod testing;
pub mod tun;
pub mod udp;
pub mod udp_batch;
pub mod virtio_net;
pub mod xdp;

/// `errno` of a datagram too large for where it goes.
pub const EMSGSIZE: i32 = libc::EMSGSIZE;
/// `errno` of what is not there.
pub const ENOENT: i32 = libc::ENOENT;
/// `errno` of an interface of a kind that the kernel does not know.
pub const EOPNOTSUPP: i32 = libc::EOPNOTSUPP;
