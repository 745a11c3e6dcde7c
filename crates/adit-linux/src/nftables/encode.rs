//! A [`Ruleset`] in the kernel's bytes (linux/netfilter/nf_tables.h).

use super::message::{LIST_ITEM, Writer, expression};
use super::ruleset::{Base, Chain, Comparison, Field, Hook, Key, Rule, Ruleset, Set, Step, mask};

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const PLAIN: u16 = libc::NLM_F_REQUEST as u16;
const ACKNOWLEDGED: u16 = PLAIN | libc::NLM_F_ACK as u16;
const CREATE: u16 = ACKNOWLEDGED | libc::NLM_F_CREATE as u16;
const APPEND: u16 = CREATE | libc::NLM_F_APPEND as u16;
/// An attribute has a length of 16 bits.
const ELEMENTS: usize = 2000;
const COUNTER_OBJECT: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
/// The second four bytes of [`REGISTER`].
const SECOND: u32 = 9;

/// What is asked of nf_tables (`NFT_MSG_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    DeleteChain = 5,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
    NewSet = 9,
    GetSet = 10,
    DeleteSet = 11,
    NewElements = 12,
    GetElements = 13,
    DeleteElements = 14,
    GetGeneration = 16,
    NewObject = 18,
    GetObject = 19,
}

