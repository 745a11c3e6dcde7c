//! Detection of captures on an interface.
//!
//! AF_XDP bypasses the taps of this machine. The data plane therefore looks for a capture, and
//! sends by a packet socket while there is one.

use std::fs::File;
use std::io::{Read, Seek};

use crate::error::Error;

/// `ETH_P_ALL`, as `/proc/net/packet` prints it.
const EVERY_PROTOCOL: &str = "0003";
const FILE: &str = "/proc/thread-self/net/packet";

/// The packet sockets of one network namespace. The file stays open, so that a look needs no
/// descriptor.
#[derive(Debug)]
pub struct PacketListeners {
    file: File,
    /// What the last look has read.
    sockets: String,
}

impl PacketListeners {
    /// Opens the list of the calling thread's network namespace.
    ///
    /// # Errors
    /// `/proc/thread-self/net/packet` cannot be opened.
    pub fn open() -> Result<Self, Error> {
        let file = File::open(FILE).map_err(|error| {
            Error::new(format!("cannot open {FILE}"), error)
                .with_hint("mount /proc: `mount -t proc proc /proc`")
        })?;
        Ok(Self { file, sockets: String::new() })
    }

    /// Returns true if a packet socket (such as a `tcpdump`) receives every protocol on interface
    /// `index` or on all interfaces.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn is_tapped(&mut self, index: u32) -> Result<bool, Error> {
        self.sockets.clear();
        let read = self.file.rewind().and_then(|()| self.file.read_to_string(&mut self.sockets));
        read.map_err(|error| Error::new(format!("cannot read {FILE}"), error))?;
        Ok(lists_tap(&self.sockets, index))
    }
}

/// The columns are address, references, type, protocol, interface, and others.
fn lists_tap(sockets: &str, index: u32) -> bool {
    sockets.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(3);
        let every = columns.next() == Some(EVERY_PROTOCOL);
        let interface = columns.next().and_then(|interface| interface.parse::<u32>().ok());
        every && interface.is_some_and(|interface| interface == 0 || interface == index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::NetNs;

    const SOCKETS: &str = "\
sk               RefCnt Type Proto  Iface R Rmem   User   Inode
0000000000000000 3      3    0800   0     1 0      0      1234
0000000000000000 3      3    0003   7     1 0      0      1235
";

    #[test]
    fn a_tap_is_a_socket_for_every_protocol_on_that_interface_or_on_all() {
        assert!(lists_tap(SOCKETS, 7));
        assert!(!lists_tap(SOCKETS, 8));
        assert!(lists_tap(&SOCKETS.replace("0003   7", "0003   0"), 8));
        assert!(!lists_tap("", 7));
    }

    /// A process that has no descriptor left is not one whose packets somebody captures.
    #[test(alone, root)]
    fn a_look_needs_no_descriptor() {
        let limit = |soft: Option<u64>| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the kernel writes to and reads from `limit`, which outlives both calls.
            unsafe {
                libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
                let before = limit.rlim_cur;
                limit.rlim_cur = soft.unwrap_or(before);
                assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
                before
            }
        };
        let netns = NetNs::fresh().unwrap();
        let (mut listeners, _tap) = netns
            .run(|| (PacketListeners::open().unwrap(), crate::sockets::capture::Tap::open(1).unwrap()))
            .unwrap();
        let before = limit(Some(0));
        let opened = File::open(FILE).map_err(|error| error.raw_os_error());
        let found = [1, 2].map(|index| listeners.is_tapped(index).ok());
        limit(Some(before));
        assert_eq!(opened.err(), Some(Some(libc::EMFILE)));
        assert_eq!(found, [Some(true), Some(false)]);
    }
}
