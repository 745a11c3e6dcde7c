//! The description of a table: sets, counters, and chains of rules, as far as Adit needs them.
//!
//! Its `Display` is the text that `nft -f` reads. [`super::Tables`] sends it to the kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::family::Family;

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The family of the datagrams that it sees: `ip` or `ip6` for nft(8).
    pub family: Family,
    /// Its name.
    pub table: String,
    /// True if the kernel removes the table with the socket that created it (Linux 5.12).
    pub is_owned: bool,
    /// The names of its named counters.
    pub counters: Vec<String>,
    /// The sets that rules look things up in.
    pub sets: Vec<Set>,
    /// The chains, in any order: all are created before any rule that goes to one.
    pub chains: Vec<Chain>,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub key: Key,
    /// True if each element counts the datagrams that matched it.
    pub counts: bool,
    /// The elements, in the kernel's bytes.
    pub elements: BTreeSet<Vec<u8>>,
}

/// The type of a set's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// An address.
    Address(Family),
    /// An address that is compared with bytes of the payload. For nft(8) that is another type than
    /// an address.
    Bytes(Family),
    /// A source address and an address in the payload, each of its family.
    Pair(Family, Family),
    /// The name of an interface.
    Interface,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// The hook that runs it; `None` if only other chains go to it.
    pub hook: Option<Hook>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// A netfilter hook with a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Every datagram that arrives, before the kernel reassembles fragments: prerouting at priority
    /// -500 (reassembly is at -400).
    BeforeReassembly,
    /// To this host, reassembled.
    Input,
    /// From one interface to another.
    Forward,
    /// From this host.
    Output,
}

/// The steps of a rule. A condition that does not hold ends the rule, and the next rule runs.
pub type Rule = Vec<Step>;

/// Some bytes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub(super) base: Base,
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// The byte from which the offset of a field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// The first of the IP header.
    Network,
    /// The first of the IPv4 header; nft(8) prints the field as plain bytes.
    NetworkBytes,
    /// The first after the IPv4 header and its options, or after the IPv6 header and its extension
    /// headers.
    Payload,
}

impl Field {
    /// The header's total length.
    pub const LENGTH: Self = Self { base: Base::Network, offset: 2, len: 2 };
    /// The header's protocol.
    pub const PROTOCOL: Self = Self { base: Base::Network, offset: 9, len: 1 };
    /// The header's source.
    pub const SOURCE: Self = Self { base: Base::Network, offset: 12, len: 4 };
    /// The header's destination.
    pub const DESTINATION: Self = Self { base: Base::Network, offset: 16, len: 4 };

    /// The next header of an IPv6 header: the first extension header, if there are any.
    pub const NEXT_HEADER: Self = Self { base: Base::Network, offset: 6, len: 1 };
    /// The source of an IPv6 header.
    pub const SOURCE_V6: Self = Self { base: Base::Network, offset: 8, len: 16 };
    /// The destination of an IPv6 header.
    pub const DESTINATION_V6: Self = Self { base: Base::Network, offset: 24, len: 16 };

    /// The payload length of an IPv6 header.
    pub const LENGTH_V6: Self = Self { base: Base::Network, offset: 4, len: 2 };

    /// The header's source, for look-ups in a set of [`Key::Bytes`].
    pub const SOURCE_BYTES: Self = Self { base: Base::NetworkBytes, offset: 12, len: 4 };
    /// The same of an IPv6 header.
    pub const SOURCE_BYTES_V6: Self = Self { base: Base::NetworkBytes, offset: 8, len: 16 };

    /// Bytes of the header.
    #[must_use]
    pub const fn network(offset: u32, len: u32) -> Self {
        Self { base: Base::Network, offset, len }
    }

    /// Bytes after the headers of IP: in IP in IP, those of the inner header.
    #[must_use]
    pub const fn payload(offset: u32, len: u32) -> Self {
        Self { base: Base::Payload, offset, len }
    }
}

/// How two numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// They are equal.
    Equal,
    /// They are not equal.
    NotEqual,
    /// The field is less.
    Less,
}

