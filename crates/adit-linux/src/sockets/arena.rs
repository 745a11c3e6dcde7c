//! Memory in which datagrams lie, and the access to them one by one.

use std::ops::Range;

/// Memory with datagrams in it, each at a range of bytes. The kernel may write to other parts of it
/// at any time, so there is no reference to all of it.
pub trait Arena {
    /// The bytes at `range`; empty if no datagram can be there.
    fn bytes(&self, range: Range<usize>) -> &[u8];

    /// The same bytes, to be changed.
    fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8];
}

/// A buffer that the kernel does not know.
impl Arena for [u8] {
    #[inline]
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.get(range).unwrap_or_default()
    }

    #[inline]
    fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        self.get_mut(range).unwrap_or_default()
    }
}
