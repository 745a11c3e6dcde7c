//! Warnings: what about this machine keeps traffic from passing or the daemon from its work, and is
//! not Adit's to change.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something about this machine that keeps traffic from passing or the daemon from its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// Its name.
    pub name: WarningName,
    /// The interface, network, file or object that it is about. Two warnings with the same name and
    /// this are the same.
    pub about: String,
    /// A sentence: what is found, what follows, and what to do.
    pub what: String,
}

/// The name of a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WarningName {
    /// The kernel does not forward packets.
    ForwardingOff,
    /// A route of others to a peer's network wins against the tunnel's.
    ForeignRoute,
    /// Something of ours was changed and cannot be repaired at present.
    RepairFails,
    /// The configuration file was read again and was not taken.
    ReloadFailed,
    /// A change was not confirmed, and what ran before it runs.
    RolledBack,
    /// A change that waits to be confirmed cannot be rolled back.
    RollbackFails,
    /// Files that outlive the daemon cannot be written.
    StateNotWritten,
}

impl WarningName {
    /// All names.
    pub const ALL: [Self; 3] = [Self::ForwardingOff, Self::ForeignRoute, Self::RepairFails];

    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForwardingOff => "forwarding-off",
            Self::ForeignRoute => "foreign-route",
            Self::RepairFails => "repair-fails",
            Self::ReloadFailed => "reload-failed",
            Self::RolledBack => "rolled-back",
            Self::RollbackFails => "rollback-fails",
            Self::StateNotWritten => "state-not-written",
        }
    }
}

impl Warning {
    /// Returns true if both are the same, whatever the words.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.name, &self.about) == (other.name, &other.about)
    }
}