/// A step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Condition: a field compares with a value.
    Compare {
        /// The field.
        field: Field,
        /// The bits to compare, as long as the field; `None` is all.
        mask: Option<Vec<u8>>,
        /// The comparison.
        how: Comparison,
        /// The value, as long as the field.
        value: Vec<u8>,
    },
    /// Condition: the prefix of an address is in a set.
    In {
        /// The address.
        field: Field,
        /// The length of the prefix in bits.
        prefix: u8,
        /// The set's name.
        set: String,
    },
    /// Condition: an address is not in a set.
    NotIn {
        /// The address.
        field: Field,
        /// The set's name.
        set: String,
    },
    /// Condition: the source and the prefix of another address are an element of a set.
    PairIn {
        /// The source.
        source: Field,
        /// The other address.
        field: Field,
        /// The length of its prefix in bits.
        prefix: u8,
        /// The set's name.
        set: String,
    },
    /// Condition: the datagram leaves by an interface whose name is in a set.
    LeavesBy {
        /// The set's name.
        set: String,
    },
    /// Condition: the protocol is this one, behind the extension headers of IPv6.
    Carries(u8),
    /// Condition: the datagram is the first fragment of one of IPv6.
    FirstFragment,
    /// Condition: the datagram is a fragment of IPv6, and not the first.
    LaterFragment,
    /// Condition: the header chain of IPv6 is whole, so that its last header names a protocol.
    NamesProtocol,
    /// Condition: the datagram is a TCP segment with SYN and without RST.
    TcpSyn,
    /// Counts the datagram in the named counter.
    Count(String),
    /// Lowers the MSS option to what the route's MTU allows.
    LowerMss,
    /// Continues in another chain and does not come back.
    Goto(String),
    /// Accepts the datagram.
    Accept,
    /// Drops the datagram.
    Drop,
    /// Drops the datagram and tells its sender, by ICMP of this family, that it is
    /// administratively prohibited (RFC 1812 section 5.2.7.1, RFC 4443 section 3.1).
    Prohibit(Family),
}

/// A protocol number that no packet has.
pub(super) const RESERVED_PROTOCOL: u8 = 255;

impl Ruleset {
    /// Returns the set of that name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }
}

/// Returns the mask of a prefix of that many bits, for a field of `len` bytes.
pub(super) fn mask(prefix: u8, len: u32) -> Vec<u8> {
    let bits_of_octet = |octet: u32| u32::from(prefix).saturating_sub(octet * 8).min(8);
    (0..len).map(|octet| !(0xff_u32 >> bits_of_octet(octet)) as u8).collect()
}

impl Hook {
    pub(super) fn number(self) -> u32 {
        let number = match self {
            Self::BeforeReassembly => libc::NF_INET_PRE_ROUTING,
            Self::Input => libc::NF_INET_LOCAL_IN,
            Self::Forward => libc::NF_INET_FORWARD,
            Self::Output => libc::NF_INET_LOCAL_OUT,
        };
        number.cast_unsigned()
    }

