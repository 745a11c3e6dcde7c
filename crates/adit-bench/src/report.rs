//! The report: the goals first, then every figure, then what was not measured and why.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::goals::{self, Goal};
use crate::machine::Machine;
use crate::peers::{Contender, Tunnel};
use crate::rounds::{Aside, Failure, Lengths, Measure, Samples};
use crate::soak::Soak;
use crate::statistics::Summary;

/// All there is to tell about a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Version of the shape.
    pub(crate) schema: u32,
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    /// Whether it was a short run, whose figures mean nothing.
    pub(crate) quick: bool,
    pub(crate) goals: Vec<Goal>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) contenders: Vec<Standing>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) soak: Option<Soak>,
    #[serde(skip)]
    added: [Option<Summary>; 2],
    #[serde(skip)]
    load_seconds: f64,
}

/// A contender, and whether it took part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Standing {
    pub(crate) contender: Contender,
    pub(crate) version: Option<String>,
    pub(crate) mtu: Option<u32>,
    /// Why it could not be started.
    pub(crate) failure: Option<String>,
}

/// A measure of a contender.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) measure: Measure,
    pub(crate) contender: Contender,
    pub(crate) figure: Summary,
    /// Median of each round's ratio to the bare veth.
    pub(crate) of_bare: Option<Summary>,
    pub(crate) processors: Option<f64>,
    pub(crate) retransmits: Option<f64>,
    pub(crate) offered: Option<f64>,
}

