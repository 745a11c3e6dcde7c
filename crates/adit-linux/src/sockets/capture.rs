//! A tap: copies of every frame that passes an interface, in both directions.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use socket2::Socket;

use crate::error::Error;
use crate::sockets::packet::{bind, enlarge_receive_buffer, packet_socket};

/// An open tap on one interface.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
}

impl Tap {
    /// Opens a tap on the interface `index` in the calling thread's network namespace. What
    /// passes from now on is kept until it is read, as far as the socket's buffer reaches.
    ///
    /// # Errors
    /// No CAP_NET_RAW, no such interface.
    pub fn open(index: u32) -> Result<Self, Error> {
        let socket: OwnedFd = packet_socket()?;
        enlarge_receive_buffer(&socket);
        bind(&socket, libc::ETH_P_ALL, index)
            .map_err(|error| Error::new(format!("cannot tap interface {index}"), error))?;
        Ok(Self { socket: socket.into() })
    }

    /// The next frame, from its link header on, waiting at most `patience`; `None` when nothing
    /// came. The time is when it was read.
    ///
    /// # Errors
    /// The interface went down, among others.
    pub fn next(&self, buffer: &mut [u8], patience: Duration) -> io::Result<Option<(SystemTime, usize)>> {
        self.socket.set_read_timeout(Some(patience.max(Duration::from_micros(1))))?;
        match (&self.socket).read(buffer) {
            Ok(len) => Ok(Some((SystemTime::now(), len))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
