//! A router that drops what is too big for its far link, and says nothing: what breaks path MTU discovery (RFC 2923
//! section 2.1).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::transfer::Transfer;
use adit_lab::LabError;
use adit_lab::host::Host;

/// Bytes that a receiver may have in its queue, see [`limit_receive_buffer`].
const QUEUED: u64 = 256 << 10;
/// Bytes of which at least some were sent after the hole had opened.
const PROGRESS: u64 = 4 * QUEUED;
/// How often a transfer is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Has this host's TCP take in no more than it reads soon, so that what had passed before a hole opened is not taken
/// for what passes after it. To be called before a transfer starts.
///
/// # Errors
/// What the kernel says.
pub fn limit_receive_buffer(host: &Host) -> Result<(), LabError> {
    host.sysctl("ipv4/tcp_rmem", &format!("4096 131072 {QUEUED}"))
}

/// Waits until the transfer has certainly made progress since now; after how long, or `None` if it has not within
/// `patience`. To be called when a hole has just opened.
#[must_use]
pub fn time_to_recover(transfer: &Transfer, patience: Duration) -> Option<Duration> {
    let (start, from) = (Instant::now(), transfer.received());
    while transfer.received() < from + PROGRESS {
        if start.elapsed() > patience {
            return None;
        }
        std::thread::sleep(LOOK);
    }
    Some(start.elapsed())
}

/// An open black hole, until [`BlackHole::close`].
#[must_use = "the router stays silent until it is closed"]
pub struct BlackHole {
    router: Host,
    port: String,
    told: Vec<Ipv4Addr>,
    mtu_before: u32,
}

impl BlackHole {
    /// From now on the interface `port` of `router` takes datagrams of `mtu` bytes and no more, and what the router
    /// has to say to those of `told` it keeps to itself. What it forwards, passes.
    ///
    /// # Errors
    /// No such interface; ip(8) refuses.
    pub fn open(router: &Host, port: &str, mtu: u32, told: &[Ipv4Addr]) -> Result<Self, LabError> {
        let link = router.netlink()?.link(port)?;
        let mtu_before = link.map(|link| link.mtu).ok_or_else(|| LabError::NoInterface {
            host: router.name().to_owned(),
            device: port.to_owned(),
        })?;
        let hole = Self { router: router.clone(), port: port.to_owned(), told: told.to_vec(), mtu_before };
        // Silent first: no datagram may meet the one without the other.
        hole.rules("add")?;
        router.mtu(port, mtu)?;
        Ok(hole)
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn close(self) -> Result<(), LabError> {
        self.router.mtu(&self.port, self.mtu_before)?;
        self.rules("del")
    }

    /// What a host makes itself is looked up as if it had come by the loopback.
    fn rules(&self, verb: &str) -> Result<(), LabError> {
        for address in &self.told {
            let address = address.to_string();
            self.router.program("ip", &["rule", verb, "iif", "lo", "to", &address, "blackhole"])?;
        }
        Ok(())
    }
}
