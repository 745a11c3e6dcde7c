//! The keys of a configuration file: one table, from which come the reader's errors, the JSON
//! Schema and the reference of the manual.

use crate::model::{MAX_KEEPALIVE, MAX_MTU, MAX_MTU_FLOOR, MIN_KEEPALIVE, MIN_MTU, MIN_MTU_FLOOR};

/// A table of the file.
#[derive(Debug)]
pub(crate) struct TableSpec {
    /// As it is written in a file: `[site]`.
    pub(crate) title: &'static str,
    /// One sentence.
    pub(crate) about: &'static str,
    pub(crate) keys: &'static [KeySpec],
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct KeySpec {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// The allowed values, as they go after "expected".
    pub(crate) expected: &'static str,
    /// A valid value, as it is written in a file. If the key has a default that is a number or a
    /// word of this list, this is the default.
    pub(crate) example: &'static str,
    /// The value of a key that is left out, as it is written in a file; `None`: it must be there.
    pub(crate) default: Option<&'static str>,
    /// One or two sentences for an editor.
    pub(crate) about: &'static str,
    /// What else an operator has to know, in Markdown. May be empty.
    pub(crate) details: &'static str,
    /// The data planes for which the key has an effect.
    pub(crate) planes: &'static str,
    pub(crate) change: Change,
}

/// The kind of value that a key takes.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A section, or a list of them.
    Table,
    /// A site's or a peer's name.
    Name,
    /// The name of an interface.
    Device,
    /// A unicast address, or a list of one of each family.
    UnderlayAddresses,
    /// The same, or the name of an interface.
    UnderlayAddressesOrInterface,
    /// A unicast IPv4 address, or this word with its meaning.
    AddressOrWord { word: &'static str, meaning: &'static str },
    /// A time in seconds of this range, as a number with a unit, or one of these words.
    DurationOrWord { least: u32, most: u32, words: &'static [(&'static str, &'static str)] },
    /// A list of unicast IPv4 addresses.
    Addresses,
    /// A list of IPv4 prefixes.
    Prefixes,
    /// One of these words, each with its meaning.
    Words(&'static [(&'static str, &'static str)]),
    /// A number of this range, or this word with its meaning.
    NumberOrWord { least: u32, most: u32, word: &'static str, meaning: &'static str },
    /// A number of this range.
    Number { least: u16, most: u16 },
    /// `true` or `false`.
    Boolean,
    /// One of two words, `false`, or a list of pairs of peers.
    Relay,
    /// `"off"`, or the name of a network namespace.
    NetnsOrOff,
    /// `"off"`, or the name of a VRF's interface.
    VrfOrOff,
    /// `"off"`, or an address and a port.
    ListenOrOff,
}

/// The cost of a change of a key while the overlay runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Nothing is started anew.
    InPlace,
    /// The data plane is started anew and takes the place of the running one.
    PlaneRestart,
    /// The overlay is taken down and brought up.
    DownUp,
    /// Between `"kernel"` and the others as [`Change::DownUp`], else as [`Change::PlaneRestart`].
    ByPlane,
}

impl Change {
    /// The cost, in Markdown.
    pub(crate) fn described(self) -> &'static str {
        match self {
            Self::InPlace => "in place, without an interruption of other traffic",
            Self::PlaneRestart => {
                "the data plane is replaced: no lost packet with eBPF, a gap of 0.1 to 0.2 s with userspace"
            }
            Self::DownUp => "`adit down`, then `adit up`, which interrupts the tunnel",
            Self::ByPlane => {
                "to or from `\"kernel\"`: `adit down`, then `adit up`; else the data plane is replaced"
            }
        }
    }
}

/// What means "none" where a name or an address is expected.
pub(crate) const OFF: &str = "off";
/// What means "as it is found out".
pub(crate) const AUTO: &str = "auto";
/// What means "as for all peers".
pub(crate) const DEFAULT: &str = "default";

const ALL_PLANES: &str = "all";

const NAME: KeySpec = KeySpec {
    name: "name",
    shape: Shape::Name,
    expected: "1 to 32 of a-z, 0-9 and -",
    example: "\"a\"",
    default: None,
    about: "Names the overlay's socket and pins.",
    details: "The socket is `/run/adit/NAME.sock`, the pins are in `/sys/fs/bpf/adit/NAME/`, the state is \
              in `/var/lib/adit/NAME/`. Another name is another overlay.",
    planes: ALL_PLANES,
    change: Change::DownUp,
};

