//! The system calls that Adit makes: sockets, netlink, nf_tables, BPF, namespaces and
//! processes.
//!
//! This crate decides nothing about the tunnel. It gives the other crates safe functions, so that
//! they need neither `unsafe` nor raw file descriptors, and errors that say what was attempted,
//! what the kernel answered and what to do ([`error::Error`]).
#![expect(unsafe_code, reason = "the one crate that talks to the kernel directly")]

#[cfg(test)]
#[macro_use(test)]
extern crate adit_harness;

pub mod bpf;
pub mod clock;
pub mod error;
pub mod ethtool;
pub mod family;
pub mod flow_source;
pub mod kernel_version;
pub mod net_scope;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod process;
pub mod sockets;
pub mod sysctl;
pub mod tunnel_protocol;
pub mod xfrm;

/// `errno` of a datagram longer than the socket, the interface or the path takes.
pub const EMSGSIZE: i32 = libc::EMSGSIZE;
/// `errno` of a send queue that is full, and of memory beyond the limit of locked memory.
pub const ENOBUFS: i32 = libc::ENOBUFS;
/// `errno` of an object that does not exist.
pub const ENOENT: i32 = libc::ENOENT;
/// `errno` of an interface whose kind the kernel does not know.
pub const EOPNOTSUPP: i32 = libc::EOPNOTSUPP;

#[cfg(test)]
fn main() -> std::process::ExitCode {
    adit_harness::main()
}
