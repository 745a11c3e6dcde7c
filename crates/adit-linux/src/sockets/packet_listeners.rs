//! Detection of captures on an interface.
//!
//! AF_XDP bypasses the taps of this machine. The data plane therefore looks for a capture, and
//! sends by a packet socket while there is one.

use crate::error::Error;

/// `ETH_P_ALL`, as `/proc/net/packet` prints it.
const EVERY_PROTOCOL: &str = "0003";

/// Returns true if a packet socket in the calling thread's network namespace (such as a `tcpdump`)
/// receives every protocol on interface `index` or on all interfaces. Costs reading one file of
/// `/proc`.
///
/// # Errors
/// `/proc/thread-self/net/packet` cannot be read.
pub fn is_tapped(index: u32) -> Result<bool, Error> {
    const FILE: &str = "/proc/thread-self/net/packet";
    let sockets = std::fs::read_to_string(FILE).map_err(|error| {
        Error::new(format!("cannot read {FILE}"), error).with_hint("mount /proc: `mount -t proc proc /proc`")
    })?;
    Ok(lists_tap(&sockets, index))
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
}
