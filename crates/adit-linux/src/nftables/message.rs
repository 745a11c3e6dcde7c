//! The bytes of nf_tables' netlink messages (linux/netfilter/nf_tables.h): attributes within attributes, numbers in
//! network byte order. No crate has them that is kept up; only what [`super`] needs is here.

/// A message or a nested attribute that is being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

const NLMSG_HEADER: usize = 16;
const NLA_F_NESTED: u16 = 1 << 15;

impl Writer {
    /// What was written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A message: netlink header, then the family and the resource of netfilter's, then `body`.
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

    /// An attribute with these bytes, padded to a multiple of four.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn string(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    /// An attribute of attributes.
    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NLA_F_NESTED).to_ne_bytes());
        body(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Of an item in a list (`NFTA_LIST_ELEM`).
pub(super) const LIST_ITEM: u16 = 1;

/// One step of a rule.
pub(super) fn expression(list: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
    list.nested(LIST_ITEM, |item| {
        item.string(1, name);
        item.nested(2, data);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_lengths_are_not() {
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
    fn a_message_knows_its_length() {
        let mut writer = Writer::default();
        writer.message(0xa03, 5, 9, 2, 10, |body| body.number(1, 1));
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len(), 28);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[16..20], [2, 0, 0, 10]);
    }
}
