//! The kernel's answers, taken apart.

use netlink_packet_core::NlasIterator;

use super::tables::Counted;

const NLMSG_HEADER: usize = 16;
/// An attribute's kind, without its flags.
const KIND: u16 = 0x3fff;

/// What the kernel says.
pub(super) struct Heard<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of one datagram, up to the first that is not whole.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Heard<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<NLMSG_HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let (message, _) = bytes.split_at_checked(len)?;
        let body = message.get(NLMSG_HEADER..)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Heard {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        })
    })
}

pub(super) fn errno_of(body: &[u8]) -> i32 {
    body.first_chunk().map_or(libc::EPROTO, |bytes| -i32::from_ne_bytes(*bytes))
}

/// Attributes with their kinds.
pub(super) fn nested(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let value = attribute.into_inner();
        let len = value.first_chunk().map_or(0, |len| usize::from(u16::from_ne_bytes(*len)));
        let kind = value.get(2..4).and_then(|kind| kind.try_into().ok()).map_or(0, u16::from_ne_bytes);
        (kind & KIND, value.get(4..len).unwrap_or_default())
    })
}

pub(super) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    nested(attributes).find(|attribute| attribute.0 == kind).map(|(_, value)| value)
}

pub(super) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

pub(super) fn string(value: &[u8]) -> Option<String> {
    let text = value.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The attributes of a counter.
pub(super) fn counted(attributes: &[u8]) -> Counted {
    let of = |kind| find(attributes, kind).and_then(|value| value.first_chunk());
    let of = |kind| of(kind).map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Counted { bytes: of(1), packets: of(2) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn messages_end_with_the_first_that_is_not_whole() {
        let mut bytes = vec![0; 40];
        bytes[..4].copy_from_slice(&20u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-2i32).to_ne_bytes());
        bytes[20..24].copy_from_slice(&99u32.to_ne_bytes());
        let errors: Vec<i32> = messages(&bytes).map(|message| errno_of(message.body)).collect();
        assert_eq!(errors, [2]);
    }
}
