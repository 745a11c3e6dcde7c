//! The rights that a command needs, asked for before it begins.

use adit_linux::process::{Capability, has_capability};

use crate::Failure;

/// Fails if this process may not change the network.
///
/// # Errors
/// CAP_NET_ADMIN is missing; the error says what to do.
pub(super) fn require_for_network(command: &str) -> Result<(), Failure> {
    if has_capability(Capability::NetAdmin) {
        return Ok(());
    }
    Err(format!(
        "`adit {command}` changes the network of this machine and needs CAP_NET_ADMIN for it; run it as root, \
         for example by `sudo adit {command}`"
    )
    .into())
}
