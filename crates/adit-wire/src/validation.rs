//! How much of a datagram a parser checks.

/// Which checks a parser makes before it gives a view of the bytes.
///
/// Whatever the choice, a view never reads past the bytes it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Validation {
    /// Everything: the header checksum, the reserved flag, options that are well formed, and a total
    /// length equal to the number of bytes given. For tests and for what Adit itself has written.
    Strict,
    /// What forwarding needs: version, header length, a total length that fits (bytes after it are cut
    /// off: Ethernet pads short frames), and the header checksum.
    Datapath,
    /// Enough to show in a capture, or to read what an ICMP error quotes: the datagram may be cut short
    /// and its checksum is not looked at.
    Lenient,
}
