//! The messages in a netlink datagram.

use netlink_packet_core::NetlinkBuffer;

/// Returns the messages of a datagram, up to the first that is incomplete.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let len = NetlinkBuffer::new_checked(bytes).ok()?.length() as usize;
        let (message, rest) = bytes.split_at_checked(len)?;
        // Each message starts at a multiple of four. The last one need not be padded to one.
        bytes = rest.get(len.next_multiple_of(4) - len..).unwrap_or_default();
        Some(NetlinkBuffer::new(message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_split_at_aligned_ends() {
        // Lengths 17 and 16: the first is followed by three bytes of padding.
        let mut bytes = vec![0; 36];
        bytes[0] = 17;
        bytes[20] = 16;
        let lengths: Vec<u32> = messages(&bytes).map(|message| message.length()).collect();
        assert_eq!(lengths, [17, 16]);
        assert_eq!(messages(&bytes[..35]).count(), 1);
    }
}