impl Message {
    pub(super) fn number(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// A transaction that is being written.
#[derive(Debug)]
pub(super) struct Batch {
    writer: Writer,
    table: String,
    /// Messages so far, each of which is acknowledged.
    count: u32,
}

impl Batch {
    pub(super) fn new(table: &str) -> Self {
        let mut writer = Writer::default();
        writer.message(BATCH_BEGIN, PLAIN, 0, 0, SUBSYSTEM, |_| {});
        Self { writer, table: table.to_owned(), count: 0 }
    }

    /// The bytes, and how many acknowledgements there will be.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        self.writer.message(BATCH_END, PLAIN, self.count + 1, 0, SUBSYSTEM, |_| {});
        (self.writer.into_bytes(), self.count)
    }

    fn message(&mut self, message: Message, flags: u16, body: impl FnOnce(&mut Writer)) {
        self.count += 1;
        let table = self.table.clone();
        self.writer.message(message.number(), flags, self.count, IPV4, 0, |writer| {
            writer.string(1, &table);
            body(writer);
        });
    }

    pub(super) fn delete_table(&mut self) {
        self.message(Message::DeleteTable, ACKNOWLEDGED, |_| {});
    }

    /// Everything but elements and rules; what is there already stays.
    pub(super) fn frame(&mut self, ruleset: &Ruleset) {
        // Not dormant.
        self.message(Message::NewTable, CREATE, |body| body.number(2, 0));
        for counter in &ruleset.counters {
            self.message(Message::NewObject, CREATE, |body| {
                body.string(2, counter);
                body.number(3, COUNTER_OBJECT);
                body.nested(4, |_| {});
            });
        }
        for chain in &ruleset.chains {
            self.message(Message::NewChain, CREATE, |body| base_chain(body, chain));
        }
    }

    pub(super) fn new_set(&mut self, set: &Set) {
        const COUNTS: u16 = 17;
        const USER_DATA: u16 = 13;
        let id = self.count;
        self.message(Message::NewSet, CREATE, |body| {
            body.string(2, &set.name);
            body.number(3, 0);
            let (kind, len) = set.key.kind();
            body.number(4, kind);
            body.number(5, len);
            body.number(10, id);
            body.bytes(USER_DATA, &set.key.order());
            if set.counts {
                body.nested(COUNTS, |counter| {
                    counter.string(1, "counter");
                    counter.nested(2, |_| {});
                });
            }
        });
    }

    pub(super) fn delete_set(&mut self, name: &str) {
        self.message(Message::DeleteSet, ACKNOWLEDGED, |body| body.string(2, name));
    }

    pub(super) fn delete_chain(&mut self, name: &str) {
        self.message(Message::DeleteChain, ACKNOWLEDGED, |body| body.string(3, name));
    }

    pub(super) fn new_elements(&mut self, set: &str, elements: &[&Vec<u8>]) {
        self.elements(Message::NewElements, CREATE, set, elements);
    }

    pub(super) fn delete_elements(&mut self, set: &str, elements: &[&Vec<u8>]) {
        self.elements(Message::DeleteElements, ACKNOWLEDGED, set, elements);
    }

    fn elements(&mut self, message: Message, flags: u16, set: &str, elements: &[&Vec<u8>]) {
        for elements in elements.chunks(ELEMENTS) {
            self.message(message, flags, |body| {
                body.string(2, set);
                body.nested(3, |list| {
                    for element in elements {
                        list.nested(LIST_ITEM, |item| item.nested(1, |key| key.bytes(1, element)));
                    }
                });
            });
        }
    }

    /// All rules, in the place of those that there are.
    pub(super) fn rules(&mut self, ruleset: &Ruleset) {
        self.message(Message::DeleteRule, ACKNOWLEDGED, |_| {});
        for chain in &ruleset.chains {
            for rule in &chain.rules {
                self.message(Message::NewRule, APPEND, |body| {
                    body.string(2, &chain.name);
                    body.nested(4, |list| expressions(list, rule));
                });
            }
        }
    }
}

fn base_chain(body: &mut Writer, chain: &Chain) {
    body.string(3, &chain.name);
    let Some(hook) = chain.hook else { return };
    let number = match hook {
        Hook::Input => libc::NF_INET_LOCAL_IN,
        Hook::Forward => libc::NF_INET_FORWARD,
        Hook::Output => libc::NF_INET_LOCAL_OUT,
    };
    body.nested(4, |hook| {
        hook.number(1, number.cast_unsigned());
        hook.number(2, 0);
    });
    body.string(7, "filter");
}

impl Key {
    /// What nft(8) takes it for, and its length.
    fn kind(self) -> (u32, u32) {
        const ADDRESS: u32 = 7;
        const INTERFACE: u32 = 41;
        match self {
            Self::Address | Self::Bytes => (ADDRESS, 4),
            // Six bits for each part.
            Self::Pair => (ADDRESS << 6 | ADDRESS, 8),
            Self::Interface => (INTERFACE, 16),
        }
    }
}

impl Key {
    /// What nft(8) notes about the order of an element's bytes, for when it lists them.
    fn order(self) -> [u8; 6] {
        const KEY_BYTE_ORDER: u8 = 0;
        const HOST: u32 = 1;
        const NETWORK: u32 = 2;
        let order = if self == Self::Interface { HOST } else { NETWORK };
        let [a, b, c, d] = order.to_ne_bytes();
        [KEY_BYTE_ORDER, 4, a, b, c, d]
    }
}

fn expressions(list: &mut Writer, rule: &Rule) {
    rule.iter().for_each(|step| expression_of(list, step));
}

fn expression_of(list: &mut Writer, step: &Step) {
    match step {
        Step::Compare { field, mask, how, value } => {
            load(list, *field, REGISTER);
            if let Some(mask) = mask {
                keep_bits(list, REGISTER, mask);
            }
            compare(list, *how, value);
        }
        Step::In { field, prefix, set } => {
            load(list, *field, REGISTER);
            keep_prefix(list, REGISTER, *prefix);
            look_up(list, set, false);
        }
        Step::NotIn { field, set } => {
            load(list, *field, REGISTER);
            look_up(list, set, true);
        }
        Step::PairIn { field, prefix, set } => {
            load(list, Field::SOURCE, REGISTER);
            load(list, *field, SECOND);
            keep_prefix(list, SECOND, *prefix);
            look_up(list, set, false);
        }
        Step::LeavesBy { set } => {
            const OUTPUT_NAME: u32 = 7;
            meta(list, OUTPUT_NAME);
            look_up(list, set, false);
        }
        Step::TcpSyn => {
            const TRANSPORT: u32 = 16;
            const FLAGS: Field = Field::payload(13, 1);
            meta(list, TRANSPORT);
            compare(list, Comparison::Equal, &[libc::IPPROTO_TCP as u8]);
            load(list, FLAGS, REGISTER);
            keep_bits(list, REGISTER, &[0x06]);
            compare(list, Comparison::Equal, &[0x02]);
        }
        Step::Count(name) => expression(list, "objref", |data| {
            data.number(1, COUNTER_OBJECT);
            data.string(2, name);
        }),
        Step::LowerMss => lower_mss(list),
        Step::Goto(chain) => {
            const GOTO: i32 = -4;
            verdict(list, GOTO, Some(chain));
        }
        Step::Accept => verdict(list, libc::NF_ACCEPT, None),
        Step::Drop => verdict(list, libc::NF_DROP, None),
        Step::Prohibit => expression(list, "reject", |data| {
            const ICMP_UNREACHABLE: u32 = 0;
            const PROHIBITED: u8 = 13;
            data.number(1, ICMP_UNREACHABLE);
            data.bytes(2, &[PROHIBITED]);
        }),
    }
}

fn load(list: &mut Writer, field: Field, register: u32) {
    expression(list, "payload", |data| {
        data.number(1, register);
        data.number(
            2,
            match field.base {
                Base::Network | Base::NetworkBytes => 1,
                Base::Payload => 2,
            },
        );
        data.number(3, field.offset);
        data.number(4, field.len);
    });
}

fn keep_prefix(list: &mut Writer, register: u32, prefix: u8) {
    if prefix < 32 {
        keep_bits(list, register, &mask(prefix));
    }
}

fn keep_bits(list: &mut Writer, register: u32, mask: &[u8]) {
    expression(list, "bitwise", |data| {
        data.number(1, register);
        data.number(2, register);
        data.number(3, mask.len() as u32);
        data.nested(4, |nested| nested.bytes(1, mask));
        data.nested(5, |nested| nested.bytes(1, &vec![0; mask.len()]));
    });
}

fn compare(list: &mut Writer, how: Comparison, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.number(1, REGISTER);
        data.number(
            2,
            match how {
                Comparison::Equal => 0,
                Comparison::NotEqual => 1,
                Comparison::Less => 2,
            },
        );
        data.nested(3, |nested| nested.bytes(1, value));
    });
}

