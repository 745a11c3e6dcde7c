//! `docs/conformance.md`: the same for the same observations, so that it can be compared.

use crate::row::{Role, Row};
use crate::system::System;

/// What each system was observed to do, by row; within a row by part.
pub(crate) struct Observed<'r> {
    pub(crate) row: &'r Row,
    /// In the order of [`System::ALL`].
    pub(crate) cells: Vec<Vec<String>>,
}

impl Observed<'_> {
    fn is_met(&self, system: usize) -> bool {
        self.cells.get(system).is_some_and(|cell| self.row.is_met_by(cell))
    }

    /// What must not be: named for whoever runs it.
    pub(crate) fn faults(&self) -> Vec<String> {
        let linux_conforms = System::ALL.iter().position(|&system| system == System::Linux);
        let linux_conforms = linux_conforms.is_some_and(|linux| self.is_met(linux));
        System::ALL
            .iter()
            .enumerate()
            .filter(|&(at, system)| system.is_adit() && !self.is_met(at))
            .filter(|_| self.row.level.binds() || linux_conforms)
            .map(|(at, system)| {
                let why = if self.row.level.binds() { self.row.level.word() } else { "Linux does it" };
                let found = self.cells.get(at).map(|cell| grouped(self.row, cell, "; ")).unwrap_or_default();
                let asked = asked(self.row, "; ");
                format!("{} ({why}), {}: {found}\n    asked for: {asked}", self.row.name, system.title())
            })
            .collect()
    }
}

/// Parts with the same text are told together: `28 bytes, full: told 3/1 at once; 8 bytes: nothing said`.
/// What is not as asked for is bold.
fn together<'a>(parts: impl Iterator<Item = (&'a str, String, bool)>, between: &str) -> String {
    let mut groups: Vec<(Vec<&str>, String, bool)> = Vec::new();
    for (label, text, is_met) in parts {
        match groups.iter_mut().find(|group| group.1 == text && group.2 == is_met) {
            Some((labels, ..)) => labels.push(label),
            None => groups.push((vec![label], text, is_met)),
        }
    }
    let is_one = groups.len() == 1;
    let told = groups.into_iter().map(|(labels, text, is_met)| {
        let text = if is_met { text } else { format!("**{text}**") };
        if is_one { text } else { format!("{}: {text}", labels.join(", ")) }
    });
    told.collect::<Vec<_>>().join(between)
}

fn grouped(row: &Row, cell: &[String], between: &str) -> String {
    let parts = row.parts.iter().zip(cell);
    together(
        parts.map(|(part, found)| (part.label.as_str(), found.clone(), part.asks.contains(found))),
        between,
    )
}

fn asked(row: &Row, between: &str) -> String {
    together(row.parts.iter().map(|part| (part.label.as_str(), part.asks.join(" *or* "), true)), between)
}

/// The table of one system at a time, between neighbours that say what the row has them say.
pub(crate) fn rows_table(observed: &[Observed<'_>]) -> String {
    let mut text = String::from("| section | level | rule | asked for |");
    for system in System::ALL {
        text += &format!(" {} |", system.title());
    }
    text += "\n|---|---|---|---|---|---|---|\n";
    for observed in observed {
        let row = observed.row;
        let role = match row.role {
            Role::Encapsulator => "entrance",
            Role::Decapsulator => "exit",
        };
        text += &format!(
            "| {} ({role}) | {} | {} | {} |",
            row.section,
            row.level.word(),
            row.rule,
            asked(row, "<br>")
        );
        for cell in &observed.cells {
            text += &format!(" {} |", grouped(row, cell, "<br>"));
        }
        text.push('\n');
    }
    text
}

/// How many of the rows that bind each system follows.
pub(crate) fn score(observed: &[Observed<'_>]) -> String {
    let mut text = String::from("| | MUST, MUST NOT | SHOULD, SHOULD NOT | all rows |\n|---|---|---|---|\n");
    for (at, system) in System::ALL.iter().enumerate() {
        let count = |of: &dyn Fn(&Row) -> bool| {
            let rows: Vec<_> = observed.iter().filter(|observed| of(observed.row)).collect();
            let met = rows.iter().filter(|observed| observed.is_met(at)).count();
            format!("{met} of {}", rows.len())
        };
        text += &format!(
            "| {} | {} | {} | {} |\n",
            system.title(),
            count(&|row| row.level.word().starts_with("MUST")),
            count(&|row| row.level.word().starts_with("SHOULD")),
            count(&|_| true)
        );
    }
    text
}
