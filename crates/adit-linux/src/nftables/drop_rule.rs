//! A table that drops what our peers tunnel before the host's IP input sees it.
//!
//! Where the module `tunnel4` is loaded (by `ipip` or `sit`), the kernel answers tunneled packets
//! that belong to none of its tunnels with ICMP Port Unreachable. Packet sockets receive a datagram
//! before the rule drops it, so the userspace data plane still gets it.
//!
//! The kernel *owns* the table for this process: it removes it when the socket closes, however the
//! process ends (Linux 5.12).

use std::net::Ipv4Addr;

use super::ruleset::{Chain, Comparison, Field, Hook, Key, Ruleset, Set, Step};
use super::tables::Tables;
use crate::error::Result;
use crate::tunnel_protocol::TunnelProtocol;

const SET: &str = "peers";
const CHAIN: &str = "drop-tunneled";

/// Rules that drop tunneled packets from the peers to us. Dropping this value removes them.
#[derive(Debug)]
pub struct Tunnel4DropRule {
    /// The kernel removes the table with this socket.
    _tables: Tables,
}

impl Tunnel4DropRule {
    /// Returns true if the kernel has loaded a driver that answers with Port Unreachable.
    #[must_use]
    pub fn is_needed() -> bool {
        std::path::Path::new("/sys/module/tunnel4").exists()
    }

    /// Adds a rule for each protocol in the calling thread's network namespace. `table` is the name
    /// of their table.
    ///
    /// # Errors
    /// The kernel has no nf_tables or is older than 5.12, or CAP_NET_ADMIN is missing.
    pub fn start(
        table: &str,
        local: Ipv4Addr,
        peers: &[Ipv4Addr],
        protocols: &[TunnelProtocol],
    ) -> Result<Self> {
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

fn ruleset(table: &str, local: Ipv4Addr, peers: &[Ipv4Addr], protocols: &[TunnelProtocol]) -> Ruleset {
    let equals = |field, value: &[u8]| Step::Compare {
        field,
        mask: None,
        how: Comparison::Equal,
        value: value.to_vec(),
    };
    let rule = |protocol: &TunnelProtocol| {
        vec![
            equals(Field::PROTOCOL, &[protocol.number()]),
            equals(Field::DESTINATION, &local.octets()),
            Step::In { field: Field::SOURCE, prefix: 32, set: SET.to_owned() },
            Step::Drop,
        ]
    };
    Ruleset {
        table: table.to_owned(),
        is_owned: true,
        counters: Vec::new(),
        sets: vec![Set {
            name: SET.to_owned(),
            key: Key::Address,
            counts: false,
            elements: peers.iter().map(|peer| peer.octets().to_vec()).collect(),
        }],
        chains: vec![Chain {
            name: CHAIN.to_owned(),
            hook: Some(Hook::BeforeReassembly),
            rules: protocols.iter().map(rule).collect(),
        }],
    }
}
