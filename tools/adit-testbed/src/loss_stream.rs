//! A loss stream: numbered UDP datagrams at a steady rate from one host to another, with a report
//! of which were lost.
//!
//! A test runs it to show that an event loses nothing. The report also says whether the sending
//! host or the receiver's socket lost a datagram instead of the path.
//!
//! Datagrams leave in a small burst every millisecond, because pacing each one would keep a
//! processor busy. Times are therefore accurate to a millisecond.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use adit_lab::LabError;
use adit_lab::host::Host;

mod arrivals;
mod report;

use arrivals::{Arrivals, Inbox};
use report::Burst;
pub use report::{Loss, StreamReport};

const BURST_INTERVAL: Duration = Duration::from_millis(1);
/// A delayed sender catches up with at most this many bursts at once. More could overflow queues,
/// and the stream itself would cause the loss.
const MAX_CATCH_UP_BURSTS: u64 = 10;
/// Bytes of the receiver's socket buffer: some seconds of datagrams at the default rate.
const RECEIVE_BUFFER: usize = 64 << 20;
/// How long the receiver waits for a datagram before it checks whether to stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(20);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The rate and size of the datagrams.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// Datagrams a second.
    pub rate: u32,
    /// Bytes of payload in each, at least [`StreamOptions::SMALLEST`].
    pub payload: usize,
}

impl StreamOptions {
    /// Bytes of the token and the sequence number.
    pub const SMALLEST: usize = 16;
}

impl Default for StreamOptions {
    /// 10,000 datagrams of 64 bytes a second.
    fn default() -> Self {
        Self { rate: 10_000, payload: 64 }
    }
}

/// A stream that runs until [`LossStream::finish`].
pub struct LossStream {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<Sent>>,
    receiver: Option<JoinHandle<std::io::Result<Arrivals>>>,
}

/// The state that both threads and the handle share.
#[derive(Default)]
struct Shared {
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    /// Datagrams sent, which is the sequence number of the next one.
    sent: AtomicU64,
    /// One more than the highest sequence number that has arrived.
    newest: AtomicU64,
    /// Distinct datagrams that have arrived.
    arrived: AtomicU64,
}

/// The sender's record.
struct Sent {
    bursts: Vec<Burst>,
    refused: u64,
    max_sender_delay: Duration,
}

impl LossStream {
    /// Starts to send from one host to an address of the other. Returns when the first datagram has
    /// arrived, so the path is known to work.
    ///
    /// # Errors
    /// Fails if a socket cannot be opened, the receive buffer cannot be enlarged (CAP_NET_ADMIN),
    /// or nothing arrives within `timeout`.
    pub fn start(
        from: &Host,
        to: &Host,
        address: impl Into<IpAddr>,
        options: StreamOptions,
        timeout: Duration,
    ) -> Result<Self, LabError> {
        let address = address.into();
        let shared = Arc::<Shared>::default();
        let socket = to.run(|| receiving_socket(address))?;
        let port = socket.local_addr().map_err(LabError::io("find out the port of a loss stream"))?.port();
        // The token tells the stream from an earlier one with the same port.
        let token =
            u64::from(std::process::id()) << 32 | u64::from(port) << 16 | u64::from(options.rate & 0xffff);
        let payload = payload(token, options.payload);
        let receiver = {
            let (shared, payload) = (Arc::clone(&shared), payload.clone());
            to.ns().spawn("loss-stream-rx", move || receive(&Inbox::new(socket, payload), &shared))?
        };
        let socket = from.run(|| sending_socket(address))?;
        let to = SocketAddr::new(address, port);
        let sender = {
            let shared = Arc::clone(&shared);
            from.ns().spawn("loss-stream-tx", move || send(&socket, to, payload, options.rate, &shared))?
        };
        let stream = Self { shared, sender: Some(sender), receiver: Some(receiver) };
        if stream.wait_for_arrival(timeout) {
            Ok(stream)
        } else {
            Err(LabError::Io {
                what: format!("send a loss stream from {} to {address}", from.name()),
                source: std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    format!("no datagram has arrived within {timeout:?}"),
                ),
            })
        }
    }

    /// The number of datagrams sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Acquire)
    }

    /// Waits until a datagram sent after the call has arrived. Returns false if none arrives within
    /// `timeout`.
    #[must_use]
    pub fn wait_for_arrival(&self, timeout: Duration) -> bool {
        let (next, deadline) = (self.sent(), Instant::now() + timeout);
        while self.shared.newest.load(Ordering::Acquire) <= next {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        true
    }

    /// Stops sending, waits up to `grace` for datagrams in flight, and returns the report.
    ///
    /// # Errors
    /// Fails if the receiver failed, or if a datagram changed in transit.
    pub fn finish(mut self, grace: Duration) -> Result<StreamReport, LabError> {
        self.shared.stop_sending.store(true, Ordering::Release);
        let sent = self.sender.take().and_then(|sender| sender.join().ok());
        let deadline = Instant::now() + grace;
        while self.shared.arrived.load(Ordering::Acquire) < self.sent() && Instant::now() < deadline {
            std::thread::sleep(POLL_INTERVAL);
        }
        self.shared.stop_receiving.store(true, Ordering::Release);
        let arrivals = self.receiver.take().and_then(|receiver| receiver.join().ok());
        let (Some(sent), Some(arrivals)) = (sent, arrivals) else {
            return Err(LabError::Io {
                what: "finish a loss stream".to_owned(),
                source: std::io::Error::other("one of its threads panicked"),
            });
        };
        let arrivals = arrivals.map_err(LabError::io("receive a loss stream"))?;
        Ok(StreamReport::new(self.sent(), &sent.bursts, sent.refused, sent.max_sender_delay, &arrivals))
    }
}

