//! What Linux's driver does not do, and the other data planes do: said by `adit check` and `adit status`. Each limit names
//! the rules of docs/reference/conformance.md that the driver was seen to break; a test holds both lists against that table.

/// Something that is lacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In a word or two.
    pub name: &'static str,
    /// In a sentence.
    pub what: &'static str,
    /// The beginnings of the rules that it breaks.
    pub rules: &'static [&'static str],
}

/// All of them.
pub const LIMITS: [Limit; 8] = [
    Limit {
        name: "late-errors",
        what: "a sender whose datagram dies inside the tunnel is not told; whoever sends next is, for half a minute, \
               and always Host Unreachable (RFC 2003 section 4)",
        rules: &[
            "Net Unreachable (3/0) is told",
            "Host Unreachable (3/1) is told",
            "Protocol Unreachable (3/2) is told",
            "Port Unreachable (3/3) is not relayed",
            "Time Exceeded in transit (11/0)",
            "Time Exceeded in reassembly (11/1)",
            "The codes of Destination Unreachable that are younger",
            "A sender who is on none of the gateway's own networks",
            "A second after the exit is heard again",
            "The same for the very next datagram",
            "The router inside the tunnel has no route",
        ],
    },
    Limit {
        name: "late-path-mtu",
        what: "when a path shrinks, the datagram that was too big goes unanswered and only the next is told; those that \
               may be fragmented are dropped without a word; a router that tells no MTU makes it 532 (RFC 2003 section 5.1)",
        rules: &[
            "Datagram Too Big (3/4, here MTU 1400) is relayed",
            "A datagram without DF that is too big is fragmented",
            "From a router that tells no MTU (0)",
            "The router's link to gateway B takes 1,300 bytes",
        ],
    },
    Limit {
        name: "no-probes",
        what: "paths are not probed, so one that swallows large datagrams in silence stays so (RFC 8899)",
        rules: &["Under a running TCP transfer"],
    },
    Limit {
        name: "forged-errors",
        what: "ICMP errors that somebody off the path has forged are believed (RFC 5927)",
        rules: &[
            "A forged Datagram Too Big",
            "A Too Big about a datagram that fits what it tells",
            "A forged Host Unreachable tells nobody",
        ],
    },
    Limit {
        name: "unlimited-errors",
        what: "ICMP errors about datagrams that are too big are not limited in their rate (RFC 1812 section 4.3.2.8)",
        rules: &["Errors are limited in their rate"],
    },
    Limit {
        name: "ecn",
        what: "marks of congestion are copied as RFC 3168 has it and not counted; tunnel.ecn = \"compatibility\" is not \
               heeded (RFC 6040)",
        rules: &[
            "Congestion that is marked inside the tunnel",
            "Normal mode, the default",
            "Compatibility mode",
            "Inner ECT(1), outer ECT(0)",
            "Inner CE, outer ECT(1)",
        ],
    },
    Limit {
        name: "traceroute",
        what: "a traceroute does not show the far gateway, unless that has an address inside its own networks to speak from",
        rules: &["The hops that a traceroute"],
    },
    Limit {
        name: "coarse-counts",
        what: "datagrams that the kernel has joined on their way count as one, and when a peer was last heard is known to \
               half a second",
        rules: &[],
    },
];

/// Rules that the driver breaks by itself, and keeps with our settings and our table.
pub const MENDED: [&str; 8] = [
    "The outer TOS is copied from the inner header.",
    "The outer TTL is fit to reach the exit",
    "An inner datagram with TTL 0 is discarded",
    "A datagram whose source is the tunnel's exit is not tunnelled",
    "A source that is in none of the gateway's networks",
    "An inner source that is not behind the peer",
    "An inner destination that is not behind the gateway",
    "What was tunnelled twice is not unpacked twice",
];

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../../../docs/reference/conformance.md");

    /// The rules that Linux was seen to break and Adit's own data planes to keep.
    fn broken() -> Vec<&'static str> {
        let (mut rule, mut ebpf, mut linux) = (0, 0, 0);
        let mut broken = Vec::new();
        for line in TABLE.lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let column = |word: &str| cells.iter().position(|cell| cell.starts_with(word));
            // The last column is of Linux alone, in both tables.
            if let (Some(r), Some(e)) = (column("rule").or(column("scenario")), column("Adit eBPF")) {
                (rule, ebpf, linux) = (r, e, cells.len() - 1);
            } else if let (Some(cell), Some(e), Some(l)) =
                (cells.get(rule), cells.get(ebpf), cells.get(linux))
                && l.contains("**")
                && !e.contains("**")
            {
                broken.push(*cell);
            }
        }
        broken
    }

    #[test]
    fn what_linux_breaks_is_named_or_mended_and_nothing_else_is() {
        let broken = broken();
        assert!(broken.len() > 25, "{broken:#?}");
        let named: Vec<&str> = LIMITS.iter().flat_map(|limit| limit.rules).chain(&MENDED).copied().collect();
        for rule in &broken {
            let by = named.iter().filter(|name| rule.starts_with(**name)).count();
            assert_eq!(by, 1, "named so often: {rule}");
        }
        for name in named {
            let rules = broken.iter().filter(|rule| rule.starts_with(name)).count();
            assert_eq!(rules, 1, "so many broken rules begin so: {name}");
        }
    }
}