fn look_up(list: &mut Writer, set: &str, is_inverted: bool) {
    const INVERTED: u32 = 1;
    expression(list, "lookup", |data| {
        data.string(1, set);
        data.number(2, REGISTER);
        if is_inverted {
            data.number(5, INVERTED);
        }
    });
}

fn meta(list: &mut Writer, key: u32) {
    expression(list, "meta", |data| {
        data.number(1, REGISTER);
        data.number(2, key);
    });
}

fn verdict(list: &mut Writer, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |data| {
        data.number(1, VERDICT_REGISTER);
        data.nested(2, |value| {
            value.nested(2, |verdict| {
                verdict.number(1, code.cast_unsigned());
                if let Some(chain) = chain {
                    verdict.string(2, chain);
                }
            });
        });
    });
}

/// The kernel itself never raises it.
fn lower_mss(list: &mut Writer) {
    const TCP_MSS: u32 = 3;
    const TO_NETWORK: u32 = 1;
    const MAXSEG: u8 = 2;
    const TCP_OPTION: u32 = 1;
    expression(list, "rt", |data| {
        data.number(1, REGISTER);
        data.number(2, TCP_MSS);
    });
    expression(list, "byteorder", |data| {
        data.number(1, REGISTER);
        data.number(2, REGISTER);
        data.number(3, TO_NETWORK);
        data.number(4, 2);
        data.number(5, 2);
    });
    expression(list, "exthdr", |data| {
        data.bytes(2, &[MAXSEG]);
        data.number(3, 2);
        data.number(4, 2);
        data.number(6, TCP_OPTION);
        data.number(7, REGISTER);
    });
}
