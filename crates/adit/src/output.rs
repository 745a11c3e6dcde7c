//! Output of a command: text or JSON, with colour on terminals only.

use std::cell::OnceCell;
use std::error::Error;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Printer with the format that the command line asks for.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
    /// The first error of standard output.
    lost: OnceCell<io::Error>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colour = allowed && !json && io::stdout().is_terminal();
        Self { json, colour, lost: OnceCell::new() }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether standard output takes colour: it is a terminal, and `NO_COLOR` is unset or empty.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Prints a line on standard output. If that fails, [`Output::finish`] says so.
    pub(crate) fn line(&self, text: impl std::fmt::Display) {
        self.written(writeln!(io::stdout(), "{text}"));
    }

    /// Prints a file on standard output.
    pub(crate) fn file(&self, bytes: &[u8]) {
        self.written(io::stdout().write_all(bytes));
    }

    /// Returns true if output was lost, so that more of it is in vain.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// Ends the output.
    ///
    /// # Errors
    /// Fails if something was not written, for instance because a disk is full. A pipe that the
    /// reader has closed is no error.
    pub(crate) fn finish(&self) -> Result<(), String> {
        self.written(io::stdout().flush());
        match self.lost.get() {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(format!("cannot write the output: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes note of an attempt to write to standard output.
    pub(crate) fn written(&self, result: io::Result<()>) {
        if let Err(error) = result {
            let _ = self.lost.set(error);
        }
    }

    /// Prints a line on standard error.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Prints an error with its causes: text on standard error, or JSON on standard output.
    pub(crate) fn error(&self, error: &dyn Error) {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        if self.json {
            self.line(serde_json::json!({ "schema": 1, "ok": false, "error": message }));
        } else {
            self.note(format_args!("adit: {message}"));
        }
    }
}
