//! Counters. Each processor has its own copy. On most kernels nothing interrupts a program there
//! that counts too, so plain additions are enough. With PREEMPT_RT another run may come between the
//! load and the store of an addition, so additions are atomic there: `preemption.rs`.
//!
//! Nothing makes a reference to a count: userspace reads it at any time, and so does another run.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use adit_policy::bpf::maps::{LastDrop, LastRx, PeerCounts};
use adit_policy::{DropReason, PeerIndex};
use adit_wire::ecn::EcnAnomaly;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::maps::PerCpuArray;

use crate::inner::Inner;
use crate::preemption;
use crate::tables::{DROPS, ECN, LAST_DROPS, PEER_COUNTS};

/// What one packet adds to the counters: datagrams and their bytes.
#[derive(Clone, Copy)]
pub struct Amount {
    pub segments: u32,
    pub bytes: u32,
}

/// Adds to a count. It must point into a map's value.
#[inline(always)]
unsafe fn add(count: *mut u64, n: u64) {
    // SAFETY: a map's value is aligned and lives as long as the program.
    unsafe {
        if preemption::may_interrupt_programs() {
            // Relaxed: the instruction that does not return the old value.
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, n);
        } else {
            count.write_volatile(count.read_volatile().wrapping_add(n));
        }
    }
}

#[inline(always)]
fn add_to(map: &PerCpuArray<u64>, index: usize, n: u32) {
    if let Some(count) = map.get_ptr_mut(index as u32) {
        // SAFETY: it is a map's value.
        unsafe { add(count, u64::from(n)) };
    }
}

#[inline(always)]
fn peer(peer: PeerIndex) -> Option<*mut PeerCounts> {
    PEER_COUNTS.get_ptr_mut(peer.number())
}

#[inline(always)]
pub fn dropped(reason: DropReason, of: Option<PeerIndex>, inner: &impl Inner, segments: u32) {
    add_to(&DROPS, reason.index(), segments);
    if let Some(last) = LAST_DROPS.get_ptr_mut(reason.index() as u32) {
        // SAFETY: it is a map's value. With PREEMPT_RT it may become a mixture of two drops, both
        // of which were among the last.
        unsafe { last.write(LastDrop::new(now(), inner.source_octets(), of)) };
    }
    if let Some(counts) = of.and_then(peer) {
        // SAFETY: it is a map's value.
        unsafe { add(&raw mut (*counts).drops, u64::from(segments)) };
    }
}

#[inline(always)]
pub fn anomaly(anomaly: EcnAnomaly, segments: u32) {
    add_to(&ECN, anomaly.index(), segments);
}

#[inline(always)]
pub fn congestion_experienced(from: PeerIndex, segments: u32) {
    if let Some(counts) = peer(from) {
        // SAFETY: it is a map's value.
        unsafe { add(&raw mut (*counts).congestion_experienced, u64::from(segments)) };
    }
}

#[inline(always)]
pub fn mss_clamped(path_of: PeerIndex) {
    if let Some(counts) = peer(path_of) {
        // SAFETY: it is a map's value.
        unsafe { add(&raw mut (*counts).mss_clamped, 1) };
    }
}

#[inline(always)]
pub fn sent(to: PeerIndex, amount: Amount) {
    if let Some(counts) = peer(to) {
        // SAFETY: it is a map's value.
        unsafe {
            add(&raw mut (*counts).tx_packets, u64::from(amount.segments));
            add(&raw mut (*counts).tx_bytes, u64::from(amount.bytes));
        }
    }
}

#[inline(always)]
pub fn received(from: PeerIndex, amount: Amount, ttl: u8) {
    if let Some(counts) = peer(from) {
        let last_rx = LastRx { nanoseconds: now(), ttl }.encode();
        // SAFETY: it is a map's value. The time is written at once; one that is some microseconds
        // older may replace it.
        unsafe {
            add(&raw mut (*counts).rx_packets, u64::from(amount.segments));
            add(&raw mut (*counts).rx_bytes, u64::from(amount.bytes));
            (&raw mut (*counts).last_rx).write_volatile(last_rx);
        }
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, some milliseconds early.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments. The coarse clock is one read of memory; the fine one costs more than
    // the rest of what is counted for a packet.
    unsafe { bpf_ktime_get_coarse_ns() }
}
