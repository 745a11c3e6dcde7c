//! The targets, and how the measured figures compare with them.

mod before;
mod ebpf;
mod families;
mod ipip;
mod userspace;

use serde::Serialize;

use crate::measure::Measure;
use crate::peers::Contender;
use crate::samples::Samples;
use crate::soak::Soak;
use crate::startup_time::Loading;
use crate::statistics::Summary;

/// The targets of a plane.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TargetTable {
    pub(crate) title: &'static str,
    pub(crate) targets: Vec<Target>,
}

/// The measurements that decide about the targets.
pub(crate) struct Evidence<'a> {
    pub(crate) samples: &'a Samples,
    pub(crate) soak: Option<&'a Soak>,
    pub(crate) loading: &'a [Loading],
}

/// The tables of those contenders that `is_in` says take part. `is_guest`: on an emulated machine
/// only what is the same kind of thing can be compared.
pub(crate) fn tables(
    evidence: &Evidence<'_>,
    is_in: impl Fn(Contender) -> bool,
    is_guest: bool,
) -> Vec<TargetTable> {
    let mut tables = Vec::new();
    if is_in(Contender::AditEbpf) && !is_guest {
        tables.push(TargetTable { title: "eBPF plane", targets: ebpf::targets(evidence) });
    }
    if is_in(Contender::AditEbpf) && is_guest {
        tables
            .push(TargetTable { title: "eBPF plane beside Linux's ipip", targets: ipip::targets(evidence) });
    }
    if is_in(Contender::AditBefore) && !is_guest {
        tables.push(TargetTable { title: "beside an earlier version", targets: before::targets(evidence) });
    }
    if is_in(Contender::BareV6) && !is_guest {
        tables.push(TargetTable { title: "IPv6 inside and outside", targets: families::targets(evidence) });
    }
    if is_in(Contender::Adit) && !is_guest {
        tables.push(TargetTable { title: "Userspace plane", targets: userspace::targets(evidence) });
    }
    tables
}

/// A target and its result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: &'static str,
    unit: Unit,
    /// Whether more is better.
    rises: bool,
    pub(crate) target: f64,
    pub(crate) stretch: Option<f64>,
    /// `None` if it was not measured.
    pub(crate) reached: Option<Summary>,
    /// The same ratio for a second bare cable, which shows the noise.
    pub(crate) control: Option<Summary>,
    /// A note, such as why it was not measured.
    pub(crate) note: Option<String>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Ratio,
    Microseconds,
    Seconds,
    Kib,
}

/// The result of a target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The stretch target is reached too.
    Stretch,
    Reached,
    /// Missed by this fraction of the target.
    MissedBy(f64),
    NotMeasured,
}

/// Microseconds that a tunnel adds to a round trip, in each round.
pub(crate) fn added(samples: &Samples, measure: Measure, contender: Contender) -> Option<Summary> {
    let time = |contender, round| {
        let value = samples.at(measure, contender, round)?;
        Some(if measure == Measure::RequestResponse { 1e6 / value } else { value })
    };
    Summary::of(samples.each_round(|round| Some(time(contender, round)? - time(Contender::Bare, round)?)))
}

/// The ratio of one contender to another over the rounds.
fn ratio(samples: &Samples, measure: Measure, one: Contender, other: Contender) -> Option<Summary> {
    Summary::of(samples.ratios(measure, one, other))
}

impl Target {
    fn at_least(what: &'static str, (target, stretch): (f64, Option<f64>), reached: Option<Summary>) -> Self {
        Self::new(what, Unit::Ratio, true, (target, stretch), reached)
    }

    fn at_most(what: &'static str, unit: Unit, target: f64, reached: Option<Summary>) -> Self {
        Self::new(what, unit, false, (target, None), reached)
    }

    /// Adds the ratio of a second bare cable to the first.
    fn beside(self, control: Option<Summary>) -> Self {
        Self { control, ..self }
    }

    fn new(
        what: &'static str,
        unit: Unit,
        rises: bool,
        (target, stretch): (f64, Option<f64>),
        reached: Option<Summary>,
    ) -> Self {
        let is_met = |value: f64, limit: f64| if rises { value >= limit } else { value <= limit };
        let verdict = match reached {
            None => Verdict::NotMeasured,
            Some(Summary { median, .. }) if stretch.is_some_and(|limit| is_met(median, limit)) => {
                Verdict::Stretch
            }
            Some(Summary { median, .. }) if is_met(median, target) => Verdict::Reached,
            Some(Summary { median, .. }) => Verdict::MissedBy(((median - target) / target).abs()),
        };
        Self { what, unit, rises, target, stretch, reached, control: None, note: None, verdict }
    }

