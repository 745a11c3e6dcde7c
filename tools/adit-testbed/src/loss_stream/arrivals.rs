//! The receiving end of a loss stream.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use adit_linux::sockets::poll::readable_within;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use nix::sys::time::TimeSpec;

/// The receiving socket and the payload that it expects.
pub(super) struct Inbox {
    socket: UdpSocket,
    payload: Vec<u8>,
}

impl Inbox {
    pub(super) fn new(socket: UdpSocket, payload: Vec<u8>) -> Self {
        Self { socket, payload }
    }

    /// The next queued datagram: its number and the kernel's receive time, which does not depend on
    /// when this process gets a processor.
    pub(super) fn take(&self) -> io::Result<Option<(u64, Duration)>> {
        let mut bytes = [0; 2048];
        let mut control = nix::cmsg_space!(TimeSpec);
        loop {
            let mut pieces = [IoSliceMut::new(&mut bytes)];
            let received = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut pieces,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            );
            let message = match received {
                Ok(message) => message,
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let time = message.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                _ => None,
            });
            let (len, time) = (message.bytes, time.unwrap_or_default());
            if let Some(sequence) = self.sequence(&bytes[..len])? {
                return Ok(Some((sequence, time)));
            }
        }
    }

    /// The number of a datagram, if it belongs to this stream.
    fn sequence(&self, bytes: &[u8]) -> io::Result<Option<u64>> {
        if bytes.get(..8) != Some(&self.payload[..8]) {
            return Ok(None);
        }
        if bytes.get(16..) != Some(&self.payload[16..]) {
            return Err(io::Error::other("a datagram of the loss stream changed in transit"));
        }
        Ok(bytes[8..16].try_into().ok().map(u64::from_be_bytes))
    }

    /// Waits up to `timeout` for the next datagram.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<()> {
        readable_within(&self.socket, timeout).map(drop)
    }

    /// The datagrams that the kernel dropped at this socket, for lack of space or a wrong checksum.
    pub(super) fn dropped(&self) -> io::Result<u64> {
        let address = self.socket.local_addr()?;
        let port = format!(":{:04X}", address.port());
        let file = if address.is_ipv6() { "udp6" } else { "udp" };
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
        let ours = table.lines().map(str::split_whitespace).find_map(|mut words| {
            let is_ours = words.nth(1)?.ends_with(&port);
            is_ours.then(|| words.last()?.parse().ok()).flatten()
        });
        ours.ok_or_else(|| {
            io::Error::other(format!("/proc/net/{file} does not list the loss stream's socket"))
        })
    }
}

/// The datagrams that have arrived.
#[derive(Default)]
pub(super) struct Arrivals {
    /// Indexed by number.
    seen: Vec<bool>,
    distinct: u64,
    pub(super) duplicated: u64,
    /// Arrived after a datagram that was sent later.
    pub(super) reordered: u64,
    last: Option<Duration>,
    /// The longest time between two successive arrivals.
    pub(super) longest_silence: Duration,
    pub(super) dropped_by_receiver: u64,
}

impl Arrivals {
    pub(super) fn note(&mut self, sequence: u64, time: Duration) {
        let at = sequence as usize;
        let is_newest = at >= self.seen.len();
        if is_newest {
            self.seen.resize(at + 1, false);
        }
        if std::mem::replace(&mut self.seen[at], true) {
            self.duplicated += 1;
        } else {
            self.distinct += 1;
            self.reordered += u64::from(!is_newest);
        }
        if let Some(last) = self.last {
            self.longest_silence = self.longest_silence.max(time.saturating_sub(last));
        }
        self.last = Some(time);
    }

    pub(super) fn distinct(&self) -> u64 {
        self.distinct
    }

    /// One more than the highest number that has arrived.
    pub(super) fn end(&self) -> u64 {
        self.seen.len() as u64
    }

    pub(super) fn has(&self, sequence: u64) -> bool {
        self.seen.get(sequence as usize).copied().unwrap_or(false)
    }
}
