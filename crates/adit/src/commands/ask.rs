//! What commands ask of the overlays that run: of one by name, or of all.

use std::panic::resume_unwind;
use std::process::ExitCode;
use std::thread::ScopedJoinHandle;

use adit_control::ControlError;
use adit_control::state::paths::RuntimePaths;
use adit_control::state::status::SCHEMA;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Failure;
use crate::output::Output;

/// The answers of overlays, and those that run and gave none.
pub(crate) struct Answers<T> {
    pub(crate) answers: Vec<T>,
    pub(crate) unreadable: Vec<Unreadable>,
}

/// An overlay that runs and cannot be read.
pub(crate) struct Unreadable {
    name: String,
    why: ControlError,
}

impl Unreadable {
    pub(crate) fn json(&self) -> Value {
        json!({ "name": self.name, "why": self.why.to_string() })
    }
}

/// Asks the overlay `name`, or `all`, at the same time: one that hangs delays no other.
///
/// # Errors
/// Fails if no overlay of that name runs.
pub(crate) fn overlays<T: Send>(
    name: Option<&str>,
    all: impl FnOnce() -> Vec<String>,
    ask: impl Fn(&RuntimePaths) -> Result<T, ControlError> + Sync,
) -> Result<Answers<T>, Failure> {
    let names = name.map_or_else(all, |name| vec![name.to_owned()]);
    let answers = std::thread::scope(|scope| {
        let asked: Vec<_> = names.iter().map(|name| scope.spawn(|| ask(&RuntimePaths::of(name)))).collect();
        let answer =
            |asked: ScopedJoinHandle<'_, _>| asked.join().unwrap_or_else(|panic| resume_unwind(panic));
        asked.into_iter().map(answer).collect::<Vec<_>>()
    });
    let mut found = Answers { answers: Vec::new(), unreadable: Vec::new() };
    for (overlay, answer) in names.into_iter().zip(answers) {
        match answer {
            Ok(answer) => found.answers.push(answer),
            // The socket of a dead daemon does not answer.
            Err(ControlError::NotRunning { .. }) if name.is_none() => {}
            Err(why @ ControlError::NotRunning { .. }) => return Err(why.into()),
            Err(why) => found.unreadable.push(Unreadable { name: overlay, why }),
        }
    }
    Ok(found)
}

impl<T: Serialize> Answers<T> {
    /// Prints the answers as JSON. The shape is the same whether one overlay is asked or all.
    pub(crate) fn json(self, output: &Output) -> ExitCode {
        let unreadable: Vec<Value> = self.unreadable.iter().map(Unreadable::json).collect();
        let is_whole = unreadable.is_empty() && !self.answers.is_empty();
        output.line(json!({ "schema": SCHEMA, "overlays": self.answers, "unreadable": unreadable }));
        if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl<T> Answers<T> {
    /// The answers for a reader of text.
    ///
    /// # Errors
    /// Fails if no overlay answered.
    pub(crate) fn or_none(mut self) -> Result<Self, Failure> {
        match (self.answers.is_empty(), self.unreadable.pop()) {
            (true, None) => Err("no overlay is running; `adit up FILE` starts one".into()),
            (true, Some(only)) if self.unreadable.is_empty() => Err(only.why.into()),
            (_, last) => {
                self.unreadable.extend(last);
                Ok(self)
            }
        }
    }

    /// Names on standard error the overlays that cannot be read. Returns whether there are none.
    pub(crate) fn note_unreadable(&self, output: &Output) -> bool {
        for Unreadable { name, why } in &self.unreadable {
            output.note(format_args!("adit: overlay `{name}` cannot be read: {why}"));
        }
        self.unreadable.is_empty()
    }
}
