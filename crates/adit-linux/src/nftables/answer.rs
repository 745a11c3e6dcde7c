//! Reading of nf_tables' answers: attributes, numbers, strings, counters and error numbers.

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

use super::uapi::{NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS};

/// The count of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Datagrams.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Returns the error number of an acknowledgement, given its body; 0 is success.
pub(super) fn errno_of(body: &[u8]) -> i32 {
    body.first_chunk().map_or(libc::EPROTO, |bytes| -i32::from_ne_bytes(*bytes))
}

/// Returns the kinds and values of attributes, up to the first that is incomplete.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let (kind, len) = (attribute.kind(), usize::from(attribute.length()));
        (kind, attribute.into_inner().get(NLA_HEADER_SIZE..len).unwrap_or_default())
    })
}

pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|attribute| attribute.0 == kind).map(|(_, value)| value)
}

/// Reads a number, which is in network byte order.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

/// Reads a string up to its terminating zero.
pub(super) fn string(value: &[u8]) -> Option<String> {
    let text = value.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Reads a counter from its attributes.
pub(super) fn counted(bytes: &[u8]) -> Counted {
    let count = |kind| find(bytes, kind).and_then(|value| value.first_chunk());
    let count = |kind| count(kind).map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Counted { bytes: count(NFTA_COUNTER_BYTES), packets: count(NFTA_COUNTER_PACKETS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::messages;

    #[test]
    fn attributes_are_found_whatever_their_flags_and_padding() {
        let bytes = [&[5u8, 0, 1, 0, 9, 0, 0, 0][..], &[8, 0, 2, 0x80, 0, 0, 1, 2]].concat();
        assert_eq!(find(&bytes, 1), Some(&[9][..]));
        assert_eq!(find(&bytes, 2).and_then(number), Some(258));
        assert_eq!(find(&bytes, 3), None);
        for len in 0..bytes.len() {
            assert_eq!(find(&bytes[..len], 2), None, "{len}");
        }
    }

    #[test]
    fn messages_end_at_the_first_incomplete_one() {
        let mut bytes = vec![0; 40];
        bytes[..4].copy_from_slice(&20u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-2i32).to_ne_bytes());
        bytes[20..24].copy_from_slice(&99u32.to_ne_bytes());
        let errors: Vec<i32> = messages(&bytes).map(|message| errno_of(message.payload())).collect();
        assert_eq!(errors, [2]);
    }
}
