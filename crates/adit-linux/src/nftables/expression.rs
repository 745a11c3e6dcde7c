//! The steps of a rule as nf_tables expressions.

use super::ruleset::{Base, Comparison, Field, RESERVED_PROTOCOL, Rule, Step, mask};
use super::uapi::*;
use super::writer::Writer;
use crate::family::Family;

const VERDICT_REGISTER: u32 = libc::NFT_REG_VERDICT as u32;
const REGISTER: u32 = libc::NFT_REG_1 as u32;
/// The first four bytes of [`REGISTER`]. The registers of four bytes have numbers in a row.
const FIRST_WORD: u32 = libc::NFT_REG32_00 as u32;

pub(super) fn write_rule(list: &mut Writer, rule: &Rule) {
    rule.iter().for_each(|step| write_step(list, step));
}

fn write_step(list: &mut Writer, step: &Step) {
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
            keep_prefix(list, REGISTER, *field, *prefix);
            look_up(list, set, false);
        }
        Step::NotIn { field, set } => {
            load(list, *field, REGISTER);
            look_up(list, set, true);
        }
        Step::PairIn { source, field, prefix, set } => {
            const WORD: u32 = 4;
            let second = FIRST_WORD + source.len / WORD;
            load(list, *source, REGISTER);
            load(list, *field, second);
            keep_prefix(list, second, *field, *prefix);
            look_up(list, set, false);
        }
        Step::LeavesBy { set } => {
            meta(list, libc::NFT_META_OIFNAME as u32);
            look_up(list, set, false);
        }
        Step::Carries(protocol) => {
            meta(list, libc::NFT_META_L4PROTO as u32);
            compare(list, Comparison::Equal, &[*protocol]);
        }
        Step::FirstFragment | Step::LaterFragment => {
            // The fragment offset: 13 bits behind the second octet (RFC 8200 section 4.5).
            const OFFSET: (u32, u32) = (2, 2);
            const OFFSET_BITS: u16 = 0xfff8;
            expression(list, "exthdr", |data| {
                data.number(NFTA_EXTHDR_DREG, REGISTER);
                data.bytes(NFTA_EXTHDR_TYPE, &[libc::IPPROTO_FRAGMENT as u8]);
                data.number(NFTA_EXTHDR_OFFSET, OFFSET.0);
                data.number(NFTA_EXTHDR_LEN, OFFSET.1);
            });
            keep_bits(list, REGISTER, &OFFSET_BITS.to_be_bytes());
            let is_first = *step == Step::FirstFragment;
            compare(list, if is_first { Comparison::Equal } else { Comparison::NotEqual }, &[0, 0]);
        }
        Step::NamesProtocol => {
            meta(list, libc::NFT_META_L4PROTO as u32);
            compare(list, Comparison::NotEqual, &[RESERVED_PROTOCOL]);
        }
        Step::TcpSyn => {
            // The control bits: octet 13 of the TCP header (RFC 9293 section 3.1).
            const FLAGS: Field = Field::payload(13, 1);
            const SYN_RST: u8 = 0x06;
            const SYN: u8 = 0x02;
            write_step(list, &Step::Carries(libc::IPPROTO_TCP as u8));
            load(list, FLAGS, REGISTER);
            keep_bits(list, REGISTER, &[SYN_RST]);
            compare(list, Comparison::Equal, &[SYN]);
        }
        Step::Count(name) => expression(list, "objref", |data| {
            data.number(NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
            data.string(NFTA_OBJREF_IMM_NAME, name);
        }),
        Step::LowerMss => lower_mss(list),
        Step::Goto(chain) => verdict(list, libc::NFT_GOTO, Some(chain)),
        Step::Accept => verdict(list, libc::NF_ACCEPT, None),
        Step::Drop => verdict(list, libc::NF_DROP, None),
        Step::Prohibit(family) => expression(list, "reject", |data| {
            // Destination unreachable, communication administratively prohibited.
            let code = match family {
                Family::V4 => 13,
                Family::V6 => 1,
            };
            data.number(NFTA_REJECT_TYPE, libc::NFT_REJECT_ICMP_UNREACH as u32);
            data.bytes(NFTA_REJECT_ICMP_CODE, &[code]);
        }),
    }
}

fn expression(list: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
    list.nested(NFTA_LIST_ELEM, |item| {
        item.string(NFTA_EXPR_NAME, name);
        item.nested(NFTA_EXPR_DATA, data);
    });
}

