//! Counters: a copy a processor, so plain additions.

use adit_policy::bpf::maps::{LastRx, PeerCounts};
use adit_policy::{DropReason, PeerIndex};
use adit_wire::ecn::EcnAnomaly;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::maps::PerCpuArray;

use crate::tables::{DROPS, ECN, PEER_COUNTS};

/// What goes through the tunnel at once.
#[derive(Clone, Copy)]
pub struct Amount {
    pub segments: u32,
    pub bytes: u32,
}

#[inline(always)]
fn add(map: &PerCpuArray<u64>, index: usize, n: u32) {
    if let Some(count) = map.get_ptr_mut(index as u32) {
        // SAFETY: this processor's own copy, and nothing else runs on it meanwhile that writes it.
        unsafe { *count += u64::from(n) };
    }
}

#[inline(always)]
fn peer(peer: PeerIndex) -> Option<&'static mut PeerCounts> {
    // SAFETY: as above; no second reference to it is alive.
    PEER_COUNTS.get_ptr_mut(peer.number()).map(|counts| unsafe { &mut *counts })
}

#[inline(always)]
pub fn dropped(reason: DropReason, whose: Option<PeerIndex>, segments: u32) {
    add(&DROPS, reason.index(), segments);
    if let Some(counts) = whose.and_then(peer) {
        counts.drops += u64::from(segments);
    }
}

#[inline(always)]
pub fn anomaly(anomaly: EcnAnomaly, segments: u32) {
    add(&ECN, anomaly.index(), segments);
}

#[inline(always)]
pub fn congestion_experienced(from: PeerIndex, segments: u32) {
    if let Some(counts) = peer(from) {
        counts.congestion_experienced += u64::from(segments);
    }
}

#[inline(always)]
pub fn mss_clamped(whose: PeerIndex) {
    if let Some(counts) = peer(whose) {
        counts.mss_clamped += 1;
    }
}

#[inline(always)]
pub fn sent(to: PeerIndex, amount: Amount) {
    if let Some(counts) = peer(to) {
        counts.tx_packets += u64::from(amount.segments);
        counts.tx_bytes += u64::from(amount.bytes);
    }
}

#[inline(always)]
pub fn received(from: PeerIndex, amount: Amount, ttl: u8) {
    if let Some(counts) = peer(from) {
        counts.rx_packets += u64::from(amount.segments);
        counts.rx_bytes += u64::from(amount.bytes);
        // SAFETY: no arguments. The coarse clock is a read of memory; the fine one costs more than the rest.
        let nanoseconds = unsafe { bpf_ktime_get_coarse_ns() };
        counts.last_rx = LastRx { nanoseconds, ttl }.encode();
    }
}
