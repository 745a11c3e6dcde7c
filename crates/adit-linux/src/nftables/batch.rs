//! A transaction of nf_tables: its messages, and the changes of a [`Ruleset`] as such.

use super::expression;
use super::ruleset::{Chain, Key, Ruleset, Set};
use super::uapi::*;
use super::writer::Writer;
use crate::family::Family;

const BATCH_BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
const BATCH_END: u16 = BATCH_BEGIN + 1;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const IPV6: u8 = libc::NFPROTO_IPV6 as u8;
const PLAIN: u16 = libc::NLM_F_REQUEST as u16;
const ACKNOWLEDGED: u16 = PLAIN | libc::NLM_F_ACK as u16;
const CREATE: u16 = ACKNOWLEDGED | libc::NLM_F_CREATE as u16;
const APPEND: u16 = CREATE | libc::NLM_F_APPEND as u16;
/// The most elements in a message: an attribute, and so the list of elements, has a 16-bit length.
const MAX_ELEMENTS: usize = 2000;

/// A message of nf_tables (`NFT_MSG_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    NewTable = libc::NFT_MSG_NEWTABLE as isize,
    GetTable = libc::NFT_MSG_GETTABLE as isize,
    DeleteTable = libc::NFT_MSG_DELTABLE as isize,
    NewChain = libc::NFT_MSG_NEWCHAIN as isize,
    GetChain = libc::NFT_MSG_GETCHAIN as isize,
    DeleteChain = libc::NFT_MSG_DELCHAIN as isize,
    NewRule = libc::NFT_MSG_NEWRULE as isize,
    GetRule = libc::NFT_MSG_GETRULE as isize,
    DeleteRule = libc::NFT_MSG_DELRULE as isize,
    NewSet = libc::NFT_MSG_NEWSET as isize,
    GetSet = libc::NFT_MSG_GETSET as isize,
    DeleteSet = libc::NFT_MSG_DELSET as isize,
    NewElements = libc::NFT_MSG_NEWSETELEM as isize,
    GetElements = libc::NFT_MSG_GETSETELEM as isize,
    DeleteElements = libc::NFT_MSG_DELSETELEM as isize,
    GetGeneration = libc::NFT_MSG_GETGEN as isize,
    NewObject = libc::NFT_MSG_NEWOBJ as isize,
    GetObject = libc::NFT_MSG_GETOBJ as isize,
}

/// Returns netfilter's number of a family.
pub(super) const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => IPV4,
        Family::V6 => IPV6,
    }
}

