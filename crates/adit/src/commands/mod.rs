//! The commands, one file each.

pub(crate) mod apply;
mod ask;
pub(crate) mod check;
pub(crate) mod down;
pub(crate) mod drops;
pub(crate) mod events;
pub(crate) mod generate;
pub(crate) mod lab;
mod log_file;
mod overlay_name;
pub(crate) mod plan;
pub(crate) mod reload;
pub(crate) mod rights;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod supervise;
pub(crate) mod up;

use std::path::Path;
use std::process::ExitCode;

use adit_config::{Config, LoadError};
use adit_control::state::warning::Warning;

use crate::Failure;
use crate::output::Output;

/// Prints warnings, one a line. With JSON they are in the answer.
fn warn(warnings: &[Warning], output: &Output) {
    if !output.is_json() {
        warnings.iter().for_each(|warning| output.note(format_args!("warning: {}", warning.what)));
    }
}

/// Loads a configuration. If it has mistakes, prints all of them and returns the exit code.
///
/// # Errors
/// The file cannot be read.
fn load(file: &Path, output: &Output) -> Result<Result<Config, ExitCode>, Failure> {
    Ok(load_with_text(file, output)?.map(|(config, _)| config))
}

/// Loads a configuration, and returns its text too. A pipe can be read only once.
fn load_with_text(file: &Path, output: &Output) -> Result<Result<(Config, String), ExitCode>, Failure> {
    let loaded = adit_config::read_file(file).and_then(|text| {
        let config = Config::parse(&file.display().to_string(), &text)?;
        Ok((config, text))
    });
    match loaded {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(LoadError::Problems(problems)) => {
            check::show(&problems, output);
            Ok(Err(ExitCode::FAILURE))
        }
        Err(error) => Err(error.into()),
    }
}
