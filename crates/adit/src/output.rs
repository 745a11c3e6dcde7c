//! Where a command's words go: text or JSON, colour only for a person.

use std::error::Error;
use std::io::{IsTerminal, Write};

/// How this invocation prints.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colour: wanted && !json && std::io::stdout().is_terminal() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// A line on standard output. A reader that has gone away is no error of ours.
    pub(crate) fn line(&self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// A line on standard error.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// An error with its causes; as JSON on standard output where that was asked for.
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
