//! Output of a command: text or JSON, with colour on terminals only.

use std::error::Error;
use std::io::{IsTerminal, Write};

/// Printer with the format that the command line asks for.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colour: allowed && !json && std::io::stdout().is_terminal() }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether standard output takes colour: it is a terminal, and `NO_COLOR` is unset or empty.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Prints a line on standard output. A closed pipe is not an error.
    pub(crate) fn line(&self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// Prints a line on standard error.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stderr(), "{text}");
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
