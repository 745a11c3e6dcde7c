//! A tap: a packet socket that receives a copy of every frame an interface sends or receives.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use socket2::Socket;

use crate::error::Error;
use crate::sockets::options::enlarge_receive_buffer;
use crate::sockets::packet::{bind, packet_socket};

/// An open tap on one interface.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
}

impl Tap {
    /// Opens a tap on the interface `index` in the calling thread's network namespace. Frames wait
    /// in the socket's buffer until they are read; what does not fit is lost.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or there is no such interface.
    pub fn open(index: u32) -> Result<Self, Error> {
        let socket: OwnedFd = packet_socket()?;
        enlarge_receive_buffer(&socket);
        bind(&socket, libc::ETH_P_ALL, index).map_err(|error| {
            Error::new(format!("cannot tap interface {index}"), error)
                .with_hint("`ip link` shows the interfaces and their numbers")
        })?;
        Ok(Self { socket: socket.into() })
    }

    /// Reads the next frame, link header first, and returns when it was read and its length in
    /// bytes. Returns `None` if no frame arrives within `timeout` or a signal arrives.
    ///
    /// # Errors
    /// The interface went down, among others.
    pub fn next(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<Option<(SystemTime, usize)>> {
        self.socket.set_read_timeout(Some(timeout.max(Duration::from_micros(1))))?;
        match (&self.socket).read(buffer) {
            Ok(len) => Ok(Some((SystemTime::now(), len))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
