//! Overlays whose daemon is dead: what is known of them without it.

use adit_linux::netns::NetNs;
use adit_linux::process::LockFile;

use crate::error::ControlError;
use crate::overlay::{Left, what_is_left};
use crate::state::paths::RuntimePaths;
use crate::state::status::Status;

/// The status of an overlay whose daemon is dead while something of it is in the kernel. `None`: a
/// daemon lives or starts, or there is nothing of that name.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub fn status(paths: &RuntimePaths) -> Result<Option<Status>, ControlError> {
    let Some(record) = paths.read_run_record().filter(|_| LockFile::holder(&paths.lock()).is_none()) else {
        return Ok(None);
    };
    let look = || what_is_left(paths.name(), record.inside.as_deref());
    let left = match &record.netns {
        None => look(),
        Some(name) => match NetNs::named(name) {
            Ok(netns) => netns.run(look)?,
            // The namespace is gone. Programs are held by their pins.
            Err(error) if error.is_not_found() => {
                look().map(|left| left.filter(|left| *left == Left::Programs))
            }
            Err(error) => Err(error.into()),
        },
    };
    let status = |(dataplane, reason)| Status::dead(paths.name(), &record, dataplane, reason);
    Ok(left?
        .map(|left| match left {
            Left::Programs => ("ebpf", "no daemon serves it; its programs forward on"),
            Left::Driver => ("kernel", "no daemon serves it; Linux's driver forwards on"),
            Left::Interface => ("", "no daemon serves it; nothing is forwarded"),
        })
        .map(status))
}
