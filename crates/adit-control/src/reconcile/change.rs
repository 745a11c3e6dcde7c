//! The lines of a plan: what is added, changed or removed, and the `ip` commands for it.

use std::fmt;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Whether it is added, changed or removed.
    pub kind: Kind,
    /// The kind of object.
    pub object: Object,
    /// The object and the difference, for people.
    pub what: String,
    /// The equivalent `ip` commands; none if iproute2 has no such object.
    pub commands: Vec<String>,
    /// The destination, if it is a route. It is not part of the JSON.
    #[serde(skip)]
    pub(crate) network: Option<IpNet>,
    /// Whether it is a guard route. It is not part of the JSON.
    #[serde(skip)]
    pub(crate) is_guard: bool,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It is created.
    Add,
    /// It stays and becomes different.
    Change,
    /// It is removed.
    Remove,
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// A setting of this site or of its tunnel.
    Site,
    /// A peer.
    Peer,
    /// A tunnel interface.
    Device,
    /// A route into the tunnel, or the guard behind it.
    Route,
    /// The nf_tables table of the kernel data plane, which decides which peer may send what.
    Table,
    /// The programs in the kernel, or the threads behind them.
    DataPlane,
    /// Our address on the underlay, where the file names an interface.
    Underlay,
}

impl Object {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Site, Self::Peer, Self::Device, Self::Route, Self::Table, Self::DataPlane, Self::Underlay];

    /// Returns its name in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Peer => "peer",
            Self::Device => "device",
            Self::Route => "route",
            Self::Table => "table",
            Self::DataPlane => "data-plane",
            Self::Underlay => "underlay",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            Kind::Add => '+',
            Kind::Change => '~',
            Kind::Remove => '-',
        };
        write!(f, "{sign} {} {}", self.object.as_str(), self.what)
    }
}

impl Change {
    /// Returns a change without commands.
    pub(crate) fn new(kind: Kind, object: Object, what: impl Into<String>) -> Self {
        Self { kind, object, what: what.into(), commands: Vec::new(), network: None, is_guard: false }
    }

    /// Adds a command.
    pub(crate) fn by(mut self, command: String) -> Self {
        self.commands.push(command);
        self
    }
}
