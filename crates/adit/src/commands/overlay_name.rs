//! The argument of commands that take an overlay's name or its file.

use std::path::Path;
use std::process::ExitCode;

use adit_config::SiteName;

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
    Ok(super::load(Path::new(overlay), output)?.map(|config| config.site.name.to_string()))
}

/// Returns true if this can be the name of a site.
pub(super) fn is_name(text: &str) -> bool {
    SiteName::new(text).is_ok()
}
