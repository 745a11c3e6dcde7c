//! Every system call Adit makes: TUN, sockets, netlink, namespaces. Nothing here decides
//! anything; and whoever calls has no `unsafe` and knows no file descriptor by number.
#![expect(unsafe_code, reason = "the one crate that talks to the kernel directly")]

#[cfg(test)]
#[macro_use(test)]
extern crate adit_harness;

pub mod bpf;
pub mod clock;
pub mod error;
pub mod ethtool;
pub mod net_scope;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod process;
pub mod signal;
pub mod sockets;
pub mod sysctl;
#[doc(hidden)]
pub mod tun;

/// `errno` of a datagram too large for where it goes.
pub const EMSGSIZE: i32 = libc::EMSGSIZE;
/// `errno` of what is not there.
pub const ENOENT: i32 = libc::ENOENT;
/// `errno` of an interface of a kind that the kernel does not know.
pub const EOPNOTSUPP: i32 = libc::EOPNOTSUPP;

#[cfg(test)]
fn main() -> std::process::ExitCode {
    adit_harness::main()
}