const UNDERLAY: KeySpec = KeySpec {
    name: "underlay",
    shape: Shape::UnderlayAddressesOrInterface,
    expected: "an IP address or the name of an interface",
    example: "\"10.1.1.1\"",
    default: None,
    about: "Our address on the public network, the outer source, or the interface that has it.",
    details: "One address, or a list of one of IPv4 and one of IPv6, as in \
              `[\"192.0.2.1\", \"2001:db8::1\"]`. An address is the one of a single host: not of \
              0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 or 240.0.0.0/4, and in IPv6 neither link-local nor \
              multicast. No peer has it, and it lies in no peer's network. Peers may send to each \
              address; what is sent to a peer has the one of its path's family as the source. With \
              the name of an interface the overlay follows the addresses of that interface, for \
              example of a DHCP lease: one of each family that a peer has.",
    planes: ALL_PLANES,
    change: Change::PlaneRestart,
};

const NETWORKS: KeySpec = KeySpec {
    name: "networks",
    shape: Shape::Prefixes,
    expected: "a list of prefixes",
    example: "[\"172.16.17.0/24\"]",
    default: None,
    about: "The networks behind this site. Packets come from them and are delivered to them.",
    details: "At least one, of IPv4 or IPv6. A prefix has no host bits. Networks of two owners do not \
              overlap.",
    planes: ALL_PLANES,
    change: Change::PlaneRestart,
};

/// The key of one prefix in a list of `networks`.
pub(crate) const PREFIX: KeySpec = KeySpec { expected: "a prefix", ..NETWORKS };

const LOCAL: KeySpec = KeySpec {
    name: "local",
    shape: Shape::Addresses,
    expected: "a list of IPv4 addresses",
    example: "[\"10.99.0.1\"]",
    default: Some("[]"),
    about: "Addresses of this gateway outside `networks` that peers may reach all the same.",
    details: "Without it a peer reaches only `networks`, and the underlay address by ICMP. Answers \
              from such an address pass as well, if the peer lists it in its `networks` for this \
              site.",
    planes: ALL_PLANES,
    change: Change::PlaneRestart,
};

/// The key of one address in `local`.
pub(crate) const ADDRESS: KeySpec = KeySpec { expected: "an IPv4 address", ..LOCAL };

/// The whole file.
pub(crate) const TOP: TableSpec = TableSpec {
    title: "the file",
    about: "The configuration of one site of an Adit overlay.",
    keys: &[
        KeySpec { name: "site", expected: "the section [site]", ..TOP_KEY },
        KeySpec { name: "tunnel", expected: "the section [tunnel]", ..TOP_KEY },
        KeySpec { name: "peer", expected: "a section [[peer]] for each peer", ..TOP_KEY },
    ],
};

const TOP_KEY: KeySpec = KeySpec {
    name: "",
    shape: Shape::Table,
    expected: "",
    example: "…",
    default: None,
    about: "",
    details: "",
    planes: ALL_PLANES,
    change: Change::InPlace,
};