impl Message {
    /// Returns the netlink message type: the subsystem and the message.
    pub(super) fn number(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// A transaction about the tables of one name, while it is written.
#[derive(Debug)]
pub(super) struct Batch {
    writer: Writer,
    /// The family of the table that the next messages are about.
    family: u8,
    table: String,
    /// Messages so far. The kernel acknowledges each.
    count: u32,
}

impl Batch {
    pub(super) fn new(table: &str) -> Self {
        let mut writer = Writer::default();
        writer.message(BATCH_BEGIN, PLAIN, 0, 0, SUBSYSTEM, |_| {});
        Self { writer, family: IPV4, table: table.to_owned(), count: 0 }
    }

    /// Continues with the table of another family.
    pub(super) fn go_to(&mut self, family: Family) {
        self.family = family_number(family);
    }

    /// Returns the bytes, and the number of acknowledgements that the kernel will send.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        self.writer.message(BATCH_END, PLAIN, self.count + 1, 0, SUBSYSTEM, |_| {});
        (self.writer.into_bytes(), self.count)
    }

    /// Writes a message. In all of them attribute 1 is the table's name.
    fn message(&mut self, message: Message, flags: u16, body: impl FnOnce(&mut Writer)) {
        self.count += 1;
        let table = self.table.clone();
        self.writer.message(message.number(), flags, self.count, self.family, 0, |writer| {
            writer.string(NFTA_TABLE_NAME, &table);
            body(writer);
        });
    }

    pub(super) fn delete_table(&mut self) {
        self.message(Message::DeleteTable, ACKNOWLEDGED, |_| {});
    }

    /// Creates the table, its counters and its chains. What exists stays.
    pub(super) fn create_frame(&mut self, ruleset: &Ruleset) {
        // Without NFT_TABLE_F_DORMANT, which wakes a dormant table.
        let flags = if ruleset.is_owned { NFT_TABLE_F_OWNER } else { 0 };
        self.message(Message::NewTable, CREATE, |body| body.number(NFTA_TABLE_FLAGS, flags));
        for counter in &ruleset.counters {
            self.message(Message::NewObject, CREATE, |body| {
                body.string(NFTA_OBJ_NAME, counter);
                body.number(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
                body.nested(NFTA_OBJ_DATA, |_| {});
            });
        }
        for chain in &ruleset.chains {
            self.message(Message::NewChain, CREATE, |body| write_chain(body, chain));
        }
    }

    pub(super) fn create_set(&mut self, set: &Set) {
        let id = self.count;
        self.message(Message::NewSet, CREATE, |body| {
            body.string(NFTA_SET_NAME, &set.name);
            body.number(NFTA_SET_FLAGS, 0);
            let (kind, len) = set.key.type_and_len();
            body.number(NFTA_SET_KEY_TYPE, kind);
            body.number(NFTA_SET_KEY_LEN, len);
            body.number(NFTA_SET_ID, id);
            body.bytes(NFTA_SET_USERDATA, &set.key.byte_order());
            if set.counts {
                body.nested(NFTA_SET_EXPR, |counter| {
                    counter.string(NFTA_EXPR_NAME, "counter");
                    counter.nested(NFTA_EXPR_DATA, |_| {});
                });
            }
        });
    }

    pub(super) fn delete_set(&mut self, name: &str) {
        self.message(Message::DeleteSet, ACKNOWLEDGED, |body| body.string(NFTA_SET_NAME, name));
    }

    pub(super) fn delete_chain(&mut self, name: &str) {
        self.message(Message::DeleteChain, ACKNOWLEDGED, |body| body.string(NFTA_CHAIN_NAME, name));
    }

    pub(super) fn add_elements(&mut self, set: &str, elements: &[&Vec<u8>]) {
        self.elements(Message::NewElements, CREATE, set, elements);
    }

    pub(super) fn delete_elements(&mut self, set: &str, elements: &[&Vec<u8>]) {
        self.elements(Message::DeleteElements, ACKNOWLEDGED, set, elements);
    }

    fn elements(&mut self, message: Message, flags: u16, set: &str, elements: &[&Vec<u8>]) {
        for elements in elements.chunks(MAX_ELEMENTS) {
            self.message(message, flags, |body| {
                body.string(NFTA_SET_ELEM_LIST_SET, set);
                body.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    for element in elements {
                        list.nested(NFTA_LIST_ELEM, |item| {
                            item.nested(NFTA_SET_ELEM_KEY, |key| key.bytes(NFTA_DATA_VALUE, element));
                        });
                    }
                });
            });
        }
    }

    /// Replaces all rules of the table.
    pub(super) fn replace_rules(&mut self, ruleset: &Ruleset) {
        self.message(Message::DeleteRule, ACKNOWLEDGED, |_| {});
        for chain in &ruleset.chains {
            for rule in &chain.rules {
                self.message(Message::NewRule, APPEND, |body| {
                    body.string(NFTA_RULE_CHAIN, &chain.name);
                    body.nested(NFTA_RULE_EXPRESSIONS, |list| expression::write_rule(list, rule));
                });
            }
        }
    }
}

fn write_chain(body: &mut Writer, chain: &Chain) {
    body.string(NFTA_CHAIN_NAME, &chain.name);
    let Some(hook) = chain.hook else { return };
    body.nested(NFTA_CHAIN_HOOK, |list| {
        list.number(NFTA_HOOK_HOOKNUM, hook.number());
        list.number(NFTA_HOOK_PRIORITY, hook.priority().cast_unsigned());
    });
    body.string(NFTA_CHAIN_TYPE, "filter");
}

impl Key {
    /// Returns the type by which nft(8) lists the elements, and their length in bytes.
    fn type_and_len(self) -> (u32, u32) {
        const ADDRESS: u32 = 7;
        const ADDRESS_V6: u32 = 8;
        const INTERFACE: u32 = 41;
        let of = |family| match family {
            Family::V4 => (ADDRESS, 4),
            Family::V6 => (ADDRESS_V6, 16),
        };
        match self {
            Self::Address(family) | Self::Bytes(family) => of(family),
            Self::Pair(outer, inner) => {
                let ((outer_type, outer_len), (inner_type, inner_len)) = (of(outer), of(inner));
                // Six bits for each part of a concatenation.
                (outer_type << 6 | inner_type, outer_len + inner_len)
            }
            Self::Interface => (INTERFACE, 16),
        }
    }

    /// Returns what nft(8) stores with a set about the byte order of its elements, for listing
    /// them.
    fn byte_order(self) -> [u8; 6] {
        const KEY_BYTE_ORDER: u8 = 0;
        const HOST: u32 = 1;
        const NETWORK: u32 = 2;
        let order = if self == Self::Interface { HOST } else { NETWORK };
        let [a, b, c, d] = order.to_ne_bytes();
        [KEY_BYTE_ORDER, 4, a, b, c, d]
    }
}
