//! Listening on an interface of a host, in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use adit_linux::sockets::capture;

use crate::error::LabError;
use crate::host::Host;

const ETHERNET_HEADER: usize = 14;
/// The largest frame that is read whole.
pub(crate) const SNAPLEN: u32 = 70_000;
/// How long the listener goes on after the last frame it waits for might have come.
const LINGER: Duration = Duration::from_millis(20);

/// A frame that passed.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When.
    pub time: SystemTime,
    /// From its link header on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The IPv4 datagram in it, if it has one.
    #[must_use]
    pub fn ipv4(&self) -> Option<&[u8]> {
        (self.bytes.get(12..ETHERNET_HEADER)? == [0x08, 0x00]).then(|| &self.bytes[ETHERNET_HEADER..])
    }
}

/// A listener.
pub struct Tap {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Frame>>,
}

impl Tap {
    /// Listens from now on.
    ///
    /// # Errors
    /// No such interface, or not allowed to listen.
    pub fn start(host: &Host, device: &str) -> Result<Self, LabError> {
        let index = host.index(device)?;
        let tap = host.run(|| capture::Tap::open(index))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = host.ns().spawn("lab-tap", move || listen(&tap, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Stops, and gives what was heard.
    #[must_use]
    pub fn finish(self) -> Vec<Frame> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn listen(tap: &capture::Tap, stopped: &AtomicBool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; SNAPLEN as usize];
    loop {
        match tap.next(&mut buffer, LINGER) {
            Ok(Some((time, len))) => frames.push(Frame { time, bytes: buffer[..len].to_vec() }),
            Ok(None) | Err(_) if stopped.load(Ordering::Relaxed) => return frames,
            Ok(None) => {}
            Err(_) => return frames,
        }
    }
}
