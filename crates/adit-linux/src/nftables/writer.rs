//! A writer of netfilter's netlink messages: headers, and attributes within attributes. Numbers in
//! attributes are in network byte order.

/// The bytes of messages, while they are written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

const NLMSG_HEADER: usize = 16;
const NLA_F_NESTED: u16 = 1 << 15;

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes a message: the netlink header, netfilter's header (`struct nfgenmsg`) with `family`
    /// and `resource`, then `body`.
    pub(super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.resize(start + NLMSG_HEADER, 0);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        body(self);
        let len = (self.bytes.len() - start) as u32;
        let header = &mut self.bytes[start..start + NLMSG_HEADER];
        header[..4].copy_from_slice(&len.to_ne_bytes());
        header[4..6].copy_from_slice(&kind.to_ne_bytes());
        header[6..8].copy_from_slice(&flags.to_ne_bytes());
        header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }

    /// Writes an attribute with these bytes, padded to a multiple of four.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Writes an attribute with a number.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Writes an attribute with a string, and a zero after it.
    pub(super) fn string(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    /// Writes an attribute that consists of the attributes written by `body`.
    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NLA_F_NESTED).to_ne_bytes());
        body(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_part_of_an_attributes_length() {
        let mut writer = Writer::default();
        writer.nested(3, |nested| {
            nested.string(1, "abcd");
            nested.number(2, 7);
        });
        let expected: Vec<u8> = [
            &[24u8, 0, 3, 0x80][..],
            &[9, 0, 1, 0, b'a', b'b', b'c', b'd', 0, 0, 0, 0],
            &[8, 0, 2, 0, 0, 0, 0, 7],
        ]
        .concat();
        assert_eq!(writer.into_bytes(), expected);
    }

    #[test]
    fn a_message_starts_with_its_length() {
        let mut writer = Writer::default();
        writer.message(0xa03, 5, 9, 2, 10, |body| body.number(1, 1));
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len(), 28);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[16..20], [2, 0, 0, 10]);
    }
}
