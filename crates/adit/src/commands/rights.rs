//! The rights that a command needs, asked for before it begins.

use adit_linux::process::{Capability, has_capability};

use crate::Failure;
use crate::cli::Command;

/// Fails if this process may not do what the command is about.
///
/// # Errors
/// CAP_NET_ADMIN is missing; the error says what to do.
pub(crate) fn require_for(command: &Command) -> Result<(), Failure> {
    let (name, needed) = match command {
        // The daemon, and what it sends with.
        Command::Up { .. } => ("up", "CAP_NET_ADMIN and CAP_NET_RAW (for eBPF also CAP_BPF and CAP_PERFMON)"),
        Command::Run { .. } => {
            ("run", "CAP_NET_ADMIN and CAP_NET_RAW (for eBPF also CAP_BPF and CAP_PERFMON)")
        }
        Command::Down { .. } => ("down", "CAP_NET_ADMIN"),
        _ => return Ok(()),
    };
    if has_capability(Capability::NetAdmin) {
        return Ok(());
    }
    Err(format!(
        "`adit {name}` changes the network of this machine and needs {needed}; run it as root, for example by \
         `sudo adit {name}`"
    )
    .into())
}