    pub(super) fn priority(self) -> i32 {
        match self {
            Self::BeforeReassembly => -500,
            Self::Input | Self::Forward | Self::Output => 0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::BeforeReassembly => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

/// The text that `nft -f` reads.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        writeln!(f, "table {family} {} {{", self.table)?;
        if self.is_owned {
            writeln!(f, "  flags owner;")?;
        }
        for counter in &self.counters {
            writeln!(f, "  counter {counter} {{ }}")?;
        }
        for set in &self.sets {
            writeln!(f, "  {set}")?;
        }
        for chain in &self.chains {
            writeln!(f, "  chain {} {{", chain.name)?;
            if let Some(hook) = chain.hook {
                let priority = hook.priority();
                writeln!(f, "    type filter hook {} priority {priority}; policy accept;", hook.name())?;
            }
            for rule in &chain.rules {
                let steps: Vec<String> = rule.iter().map(ToString::to_string).collect();
                writeln!(f, "    {}", steps.join(" "))?;
            }
            writeln!(f, "  }}")?;
        }
        write!(f, "}}")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |family| match family {
            Family::V4 => "@th,96,32",
            Family::V6 => "@th,64,128",
        };
        let kind = match self.key {
            Key::Address(Family::V4) => "type ipv4_addr".to_owned(),
            Key::Address(Family::V6) => "type ipv6_addr".to_owned(),
            Key::Bytes(family) => format!("typeof {}", bytes(family)),
            Key::Pair(Family::V4, inner) => format!("typeof ip saddr . {}", bytes(inner)),
            Key::Pair(Family::V6, inner) => format!("typeof ip6 saddr . {}", bytes(inner)),
            Key::Interface => "type ifname".to_owned(),
        };
        write!(f, "set {} {{ {kind};", self.name)?;
        if self.counts {
            f.write_str(" counter;")?;
        }
        if !self.elements.is_empty() {
            let elements: Vec<String> =
                self.elements.iter().map(|element| self.key.element(element)).collect();
            write!(f, " elements = {{ {} }};", elements.join(", "))?;
        }
        f.write_str(" }")
    }
}

impl Key {
    fn element(self, bytes: &[u8]) -> String {
        let address = |bytes| address_of(bytes).map(|address| address.to_string()).unwrap_or_default();
        match self {
            Self::Address(_) => address(bytes),
            Self::Bytes(_) => hexadecimal(bytes),
            Self::Pair(outer, _) => {
                let (first, second) = bytes.split_at_checked(address_len(outer)).unwrap_or_default();
                format!("{} . {}", address(first), hexadecimal(second))
            }
            Self::Interface => {
                let name: Vec<u8> = bytes.iter().copied().take_while(|byte| *byte != 0).collect();
                format!("\"{}\"", String::from_utf8_lossy(&name))
            }
        }
    }
}

/// Returns how many bytes an address has.
pub(super) const fn address_len(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// Returns the address of these bytes, if they are as many as one has.
fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.base, *self) {
            (_, Self::LENGTH) => f.write_str("ip length"),
            (_, Self::PROTOCOL) => f.write_str("ip protocol"),
            (_, Self::SOURCE) => f.write_str("ip saddr"),
            (_, Self::DESTINATION) => f.write_str("ip daddr"),
            (_, Self::NEXT_HEADER) => f.write_str("ip6 nexthdr"),
            (_, Self::SOURCE_V6) => f.write_str("ip6 saddr"),
            (_, Self::DESTINATION_V6) => f.write_str("ip6 daddr"),
            (_, Self::LENGTH_V6) => f.write_str("ip6 length"),
            (Base::Network | Base::NetworkBytes, field) => {
                write!(f, "@nh,{},{}", field.offset * 8, field.len * 8)
            }
            (Base::Payload, field) => write!(f, "@th,{},{}", field.offset * 8, field.len * 8),
        }
    }
}

/// Returns the text of the first `prefix` bits of a field.
fn part(field: Field, prefix: u8) -> String {
    let mask = || mask(prefix, field.len);
    match field.base {
        _ if u32::from(prefix) == field.len * 8 => field.to_string(),
        Base::Network => {
            format!("{field} & {}", address_of(&mask()).map(|mask| mask.to_string()).unwrap_or_default())
        }
        Base::NetworkBytes | Base::Payload => format!("{field} & {}", hexadecimal(&mask())),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare { field, mask, how, value } => {
                let mask = mask.as_deref().map(|mask| format!(" & {}", hexadecimal(mask)));
                let how = match how {
                    Comparison::Equal => "==",
                    Comparison::NotEqual => "!=",
                    Comparison::Less => "<",
                };
                let address = match *field {
                    Field::SOURCE | Field::DESTINATION | Field::SOURCE_V6 | Field::DESTINATION_V6 => {
                        address_of(value)
                    }
                    _ => None,
                };
                let value = address.map_or_else(|| hexadecimal(value), |address| address.to_string());
                write!(f, "{field}{} {how} {value}", mask.unwrap_or_default())
            }
            Self::In { field, prefix, set } => write!(f, "{} @{set}", part(*field, *prefix)),
            Self::NotIn { field, set } => write!(f, "{field} != @{set}"),
            Self::PairIn { source, field, prefix, set } if u32::from(*prefix) == field.len * 8 => {
                write!(f, "{source} . {field} @{set}")
            }
            Self::PairIn { source, field, prefix, set } => {
                write!(f, "{source} . ({}) @{set}", part(*field, *prefix))
            }
            Self::LeavesBy { set } => write!(f, "oifname @{set}"),
            Self::Carries(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::FirstFragment => f.write_str("frag frag-off == 0"),
            Self::LaterFragment => f.write_str("frag frag-off != 0"),
            // The number is reserved. What the chain does not name fulfils no condition about it.
            Self::NamesProtocol => write!(f, "meta l4proto != {RESERVED_PROTOCOL}"),
            Self::TcpSyn => f.write_str("tcp flags & (syn | rst) == syn"),
            Self::Count(name) => write!(f, "counter name {name}"),
            Self::LowerMss => f.write_str("tcp option maxseg size set rt mtu"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Prohibit(Family::V4) => f.write_str("reject with icmp admin-prohibited"),
            Self::Prohibit(Family::V6) => f.write_str("reject with icmpv6 admin-prohibited"),
        }
    }
}
