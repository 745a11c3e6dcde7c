//! The argument of commands that take an overlay's name or its file.

use std::path::Path;
use std::process::ExitCode;

use adit_config::SiteName;
use adit_control::state::paths::{self, RuntimePaths};

use crate::Failure;
use crate::output::Output;

/// The overlay's name: the argument itself if it is a valid name, else the name in that file. If
/// the file has mistakes, prints them and returns the exit code.
///
/// # Errors
/// The file cannot be read.
pub(super) fn of(overlay: &str, output: &Output) -> Result<Result<String, ExitCode>, Failure> {
    if is_name(overlay) {
        return Ok(Ok(overlay.to_owned()));
    }
    if let (false, Some(hint)) = (Path::new(overlay).exists(), device_hint(overlay)) {
        return Err(hint.into());
    }
    Ok(super::load(Path::new(overlay), output)?.map(|config| config.site.name.to_string()))
}

/// What to say to somebody who gives the name of an overlay's tunnel interface instead of the
/// overlay's.
pub(super) fn device_hint(device: &str) -> Option<String> {
    let has_device = |overlay: &String| {
        RuntimePaths::of(overlay).read_run_record().is_some_and(|record| record.device == device)
    };
    let overlay = paths::known().into_iter().find(has_device)?;
    Some(format!("`{device}` is the tunnel interface of overlay `{overlay}`; give the name `{overlay}`"))
}

/// Returns true if this can be the name of a site.
pub(super) fn is_name(text: &str) -> bool {
    SiteName::new(text).is_ok()
}