impl Drop for LossStream {
    fn drop(&mut self) {
        self.shared.stop_sending.store(true, Ordering::Release);
        self.shared.stop_receiving.store(true, Ordering::Release);
        // Nobody reads the results after a drop.
        let _ = self.sender.take().map(JoinHandle::join);
        let _ = self.receiver.take().map(JoinHandle::join);
    }
}

/// A token, space for the sequence number, and bytes that depend on their offset.
fn payload(token: u64, len: usize) -> Vec<u8> {
    let mut payload: Vec<u8> = (0..len.max(StreamOptions::SMALLEST)).map(|at| at as u8 ^ 0xa5).collect();
    payload[..8].copy_from_slice(&token.to_be_bytes());
    payload
}

fn receiving_socket(address: IpAddr) -> Result<UdpSocket, LabError> {
    let socket = UdpSocket::bind((address, 0)).map_err(LabError::io("open a socket for a loss stream"))?;
    let set = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .and_then(|()| setsockopt(&socket, sockopt::ReceiveTimestampns, &true));
    set.map_err(|errno| LabError::io("prepare a socket for a loss stream")(errno.into()))?;
    Ok(socket)
}

/// An unconnected and non-blocking socket. On a connected one, an ICMP error about one datagram
/// would fail the next send. A blocking send would hide a loss behind a pause.
fn sending_socket(towards: IpAddr) -> Result<UdpSocket, LabError> {
    let any: IpAddr = match towards {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0));
    let socket = socket.map_err(LabError::io("open a socket for a loss stream"))?;
    socket.set_nonblocking(true).map_err(LabError::io("prepare a socket for a loss stream"))?;
    Ok(socket)
}

fn send(socket: &UdpSocket, to: SocketAddr, mut payload: Vec<u8>, rate: u32, shared: &Shared) -> Sent {
    let rate = u64::from(rate);
    let largest = (rate * MAX_CATCH_UP_BURSTS / 1000).max(1);
    let mut sent = Sent { bursts: Vec::new(), refused: 0, max_sender_delay: Duration::ZERO };
    let (mut start, mut next, mut base) = (Instant::now(), 0, 0);
    while !shared.stop_sending.load(Ordering::Acquire) {
        let now = Instant::now();
        // Counting from the start instead of the last burst avoids drift.
        let due = base + (now - start).as_micros() as u64 * rate / 1_000_000;
        if due > next {
            let late = (now - start).saturating_sub(Duration::from_micros((next - base) * 1_000_000 / rate));
            sent.max_sender_delay = sent.max_sender_delay.max(late.saturating_sub(BURST_INTERVAL));
            sent.bursts.push(Burst { first: next, at: now, over: now });
        }
        for _ in 0..due.saturating_sub(next).min(largest) {
            payload[8..16].copy_from_slice(&next.to_be_bytes());
            // A datagram that the sending host refuses is lost as well.
            sent.refused += u64::from(socket.send_to(&payload, to).is_err());
            next += 1;
            shared.sent.store(next, Ordering::Release);
        }
        if let Some(burst) = sent.bursts.last_mut().filter(|burst| burst.at == now) {
            burst.over = Instant::now();
        }
        if due > next {
            // Datagrams beyond the catch-up limit are never sent.
            (start, base) = (now, next);
        }
        std::thread::sleep((now + BURST_INTERVAL).saturating_duration_since(Instant::now()));
    }
    sent
}

fn receive(inbox: &Inbox, shared: &Shared) -> std::io::Result<Arrivals> {
    let mut arrivals = Arrivals::default();
    loop {
        let is_over = shared.stop_receiving.load(Ordering::Acquire);
        while let Some((sequence, time)) = inbox.take()? {
            arrivals.note(sequence, time);
        }
        shared.arrived.store(arrivals.distinct(), Ordering::Release);
        shared.newest.store(arrivals.end(), Ordering::Release);
        if is_over {
            arrivals.dropped_by_receiver = inbox.dropped()?;
            return Ok(arrivals);
        }
        inbox.wait(STOP_CHECK_INTERVAL)?;
    }
}