/// This side of the overlay.
pub(crate) const SITE: TableSpec = TableSpec {
    title: "[site]",
    about: "This side of the overlay.",
    keys: &[
        NAME,
        UNDERLAY,
        NETWORKS,
        LOCAL,
        KeySpec {
            name: "device",
            shape: Shape::Device,
            expected: "an interface name of 1 to 15 visible ASCII characters without / : %",
            example: "\"adit0\"",
            default: Some("\"adit0\""),
            about: "The tunnel interface.",
            details: "Not `all`, `default` or `lo`. With `dataplane = \"kernel\"` and a few peers, each peer \
                      has an interface of its own, and their names begin with this one.",
            planes: ALL_PLANES,
            change: Change::DownUp,
        },
        KeySpec {
            name: "dataplane",
            shape: Shape::Words(&[
                ("auto", "eBPF if its programs load on this machine, else userspace."),
                ("ebpf", "Programs in the kernel, with userspace behind them."),
                ("userspace", "A process that reads the tunnel interface and sends by packet sockets."),
                ("kernel", "Linux's tunnel drivers."),
            ]),
            expected: "\"auto\", \"ebpf\", \"userspace\" or \"kernel\"",
            example: "\"auto\"",
            default: Some("\"auto\""),
            about: "The data plane that carries the packets.",
            details: "[Data planes](data-planes.md) compares them.",
            planes: ALL_PLANES,
            change: Change::ByPlane,
        },
        KeySpec {
            name: "netns",
            shape: Shape::NetnsOrOff,
            expected: "\"off\", or the name of a network namespace",
            example: "\"blue\"",
            default: Some("\"off\""),
            about: "The network namespace of the tunnel interface and its routes, as `ip netns` names it. \
                    The underlay stays where Adit runs.",
            details: "[Operations](operations.md#network-namespaces) shows a use.",
            planes: "ebpf, userspace",
            change: Change::DownUp,
        },
        KeySpec {
            name: "vrf",
            shape: Shape::VrfOrOff,
            expected: "\"off\", or the name of a VRF's interface",
            example: "\"blue\"",
            default: Some("\"off\""),
            about: "The VRF of the tunnel interface and its routes.",
            details: "With `netns`, the VRF is in that namespace. [Operations](operations.md#vrf) shows a use.",
            planes: "ebpf, userspace",
            change: Change::DownUp,
        },
        KeySpec {
            name: "metrics",
            shape: Shape::ListenOrOff,
            expected: "\"off\", or an address and a port to listen on",
            example: "\"127.0.0.1:9150\"",
            default: Some("\"off\""),
            about: "Where Prometheus reads the overlay's numbers, by HTTP at `/metrics`: an address and a \
                    port.",
            details: "Anybody who reaches the address can read the numbers. [Monitoring](monitoring.md#prometheus) \
                      lists them. A change moves only this server. If it cannot listen at the new address, the \
                      daemon logs an error and tries again.",
            planes: ALL_PLANES,
            change: Change::InPlace,
        },
        KeySpec {
            name: "fwmark",
            shape: Shape::NumberOrWord {
                least: 1,
                most: u32::MAX,
                word: OFF,
                meaning: "What is sent has no mark of its own.",
            },
            expected: "1 to 4294967295 or \"off\"",
            example: "\"off\"",
            default: Some("\"off\""),
            about: "The firewall mark of everything that is sent to peers, by which rules choose its route \
                    (`ip rule add fwmark 100 lookup 100`).",
            details: "Rules by source address need no mark. [Operations](operations.md#two-uplinks) shows both. \
                      With `dataplane = \"kernel\"` the mark chooses the route only.",
            planes: ALL_PLANES,
            change: Change::PlaneRestart,
        },
    ],
};

