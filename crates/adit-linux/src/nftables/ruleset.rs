//! A table of nf_tables as it is wanted: sets, counters, chains of rules. What can be said here is what Adit needs, and
//! each of it has two forms: the kernel's bytes ([`super::encode`]) and the text of nft(8).

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// A table of family `ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Its name.
    pub table: String,
    /// Counters with a name.
    pub counters: Vec<String>,
    /// What rules look things up in.
    pub sets: Vec<Set>,
    /// Those that are gone to before those that go there are not needed: all are made before any rule.
    pub chains: Vec<Chain>,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub key: Key,
    /// Whether each element counts what was looked up and found.
    pub counts: bool,
    /// The elements, as the kernel keeps them.
    pub elements: BTreeSet<Vec<u8>>,
}

/// What the elements of a set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// An IPv4 address.
    Address,
    /// The same, to be found in a payload too: nft(8) lets nobody compare an address with bytes.
    Bytes,
    /// A source address, and an address out of the payload.
    Pair,
    /// The name of an interface.
    Interface,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where in a datagram's way it stands; `None`: only where others go to it.
    pub hook: Option<Hook>,
    /// In their order.
    pub rules: Vec<Rule>,
}

/// A place in a datagram's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// To this host, put together if it came in fragments.
    Input,
    /// From one interface to another.
    Forward,
    /// From this host.
    Output,
}

/// Steps, each of which either holds, and then the next is looked at, or not.
pub type Rule = Vec<Step>;

/// A part of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub(super) base: Base,
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// Where a field is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// The IPv4 header.
    Network,
    /// The same, which nft(8) is to take for nothing but bytes.
    NetworkBytes,
    /// What follows it, options left out.
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

    /// The header's source, to be looked up in a set of [`Key::Bytes`].
    pub const SOURCE_BYTES: Self = Self { base: Base::NetworkBytes, offset: 12, len: 4 };

    /// Bytes behind the header: of an inner one, where it is IP in IP.
    #[must_use]
    pub const fn payload(offset: u32, len: u32) -> Self {
        Self { base: Base::Payload, offset, len }
    }
}

/// How two numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same.
    Equal,
    /// Another.
    NotEqual,
    /// Less.
    Less,
}

/// A step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A field is compared; only the bits of `mask`, which is as long, if there is one.
    Compare {
        /// Which.
        field: Field,
        /// Bits of it that count.
        mask: Option<Vec<u8>>,
        /// How.
        how: Comparison,
        /// With what.
        value: Vec<u8>,
    },
    /// An address is in a set.
    In {
        /// Which.
        field: Field,
        /// How many of its bits.
        prefix: u8,
        /// Where it is looked up.
        set: String,
    },
    /// An address is not in a set.
    NotIn {
        /// Which.
        field: Field,
        /// Where it is looked up.
        set: String,
    },
    /// The source, and an address behind the header, are in a set together.
    PairIn {
        /// The second.
        field: Field,
        /// How many of its bits.
        prefix: u8,
        /// Where both are looked up.
        set: String,
    },
    /// It leaves by an interface whose name is in a set.
    LeavesBy {
        /// The set.
        set: String,
    },
    /// It is the first segment of a TCP connection, or the answer to one.
    TcpSyn,
    /// A counter counts it.
    Count(String),
    /// The MSS that it offers is lowered to what the route takes.
    LowerMss,
    /// Another chain goes on, and none comes back.
    Goto(String),
    /// It passes.
    Accept,
    /// It ends here.
    Drop,
    /// It ends here, and its sender hears that it is administratively prohibited (RFC 1812 section 5.2.7.1).
    Prohibit,
}

impl Ruleset {
    /// The set of that name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }
}

/// The mask of a prefix's length.
pub(super) fn mask(prefix: u8) -> [u8; 4] {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0).to_be_bytes()
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

/// As `nft -f` reads it.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table ip {} {{", self.table)?;
        for counter in &self.counters {
            writeln!(f, "  counter {counter} {{ }}")?;
        }
        for set in &self.sets {
            writeln!(f, "  {set}")?;
        }
        for chain in &self.chains {
            writeln!(f, "  chain {} {{", chain.name)?;
            if let Some(hook) = chain.hook {
                writeln!(f, "    type filter hook {} priority 0; policy accept;", hook.name())?;
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
        let kind = match self.key {
            Key::Address => "type ipv4_addr",
            Key::Bytes => "typeof @th,96,32",
            Key::Pair => "typeof ip saddr . @th,96,32",
            Key::Interface => "type ifname",
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
        let address = |bytes: &[u8]| bytes.try_into().map(|bytes: [u8; 4]| Ipv4Addr::from(bytes));
        match (self, bytes.split_at_checked(4)) {
            (Self::Address, Some((first, _))) => {
                address(first).map_or_else(|_| String::new(), |a| a.to_string())
            }
            (Self::Bytes, _) => hexadecimal(bytes),
            (Self::Pair, Some((first, second))) => {
                let first = address(first).map_or_else(|_| String::new(), |a| a.to_string());
                format!("{first} . {}", hexadecimal(second))
            }
            _ => {
                let name: Vec<u8> = bytes.iter().copied().take_while(|byte| *byte != 0).collect();
                format!("\"{}\"", String::from_utf8_lossy(&name))
            }
        }
    }
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
            (Base::Network | Base::NetworkBytes, field) => {
                write!(f, "@nh,{},{}", field.offset * 8, field.len * 8)
            }
            (Base::Payload, field) => write!(f, "@th,{},{}", field.offset * 8, field.len * 8),
        }
    }
}

/// A field of which `prefix` bits count.
fn part(field: Field, prefix: u8) -> String {
    match (field.base, prefix) {
        (_, 32) => field.to_string(),
        (Base::Network, _) => format!("{field} & {}", Ipv4Addr::from(mask(prefix))),
        (Base::NetworkBytes | Base::Payload, _) => format!("{field} & {}", hexadecimal(&mask(prefix))),
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
                let value = match (*field, value.as_slice()) {
                    (Field::SOURCE | Field::DESTINATION, &[a, b, c, d]) => {
                        Ipv4Addr::new(a, b, c, d).to_string()
                    }
                    (_, value) => hexadecimal(value),
                };
                write!(f, "{field}{} {how} {value}", mask.unwrap_or_default())
            }
            Self::In { field, prefix, set } => write!(f, "{} @{set}", part(*field, *prefix)),
            Self::NotIn { field, set } => write!(f, "{field} != @{set}"),
            Self::PairIn { field, prefix: 32, set } => write!(f, "ip saddr . {field} @{set}"),
            Self::PairIn { field, prefix, set } => write!(f, "ip saddr . ({}) @{set}", part(*field, *prefix)),
            Self::LeavesBy { set } => write!(f, "oifname @{set}"),
            Self::TcpSyn => f.write_str("tcp flags & (syn | rst) == syn"),
            Self::Count(name) => write!(f, "counter name {name}"),
            Self::LowerMss => f.write_str("tcp option maxseg size set rt mtu"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Prohibit => f.write_str("reject with icmp admin-prohibited"),
        }
    }
}
