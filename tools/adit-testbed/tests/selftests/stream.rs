//! A TCP stream whose bytes are compared by their hash, written so many bytes at a time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};

use adit_lab::host::Host;
use adit_linux::sockets::poll::readable_within;
use sha2::{Digest, Sha256};

use crate::support::{PATIENCE, Random};

pub(crate) type Hash = [u8; 32];

/// Sends `len` bytes from one host to an address of the other, `write` bytes a call and no two in a segment unless
/// the kernel must; the hash of what was sent, and of what came.
pub(crate) fn send_stream(
    (from, to): (&Host, &Host),
    address: Ipv4Addr,
    len: usize,
    write: usize,
) -> (Hash, Hash) {
    let listener = to.ns().run(|| TcpListener::bind(SocketAddrV4::new(address, 0))).unwrap();
    let listener = listener.expect("a port is free");
    let server = listener.local_addr().expect("it is bound");
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            assert!(readable_within(&listener, PATIENCE).expect("it can be waited for"), "nobody connects");
            listener.accept().and_then(|(stream, _)| drain(stream)).expect("it arrives")
        });
        let sent = from.ns().run(|| pour(server, len, write)).unwrap().expect("it is sent");
        let (total, received) = receiver.join().expect("the receiver ends");
        assert_eq!(total, len);
        (sent, received)
    })
}

fn pour(to: SocketAddr, len: usize, write: usize) -> std::io::Result<Hash> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let (mut random, mut hash) = (Random::seeded(len as u64), Sha256::new());
    let mut chunk = vec![0; write];
    for at in (0..len).step_by(write) {
        let chunk = &mut chunk[..write.min(len - at)];
        random.fill(chunk);
        hash.update(&*chunk);
        stream.write_all(chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(hash.finalize().into())
}

fn drain(mut stream: TcpStream) -> std::io::Result<(usize, Hash)> {
    stream.set_read_timeout(Some(PATIENCE))?;
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
