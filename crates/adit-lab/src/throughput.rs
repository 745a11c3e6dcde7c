//! Load generators: TCP streams, request and response, and batches of 64-byte UDP datagrams.
//!
//! They are the project's own, because ratios between tunnels depend on the generator. They verify
//! every byte that arrives.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_linux::sockets::poll::readable_within;
use adit_linux::sockets::udp_batch::{UdpBatchReceiver, UdpBatchSender};

use crate::error::LabError;
use crate::host::Host;

/// Bytes that one call writes or reads.
const CHUNK: usize = 128 * 1024;
/// Bytes of payload in a small datagram.
pub const SMALL_PAYLOAD: usize = 64;
const IO_TIMEOUT: Duration = Duration::from_secs(3);

/// The two ends of a flow, and the server's address in it.
#[derive(Clone)]
pub struct Flow<'a> {
    /// The host that connects and sends.
    pub client: &'a Host,
    /// The host that listens and receives.
    pub server: &'a Host,
    /// The server's address. It decides which route the flow takes.
    pub address: IpAddr,
}

/// Sends `streams` TCP streams for `time` and returns the goodput in bits a second.
///
/// # Errors
/// Fails without a connection, or if a byte changes in transit.
pub fn tcp(flow: &Flow<'_>, streams: usize, time: Duration) -> Result<f64, LabError> {
    let listener = flow.server.run(|| {
        TcpListener::bind(SocketAddr::new(flow.address, 0)).map_err(LabError::io("listen for a TCP stream"))
    })?;
    let server = listener.local_addr().map_err(LabError::io("find out a port"))?;
    let pattern = pattern();
    let bits = std::thread::scope(|scope| {
        let receivers = flow.server.ns();
        let receiver = scope.spawn(|| {
            receivers.run(|| {
                let sinks: Result<Vec<TcpStream>, _> = (0..streams).map(|_| accept(&listener)).collect();
                std::thread::scope(|scope| {
                    let sinks: Vec<_> = sinks?
                        .into_iter()
                        .map(|sink| scope.spawn(|| receive_stream(sink, &pattern)))
                        .collect();
                    sinks.into_iter().map(|sink| sink.join().unwrap_or_else(|_| Err(panicked()))).sum()
                })
            })
        });
        let stop = AtomicBool::new(false);
        let sent: Result<(), std::io::Error> = flow.client.ns().run(|| {
            std::thread::scope(|scope| {
                let sources: Vec<_> =
                    (0..streams).map(|_| scope.spawn(|| send_stream(server, &pattern, &stop))).collect();
                std::thread::sleep(time);
                stop.store(true, Ordering::Relaxed);
                sources.into_iter().try_for_each(|source| source.join().unwrap_or_else(|_| Err(panicked())))
            })
        })?;
        sent.map_err(LabError::io("send a TCP stream"))?;
        let rate: std::io::Result<f64> = receiver.join().unwrap_or_else(|_| Ok(Err(panicked())))?;
        rate.map_err(LabError::io("receive a TCP stream"))
    })?;
    Ok(bits)
}

/// Accepts a connection, within the time for which a client waits for a server.
fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    if !readable_within(listener, IO_TIMEOUT)? {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    listener.accept().map(|(stream, _)| stream)
}

fn panicked() -> std::io::Error {
    std::io::Error::other("a generator panicked")
}

/// A block in which every byte depends on its offset.
fn pattern() -> Vec<u8> {
    (0..CHUNK as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn send_stream(server: SocketAddr, pattern: &[u8], stop: &AtomicBool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, IO_TIMEOUT)?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(pattern)?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// Reads to the end, compares every byte, and returns the rate in bits a second.
fn receive_stream(mut stream: TcpStream, pattern: &[u8]) -> std::io::Result<f64> {
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    let mut buffer = vec![0; CHUNK];
    let mut total = 0usize;
    let start = Instant::now();
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(total as f64 * 8.0 / start.elapsed().as_secs_f64());
        }
        let at = total % CHUNK;
        let first = len.min(CHUNK - at);
        if buffer[..first] != pattern[at..at + first] || buffer[first..len] != pattern[..len - first] {
            return Err(std::io::Error::other(format!("bytes changed in transit near byte {total}")));
        }
        total += len;
    }
}

