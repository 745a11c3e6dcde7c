//! A TCP stream with pseudo-random bytes that are compared by their hash.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};

use adit_lab::host::Host;
use adit_lab::two_sites::{HOST_A, HOST_A6, HOST_B, HOST_B6, TwoSites};
use adit_linux::sockets::poll::readable_within;
use sha2::{Digest, Sha256};

use super::{Random, WAIT_TIMEOUT};

/// The hash of a stream's bytes.
pub(crate) type Hash = [u8; 32];

/// What a stream carries, and how it is written.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    /// The seed of its bytes.
    pub(crate) seed: u64,
    /// Its bytes in all.
    pub(crate) len: usize,
    /// The bytes of one write.
    pub(crate) write: usize,
    /// Sends every write at once instead of joining small ones (`TCP_NODELAY`).
    pub(crate) nodelay: bool,
}

impl Stream {
    /// Sends the stream from one host to an address of the other. Returns the hashes of the bytes
    /// sent and received.
    pub(crate) fn send(self, (from, to): (&Host, &Host), address: impl Into<IpAddr>) -> (Hash, Hash) {
        let address = address.into();
        let listener = to.ns().run(|| TcpListener::bind((address, 0))).unwrap();
        let listener = listener.expect("a port is free");
        let server = listener.local_addr().expect("the listener is bound");
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                assert!(readable_within(&listener, WAIT_TIMEOUT).expect("poll works"), "no connection");
                listener.accept().and_then(|(stream, _)| receive(stream)).expect("the stream arrives")
            });
            let sent = from.ns().run(|| self.write_to(server)).unwrap().expect("the stream is sent");
            let (total, received) = receiver.join().expect("the receiver ends");
            assert_eq!(total, self.len);
            (sent, received)
        })
    }

    fn write_to(self, server: SocketAddr) -> std::io::Result<Hash> {
        let mut stream = TcpStream::connect_timeout(&server, WAIT_TIMEOUT)?;
        stream.set_write_timeout(Some(WAIT_TIMEOUT))?;
        stream.set_nodelay(self.nodelay)?;
        let (mut random, mut hash) = (Random::seeded(self.seed), Sha256::new());
        let mut chunk = vec![0; self.write];
        for at in (0..self.len).step_by(self.write) {
            let chunk = &mut chunk[..self.write.min(self.len - at)];
            random.fill(chunk);
            hash.update(&*chunk);
            stream.write_all(chunk)?;
        }
        stream.shutdown(Shutdown::Write)?;
        Ok(hash.finalize().into())
    }
}

/// Sends a stream of `len` bytes of each family from each host to the other, all at once, and fails
/// unless they arrive unchanged.
pub(crate) fn send_both_families_both_ways(network: &TwoSites, len: usize) {
    let (a, b) = (&network.host_a, &network.host_b);
    let flows: [(_, IpAddr); 4] = [
        ((a, b), HOST_B6.into()),
        ((b, a), HOST_A6.into()),
        ((a, b), HOST_B.into()),
        ((b, a), HOST_A.into()),
    ];
    std::thread::scope(|scope| {
        for (seed, (ends, address)) in (0..).zip(flows) {
            scope.spawn(move || {
                let stream = Stream { seed, len, write: 65_536, nodelay: false };
                let (sent, received) = stream.send(ends, address);
                assert_eq!(received, sent, "to {address}");
            });
        }
    });
}

/// Reads to the end, and returns the number of bytes and their hash.
fn receive(mut stream: TcpStream) -> std::io::Result<(usize, Hash)> {
    stream.set_read_timeout(Some(WAIT_TIMEOUT))?;
    let (mut hash, mut chunk, mut total) = (Sha256::new(), vec![0; 64 * 1024], 0);
    loop {
        let len = stream.read(&mut chunk)?;
        if len == 0 {
            return Ok((total, hash.finalize().into()));
        }
        hash.update(&chunk[..len]);
        total += len;
    }
}
