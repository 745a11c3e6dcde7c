//! Packet captures on an interface of a host, taken by a thread in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use adit_linux::sockets::capture;

use crate::error::LabError;
use crate::host::Host;

const ETHERNET_HEADER: usize = 14;
/// Bytes of the longest frame that is captured whole.
pub const SNAPLEN: u32 = 70_000;
/// How long a stopped capture waits for frames that are still on their way.
const LINGER_TIMEOUT: Duration = Duration::from_millis(20);

/// A captured frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When the kernel saw it.
    pub time: SystemTime,
    /// Its bytes, starting at the link header.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The IPv4 datagram in an Ethernet frame, with padding, if it has one.
    #[must_use]
    pub fn ipv4(&self) -> Option<&[u8]> {
        (self.bytes.get(12..ETHERNET_HEADER)? == [0x08, 0x00]).then(|| &self.bytes[ETHERNET_HEADER..])
    }

    /// The same for IPv6.
    #[must_use]
    pub fn ipv6(&self) -> Option<&[u8]> {
        (self.bytes.get(12..ETHERNET_HEADER)? == [0x86, 0xdd]).then(|| &self.bytes[ETHERNET_HEADER..])
    }
}

/// A running capture.
pub struct Tap {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Frame>>,
}

impl Tap {
    /// Starts a capture on an interface of `host`.
    ///
    /// # Errors
    /// Fails if there is no such interface or the process may not capture.
    pub fn start(host: &Host, device: &str) -> Result<Self, LabError> {
        let index = host.index(device)?;
        let tap = host.run(|| capture::Tap::open(index))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = host.ns().spawn("lab-tap", move || capture_until(&tap, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Stops the capture and returns its frames in the order in which they passed.
    #[must_use]
    pub fn finish(self) -> Vec<Frame> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn capture_until(tap: &capture::Tap, stopped: &AtomicBool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; SNAPLEN as usize];
    loop {
        match tap.next(&mut buffer, LINGER_TIMEOUT) {
            Ok(Some((time, len))) => frames.push(Frame { time, bytes: buffer[..len].to_vec() }),
            Ok(None) | Err(_) if stopped.load(Ordering::Relaxed) => return frames,
            Ok(None) => {}
            Err(_) => return frames,
        }
    }
}
