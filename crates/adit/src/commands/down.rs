//! `adit down`: remove an overlay and what it created, whether or not its daemon lives.

use std::process::ExitCode;
use std::time::Duration;

use adit_control::overlay::{remove_leftovers, remove_programs};
use adit_control::state::paths::{self, RuntimePaths};
use adit_linux::netns::NetNs;
use adit_linux::process::{LockError, LockFile};

use crate::Failure;
use crate::commands::supervise;
use crate::output::Output;

/// A daemon that has not ended after this time is killed.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn down(overlay: &str, in_netns: bool, output: &Output) -> Result<ExitCode, Failure> {
    let name = match super::overlay_name::of(overlay, output)? {
        Ok(name) => name,
        Err(code) => return Ok(code),
    };
    let paths = RuntimePaths::of(&name);
    paths.create_run()?;
    // A file says by itself what is meant, however often it is taken down.
    let is_known = !super::overlay_name::is_name(overlay) || paths.has_state();
    // It would start the daemon again.
    supervise::end(&paths)?;
    let mut ended = None;
    let mut lived_in = None;
    let lock = match LockFile::acquire(&paths.lock()) {
        Ok(lock) => lock,
        Err(LockError::Held { pid }) => {
            ended = Some(pid);
            // A namespace without a name can only be reached through a process in it.
            lived_in = NetNs::of_process(pid).ok();
            adit_linux::process::end(pid, TERMINATION_TIMEOUT)?;
            LockFile::acquire_within(&paths.lock(), TERMINATION_TIMEOUT)?
        }
        Err(error) => return Err(error.into()),
    };
    // Its objects are in the namespace it ran in. A dead daemon's record names that namespace; the
    // caller's `--netns` overrides it.
    let record = paths.read_run_record();
    let noted = record.as_ref().and_then(|record| record.netns.clone());
    let inside = record.as_ref().and_then(|record| record.inside.as_deref());
    let device = record.as_ref().map(|record| record.device.as_str());
    let noted = noted.filter(|_| !in_netns);
    let remove = || remove_leftovers(&name, inside, device);
    let removed = match lived_in.map(Ok).or_else(|| noted.map(|netns| NetNs::named(&netns))) {
        Some(Ok(netns)) => netns.run(remove)??,
        // The namespace is gone, with everything that was in it. Pins are files.
        Some(Err(error)) if error.is_not_found() => remove_programs(&name)?,
        Some(Err(error)) => return Err(error.into()),
        None => remove()?,
    };
    paths.remove()?;
    drop(lock);
    if !is_known && ended.is_none() && removed.is_empty() {
        return Err(unknown(&name).into());
    }
    if output.is_json() {
        output.line(
            serde_json::json!({ "schema": 1, "ok": true, "name": name, "ended": ended, "removed": removed }),
        );
    } else if ended.is_none() && removed.is_empty() {
        output.line(format_args!("overlay `{name}` was not up: nothing to remove"));
    } else {
        output.line(format_args!("overlay `{name}` is down"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The error about a name that no overlay has.
fn unknown(name: &str) -> String {
    if let Some(hint) = super::overlay_name::device_hint(name) {
        return hint;
    }
    let others = match paths::known().as_slice() {
        [] => "there is none".to_owned(),
        names => format!("overlays: {}", names.join(", ")),
    };
    format!("there is no overlay `{name}` on this machine ({others})")
}