/// Exchanges one-byte requests and responses over one TCP connection for `time`, and returns the
/// round trips a second.
///
/// # Errors
/// Fails without a connection, or if a response does not match its request.
pub fn request_response(flow: &Flow<'_>, time: Duration) -> Result<f64, LabError> {
    let listener = flow.server.run(|| {
        TcpListener::bind(SocketAddr::new(flow.address, 0)).map_err(LabError::io("listen for requests"))
    })?;
    let server = listener.local_addr().map_err(LabError::io("find out a port"))?;
    let echo = flow.server.ns().spawn("lab-echo", move || -> std::io::Result<()> {
        let mut stream = accept(&listener)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
        Ok(())
    })?;
    let count = flow.client.run(|| {
        let work = || {
            let mut stream = TcpStream::connect_timeout(&server, IO_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(IO_TIMEOUT))?;
            let start = Instant::now();
            let mut count = 0u64;
            let mut answer = [0];
            while start.elapsed() < time {
                let request = [count as u8];
                stream.write_all(&request)?;
                stream.read_exact(&mut answer)?;
                if answer != request {
                    return Err(std::io::Error::other("a response does not match its request"));
                }
                count += 1;
            }
            Ok(count as f64 / start.elapsed().as_secs_f64())
        };
        work().map_err(LabError::io("exchange requests"))
    })?;
    let _ = echo.join();
    Ok(count)
}

/// The rates of a stream of small datagrams.
#[derive(Clone, Copy, Debug)]
pub struct UdpRate {
    /// Datagrams a second that the sender's kernel accepted.
    pub offered: f64,
    /// Datagrams a second that arrived with the right bytes.
    pub delivered: f64,
}

/// Sends 64-byte datagrams in batches for `time`, as fast as the kernel accepts them.
///
/// # Errors
/// Fails if a socket cannot be opened.
pub fn udp_small(flow: &Flow<'_>, time: Duration) -> Result<UdpRate, LabError> {
    let bind = |address: IpAddr| {
        move || UdpSocket::bind(SocketAddr::new(address, 0)).map_err(LabError::io("open a UDP socket"))
    };
    let receiver = flow.server.run(bind(flow.address))?;
    let server = receiver.local_addr().map_err(LabError::io("find out a port"))?;
    let any =
        if flow.address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let sender = flow.client.run(bind(any))?;
    sender.connect(server).map_err(LabError::io("connect a UDP socket"))?;
    let payload: [u8; SMALL_PAYLOAD] = std::array::from_fn(|at| at as u8 ^ 0x5a);
    let stop = Arc::new(AtomicBool::new(false));
    let delivered = Arc::new(AtomicU64::new(0));
    let sink = {
        let (stop, delivered) = (Arc::clone(&stop), Arc::clone(&delivered));
        flow.server.ns().spawn("lab-sink", move || {
            let mut batch = UdpBatchReceiver::new(&receiver, 64, SMALL_PAYLOAD + 1);
            while !stop.load(Ordering::Relaxed) {
                let whole = batch.receive().filter(|datagram| *datagram == payload).count();
                delivered.fetch_add(whole as u64, Ordering::Relaxed);
            }
        })?
    };
    let rate = flow.client.run(|| {
        let mut batch = UdpBatchSender::new(&sender, 64, &payload);
        let start = Instant::now();
        let mut offered = 0u64;
        while start.elapsed() < time {
            offered += batch.send() as u64;
        }
        let seconds = start.elapsed().as_secs_f64();
        // Read before the queues drain: datagrams in flight were not delivered in time.
        let delivered = delivered.load(Ordering::Relaxed);
        Ok::<_, LabError>(UdpRate {
            offered: offered as f64 / seconds,
            delivered: delivered as f64 / seconds,
        })
    })?;
    stop.store(true, Ordering::Relaxed);
    let _ = sink.join();
    Ok(rate)
}
