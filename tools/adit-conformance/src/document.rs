//! The document `docs/reference/conformance.md`. The same observations give the same text, so that
//! it can be compared.

use crate::interop::{PairResults, Scenario};
use crate::row::{Role, Row};
use crate::system::System;

/// The observations of one row: a cell for each system, with a text for each part.
pub(crate) struct Observed<'r> {
    pub(crate) row: &'r Row,
    /// In the order of [`System::ALL`].
    pub(crate) cells: Vec<Vec<String>>,
}

impl Observed<'_> {
    fn is_met(&self, system: usize) -> bool {
        self.cells.get(system).is_some_and(|cell| self.row.is_met_by(cell))
    }

    /// Describes the observations that make the run fail.
    pub(crate) fn faults(&self) -> Vec<String> {
        let linux_conforms = System::ALL.iter().position(|&system| system == System::Linux);
        let linux_conforms = linux_conforms.is_some_and(|linux| self.is_met(linux));
        System::ALL
            .iter()
            .enumerate()
            .filter(|&(at, system)| system.is_adit() && !self.is_met(at) && !self.row.is_deviation)
            .filter(|_| self.row.level.binds() || linux_conforms)
            .map(|(at, system)| {
                let why = if self.row.level.binds() { self.row.level.keyword() } else { "Linux does it" };
                let found = self.cells.get(at).map(|cell| grouped(self.row, cell, "; ")).unwrap_or_default();
                let asked = asked(self.row, "; ");
                format!("{} ({why}), {}: {found}\n    asked for: {asked}", self.row.name, system.title())
            })
            .collect()
    }
}

/// Groups parts with the same text: `28 bytes, full: told 3/1 at once; 8 bytes: nothing said`. Text
/// that the rule does not ask for is bold.
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

/// The whole document.
pub(crate) fn document(
    observed: &[Observed<'_>],
    scenarios: &[&Scenario],
    pair_results: &[PairResults],
) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "# Conformance, observed\n\n\
         `cargo xtask conformance` generates this document; with `--check` it runs again and compares.\n\n\
         These tables show what Adit {version} in each of its data planes and the drivers of Linux {kernel} do with\n\
         the same packets, rule by rule: `ipip`, for IPv6 in IPv4 `sit`, and over IPv6 `ip6tnl`. A cell shows\n\
         an observation. An observation that the rule does not ask for is **bold**. `target/conformance`\n\
         keeps the packets of every row and system as pcapng.\n\n\
         ## One gateway between two scripted neighbours\n\n\
         The gateway under test stands between a host and a router. The test writes every frame of both by\n\
         hand. Every observation has a peer and senders of its own, so none depends on another.\n\n\
         All systems have their defaults unless the rule says otherwise: Linux `pmtudisc` and `ttl inherit`\n\
         (`sit` with `ttl 64`, `ip6tnl` with `encaplimit none`), Adit `probe = false`, because the scripted\n\
         router answers no probes. *Encapsulator* and *decapsulator* say which end of the tunnel the system\n\
         is. The id of a row is the name of its packet files. *8 bytes*, *28 bytes*, *full* and *extended*\n\
         say how much of the outer datagram's payload an ICMP error quotes (RFC 792; the inner header and 8\n\
         bytes; RFC 1812; RFC 4884). *Told 3/1* means that the sender receives an ICMP error of type 3 and\n\
         code 1.\n\n\
         {}\n\
         ## Two gateways\n\n\
         This is the two-site network, with real hosts behind both gateways and a real router between them.\n\
         The encapsulator is named first.\n\n\
         {}\n\
         ## Number of rows whose observation is what the rule asks for\n\n\
         {}",
        rows_table(observed),
        interop_table(scenarios, pair_results),
        score(observed),
        // The first two numbers of the kernel's version determine its behaviour; the rest is a
        // distribution's build.
        kernel = kernel.splitn(3, '.').take(2).collect::<Vec<_>>().join("."),
    )
}