/// How the tunnel treats packets. The examples are the defaults.
pub(crate) const TUNNEL: TableSpec = TableSpec {
    title: "[tunnel]",
    about: "How the tunnel treats packets. All of it may be left out.",
    keys: &[
        KeySpec {
            name: "ttl",
            shape: Shape::NumberOrWord {
                least: 1,
                most: 255,
                word: "inherit",
                meaning: "The TTL of the inner header.",
            },
            expected: "1 to 255 or \"inherit\"",
            example: "64",
            default: Some("64"),
            about: "TTL of the outer header, in hops (RFC 2003, section 3.1).",
            details: "With `\"inherit\"` a traceroute through the tunnel shows the routers of the underlay, \
                      and a packet with a small TTL does not reach the peer.",
            planes: ALL_PLANES,
            change: Change::PlaneRestart,
        },
        KeySpec {
            name: "dscp",
            shape: Shape::NumberOrWord {
                least: 0,
                most: 63,
                word: "inherit",
                meaning: "The DSCP of the inner header.",
            },
            expected: "\"inherit\" or 0 to 63",
            example: "\"inherit\"",
            default: Some("\"inherit\""),
            about: "DSCP of the outer header (RFC 2983).",
            details: "",
            planes: ALL_PLANES,
            change: Change::PlaneRestart,
        },
        KeySpec {
            name: "ecn",
            shape: Shape::Words(&[
                ("normal", "The inner ECN field is copied to the outer header."),
                ("compatibility", "The outer header is Not-ECT, for a peer that does not handle ECN."),
            ]),
            expected: "\"normal\" or \"compatibility\"",
            example: "\"normal\"",
            default: Some("\"normal\""),
            about: "ECN mode of the encapsulator (RFC 6040, section 4.1).",
            details: "",
            planes: ALL_PLANES,
            change: Change::PlaneRestart,
        },
        KeySpec {
            name: "mtu",
            shape: Shape::NumberOrWord {
                least: MIN_MTU as u32,
                most: MAX_MTU as u32,
                word: "auto",
                meaning: "What the underlay leaves after the outer header.",
            },
            expected: "\"auto\" or 68 to 65515",
            example: "\"auto\"",
            default: Some("\"auto\""),
            about: "MTU of the tunnel interface, in bytes.",
            details: "The outer header takes 20 bytes, and 40 on an underlay of IPv6: 1500 bytes leave 1480 \
                      or 1460.",
            planes: ALL_PLANES,
            change: Change::PlaneRestart,
        },
        KeySpec {
            name: "df",
            shape: Shape::Boolean,
            expected: "true or false",
            example: "true",
            default: Some("true"),
            about: "Path MTU discovery inside the tunnel (RFC 2003, section 5.1).",
            details: "An inner DF=1 is honoured even if this is `false`. With `dataplane = \"kernel\"`, \
                      `false` needs `ttl = \"inherit\"`.",
            planes: ALL_PLANES,
            change: Change::PlaneRestart,
        },
        KeySpec {
            name: "mss-clamp",
            shape: Shape::Boolean,
            expected: "true or false",
            example: "true",
            default: Some("true"),
            about: "Lowers the MSS of TCP connections through the tunnel to the peer's path MTU.",
            details: "",
            planes: ALL_PLANES,
            change: Change::PlaneRestart,
        },
        KeySpec {
            name: "mtu-floor",
            shape: Shape::Number { least: MIN_MTU_FLOOR, most: MAX_MTU_FLOOR },
            expected: "88 to 1500",
            example: "552",
            default: Some("552"),
            about: "The smallest path MTU that a router may set, in bytes, outer header included.",
            details: "A router that reports less sets this. Probes find a path that takes less; without \
                      probes, lower this for such a path.",
            planes: "ebpf, userspace",
            change: Change::PlaneRestart,
        },
        KeySpec {
            name: "probe",
            shape: Shape::Boolean,
            expected: "true or false",
            example: "true",
            default: Some("true"),
            about: "Finds the path MTU by probes if routers send no ICMP (RFC 8899), and tests what \
                    routers say.",
            details: "Without probes, every ICMP error that quotes a datagram between the two sites is \
                      believed. Nothing is probed without `df`, or if no address of this machine lies in \
                      `site.networks`.",
            planes: "ebpf, userspace",
            change: Change::PlaneRestart,
        },
        KEEPALIVE,
        KeySpec {
            name: "relay",
            shape: Shape::Relay,
            expected: "\"auto\", \"direct\", false, or a list of pairs of peers",
            example: "[[\"b\", \"c\"]]",
            default: Some("\"auto\""),
            about: "Which peers reach each other through this site.",
            details: "`\"auto\"`: all, as far as the host's FORWARD rules let them. `\"direct\"`: all, and the \
                      programs of eBPF pass by those rules. `false`: none. A list: the peers of each pair, in \
                      both directions and as with `\"auto\"`, and no others. What is not allowed is dropped as \
                      `relay-refused`. [Security](security.md#your-firewall) explains the rules.",
            planes: ALL_PLANES,
            change: Change::PlaneRestart,
        },
    ],
};

const KEEPALIVE: KeySpec = KeySpec {
    name: "keepalive",
    shape: Shape::DurationOrWord {
        least: MIN_KEEPALIVE,
        most: MAX_KEEPALIVE,
        words: &[(OFF, "Nothing is sent while the tunnel is idle.")],
    },
    expected: "\"off\" or a time from \"2s\" to \"1h\"",
    example: "\"off\"",
    default: Some("\"off\""),
    about: "Sends a small probe to a peer to which nothing was sent for so long, so that stateful firewalls \
            and NATs on the path stay open.",
    details: "Take less than the time after which they forget an idle flow: `\"25s\"` suits most. A keepalive \
              may come two seconds late. It needs `probe`, and an address of this machine in \
              `site.networks`. [NAT and firewalls](operations.md#nat-and-stateful-firewalls) shows a use.",
    planes: "ebpf, userspace",
    change: Change::PlaneRestart,
};

