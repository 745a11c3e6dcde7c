//! Where a peer is probed inside the tunnel.
//!
//! Every decapsulator has the address that it is called by, so that is probed first. A gateway
//! behind 1:1 NAT does not have it: probes for it come through and nobody answers. Such a gateway
//! still has an address in its own networks, and its own probes come from there, so that address is
//! *learned* and probed while the underlay address is silent (`probed_path.rs`).
//!
//! A forged probe can make us learn a wrong address. That is harmless: it lies in the networks of
//! the peer that the outer source names, and probes for it go to that peer through the tunnel, at
//! the times at which they would have gone anyway. An address that answers is kept.
//!
//! A gateway that receives a probe for an address that it does not have knows that it is behind
//! NAT. It *introduces* itself by one smallest probe of its own, which is no larger than the one
//! that came, so that the peer can learn its address even if traffic goes one way only.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::atomic_address::AtomicAddress;

/// What the threads know of where a peer is probed. Receiving threads write what its probes show,
/// the prober writes the rest.
#[derive(Debug, Default)]
pub(crate) struct ProbeAddress {
    /// The source of the peer's last probe; none: none has come.
    learned: AtomicAddress,
    /// The address that is probed; none: none was yet.
    probed: AtomicAddress,
    /// The peer has probed an address that this gateway does not have.
    must_introduce: AtomicBool,
    /// The last search for the path MTU was not answered at all.
    is_silent: AtomicBool,
}

impl ProbeAddress {
    /// Records the source of a probe, which lies in a network of the peer.
    pub(crate) fn learn(&self, source: IpAddr) {
        if self.learned.get() != Some(source) {
            self.learned.set(source);
        }
    }

    pub(crate) fn learned(&self) -> Option<IpAddr> {
        self.learned.get()
    }

    pub(crate) fn note_probed(&self, address: IpAddr) {
        self.probed.set(address);
    }

    pub(crate) fn probed(&self) -> Option<IpAddr> {
        self.probed.get()
    }

    pub(crate) fn ask_for_introduction(&self) {
        self.must_introduce.store(true, Relaxed);
    }

    /// Whether we have to introduce ourselves: once for any number of probes.
    pub(crate) fn take_introduction(&self) -> bool {
        self.must_introduce.load(Relaxed) && self.must_introduce.swap(false, Relaxed)
    }

    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Relaxed);
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent.load(Relaxed)
    }
}
