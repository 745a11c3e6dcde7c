//! How the programs are attached and kept.

use std::path::PathBuf;

use super::attach::Hook;

/// See the module.
#[derive(Debug, Clone)]
pub struct EbpfOptions {
    /// Directory where they are pinned, to outlive the process. `None`: they end with it.
    pub pins: Option<PathBuf>,
    /// How they are attached.
    pub hook: Hook,
}

impl Default for EbpfOptions {
    /// No pins, and the best hook of this kernel.
    fn default() -> Self {
        Self { pins: None, hook: Hook::of_this_kernel() }
    }
}
