//! The tunnel's fast path, inside the kernel: two programs that carry what is usual and leave everything
//! else to the userspace plane, on the very same devices.
//!
//! ```text
//!   tunnel's device, egress ──► encap ──► neighbour, qdisc, underlay
//!   underlay, ingress       ──► decap ──► tunnel's device, ingress (the host's stack)
//!                                  └────► relay: to another peer, back onto the underlay
//! ```
//!
//! Who may send what is decided by `adit-policy`, headers are written by `adit-wire`, both the same code as
//! in userspace. What is declined stays as it came and goes on as if there were no program.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "this target's atomics cannot add, its intrinsic can")]

mod counters;
mod decap;
mod encap;
mod mss;
mod lpm_cache;
mod relay;
mod skb;
mod tables;
mod verdict;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use skb::Skb;

/// At the egress of the tunnel's device: a datagram on its way into the tunnel.
#[classifier]
pub fn adit_encap(context: TcContext) -> i32 {
    encap::encap(Skb::of(&context)).code()
}

/// At the ingress of an interface of the underlay: perhaps a datagram on its way out of the tunnel.
#[classifier]
pub fn adit_decap(context: TcContext) -> i32 {
    decap::decap(Skb::of(&context)).code()
}

/// Nothing here panics; the compiler wants to know what would happen.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets programs that say so call the helpers that change packets.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
