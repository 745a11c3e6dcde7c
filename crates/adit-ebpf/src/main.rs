//! The tunnel's fast path inside the kernel: two programs that carry ordinary packets and leave all
//! others, unchanged, to the userspace plane on the same interfaces.
//!
//! ```text
//!   tunnel interface ──► hidden end, ingress: encap ──► neighbour, qdisc, underlay
//!   underlay, ingress: decap ──► hidden end, egress ──► tunnel interface (the host's stack)
//!                        └─────► relay: to another peer, back onto the underlay
//! ```
//!
//! The tunnel interface is one end of a veth pair. Its other end, the hidden one, exists for the
//! programs and for userspace only.
//!
//! `adit-policy` decides who may send what and `adit-wire` writes the headers. Userspace runs the
//! same code. A declined packet goes on as if no program were there.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "this target's atomics cannot add, its intrinsic can")]

mod counters;
mod decap;
mod encap;
mod header;
mod inner;
mod lpm_cache;
mod mss;
mod outer;
mod passed;
mod preemption;
mod relay;
mod skb;
mod tables;
mod verdict;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use skb::Skb;

/// Runs at the ingress of the hidden end, where what the host has sent into the tunnel interface
/// arrives, and encapsulates.
#[classifier]
pub fn adit_encap(context: TcContext) -> i32 {
    encap::encap(Skb::of(&context)).code()
}

/// Runs at the ingress of an underlay interface and decapsulates what belongs to the tunnel.
#[classifier]
pub fn adit_decap(context: TcContext) -> i32 {
    decap::decap(Skb::of(&context)).code()
}

/// Never called: nothing in these programs panics. The compiler requires it.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only programs with a GPL-compatible licence call the helpers that change
/// packets.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
