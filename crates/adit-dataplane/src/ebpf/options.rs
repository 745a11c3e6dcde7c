//! How the programs are attached and kept.

use std::path::{Path, PathBuf};

use super::attach::Hook;

/// What becomes of the programs when the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persistence {
    /// They end with it.
    EndWithProcess,
    /// They are pinned in this directory, and stay.
    Pinned(PathBuf),
    /// They stay as filters of the clsact qdisc, which need no pin. The next process replaces them
    /// in place. Their counts are lost with the process, because nothing names their maps.
    Filters,
}

impl Persistence {
    pub(super) fn pins(&self) -> Option<&Path> {
        match self {
            Self::Pinned(directory) => Some(directory),
            Self::EndWithProcess | Self::Filters => None,
        }
    }

    /// Whether the programs stay when the process ends.
    #[must_use]
    pub fn outlives_process(&self) -> bool {
        *self != Self::EndWithProcess
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct EbpfOptions {
    /// Whether the programs outlive the process.
    pub persistence: Persistence,
    /// How they are attached.
    pub hook: Hook,
}

impl EbpfOptions {
    /// The best hook of this kernel for programs that stay or end so.
    #[must_use]
    pub fn of(persistence: Persistence) -> Self {
        let hook = match persistence {
            Persistence::Filters => Hook::Clsact,
            Persistence::EndWithProcess | Persistence::Pinned(_) => Hook::of_this_kernel(),
        };
        Self { persistence, hook }
    }
}
