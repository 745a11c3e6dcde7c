//! nf_tables: tables of ours in general ([`Ruleset`], [`Tables`]), and the one that keeps the host's own tunnel drivers
//! quiet about our peers ([`Tunnel4DropRule`]).
//!
//! That one is *owned*: it goes with the socket that made it, whatever the process dies of (Linux 5.12).

mod answer;
mod encode;
mod message;
mod ruleset;
mod tables;

use std::net::Ipv4Addr;

use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::error::{Error, Result};
use message::{LIST_ITEM, Writer, expression};
pub use ruleset::{Chain, Comparison, Field, Hook, Key, Rule, Ruleset, Set, Step};
pub use tables::{Counted, TableState, Tables};

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;
const TABLE_OWNER: u32 = 2;
const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const PREROUTING: u32 = 0;
/// Before the kernel puts fragments together (-400), so that it does not do so in vain.
const PRIORITY: i32 = -500;
const ADDRESS_TYPE: u32 = 7;
const NETWORK_HEADER: u32 = 1;
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const SET: &str = "peers";
const CHAIN: &str = "quiet";
/// An attribute has a length of 16 bits.
const ELEMENTS: usize = 2000;
const IPPROTO_IPIP: u8 = 4;
const PROTOCOL_AT: u32 = 9;
const SOURCE_AT: u32 = 12;
const DESTINATION_AT: u32 = 16;

/// Datagrams of IP in IP from peers to us end before the host's IP input: packet sockets have had them by then, and
/// nothing else is to take them. Dropping it takes that back.
#[derive(Debug)]
pub struct Tunnel4DropRule {
    _socket: netlink_sys::Socket,
}

impl Tunnel4DropRule {
    /// Whether this kernel has a driver loaded that answers what it has no tunnel for with Port Unreachable.
    #[must_use]
    pub fn is_needed() -> bool {
        std::path::Path::new("/sys/module/tunnel4").exists()
    }

    /// In the calling thread's network namespace; `table` names it to whoever lists the rules.
    ///
    /// # Errors
    /// No nf_tables in this kernel, or one older than 5.12; no CAP_NET_ADMIN.
    pub fn start(table: &str, local: Ipv4Addr, peers: &[Ipv4Addr]) -> Result<Self> {
        let failed = |error| {
            Error::new("cannot keep the kernel's tunnel drivers quiet by a rule of nf_tables", error)
                .with_hint("nf_tables of Linux 5.12 or newer is needed")
        };
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        let batch = batch(table, local, peers);
        let sent = socket.send(&batch, 0).map_err(failed)?;
        debug_assert_eq!(sent, batch.len());
        // Every message is acknowledged; the first that fails undoes the batch.
        let mut buffer = vec![0u8; 1 << 16];
        for _ in 0..acknowledged(peers) {
            let len = socket.recv(&mut &mut buffer[..], 0).map_err(failed)?;
            let errno = errno_of(buffer.get(..len).unwrap_or_default());
            if errno != 0 {
                return Err(failed(std::io::Error::from_raw_os_error(errno)));
            }
        }
        Ok(Self { _socket: socket })
    }
}

/// Messages between the two ends of the batch.
fn acknowledged(peers: &[Ipv4Addr]) -> usize {
    4 + peers.len().div_ceil(ELEMENTS)
}

/// The error number of an acknowledgement; 0: done.
fn errno_of(message: &[u8]) -> i32 {
    const KIND: std::ops::Range<usize> = 4..6;
    const NUMBER: std::ops::Range<usize> = 16..20;
    let kind = message.get(KIND).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let number = message.get(NUMBER).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, number) {
        (Some(2), Some(number)) => -number,
        _ => libc::EPROTO,
    }
}

fn batch(table: &str, local: Ipv4Addr, peers: &[Ipv4Addr]) -> Vec<u8> {
    const NEW: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE) as u16;
    const PLAIN: u16 = libc::NLM_F_REQUEST as u16;
    let mut batch = Writer::default();
    batch.message(BATCH_BEGIN, PLAIN, 0, 0, SUBSYSTEM, |_| {});
    batch.message(NEW_TABLE, NEW, 1, IPV4, 0, |body| {
        body.string(1, table);
        body.number(2, TABLE_OWNER);
    });
    batch.message(NEW_CHAIN, NEW, 2, IPV4, 0, |body| {
        body.string(1, table);
        body.string(3, CHAIN);
        body.nested(4, |hook| {
            hook.number(1, PREROUTING);
            hook.number(2, PRIORITY.cast_unsigned());
        });
        body.string(7, "filter");
    });
    batch.message(NEW_SET, NEW, 3, IPV4, 0, |body| {
        body.string(1, table);
        body.string(2, SET);
        body.number(3, 0);
        body.number(4, ADDRESS_TYPE);
        body.number(5, 4);
        body.number(10, 1);
    });
    let mut sequence = 4;
    for peers in peers.chunks(ELEMENTS) {
        batch.message(NEW_ELEMENTS, NEW, sequence, IPV4, 0, |body| {
            body.string(1, table);
            body.string(2, SET);
            body.nested(3, |list| {
                for peer in peers {
                    list.nested(LIST_ITEM, |item| {
                        item.nested(1, |key| key.bytes(1, &peer.octets()));
                    });
                }
            });
        });
        sequence += 1;
    }
    batch.message(NEW_RULE, NEW | libc::NLM_F_APPEND as u16, sequence, IPV4, 0, |body| {
        body.string(1, table);
        body.string(2, CHAIN);
        body.nested(4, |list| {
            load(list, PROTOCOL_AT, 1);
            equals(list, &[IPPROTO_IPIP]);
            load(list, DESTINATION_AT, 4);
            equals(list, &local.octets());
            load(list, SOURCE_AT, 4);
            expression(list, "lookup", |data| {
                data.string(1, SET);
                data.number(2, REGISTER);
                data.number(4, 1);
            });
            expression(list, "immediate", |data| {
                data.number(1, VERDICT_REGISTER);
                data.nested(2, |value| value.nested(2, |verdict| verdict.number(1, 0)));
            });
        });
    });
    batch.message(BATCH_END, PLAIN, sequence + 1, 0, SUBSYSTEM, |_| {});
    batch.into_bytes()
}

/// Loads bytes of the IPv4 header into the register.
fn load(list: &mut Writer, offset: u32, len: u32) {
    expression(list, "payload", |data| {
        data.number(1, REGISTER);
        data.number(2, NETWORK_HEADER);
        data.number(3, offset);
        data.number(4, len);
    });
}

/// Goes on only if the register holds these bytes.
fn equals(list: &mut Writer, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.number(1, REGISTER);
        data.number(2, 0);
        data.nested(3, |nested| nested.bytes(1, value));
    });
}
