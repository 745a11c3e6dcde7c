//! The `adit` program: parses the command line and runs one command.

mod cli;
mod commands;
mod output;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};
use output::Output;

/// Exit code for wrong usage, `EX_USAGE` of sysexits(3). `plan` uses 2.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    let output = Output::new(false);
                    output.written(error.print());
                    finish(&output, ExitCode::SUCCESS)
                }
                _ => {
                    let _ = error.print();
                    ExitCode::from(EX_USAGE)
                }
            };
        }
    };
    let output = Output::new(cli.json);
    let code = run(&cli, &output).unwrap_or_else(|error| {
        output.error(error.as_ref());
        ExitCode::FAILURE
    });
    finish(&output, code)
}

/// Returns the exit code, unless output was lost.
fn finish(output: &Output, code: ExitCode) -> ExitCode {
    match output.finish() {
        Ok(()) => code,
        Err(lost) => {
            output.note(format_args!("adit: {lost}"));
            ExitCode::FAILURE
        }
    }
}

/// Error of a command. It is printed together with its causes.
type Failure = Box<dyn std::error::Error>;

fn run(cli: &Cli, output: &Output) -> Result<ExitCode, Failure> {
    commands::rights::require_for(&cli.command)?;
    if let Some(name) = &cli.netns {
        // No thread exists yet, so all later ones inherit the namespace.
        adit_linux::netns::NetNs::named(name)?.enter()?;
    }
    match &cli.command {
        Command::Lab(args) => commands::lab::lab(args, output),
        Command::Check { file, here } => commands::check::check(file, *here, output),
        Command::Plan { file, commands } => commands::plan::plan(file, *commands, output),
        Command::Apply { file, confirm } => {
            commands::apply::apply(file, *confirm, cli.netns.as_deref(), output)
        }
        Command::Confirm { name } => commands::apply::confirm(name, output),
        Command::Reload { overlay } => commands::reload::reload(overlay, output),
        Command::Guard { file } => commands::apply::guard(file, cli.netns.as_deref(), output),
        Command::Run { file, options } => commands::run::run(file, options, cli.netns.as_deref(), output),
        Command::Up { file } => commands::up::up(file, cli.netns.as_deref(), output),
        Command::Supervise { name, ready_fd } => {
            commands::supervise::supervise(name, *ready_fd, cli.netns.as_deref())
        }
        Command::Down { overlay } => commands::down::down(overlay, cli.netns.is_some(), output),
        Command::Status { name } => commands::status::status(name.as_deref(), output),
        Command::Drops { name } => commands::drops::drops(name.as_deref(), output),
        Command::Events { name } => commands::events::events(name.as_deref(), output),
        Command::Completions { shell } => commands::generate::completions(*shell, output),
        Command::Man => commands::generate::man(output),
    }
}
