//! The strictness of a parser.

/// The checks that a parser makes before it returns a view.
///
/// Whatever the choice, a view never reads beyond the bytes it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Validation {
    /// All of them: also the reserved flag, well-formed options, and a total length equal to the
    /// number of bytes given. For tests, and for datagrams that Adit has written.
    Strict,
    /// Those that forwarding needs: version, header length, a total length that fits, and the
    /// header checksum. Bytes after the total length are cut off, because Ethernet pads short
    /// frames.
    Datapath,
    /// Those that a capture, or the quote of an ICMP error, needs: the datagram may be cut short,
    /// and its checksum is not verified.
    Lenient,
}