/// Loads a field of the datagram into a register.
fn load(list: &mut Writer, field: Field, register: u32) {
    let base = match field.base {
        Base::Network | Base::NetworkBytes => libc::NFT_PAYLOAD_NETWORK_HEADER,
        Base::Payload => libc::NFT_PAYLOAD_TRANSPORT_HEADER,
    };
    expression(list, "payload", |data| {
        data.number(NFTA_PAYLOAD_DREG, register);
        data.number(NFTA_PAYLOAD_BASE, base as u32);
        data.number(NFTA_PAYLOAD_OFFSET, field.offset);
        data.number(NFTA_PAYLOAD_LEN, field.len);
    });
}

fn keep_prefix(list: &mut Writer, register: u32, field: Field, prefix: u8) {
    if u32::from(prefix) < field.len * 8 {
        keep_bits(list, register, &mask(prefix, field.len));
    }
}

/// Clears the bits of a register that are not in `mask`.
fn keep_bits(list: &mut Writer, register: u32, mask: &[u8]) {
    expression(list, "bitwise", |data| {
        data.number(NFTA_BITWISE_SREG, register);
        data.number(NFTA_BITWISE_DREG, register);
        data.number(NFTA_BITWISE_LEN, mask.len() as u32);
        data.nested(NFTA_BITWISE_MASK, |nested| nested.bytes(NFTA_DATA_VALUE, mask));
        data.nested(NFTA_BITWISE_XOR, |nested| nested.bytes(NFTA_DATA_VALUE, &vec![0; mask.len()]));
    });
}

fn compare(list: &mut Writer, how: Comparison, value: &[u8]) {
    let operation = match how {
        Comparison::Equal => libc::NFT_CMP_EQ,
        Comparison::NotEqual => libc::NFT_CMP_NEQ,
        Comparison::Less => libc::NFT_CMP_LT,
    };
    expression(list, "cmp", |data| {
        data.number(NFTA_CMP_SREG, REGISTER);
        data.number(NFTA_CMP_OP, operation as u32);
        data.nested(NFTA_CMP_DATA, |nested| nested.bytes(NFTA_DATA_VALUE, value));
    });
}

fn look_up(list: &mut Writer, set: &str, is_inverted: bool) {
    expression(list, "lookup", |data| {
        data.string(NFTA_LOOKUP_SET, set);
        data.number(NFTA_LOOKUP_SREG, REGISTER);
        if is_inverted {
            data.number(NFTA_LOOKUP_FLAGS, libc::NFT_LOOKUP_F_INV as u32);
        }
    });
}

fn meta(list: &mut Writer, key: u32) {
    expression(list, "meta", |data| {
        data.number(NFTA_META_DREG, REGISTER);
        data.number(NFTA_META_KEY, key);
    });
}

fn verdict(list: &mut Writer, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |data| {
        data.number(NFTA_IMMEDIATE_DREG, VERDICT_REGISTER);
        data.nested(NFTA_IMMEDIATE_DATA, |value| {
            value.nested(NFTA_DATA_VERDICT, |verdict| {
                verdict.number(NFTA_VERDICT_CODE, code.cast_unsigned());
                if let Some(chain) = chain {
                    verdict.string(NFTA_VERDICT_CHAIN, chain);
                }
            });
        });
    });
}

/// Sets the MSS option to what the route's MTU allows. The kernel never raises it.
fn lower_mss(list: &mut Writer) {
    /// The option's kind (RFC 9293 section 3.2).
    const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    /// Offset and length of its value, in bytes.
    const VALUE: (u32, u32) = (2, 2);
    expression(list, "rt", |data| {
        data.number(NFTA_RT_DREG, REGISTER);
        data.number(NFTA_RT_KEY, NFT_RT_TCPMSS);
    });
    expression(list, "byteorder", |data| {
        data.number(NFTA_BYTEORDER_SREG, REGISTER);
        data.number(NFTA_BYTEORDER_DREG, REGISTER);
        data.number(NFTA_BYTEORDER_OP, libc::NFT_BYTEORDER_HTON as u32);
        data.number(NFTA_BYTEORDER_LEN, VALUE.1);
        data.number(NFTA_BYTEORDER_SIZE, VALUE.1);
    });
    expression(list, "exthdr", |data| {
        data.bytes(NFTA_EXTHDR_TYPE, &[MAXIMUM_SEGMENT_SIZE]);
        data.number(NFTA_EXTHDR_OFFSET, VALUE.0);
        data.number(NFTA_EXTHDR_LEN, VALUE.1);
        data.number(NFTA_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT);
        data.number(NFTA_EXTHDR_SREG, REGISTER);
    });
}
