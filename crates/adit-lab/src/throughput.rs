//! How fast a path is: generators of our own, because ratios depend on them. One TCP stream,
//! request and response, batches of 64-byte UDP datagrams. What arrives is verified.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_linux::sockets::poll::readable_within;
use adit_linux::sockets::udp_batch::{UdpBatchReceiver, UdpBatchSender};

use crate::error::LabError;
use crate::host::Host;

/// Bytes written and read in a call.
const CHUNK: usize = 128 * 1024;
/// Payload of the small datagrams.
pub const SMALL: usize = 64;
const PATIENCE: Duration = Duration::from_secs(3);

/// A path between two hosts: where the client is, and where the server.
#[derive(Clone)]
pub struct Flow<'a> {
    /// Sends.
    pub client: &'a Host,
    /// Receives.
    pub server: &'a Host,
    /// The address the server is reached at; it decides which way is taken.
    pub address: Ipv4Addr,
}

/// TCP goodput of `streams` streams in bits a second, over `time`.
///
/// # Errors
/// No connection, or bytes that arrived changed.
pub fn tcp(flow: &Flow<'_>, streams: usize, time: Duration) -> Result<f64, LabError> {
    let listener = flow.server.run(|| {
        TcpListener::bind(SocketAddrV4::new(flow.address, 0)).map_err(LabError::io("listen for a TCP stream"))
    })?;
    let server = listener.local_addr().map_err(LabError::io("learn a port"))?;
    let pattern = pattern();
    let bits = std::thread::scope(|scope| {
        let receivers = flow.server.ns();
        let receiver = scope.spawn(|| {
            receivers.run(|| {
                let sinks: Result<Vec<TcpStream>, _> = (0..streams).map(|_| accept(&listener)).collect();
                std::thread::scope(|scope| {
                    let sinks: Vec<_> =
                        sinks?.into_iter().map(|sink| scope.spawn(|| drain(sink, &pattern))).collect();
                    sinks.into_iter().map(|sink| sink.join().unwrap_or_else(|_| Err(panicked()))).sum()
                })
            })
        });
        let stop = AtomicBool::new(false);
        let sent: Result<(), std::io::Error> = flow.client.ns().run(|| {
            std::thread::scope(|scope| {
                let sources: Vec<_> =
                    (0..streams).map(|_| scope.spawn(|| pour(server, &pattern, &stop))).collect();
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

/// Waits for a client no longer than a client waits for a server.
fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    if !readable_within(listener, PATIENCE)? {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    listener.accept().map(|(stream, _)| stream)
}

fn panicked() -> std::io::Error {
    std::io::Error::other("a generator panicked")
}

/// A block whose every byte depends on its place.
fn pattern() -> Vec<u8> {
    (0..CHUNK as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn pour(server: SocketAddr, pattern: &[u8], stop: &AtomicBool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(pattern)?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// Reads to the end, comparing every byte; bits a second from the first byte to the last.
fn drain(mut stream: TcpStream, pattern: &[u8]) -> std::io::Result<f64> {
    stream.set_read_timeout(Some(PATIENCE))?;
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
            return Err(std::io::Error::other(format!("bytes changed on the way, near byte {total}")));
        }
        total += len;
    }
}

/// Round trips a second of a one-byte request and its one-byte answer over one TCP connection.
///
/// # Errors
/// No connection.
pub fn request_response(flow: &Flow<'_>, time: Duration) -> Result<f64, LabError> {
    let listener = flow.server.run(|| {
        TcpListener::bind(SocketAddrV4::new(flow.address, 0)).map_err(LabError::io("listen for requests"))
    })?;
    let server = listener.local_addr().map_err(LabError::io("learn a port"))?;
    let echo = flow.server.ns().spawn("lab-echo", move || -> std::io::Result<()> {
        let mut stream = accept(&listener)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
        Ok(())
    })?;
    let count = flow.client.run(|| {
        let work = || {
            let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let start = Instant::now();
            let mut count = 0u64;
            let mut answer = [0];
            while start.elapsed() < time {
                let request = [count as u8];
                stream.write_all(&request)?;
                stream.read_exact(&mut answer)?;
                if answer != request {
                    return Err(std::io::Error::other("an answer does not match its request"));
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

/// What became of a stream of small datagrams.
#[derive(Clone, Copy, Debug)]
pub struct UdpRate {
    /// Datagrams a second that were offered.
    pub offered: f64,
    /// Datagrams a second that arrived, each with the right bytes.
    pub delivered: f64,
}

/// Sends 64-byte datagrams in batches as fast as they are taken, for `time`.
///
/// # Errors
/// No socket.
pub fn udp_small(flow: &Flow<'_>, time: Duration) -> Result<UdpRate, LabError> {
    let bind = |address: Ipv4Addr| {
        move || UdpSocket::bind(SocketAddrV4::new(address, 0)).map_err(LabError::io("open a UDP socket"))
    };
    let receiver = flow.server.run(bind(flow.address))?;
    let server = receiver.local_addr().map_err(LabError::io("learn a port"))?;
    let sender = flow.client.run(bind(Ipv4Addr::UNSPECIFIED))?;
    sender.connect(server).map_err(LabError::io("connect a UDP socket"))?;
    let payload: [u8; SMALL] = std::array::from_fn(|at| at as u8 ^ 0x5a);
    let stop = Arc::new(AtomicBool::new(false));
    let delivered = Arc::new(AtomicU64::new(0));
    let sink = {
        let (stop, delivered) = (Arc::clone(&stop), Arc::clone(&delivered));
        flow.server.ns().spawn("lab-sink", move || {
            let mut batch = UdpBatchReceiver::new(&receiver, 64, SMALL + 1);
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
        // Taken before the queues drain: what is still in flight was not delivered in time.
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
