//! A small web server and client, with just enough of HTTP/1.0 to fetch a page through the tunnel.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::LabError;
use crate::host::Host;

const IO_TIMEOUT: Duration = Duration::from_secs(2);

/// A web server on a host. It stops when dropped.
pub struct Server {
    address: SocketAddrV4,
    stop: Arc<AtomicBool>,
    host: Host,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `page` at `/`.
    ///
    /// # Errors
    /// Fails if the address cannot be bound.
    pub fn start(host: &Host, address: Ipv4Addr, port: u16, page: String) -> Result<Self, LabError> {
        let address = SocketAddrV4::new(address, port);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let listener =
            host.run(|| TcpListener::bind(address).map_err(LabError::io(format!("listen on {address}"))))?;
        let thread = host.ns().spawn("lab-http", move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // The client reports a failed exchange; the server has nobody to report it to.
                let _ = stream.and_then(|stream| answer(stream, &page));
            }
        })?;
        Ok(Self { address, stop, host: host.clone(), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Only a connection ends a blocking accept.
        let address = self.address;
        let _ = self.host.run(|| TcpStream::connect(address).map_err(LabError::io("stop the server")));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, page: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?).take(8192).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // Read the rest of the request's head. A GET has no body.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let found = request.starts_with("GET / ");
    let (status, body) = if found { ("200 OK", page) } else { ("404 Not Found", "no such page\n") };
    // One write makes one segment, which crosses the underlay in one datagram.
    let answer = format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes())
}

/// Fetches `/` from the calling thread's network namespace and returns the body.
///
/// # Errors
/// Fails without a connection, or if the status is not 200.
pub fn get(server: SocketAddrV4) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server.into(), IO_TIMEOUT)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: adit-lab\r\nConnection: close\r\n\r\n",
        server.ip()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        Some((head, _)) => Err(std::io::Error::other(head.lines().next().unwrap_or_default().to_owned())),
        None => Err(std::io::Error::other("the response's head is incomplete")),
    }
}
