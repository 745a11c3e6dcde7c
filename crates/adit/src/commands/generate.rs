//! `adit completions` and `adit man`: files generated from the command line's definition.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::Failure;
use crate::cli::Cli;
use crate::output::Output;

pub(crate) fn completions(shell: clap_complete::Shell, output: &Output) -> Result<ExitCode, Failure> {
    let mut file = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "adit", &mut file);
    output.file(&file);
    Ok(ExitCode::SUCCESS)
}

/// Prints one page: the program's, followed by those of the commands.
pub(crate) fn man(output: &Output) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    command.build();
    let mut out = Vec::new();
    clap_mangen::Man::new(command.clone()).section("8").render(&mut out)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let name = format!("adit {}", sub.get_name());
        let page = clap_mangen::Man::new(sub.clone().display_name(name));
        page.render_name_section(&mut out)?;
        page.render_synopsis_section(&mut out)?;
        page.render_description_section(&mut out)?;
        page.render_options_section(&mut out)?;
    }
    output.file(&out);
    Ok(ExitCode::SUCCESS)
}
