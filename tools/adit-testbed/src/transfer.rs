//! A TCP transfer that runs while something happens. It compares every byte and reports whether the
//! connection survives, with its longest pause and retransmissions. [`adit_lab::throughput`]
//! measures rates.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_linux::sockets::poll::readable_within;

use adit_lab::LabError;
use adit_lab::host::Host;
use adit_lab::throughput::Flow;

/// Bytes of one write. Each block begins with its number, so a missing block is noticed.
const BLOCK: usize = 64 * 1024;
/// A connection that makes no progress for this long counts as broken.
const IO_TIMEOUT: Duration = Duration::from_secs(20);

/// A transfer that runs until [`Transfer::finish`].
pub struct Transfer {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<io::Result<u64>>,
    receiver: JoinHandle<io::Result<Received>>,
    client: Host,
    retransmitted: u64,
}

struct Received {
    bytes: u64,
    longest_pause: Duration,
    time: Duration,
}

/// The result of a transfer whose every byte arrived unchanged.
#[derive(Clone, Copy, Debug)]
pub struct TransferReport {
    /// Bytes sent and received.
    pub bytes: u64,
    /// Bits a second.
    pub rate: f64,
    /// The longest time without an arrival.
    pub longest_pause: Duration,
    /// Segments that the client's host retransmitted meanwhile, for all its connections.
    pub retransmitted: u64,
}

impl Transfer {
    /// Connects, and sends from the client to the server at `rate` bits a second, or without a
    /// limit.
    ///
    /// # Errors
    /// Fails without a connection.
    pub fn start(flow: &Flow<'_>, rate: Option<u64>) -> Result<Self, LabError> {
        let listener = flow.server.run(|| {
            TcpListener::bind(SocketAddr::new(flow.address, 0)).map_err(LabError::io("listen for a transfer"))
        })?;
        let server = listener.local_addr().map_err(LabError::io("find out a port"))?;
        let (stop, received) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let count = Arc::clone(&received);
        let receiver = flow.server.ns().spawn("lab-transfer-rx", move || receive(&listener, &count))?;
        let stream = flow.client.run(|| connect(server).map_err(LabError::io("connect for a transfer")))?;
        let stopped = Arc::clone(&stop);
        let retransmitted = retransmitted(flow.client)?;
        let sender = flow.client.ns().spawn("lab-transfer-tx", move || send(stream, rate, &stopped))?;
        Ok(Self { stop, received, sender, receiver, client: flow.client.clone(), retransmitted })
    }

    /// Bytes that have arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the transfer with a FIN, and waits until every byte has arrived.
    ///
    /// # Errors
    /// Fails if the connection was reset or stood still, or if a byte changed or is missing.
    pub fn finish(self) -> Result<TransferReport, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = join(self.sender).map_err(LabError::io("send a transfer"))?;
        let received = join(self.receiver).map_err(LabError::io("receive a transfer"))?;
        if received.bytes != sent {
            let source = io::Error::other(format!("{sent} bytes were sent, {} arrived", received.bytes));
            return Err(LabError::Io { what: "receive a transfer".to_owned(), source });
        }
        Ok(TransferReport {
            bytes: sent,
            rate: sent as f64 * 8.0 / received.time.as_secs_f64(),
            longest_pause: received.longest_pause,
            retransmitted: retransmitted(&self.client)? - self.retransmitted,
        })
    }
}

impl std::fmt::Display for TransferReport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:.1} MiB compared, {:.2} Gbit/s, longest pause {:.1} ms, {} segments retransmitted",
            self.bytes as f64 / f64::from(1 << 20),
            self.rate / 1e9,
            self.longest_pause.as_secs_f64() * 1000.0,
            self.retransmitted,
        )
    }
}

fn join<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
}

/// A block in which every byte depends on its offset. Its number overwrites the first bytes.
fn block() -> Vec<u8> {
    (0..BLOCK as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, IO_TIMEOUT)?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    Ok(stream)
}

fn send(mut stream: TcpStream, rate: Option<u64>, stop: &AtomicBool) -> io::Result<u64> {
    let mut block = block();
    let start = Instant::now();
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        block[..8].copy_from_slice(&number.to_be_bytes());
        stream.write_all(&block)?;
        number += 1;
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64((number * BLOCK as u64 * 8) as f64 / rate as f64);
            std::thread::sleep((start + due).saturating_duration_since(Instant::now()));
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(number * BLOCK as u64)
}

fn receive(listener: &TcpListener, received: &AtomicU64) -> io::Result<Received> {
    if !readable_within(listener, IO_TIMEOUT)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    let (mut expected, mut buffer) = (block(), vec![0; BLOCK]);
    let start = Instant::now();
    let (mut bytes, mut longest_pause, mut last) = (0, Duration::ZERO, start);
    loop {
        let at = (bytes % BLOCK as u64) as usize;
        if at == 0 {
            expected[..8].copy_from_slice(&(bytes / BLOCK as u64).to_be_bytes());
        }
        // One read never crosses the end of a block.
        let len = stream.read(&mut buffer[..BLOCK - at])?;
        let now = Instant::now();
        longest_pause = longest_pause.max(now - last);
        last = now;
        if len == 0 {
            return Ok(Received { bytes, longest_pause, time: now - start });
        }
        if buffer[..len] != expected[at..at + len] {
            return Err(io::Error::other(format!("bytes changed in transit near byte {bytes}")));
        }
        bytes += len as u64;
        received.store(bytes, Ordering::Relaxed);
    }
}

/// The host's counter `RetransSegs`.
fn retransmitted(host: &Host) -> Result<u64, LabError> {
    let read =
        || std::fs::read_to_string("/proc/thread-self/net/snmp").map_err(LabError::io("read net/snmp"));
    let text = host.run(read)?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let found = lines.next().zip(lines.next()).and_then(|(names, values)| {
        let at = names.split(' ').position(|name| name == "RetransSegs")?;
        values.split(' ').nth(at)?.parse().ok()
    });
    found.ok_or_else(|| LabError::io("find RetransSegs in net/snmp")(io::ErrorKind::NotFound.into()))
}