    /// The target, as the table has it.
    pub(crate) fn target_text(&self) -> String {
        if self.unit == Unit::Kib {
            return format!("none (up to {})", self.amount(self.target));
        }
        self.limit_text(self.target)
    }

    /// The stretch, as the table has it.
    pub(crate) fn stretch_text(&self) -> String {
        self.stretch.map_or_else(|| "–".to_owned(), |limit| self.limit_text(limit))
    }

    fn limit_text(&self, limit: f64) -> String {
        let sign = if self.rises { "≥" } else { "≤" };
        if self.unit == Unit::Ratio {
            format!("{sign} {limit:.2}")
        } else {
            format!("{sign} {}", self.amount(limit))
        }
    }

    /// What was reached, as the table has it: the median, and the spread of the rounds.
    pub(crate) fn reached_text(&self) -> String {
        let note = self.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        match self.reached {
            None => format!("not measured{note}"),
            Some(reached) => format!("{}{note}", self.spread(reached)),
        }
    }

    /// What a second bare cable was, as the table has it.
    pub(crate) fn control_text(&self) -> String {
        self.control.map_or_else(|| "–".to_owned(), |control| self.spread(control))
    }

    /// The verdict, as the table has it.
    pub(crate) fn verdict_text(&self) -> String {
        match self.verdict {
            Verdict::Stretch => "stretch target reached".to_owned(),
            Verdict::Reached => "reached".to_owned(),
            // A miss by less than a percent has a decimal and is never shown as 0.
            Verdict::MissedBy(part) if part < 0.01 => {
                format!("**missed by {:.1} %**", (part * 100.0).max(0.1))
            }
            Verdict::MissedBy(part) => format!("**missed by {:.0} %**", part * 100.0),
            Verdict::NotMeasured => "–".to_owned(),
        }
    }

    fn spread(&self, Summary { median, least, greatest, rounds }: Summary) -> String {
        if rounds == 1 {
            return self.amount(median);
        }
        format!("{} ({} to {})", self.amount(median), self.amount(least), self.amount(greatest))
    }

    fn amount(&self, value: f64) -> String {
        match self.unit {
            Unit::Ratio => format!("{value:.3}"),
            Unit::Microseconds => format!("{value:.0} µs"),
            Unit::Seconds => format!("{value:.2} s"),
            Unit::Kib => format!("{value:.0} KiB"),
        }
    }
}

#[cfg(test)]
mod testing {
    use super::Evidence;
    use crate::measure::{Aside, Measure};
    use crate::peers::Contender;
    use crate::samples::Samples;

    /// Samples with a figure a round.
    pub(super) fn samples(figures: &[(Measure, Contender, &[f64])]) -> Samples {
        let mut samples = Samples::default();
        for &(measure, contender, values) in figures {
            for (round, &value) in values.iter().enumerate() {
                samples.put(measure, contender, Aside::Figure, round, value);
            }
        }
        samples
    }

    /// Nothing but samples.
    pub(super) fn evidence(samples: &Samples) -> Evidence<'_> {
        Evidence { samples, soak: None, loading: &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{evidence, samples};
    use super::*;

    #[test]
    fn each_plane_has_its_table_and_an_emulated_machine_another() {
        let samples = samples(&[]);
        let titles = |is_in: fn(Contender) -> bool, is_guest| -> Vec<&str> {
            tables(&evidence(&samples), is_in, is_guest).iter().map(|table| table.title).collect()
        };
        let all = ["eBPF plane", "beside an earlier version", "IPv6 inside and outside", "Userspace plane"];
        assert_eq!(titles(|_| true, false), all);
        assert_eq!(titles(|_| true, true), ["eBPF plane beside Linux's ipip"]);
        assert_eq!(titles(|contender| contender == Contender::Adit, false), ["Userspace plane"]);
    }

    #[test]
    fn what_is_missed_by_little_is_still_missed() {
        let text = |reached| Target::at_least("x", (0.95, Some(0.98)), Summary::of([reached])).verdict_text();
        assert_eq!(text(0.9499), "**missed by 0.1 %**");
        assert_eq!(text(0.945), "**missed by 0.5 %**");
        assert_eq!(text(0.90), "**missed by 5 %**");
        assert_eq!(text(0.95), "reached");
        assert_eq!(text(0.98), "stretch target reached");
    }
}
