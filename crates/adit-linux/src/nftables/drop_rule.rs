//! A table that drops what our peers tunnel before the host's IP input sees it.
//!
//! Where the module `tunnel4` is loaded (by `ipip` or `sit`), or `tunnel6` (by `ip6_tunnel`), the
//! kernel answers tunneled packets that belong to none of its tunnels with Port Unreachable. Packet
//! sockets receive a datagram before the rule drops it, so the userspace data plane still gets it.
//!
//! Fragments of IPv6 are not dropped, because they may carry something else. Once the kernel has
//! reassembled them, its driver answers those of a tunnel, and the answer is dropped on its way
//! out.
//!
//! The kernel *owns* the table for this process: it removes it when the socket closes, however the
//! process ends (Linux 5.12).

use std::net::IpAddr;

use super::ruleset::{Chain, Comparison, Field, Hook, Key, Rule, Ruleset, Set, Step};
use super::tables::Tables;
use crate::error::Result;
use crate::family::Family;
use crate::tunnel_protocol::TunnelProtocol;

const SET: &str = "peers";
const CHAIN: &str = "drop-tunneled";
const ANSWERS: &str = "drop-answers";

/// Rules that drop tunneled packets from the peers to us. Dropping this value removes them.
#[derive(Debug)]
pub struct TunnelDropRule {
    /// The kernel removes the table with this socket.
    _tables: Tables,
}

impl TunnelDropRule {
    /// Returns true if the kernel has loaded a driver that answers tunneled packets of this
    /// underlay with Port Unreachable.
    #[must_use]
    pub fn is_needed(underlay: Family) -> bool {
        let module = match underlay {
            Family::V4 => "/sys/module/tunnel4",
            Family::V6 => "/sys/module/tunnel6",
        };
        std::path::Path::new(module).exists()
    }

    /// Adds rules for each protocol in the calling thread's network namespace. `table` is the name
    /// of their table, whose family is that of `local`. Peers of the other family are left out.
    ///
    /// # Errors
    /// The kernel has no nf_tables or is older than 5.12, or CAP_NET_ADMIN is missing.
    pub fn start(table: &str, local: IpAddr, peers: &[IpAddr], protocols: &[TunnelProtocol]) -> Result<Self> {
        let mut tables = Tables::open()?;
        tables.create(&ruleset(table, local, peers, protocols)).map_err(|error| {
            if error.is_permission() {
                return error;
            }
            error.with_hint("nf_tables of Linux 5.12 or newer is needed")
        })?;
        Ok(Self { _tables: tables })
    }
}

fn ruleset(table: &str, local: IpAddr, peers: &[IpAddr], protocols: &[TunnelProtocol]) -> Ruleset {
    let family = Family::of(local);
    let key = Key::Address(family);
    let (source, destination, prefix) = match family {
        Family::V4 => (Field::SOURCE, Field::DESTINATION, 32),
        Family::V6 => (Field::SOURCE_V6, Field::DESTINATION_V6, 128),
    };
    let is_peer = |field| Step::In { field, prefix, set: SET.to_owned() };
    let rule = |protocol: &TunnelProtocol| -> Rule {
        let number = protocol.number();
        let is_tunneled = match family {
            Family::V4 => vec![compare(Field::PROTOCOL, Comparison::Equal, &[number])],
            Family::V6 => vec![
                compare(Field::NEXT_HEADER, Comparison::NotEqual, &[libc::IPPROTO_FRAGMENT as u8]),
                Step::Carries(number),
            ],
        };
        let to_us = compare(destination, Comparison::Equal, &octets(local));
        is_tunneled.into_iter().chain([to_us, is_peer(source), Step::Drop]).collect()
    };
    let mut chains = vec![Chain {
        name: CHAIN.to_owned(),
        hook: Some(Hook::BeforeReassembly),
        rules: protocols.iter().map(rule).collect(),
    }];
    if family == Family::V6 {
        let answer = |protocol: &TunnelProtocol| -> Rule {
            vec![
                Step::Carries(libc::IPPROTO_ICMPV6 as u8),
                compare(Field::payload(0, 2), Comparison::Equal, &PORT_UNREACHABLE),
                compare(QUOTED_NEXT_HEADER, Comparison::Equal, &[protocol.number()]),
                compare(source, Comparison::Equal, &octets(local)),
                is_peer(destination),
                Step::Drop,
            ]
        };
        let rules = protocols.iter().map(answer).collect();
        chains.push(Chain { name: ANSWERS.to_owned(), hook: Some(Hook::Output), rules });
    }
    let elements = peers.iter().filter(|peer| Family::of(**peer) == family).map(|peer| octets(*peer));
    Ruleset {
        family,
        table: table.to_owned(),
        is_owned: true,
        counters: Vec::new(),
        sets: vec![Set { name: SET.to_owned(), key, counts: false, elements: elements.collect() }],
        chains,
    }
}

/// Type and code of ICMPv6 (RFC 4443 section 3.1).
const PORT_UNREACHABLE: [u8; 2] = [1, 4];
/// The next header of the IPv6 header that an ICMPv6 error quotes behind its own 8 bytes.
const QUOTED_NEXT_HEADER: Field = Field::payload(8 + 6, 1);

fn compare(field: Field, how: Comparison, value: &[u8]) -> Step {
    Step::Compare { field, mask: None, how, value: value.to_vec() }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