impl Standing {
    pub(crate) fn of(contender: Contender, outcome: &Result<&Tunnel, String>) -> Self {
        match outcome {
            Ok(tunnel) => {
                Self { contender, version: tunnel.version.clone(), mtu: Some(tunnel.mtu), failure: None }
            }
            Err(why) => Self { contender, version: None, mtu: None, failure: Some(why.clone()) },
        }
    }
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        samples: &Samples,
        contenders: Vec<Standing>,
        soak: Option<Soak>,
        (lengths, quick): (Lengths, bool),
    ) -> Self {
        let mut figures = Vec::new();
        for measure in Measure::ALL {
            for &contender in measure.contenders() {
                let Some(figure) = Summary::of(samples.of(measure, contender, Aside::Figure)) else {
                    continue;
                };
                let median =
                    |aside| Summary::of(samples.of(measure, contender, aside)).map(|summary| summary.median);
                let of_bare = Summary::of(samples.each_round(|round| {
                    Some(
                        samples.at(measure, contender, round)?
                            / samples.at(measure, Contender::Bare, round)?,
                    )
                }));
                figures.push(Figure {
                    measure,
                    contender,
                    figure,
                    of_bare: of_bare.filter(|_| contender != Contender::Bare),
                    processors: median(Aside::Processors),
                    retransmits: median(Aside::Retransmits),
                    offered: median(Aside::Offered),
                });
            }
        }
        Self {
            schema: 1,
            machine,
            rounds: samples.rounds,
            quick,
            goals: goals::of(samples, soak.as_ref()),
            figures,
            contenders,
            failures: samples.failures.clone(),
            soak,
            added: [Measure::Ping, Measure::RequestResponse].map(|measure| goals::added(samples, measure)),
            load_seconds: lengths.load.as_secs_f64(),
        }
    }

    /// Whether everything about the bare veth and about Adit could be measured.
    pub(crate) fn is_whole(&self) -> bool {
        let ours = |contender| matches!(contender, Contender::Bare | Contender::Adit);
        self.contenders.iter().all(|standing| !ours(standing.contender) || standing.failure.is_none())
            && self.failures.iter().all(|failure| !ours(failure.contender))
    }

    /// The report in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "Machine: {}.\n", self.machine)?;
        if self.quick {
            writeln!(out, "**A short run, to see that everything works: the figures mean nothing.**\n")?;
        }
        writeln!(
            out,
            "{} round{}, {} s a load. Cells: median (least to greatest of the rounds). A ratio is the median of each \
             round's own ratio; never compare figures of different runs.\n",
            self.rounds,
            if self.rounds == 1 { "" } else { "s" },
            self.load_seconds,
        )?;
        writeln!(out, "| Userspace plane | goal | moonshot | reached | |\n|---|---|---|---|---|")?;
        for goal in &self.goals {
            writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                goal.what,
                goal.goal_text(),
                goal.moonshot_text(),
                goal.reached_text(),
                goal.verdict_text()
            )?;
        }
        for measure in Measure::ALL {
            self.write_measure(out, measure)?;
        }
        self.write_contenders(out)?;
        self.write_soak(out)
    }

    fn write_measure(&self, out: &mut String, measure: Measure) -> std::fmt::Result {
        let asides = asides(measure);
        write!(
            out,
            "\n**{}**\n\n| |{}| {} the bare veth |",
            title(measure),
            unit(measure).0,
            if measure == Measure::Ping { "times" } else { "of" }
        )?;
        for (_, name) in asides {
            write!(out, " {name} |")?;
        }
        writeln!(out, "\n|---|---|---|{}", "---|".repeat(asides.len()))?;
        let figures: BTreeMap<Contender, &Figure> = self
            .figures
            .iter()
            .filter(|figure| figure.measure == measure)
            .map(|figure| (figure.contender, figure))
            .collect();
        for &contender in measure.contenders() {
            let Some(figure) = figures.get(&contender) else {
                writeln!(
                    out,
                    "| {} | {} | – |{}",
                    contender.name(),
                    self.reason(measure, contender),
                    " – |".repeat(asides.len())
                )?;
                continue;
            };
            let (_, scale, digits) = unit(measure);
            let ratio = figure.of_bare.map_or_else(|| "–".to_owned(), |ratio| spread(ratio, 1.0, 3));
            write!(out, "| {} | {} | {ratio} |", contender.name(), spread(figure.figure, scale, digits))?;
            for (aside, _) in asides {
                let value = match aside {
                    Aside::Processors => figure
                        .processors
                        .filter(|_| contender != Contender::Bare && contender != Contender::Vxlan),
                    Aside::Retransmits => figure.retransmits,
                    Aside::Offered => figure.offered.map(|offered| offered * scale),
                    Aside::Figure => Some(figure.figure.median),
                };
                let digits = if *aside == Aside::Processors { 2 } else { 0 };
                match value {
                    Some(value) => write!(out, " {value:.digits$} |")?,
                    None => write!(out, " – |")?,
                }
            }
            writeln!(out)?;
        }
        let added = match measure {
            Measure::Ping => self.added[0],
            Measure::RequestResponse => self.added[1],
            _ => None,
        };
        if let Some(added) = added {
            writeln!(out, "\nThe tunnel adds {} µs to a round trip.", spread(added, 1.0, 1))?;
        }
        Ok(())
    }

    fn reason(&self, measure: Measure, contender: Contender) -> String {
        let standing = self.contenders.iter().find(|standing| standing.contender == contender);
        if let Some(why) = standing.and_then(|standing| standing.failure.as_ref()) {
            return format!("not started: {}", cell(why));
        }
        let failed =
            self.failures.iter().find(|failure| failure.measure == measure && failure.contender == contender);
        failed.map_or_else(|| "not measured".to_owned(), |failure| format!("failed: {}", cell(&failure.why)))
    }

    fn write_contenders(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n**Who was measured**\n\n| | version | set up as | MTU inside |\n|---|---|---|---|")?;
        for standing in &self.contenders {
            let contender = standing.contender;
            match &standing.failure {
                None => {
                    let version = standing.version.as_deref().unwrap_or("–");
                    let mtu = standing.mtu.unwrap_or_default();
                    writeln!(out, "| {} | {version} | {} | {mtu} |", contender.name(), contender.setup())?;
                }
                Some(why) => writeln!(out, "| {} | – | not started: {} | – |", contender.name(), cell(why))?,
            }
        }
        if !self.failures.is_empty() {
            writeln!(out, "\nMeasurements that failed, and are missing above:\n")?;
        }
        for failure in &self.failures {
            let (name, title) = (failure.contender.name(), title(failure.measure));
            writeln!(out, "- round {}, {name}, {title}: {}", failure.round, cell(&failure.why))?;
        }
        Ok(())
    }

    fn write_soak(&self, out: &mut String) -> std::fmt::Result {
        let Some(soak) = &self.soak else { return Ok(()) };
        let looks: Vec<String> = soak.resident_kib.iter().map(u64::to_string).collect();
        writeln!(
            out,
            "\n**Memory** of both `adit run` together (VmRSS, KiB), after a warm-up and then after each turn of {:.0} s of \
             full load, four TCP streams and 64-byte UDP by turns: {}.",
            soak.seconds,
            looks.join(", ")
        )
    }
}

fn title(measure: Measure) -> &'static str {
    match measure {
        Measure::TcpOne => "One TCP stream",
        Measure::TcpFour => "Four TCP streams",
        Measure::UdpSmall => "64-byte UDP, batched generator",
        Measure::RequestResponse => "Request and response, one byte each, over TCP",
        Measure::Ping => "Ping, one after another",
        Measure::IperfTcp => "iperf3, one TCP stream",
        Measure::IperfUdp => "iperf3, 64-byte UDP (`-u -b 0 -l 64`)",
    }
}

