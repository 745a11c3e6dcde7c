//! Limits of Linux's drivers ipip, sit and ip6tnl: what the other data planes do and they do not.
//! `adit check` and `adit status` show them. Each limit lists the rows of
//! docs/reference/conformance.md that a driver was observed to break, and a test compares the lists
//! with that document.

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its stable name.
    pub name: &'static str,
    /// What is missing, in a sentence.
    pub what: &'static str,
    /// Ids of the rows that a driver breaks because of it.
    pub rows: &'static [&'static str],
}

/// All limits.
pub const LIMITS: [Limit; 12] = [
    Limit {
        name: "late-errors",
        what: "a sender whose datagram is lost inside the tunnel gets no ICMP error; for half a \
               minute whoever sends next gets one, always Host Unreachable (RFC 2003 section 4)",
        rows: &[
            "net-unreachable",
            "host-unreachable",
            "protocol-unreachable",
            "port-unreachable",
            "time-exceeded",
            "reassembly-time-exceeded",
            "unreachable-codes-from-6-on",
            "sender-elsewhere",
            "reachable-again",
            "reachable-again-at-once",
            "facing-no-route",
        ],
    },
    Limit {
        name: "late-path-mtu",
        what: "when a path shrinks, the first datagram that is too big gets no answer, only the \
               next does; datagrams that may be fragmented are dropped in silence; a router \
               that tells no MTU makes it 532 (RFC 2003 section 5.1)",
        rows: &["too-big", "too-big-without-df", "mtu-not-told", "facing-path-mtu"],
    },
    Limit {
        name: "no-probes",
        what: "paths are not probed, so a path that drops large datagrams in silence keeps \
               doing so (RFC 8899)",
        rows: &["facing-black-hole"],
    },
    Limit {
        name: "forged-errors",
        what: "forged ICMP errors from off the path are believed (RFC 5927)",
        rows: &["forged-too-big", "forged-larger", "forged-unreachable"],
    },
    Limit {
        name: "unlisted-routers",
        what: "ICMP errors from routers inside a site pass only if the routers' addresses are in \
               that site's networks (RFC 1191 section 3)",
        rows: &[],
    },
    Limit {
        name: "unlimited-errors",
        what: "ICMP errors about datagrams that are too big are sent without a rate limit (RFC \
               1812 section 4.3.2.8)",
        rows: &["error-rate"],
    },
    Limit {
        name: "ecn",
        what: "congestion marks are copied as RFC 3168 says and not counted; tunnel.ecn = \
               \"compatibility\" has no effect (RFC 6040)",
        rows: &[
            "congestion",
            "ecn-normal-mode",
            "ecn-compatibility-mode",
            "ecn-ect1-in-ect0",
            "ecn-ce-in-ect1",
            "ecn-4in6-entrance",
            "ecn-6in4-entrance",
            "ecn-6in6-entrance",
        ],
    },
    Limit {
        name: "traceroute",
        what: "a traceroute does not show the far gateway unless it has an address inside its \
               own networks",
        rows: &["facing-traceroute"],
    },
    Limit {
        name: "coarse-counts",
        what: "datagrams that the kernel has coalesced count as one; the time of a peer's last \
               datagram is known to half a second; no router is named that reports a peer \
               unreachable, and no source of what is dropped",
        rows: &[],
    },
    Limit {
        name: "narrow-ipv6-path",
        what: "over IPv6, packets of IPv6 that the path does not carry are refused even if they have \
               no more than 1280 bytes, so nothing of that size passes a path of less than 1320 (RFC \
               2473 section 7.1)",
        rows: &["over-ipv6-narrow-path"],
    },
    Limit {
        name: "flow-label",
        what: "over IPv6, all flows to a peer have the same outer flow label, so routers that choose \
               among paths by it send them all by one (RFC 6438)",
        rows: &["flow-label"],
    },
    Limit {
        name: "ipv6-peers",
        what: "more than 64 peers have IPv4 only, because they share one interface",
        rows: &[],
    },
];

/// Rows that a driver breaks with its defaults, and keeps with our settings and our table.
pub const MENDED: [&str; 10] = [
    "tos",
    "outer-ttl",
    "ttl-zero-at-exit",
    "exit-source",
    "foreign-source",
    "spoofed-inner-source",
    "spoofed-inner-destination",
    "nested",
    "6in4-forged-source",
    "6in6-forged-source",
];

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../../../docs/reference/conformance.md");

    /// Ids of the rows that Linux was observed to break and the eBPF plane to keep. A cell with an
    /// observation that the rule does not ask for has bold text.
    fn broken() -> Vec<&'static str> {
        let mut ebpf = None;
        let mut broken = Vec::new();
        for line in TABLE.lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            if cells[0] == "id" {
                ebpf = cells.iter().position(|cell| cell.starts_with("Adit eBPF"));
            } else if let (Some(id), Some(ebpf), Some(linux)) =
                (cells[0].strip_prefix('`'), ebpf.and_then(|ebpf| cells.get(ebpf)), cells.last())
                && linux.contains("**")
                && !ebpf.contains("**")
            {
                // The last column is Linux alone, in both tables.
                broken.push(id.trim_end_matches('`'));
            }
        }
        broken
    }

    #[test]
    fn every_row_that_linux_breaks_is_a_limit_or_mended() {
        let mut broken = broken();
        assert!(broken.len() > 25, "{broken:#?}");
        let mut named: Vec<&str> =
            LIMITS.iter().flat_map(|limit| limit.rows).chain(&MENDED).copied().collect();
        broken.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, broken);
    }
}