/// Another site.
pub(crate) const PEER: TableSpec = TableSpec {
    title: "[[peer]]",
    about: "Another site, reached through the tunnel. One section for each.",
    keys: &[
        KeySpec {
            example: "\"b\"",
            about: "The name of that site. Unique among the peers.",
            details: "It labels the peer in all output. A peer that only gets another name keeps what is \
                      known of its path.",
            change: Change::InPlace,
            ..NAME
        },
        KeySpec {
            shape: Shape::UnderlayAddresses,
            expected: "an IP address",
            example: "\"10.1.1.2\"",
            about: "Its address on the public network: the outer destination.",
            details: "One address, or a list of one of IPv4 and one of IPv6. Packets go to the first one \
                      whose family this site has, and are accepted from each. Unique among the peers, in \
                      no peer's network, and the address of a single host: not of 0.0.0.0/8, 127.0.0.0/8, \
                      224.0.0.0/4 or 240.0.0.0/4, and in IPv6 neither link-local nor multicast. Tunnel \
                      packets from other addresses are dropped.",
            change: Change::InPlace,
            ..UNDERLAY
        },
        KeySpec {
            example: "[\"192.168.199.0/24\"]",
            about: "The networks that are reached through this peer, and that may send through it.",
            details: "At least one, of IPv4 or IPv6. A prefix has no host bits. Networks of two owners do \
                      not overlap, and no underlay address lies in a peer's network.",
            change: Change::InPlace,
            ..NETWORKS
        },
        KeySpec {
            name: "probe-address",
            shape: Shape::AddressOrWord {
                word: AUTO,
                meaning: "Its underlay address, or if that does not answer, the address from which its own \
                          probes come.",
            },
            expected: "\"auto\" or an IPv4 address in this peer's `networks`",
            example: "\"auto\"",
            default: Some("\"auto\""),
            about: "The address of that site's gateway inside the tunnel, which answers our probes.",
            details: "For a gateway behind 1:1 NAT, which does not have the address that it is called by, and \
                      which does not probe by itself. \
                      [NAT and firewalls](operations.md#nat-and-stateful-firewalls) explains it.",
            planes: "ebpf, userspace",
            change: Change::InPlace,
        },
        KeySpec {
            shape: Shape::DurationOrWord {
                least: MIN_KEEPALIVE,
                most: MAX_KEEPALIVE,
                words: &[
                    (DEFAULT, "As `tunnel.keepalive` says."),
                    (OFF, "Nothing is sent to this peer while it is idle."),
                ],
            },
            expected: "\"default\", \"off\" or a time from \"2s\" to \"1h\"",
            example: "\"default\"",
            default: Some("\"default\""),
            about: "Overrides `tunnel.keepalive` for this peer.",
            details: "",
            change: Change::InPlace,
            ..KEEPALIVE
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_and_words_of_a_shape_are_in_what_is_expected() {
        for key in [&SITE, &TUNNEL, &PEER].into_iter().flat_map(|table| table.keys) {
            let parts: Vec<String> = match key.shape {
                Shape::Words(words) => words.iter().map(|(word, _)| format!("\"{word}\"")).collect(),
                Shape::Number { least, most } => vec![format!("{least} to {most}")],
                Shape::AddressOrWord { word, .. } => vec![format!("\"{word}\"")],
                Shape::DurationOrWord { least, most, words } => {
                    let hours = most / 3600;
                    let words = words.iter().map(|(word, _)| format!("\"{word}\""));
                    words.chain([format!("\"{least}s\" to \"{hours}h\"")]).collect()
                }
                Shape::NumberOrWord { least, most, word, .. } => {
                    vec![format!("{least} to {most}"), format!("\"{word}\"")]
                }
                _ => Vec::new(),
            };
            assert!(parts.iter().all(|part| key.expected.contains(part)), "{}: {}", key.name, key.expected);
        }
    }
}
