//! Whether somebody listens: what AF_XDP sends, no tap of this machine sees.

use crate::error::Error;

/// `ETH_P_ALL`, as the kernel prints it.
const EVERY_PROTOCOL: &str = "0003";

/// Whether a packet socket of the calling thread's network namespace (a `tcpdump`, say) listens to
/// all that passes interface `index`, or every interface. Costs reading one file of `/proc`.
///
/// # Errors
/// No `/proc`.
pub fn is_tapped(index: u32) -> Result<bool, Error> {
    const FILE: &str = "/proc/thread-self/net/packet";
    let sockets =
        std::fs::read_to_string(FILE).map_err(|error| Error::new(format!("cannot read {FILE}"), error))?;
    Ok(lists_tap(&sockets, index))
}

/// The columns are: address, references, type, protocol, interface, ...
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
    fn only_a_listener_to_everything_on_that_interface_counts() {
        assert!(lists_tap(SOCKETS, 7));
        assert!(!lists_tap(SOCKETS, 8));
        assert!(lists_tap(&SOCKETS.replace("0003   7", "0003   0"), 8));
        assert!(!lists_tap("", 7));
    }
}
