//! `adit reload`: let a running overlay read its file again.

use std::path::Path;
use std::process::ExitCode;

use adit_config::Config;
use adit_control::api::client;
use adit_control::state::paths::RuntimePaths;

use super::overlay_name::is_name;
use super::plan;
use crate::Failure;
use crate::output::Output;

pub(crate) fn reload(overlay: &str, output: &Output) -> Result<ExitCode, Failure> {
    let paths = RuntimePaths::of(&name_of(overlay)?);
    let applied = client::reload(&paths)?;
    if output.is_json() {
        output.line(serde_json::json!({ "schema": 1, "ok": true, "changes": applied.changes }));
    } else {
        plan::show(paths.name(), &applied.changes, output);
    }
    Ok(ExitCode::SUCCESS)
}

/// The overlay's name. A file with mistakes goes by its own name, which is the site's under
/// systemd: the daemon then says what is wrong with it, here and in its status.
fn name_of(overlay: &str) -> Result<String, Failure> {
    if is_name(overlay) {
        return Ok(overlay.to_owned());
    }
    let file = Path::new(overlay);
    match Config::load(file) {
        Ok(config) => Ok(config.site.name.to_string()),
        Err(error) => {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).filter(|stem| is_name(stem));
            Ok(stem.ok_or(error)?.to_owned())
        }
    }
}
