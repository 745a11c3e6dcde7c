//! The report in Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::contenders::Standing;
use crate::measure::{Aside, Measure};
use crate::peers::Contender;
use crate::programs::ProgramTime;
use crate::report::{Figure, Report};
use crate::statistics::Summary;
use crate::targets::TargetTable;
use crate::testbed::Shape;

impl Report {
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
            writeln!(out, "**A short run to show that everything works. The figures mean nothing.**\n")?;
        }
        writeln!(
            out,
            "{} round{}, {:.1} s a load in {} slices. Cells: median (least to greatest of the rounds).\n\
             A ratio is the median of the rounds' ratios. Do not compare figures of different runs.",
            self.rounds,
            if self.rounds == 1 { "" } else { "s" },
            self.lengths.load.as_secs_f64() * self.lengths.slices as f64,
            self.lengths.slices,
        )?;
        for table in &self.targets {
            write_targets(out, table)?;
        }
        for measure in Measure::ALL {
            self.write_measure(out, measure)?;
        }
        self.write_programs(out)?;
        self.write_loading(out)?;
        self.write_contenders(out)?;
        self.write_soak(out)
    }

    fn write_measure(&self, out: &mut String, measure: Measure) -> std::fmt::Result {
        let takes_part = |contender| self.standing(measure.shape(), contender).is_some();
        let contenders: Vec<Contender> =
            measure.contenders().iter().copied().filter(|&contender| takes_part(contender)).collect();
        let figures: BTreeMap<Contender, &Figure> = self
            .figures
            .iter()
            .filter(|figure| figure.measure == measure)
            .map(|figure| (figure.contender, figure))
            .collect();
        let was_tried = self.failures.iter().any(|failure| failure.measure == measure);
        if figures.is_empty() && !was_tried {
            return Ok(());
        }
        let (asides, shape) = (asides(measure), measure.shape());
        write!(
            out,
            "\n**{}**\n\n| |{}| ratio to {} |",
            title(measure),
            unit(measure).0,
            if shape == Shape::Chain { "plain forwarding" } else { "the bare veth" },
        )?;
        for (_, name) in asides {
            write!(out, " {name} |")?;
        }
        writeln!(out, "\n|---|---|---|{}", "---|".repeat(asides.len()))?;
        for &contender in &contenders {
            let name = contender.name_on(shape);
            match figures.get(&contender) {
                Some(figure) => write_figure(out, name, figure, asides)?,
                None => {
                    let reason = self.reason(measure, contender);
                    writeln!(out, "| {name} | {reason} | – |{}", " – |".repeat(asides.len()))?;
                }
            }
        }
        for &contender in contenders.iter().filter(|contender| contender.flavour().is_some()) {
            if let Some(added) = figures.get(&contender).and_then(|figure| figure.added) {
                writeln!(out, "\n{} adds {} µs to a round trip.", contender.name(), spread(added, 1.0, 1))?;
            }
        }
        Ok(())
    }

    fn standing(&self, shape: Shape, contender: Contender) -> Option<&Standing> {
        self.contenders.iter().find(|standing| standing.contender == contender && standing.shape == shape)
    }

    fn reason(&self, measure: Measure, contender: Contender) -> String {
        let standing = self.standing(measure.shape(), contender);
        if let Some(why) = standing.and_then(|standing| standing.failure.as_ref()) {
            return format!("not started: {}", cell(why));
        }
        let failed =
            self.failures.iter().find(|failure| failure.measure == measure && failure.contender == contender);
        failed.map_or_else(|| "not measured".to_owned(), |failure| format!("failed: {}", cell(&failure.why)))
    }

    fn write_programs(&self, out: &mut String) -> std::fmt::Result {
        let names: BTreeSet<&str> = self.programs.iter().map(|time| time.program.as_str()).collect();
        let contenders: BTreeSet<Contender> = self.programs.iter().map(|time| time.contender).collect();
        if names.is_empty() {
            return Ok(());
        }
        write!(out, "\n**Nanoseconds a packet in Adit's programs**, 64-byte UDP, the kernel's clock\n\n| |")?;
        for name in &names {
            write!(out, " `{name}` |")?;
        }
        writeln!(out, "\n|---|{}", "---|".repeat(names.len()))?;
        for contender in contenders {
            write!(out, "| {} |", contender.name())?;
            for &name in &names {
                let is_it = |time: &&ProgramTime| time.contender == contender && time.program == name;
                let time = self.programs.iter().find(is_it).and_then(|time| time.nanoseconds);
                let time = time.map_or_else(|| "–".to_owned(), |time| spread(time, 1.0, 0));
                write!(out, " {time} |")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_loading(&self, out: &mut String) -> std::fmt::Result {
        if self.loading.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n**From the start of `adit run` to ready**, milliseconds\n\n\
             | | one peer | 10,000 peers, 100,000 networks | difference |\n|---|---|---|---|"
        )?;
        for loading in &self.loading {
            let milliseconds = |summary: Option<Summary>| {
                summary.map_or_else(|| "–".to_owned(), |summary| spread(summary, 1e3, 0))
            };
            let cells = [loading.one, loading.many, loading.more].map(milliseconds).join(" | ");
            writeln!(out, "| {} | {cells} |", loading.contender.name())?;
        }
        Ok(())
    }

    fn write_contenders(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n**Contenders**\n\n| | version | set up as | inner MTU |\n|---|---|---|---|")?;
        for standing in self.contenders.iter().filter(|standing| standing.shape == Shape::Pair) {
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
            writeln!(out, "\nMeasurements that failed and are missing above:\n")?;
        }
        for failure in &self.failures {
            let name = failure.contender.name_on(failure.measure.shape());
            writeln!(
                out,
                "- round {}, {name}, {}:\n  {}",
                failure.round,
                title(failure.measure),
                cell(&failure.why)
            )?;
        }
        Ok(())
    }

    fn write_soak(&self, out: &mut String) -> std::fmt::Result {
        let Some(soak) = &self.soak else { return Ok(()) };
        let looks: Vec<String> = soak.resident_kib.iter().map(u64::to_string).collect();
        writeln!(
            out,
            "\n**Memory** of both `adit run` of the userspace plane together (VmRSS, KiB), after a warm-up and\n\
             then after every {:.0} s of full load, four TCP streams and 64-byte UDP in turns:\n{}.",
            soak.seconds,
            looks.join(", ")
        )
    }
}

fn write_targets(out: &mut String, table: &TargetTable) -> std::fmt::Result {
    let has_control = table.targets.iter().any(|target| target.control.is_some());
    let (head, line) = if has_control { (" a second bare veth |", "---|") } else { ("", "") };
    writeln!(
        out,
        "\n| {} | target | stretch target | measured | result |{head}\n|---|---|---|---|---|{line}",
        table.title
    )?;
    for target in &table.targets {
        write!(
            out,
            "| {} | {} | {} | {} | {} |",
            target.what,
            target.target_text(),
            target.stretch_text(),
            target.reached_text(),
            target.verdict_text()
        )?;
        if has_control {
            write!(out, " {} |", target.control_text())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn write_figure(
    out: &mut String,
    name: &str,
    figure: &Figure,
    asides: &[(Aside, &'static str)],
) -> std::fmt::Result {
    let (_, scale, digits) = unit(figure.measure);
    let ratio = figure.of_bare.map_or_else(|| "–".to_owned(), |ratio| spread(ratio, 1.0, 3));
    write!(out, "| {name} | {} | {ratio} |", spread(figure.figure, scale, digits))?;
    for (aside, _) in asides {
        let value = match aside {
            Aside::Processors => figure.processors,
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
    writeln!(out)
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
        Measure::ForwardTcp => "Forwarded by two gateways: one TCP stream, host to host",
        Measure::ForwardUdp => "Forwarded by two gateways: 64-byte UDP, host to host",
    }
}

/// The column's heading, the factor and the number of digits.
fn unit(measure: Measure) -> (&'static str, f64, usize) {
    match measure {
        Measure::TcpOne | Measure::TcpFour | Measure::IperfTcp | Measure::ForwardTcp => (" Gb/s ", 1e-9, 2),
        Measure::UdpSmall | Measure::IperfUdp | Measure::ForwardUdp => {
            (" thousand delivered a second ", 1e-3, 0)
        }
        Measure::RequestResponse => (" thousand a second ", 1e-3, 1),
        Measure::Ping => (" µs ", 1.0, 1),
    }
}

fn asides(measure: Measure) -> &'static [(Aside, &'static str)] {
    const PROCESSORS: (Aside, &str) = (Aside::Processors, "processors used by its programs");
    const RETRANSMITS: (Aside, &str) = (Aside::Retransmits, "retransmits");
    match measure {
        Measure::TcpOne | Measure::TcpFour | Measure::IperfTcp | Measure::ForwardTcp => {
            &[PROCESSORS, RETRANSMITS]
        }
        Measure::UdpSmall | Measure::ForwardUdp => {
            &[PROCESSORS, (Aside::Offered, "thousand offered a second")]
        }
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
    use crate::machine::Machine;
    use crate::measure::Lengths;
    use crate::report::Run;
    use crate::samples::{Failure, Samples};
    use crate::startup_time::Loading;

    fn machine() -> Machine {
        Machine {
            processor: "Test CPU".to_owned(),
            processors: 2,
            is_virtual: true,
            memory_mib: 4096,
            kernel: "6.18".to_owned(),
            load_before: None,
            commit: None,
        }
    }

    fn standing(contender: Contender, shape: Shape, failure: Option<&str>) -> Standing {
        Standing {
            contender,
            shape,
            version: Some("1".to_owned()),
            mtu: Some(1500),
            failure: failure.map(str::to_owned),
        }
    }

    fn report() -> Report {
        let mut samples = Samples::default();
        for (round, (bare, adit)) in [(16e9, 4e9), (18e9, 6e9), (20e9, 6e9)].into_iter().enumerate() {
            let mut put = |measure, contender, aside, value| {
                samples.put(measure, contender, aside, round, value);
            };
            put(Measure::TcpOne, Contender::Bare, Aside::Figure, bare);
            put(Measure::TcpOne, Contender::Adit, Aside::Figure, adit);
            put(Measure::TcpOne, Contender::Adit, Aside::Processors, 1.25);
            put(Measure::TcpOne, Contender::Adit, Aside::Retransmits, 7.0);
            put(Measure::TcpOne, Contender::AditEbpf, Aside::Figure, bare);
            put(Measure::ForwardTcp, Contender::Bare, Aside::Figure, bare);
            put(Measure::ForwardTcp, Contender::AditEbpf, Aside::Figure, bare);
            put(Measure::RequestResponse, Contender::Bare, Aside::Figure, 50_000.0);
            put(Measure::RequestResponse, Contender::AditEbpf, Aside::Figure, 40_000.0);
        }
        samples.failures.push(Failure {
            round: 2,
            measure: Measure::UdpSmall,
            contender: Contender::OpenVpn,
            why: "a|b".to_owned(),
        });
        let standings = vec![
            standing(Contender::Bare, Shape::Pair, None),
            standing(Contender::AditEbpf, Shape::Pair, None),
            standing(Contender::Adit, Shape::Pair, None),
            standing(Contender::Ipip, Shape::Pair, Some("this kernel has no ipip driver")),
            standing(Contender::Tinc, Shape::Pair, Some("`tincd` is not\ninstalled")),
            standing(Contender::OpenVpn, Shape::Pair, None),
            standing(Contender::Bare, Shape::Chain, None),
            standing(Contender::AditEbpf, Shape::Chain, None),
        ];
        Report::new(Run {
            machine: machine(),
            samples: &samples,
            standings,
            soak: None,
            loading: vec![Loading::of(Contender::AditEbpf, &[0.1], &[0.6])],
            programs: vec![ProgramTime {
                contender: Contender::AditEbpf,
                program: "adit_encap".to_owned(),
                nanoseconds: Summary::of([100.0, 120.0, 110.0]),
                runs: 1,
            }],
            lengths: Lengths::FULL,
            is_quick: false,
            is_guest: false,
        })
    }

    #[test]
    fn the_tables_contain_figures_ratios_and_reasons() {
        let text = report().markdown();
        for line in [
            "Machine: 2 × Test CPU (virtual machine), 4.0 GiB of memory,",
            "Linux 6.18.",
            "| one TCP stream, ratio to the bare veth | ≥ 0.27 | ≥ 0.40 | 0.300 (0.250 to 0.333) | reached |",
            "| loading 10,000 peers and 100,000 networks | ≤ 1.00 s | – | 0.50 s | reached |",
            "| bare veth | 18.00 (16.00 to 20.00) | – | – | – |",
            "| Adit, userspace | 6.00 (4.00 to 6.00) | 0.300 (0.250 to 0.333) | 1.25 | 7 |",
            "| plain forwarding | 18.00 (16.00 to 20.00) | – | – | – |",
            "| Adit, eBPF | 100 | 600 | 500 |",
            "| | `adit_encap` |",
            "| Adit, eBPF | 110 (100 to 120) |",
            "Adit, eBPF adds 5.0 (5.0 to 5.0) µs to a round trip.",
            "| tinc | not started: `tincd` is not installed | – | – | – |",
            "| tinc | – | not started: `tincd` is not installed | – |",
            "| Linux ipip | not started: this kernel has no ipip driver | – | – | – |",
            "| OpenVPN | failed: a\\|b | – | – | – |",
            "- round 2, OpenVPN, 64-byte UDP, batched generator:",
            "  a\\|b",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("fastd"), "a contender that does not take part is in a table:\n{text}");
        assert!(!text.contains("iperf3, one"), "a measure that was not taken has a table:\n{text}");
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
    fn a_report_is_whole_only_if_adit_was_measured() {
        let mut whole = report();
        assert!(whole.is_whole(), "another contender's failure makes the report incomplete");
        whole.failures[0].contender = Contender::AditEbpf;
        assert!(!whole.is_whole());
        let mut whole = report();
        whole.contenders[7].failure = Some("no".to_owned());
        assert!(!whole.is_whole());
    }
}