/// The table of one system at a time between scripted neighbours.
fn rows_table(observed: &[Observed<'_>]) -> String {
    let mut text = String::from("| id | section | level | rule | asked for |");
    for system in System::ALL {
        text += &format!(" {} |", system.title());
    }
    text += "\n|---|---|---|---|---|---|---|---|\n";
    for observed in observed {
        text += &rule_cells(observed.row);
        for cell in &observed.cells {
            text += &format!(" {} |", grouped(observed.row, cell, "<br>"));
        }
        text.push('\n');
    }
    text
}

/// The cells of a row that do not depend on what is observed. The id, which is stable, comes first.
fn rule_cells(row: &Row) -> String {
    let Row { name, section, rule, .. } = row;
    let role = match row.role {
        Role::Encapsulator => "encapsulator",
        Role::Decapsulator => "decapsulator",
    };
    format!("| `{name}` | {section} ({role}) | {} | {rule} | {} |", row.level.keyword(), asked(row, "<br>"))
}

/// The table of two systems at the two ends of a tunnel.
fn interop_table(scenarios: &[&Scenario], columns: &[PairResults]) -> String {
    let mut text = String::from("| id | scenario | asked for |");
    for column in columns {
        text += &format!(" {} to {} |", column.pair.encapsulator.title(), column.pair.decapsulator.title());
    }
    text += &format!("\n|{}\n", "---|".repeat(columns.len() + 3));
    for (at, scenario) in scenarios.iter().enumerate() {
        text += &scenario_cells(scenario);
        for column in columns {
            let cell = column.cells.get(at).map_or("", String::as_str);
            text +=
                &if scenario.asks.contains(&cell) { format!(" {cell} |") } else { format!(" **{cell}** |") };
        }
        text.push('\n');
    }
    text
}

/// The cells of a scenario that do not depend on what is observed.
fn scenario_cells(scenario: &Scenario) -> String {
    format!("| `{}` | {} | {} |", scenario.name, scenario.what, scenario.asks.join(" *or* "))
}

/// Describes the observations with Adit as the encapsulator that make the run fail. The
/// encapsulator learns about the path and informs its hosts.
pub(crate) fn interop_faults(scenarios: &[&Scenario], columns: &[PairResults]) -> Vec<String> {
    let cells = columns.iter().filter(|column| column.pair.encapsulator.is_adit()).flat_map(|column| {
        scenarios.iter().zip(&column.cells).map(|(scenario, cell)| (column.pair, scenario, cell))
    });
    cells
        .filter(|(_, scenario, cell)| !scenario.asks.contains(&cell.as_str()))
        .map(|(pair, scenario, cell)| {
            format!(
                "{} ({}): {cell}\n    asked for: {}",
                scenario.name,
                pair.name(),
                scenario.asks.join(" or ")
            )
        })
        .collect()
}

/// The number of rows, by level, that each system follows.
fn score(observed: &[Observed<'_>]) -> String {
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
            count(&|row| row.level.keyword().starts_with("MUST")),
            count(&|row| row.level.keyword().starts_with("SHOULD")),
            count(&|_| true)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interop::SCENARIOS;
    use crate::row::Level::{self, Must, Plain};

    fn row(level: Level) -> Row {
        Row::new("RFC 1 2", level, Role::Encapsulator, "name", "A rule.")
            .part("one", &["yes", "perhaps"], |_| Ok(String::new()))
            .part("two", &["yes", "perhaps"], |_| Ok(String::new()))
            .part("three", &["no"], |_| Ok(String::new()))
    }

    fn observed<'r>(row: &'r Row, cells: [[&str; 3]; 3]) -> Observed<'r> {
        Observed { row, cells: cells.map(|cell| cell.map(str::to_owned).to_vec()).to_vec() }
    }

    const MET: [&str; 3] = ["yes", "perhaps", "no"];
    const NOT_MET: [&str; 3] = ["yes", "yes", "yes"];

    #[test]
    fn parts_with_the_same_observation_are_told_together_and_what_is_not_asked_for_is_bold() {
        let row = row(Must);
        let table = rows_table(&[observed(&row, [MET, NOT_MET, ["yes", "yes", "no"]])]);
        assert_eq!(
            table.lines().last(),
            Some(
                "| `name` | RFC 1 2 (encapsulator) | MUST | A rule. | one, two: yes *or* perhaps<br>three: no \
                 | one: yes<br>two: perhaps<br>three: no | one, two: yes<br>three: **yes** \
                 | one, two: yes<br>three: no |"
            )
        );
    }

    /// Observing takes a guest; that the committed document has the rows of these sources does not.
    #[test]
    fn the_committed_document_has_every_row_and_scenario() {
        let committed = include_str!("../../../docs/reference/conformance.md");
        let rows = crate::rows::all();
        let expected: Vec<String> =
            rows.iter().map(rule_cells).chain(SCENARIOS.iter().map(scenario_cells)).collect();
        let found: Vec<&str> = committed.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.starts_with(expected.as_str()), "expected {expected}\nfound {found}");
        }
        let ids: std::collections::BTreeSet<&str> =
            rows.iter().map(|row| row.name).chain(SCENARIOS.iter().map(|scenario| scenario.name)).collect();
        assert_eq!(ids.len(), expected.len(), "an id is used twice");
    }

    #[test]
    fn a_fault_is_what_binds_us_and_what_linux_does_better() {
        let (binding, plain) = (row(Must), row(Plain));
        assert_eq!(observed(&binding, [MET, MET, NOT_MET]).faults().len(), 0);
        assert_eq!(observed(&binding, [MET, NOT_MET, NOT_MET]).faults().len(), 1);
        assert_eq!(observed(&plain, [NOT_MET, NOT_MET, NOT_MET]).faults().len(), 0);
        assert_eq!(observed(&plain, [NOT_MET, NOT_MET, MET]).faults().len(), 2);
        let deviation = self::row(Must).deviation();
        assert_eq!(observed(&deviation, [NOT_MET, NOT_MET, MET]).faults().len(), 0);
    }

    #[test]
    fn rows_are_counted_by_level() {
        let (binding, plain) = (row(Must), row(Plain));
        let rows = [observed(&binding, [MET, NOT_MET, MET]), observed(&plain, [MET, MET, NOT_MET])];
        let score = score(&rows);
        assert!(score.contains("| Adit userspace | 1 of 1 | 0 of 0 | 2 of 2 |"), "{score}");
        assert!(score.contains("| Adit eBPF | 0 of 1 | 0 of 0 | 1 of 2 |"), "{score}");
    }
}
