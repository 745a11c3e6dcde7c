//! Counters. Each processor has its own copy, so plain additions are enough.

use adit_policy::bpf::maps::{LastDrop, LastRx, PeerCounts};
use adit_policy::{DropReason, PeerIndex};
use adit_wire::ecn::EcnAnomaly;
use adit_wire::ipv4::Ipv4Header;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::maps::PerCpuArray;

use crate::tables::{DROPS, ECN, LAST_DROPS, PEER_COUNTS};

/// What one packet adds to the counters: datagrams and their bytes.
#[derive(Clone, Copy)]
pub struct Amount {
    pub segments: u32,
    pub bytes: u32,
}

#[inline(always)]
fn add(map: &PerCpuArray<u64>, index: usize, n: u32) {
    if let Some(count) = map.get_ptr_mut(index as u32) {
        // SAFETY: this processor's own copy; nothing else that writes it runs here meanwhile.
        unsafe { *count += u64::from(n) };
    }
}

#[inline(always)]
fn peer(peer: PeerIndex) -> Option<&'static mut PeerCounts> {
    // SAFETY: as above, and no second reference to it is alive.
    PEER_COUNTS.get_ptr_mut(peer.number()).map(|counts| unsafe { &mut *counts })
}

#[inline(always)]
pub fn dropped(reason: DropReason, of: Option<PeerIndex>, inner: &Ipv4Header, segments: u32) {
    add(&DROPS, reason.index(), segments);
    if let Some(last) = LAST_DROPS.get_ptr_mut(reason.index() as u32) {
        // SAFETY: this processor's own copy; nothing else that writes it runs here meanwhile.
        unsafe { *last = LastDrop::new(now(), inner.source().octets(), of) };
    }
    if let Some(counts) = of.and_then(peer) {
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
pub fn mss_clamped(path_of: PeerIndex) {
    if let Some(counts) = peer(path_of) {
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
        counts.last_rx = LastRx { nanoseconds: now(), ttl }.encode();
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, some milliseconds early.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments. The coarse clock is one read of memory; the fine one costs more than
    // the rest of what is counted for a packet.
    unsafe { bpf_ktime_get_coarse_ns() }
}