/// Heading of the column, factor, and digits.
fn unit(measure: Measure) -> (&'static str, f64, usize) {
    match measure {
        Measure::TcpOne | Measure::TcpFour | Measure::IperfTcp => (" Gb/s ", 1e-9, 2),
        Measure::UdpSmall | Measure::IperfUdp => (" thousand delivered a second ", 1e-3, 0),
        Measure::RequestResponse => (" thousand a second ", 1e-3, 1),
        Measure::Ping => (" µs ", 1.0, 1),
    }
}

fn asides(measure: Measure) -> &'static [(Aside, &'static str)] {
    const PROCESSORS: (Aside, &str) = (Aside::Processors, "processors busy in its programs");
    const RETRANSMITS: (Aside, &str) = (Aside::Retransmits, "retransmits");
    match measure {
        Measure::TcpOne | Measure::TcpFour | Measure::IperfTcp => &[PROCESSORS, RETRANSMITS],
        Measure::UdpSmall => &[PROCESSORS, (Aside::Offered, "thousand offered a second")],
        Measure::IperfUdp | Measure::RequestResponse => &[PROCESSORS],
        Measure::Ping => &[],
    }
}

fn spread(summary: Summary, scale: f64, digits: usize) -> String {
    let Summary { median, least, greatest, rounds } = summary;
    if rounds == 1 {
        return format!("{:.digits$}", median * scale);
    }
    format!("{:.digits$} ({:.digits$} to {:.digits$})", median * scale, least * scale, greatest * scale)
}

/// Text that does not break a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            processor: "Test CPU".to_owned(),
            processors: 2,
            is_virtual: true,
            memory_mib: 4096,
            kernel: "6.18".to_owned(),
            commit: None,
        }
    }

    fn standing(contender: Contender, failure: Option<&str>) -> Standing {
        Standing {
            contender,
            version: Some("1".to_owned()),
            mtu: Some(1500),
            failure: failure.map(str::to_owned),
        }
    }

    fn report() -> Report {
        let mut samples = Samples::default();
        for (round, (bare, adit)) in [(16e9, 4e9), (18e9, 6e9), (20e9, 6e9)].into_iter().enumerate() {
            samples.put(Measure::TcpOne, Contender::Bare, Aside::Figure, round, bare);
            samples.put(Measure::TcpOne, Contender::Adit, Aside::Figure, round, adit);
            samples.put(Measure::TcpOne, Contender::Adit, Aside::Processors, round, 1.25);
            samples.put(Measure::TcpOne, Contender::Adit, Aside::Retransmits, round, 7.0);
        }
        samples.failures.push(Failure {
            round: 2,
            measure: Measure::UdpSmall,
            contender: Contender::OpenVpn,
            why: "a|b".to_owned(),
        });
        let contenders = vec![
            standing(Contender::Bare, None),
            standing(Contender::Adit, None),
            standing(Contender::Tinc, Some("`tincd` is not\ninstalled")),
            standing(Contender::OpenVpn, None),
        ];
        Report::new(machine(), &samples, contenders, None, (Lengths::FULL, false))
    }

    #[test]
    fn figures_ratios_and_reasons_are_in_the_tables() {
        let text = report().markdown();
        for line in [
            "Machine: 2 × Test CPU (virtual machine), 4.0 GiB of memory, Linux 6.18.",
            "| one TCP stream, of the bare veth | ≥ 0.27 | ≥ 0.40 | 0.30 (0.25 to 0.33) | reached |",
            "| bare veth | 18.00 (16.00 to 20.00) | – | – | – |",
            "| Adit, userspace | 6.00 (4.00 to 6.00) | 0.300 (0.250 to 0.333) | 1.25 | 7 |",
            "| tinc | not started: `tincd` is not installed | – | – | – |",
            "| tinc | – | not started: `tincd` is not installed | – |",
            "| OpenVPN | failed: a\\|b | – | – | – |",
            "- round 2, OpenVPN, 64-byte UDP, batched generator: a\\|b",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn every_row_of_a_table_has_as_many_cells_as_its_head() {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let text = report().markdown();
        let mut head = None;
        for line in text.lines() {
            if !line.starts_with('|') {
                head = None;
                continue;
            }
            let head = *head.get_or_insert(cells(line));
            assert_eq!(cells(line), head, "{line}");
        }
    }

    #[test]
    fn it_is_whole_only_if_ours_were_measured() {
        let mut whole = report();
        assert!(whole.is_whole(), "a peer that failed is told, but is no failure of ours");
        whole.failures[0].contender = Contender::Adit;
        assert!(!whole.is_whole());
        let mut whole = report();
        whole.contenders[1].failure = Some("no".to_owned());
        assert!(!whole.is_whole());
    }
}
