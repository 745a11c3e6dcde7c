//! The goals, and what was reached of them.

use serde::Serialize;

use crate::peers::Contender;
use crate::rounds::{Measure, Samples};
use crate::soak::Soak;
use crate::statistics::Summary;

/// Growth that is no growth: stacks and tables reach their size within the first minute, a page
/// here and a page there. A leak of one datagram in a thousand would be a hundred times this.
const NO_GROWTH_KIB: f64 = 256.0;

/// A goal, and how near we came.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    unit: Unit,
    /// Whether more is better.
    rises: bool,
    pub(crate) goal: f64,
    pub(crate) moonshot: Option<f64>,
    /// `None`: not measured.
    pub(crate) reached: Option<Summary>,
    /// Why it was not, or what else there is to say.
    pub(crate) note: Option<String>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Ratio,
    Microseconds,
    Kib,
}

/// What became of a goal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// And more than that.
    Moonshot,
    Reached,
    /// By this part of the goal.
    MissedBy(f64),
    NotMeasured,
}

/// All goals of the userspace plane.
pub(crate) fn of(samples: &Samples, soak: Option<&Soak>) -> Vec<Goal> {
    let ratio =
        |measure, one, other| {
            Summary::of(samples.each_round(|round| {
                Some(samples.at(measure, one, round)? / samples.at(measure, other, round)?)
            }))
        };
    let peers = Summary::of(samples.each_round(|round| {
        let best = Contender::USERSPACE_PEERS
            .iter()
            .filter_map(|&peer| samples.at(Measure::TcpOne, peer, round))
            .reduce(f64::max)?;
        Some(samples.at(Measure::TcpOne, Contender::Adit, round)? / best)
    }));
    let streams = Summary::of(samples.each_round(|round| {
        let adit = |measure| samples.at(measure, Contender::Adit, round);
        Some(adit(Measure::TcpFour)? / adit(Measure::TcpOne)?)
    }));
    let growth = soak.and_then(|soak| Summary::of([soak.growth_kib() as f64]));
    let mut goals = vec![
        Goal::rising(
            "one TCP stream, of the bare veth",
            (0.27, Some(0.40)),
            ratio(Measure::TcpOne, Contender::Adit, Contender::Bare),
        ),
        Goal::rising("one TCP stream, times the best userspace peer of the round", (4.0, None), peers),
        Goal::rising(
            "64-byte UDP, batched generator, of the bare veth",
            (0.85, Some(1.0)),
            ratio(Measure::UdpSmall, Contender::Adit, Contender::Bare),
        ),
        Goal::rising(
            "64-byte UDP, iperf3, times plaintext OpenVPN",
            (1.0, None),
            ratio(Measure::IperfUdp, Contender::Adit, Contender::OpenVpn),
        ),
        Goal::falling("ping round trip added", Unit::Microseconds, 60.0, added(samples, Measure::Ping)),
        Goal::rising("four TCP streams, times one", (1.0, None), streams),
        Goal::falling("growth in memory under full load, both sides", Unit::Kib, NO_GROWTH_KIB, growth),
    ];
    if let (Some(goal), Some(soak)) = (goals.last_mut(), soak) {
        goal.note = Some(format!("over {:.0} s", soak.seconds));
    } else if let Some(goal) = goals.last_mut() {
        goal.note = Some("`--soak` measures it".to_owned());
    }
    goals
}

/// Microseconds that the tunnel adds to a round trip, in each round.
pub(crate) fn added(samples: &Samples, measure: Measure) -> Option<Summary> {
    let time = |contender, round| {
        let value = samples.at(measure, contender, round)?;
        Some(if measure == Measure::RequestResponse { 1e6 / value } else { value })
    };
    Summary::of(
        samples.each_round(|round| Some(time(Contender::Adit, round)? - time(Contender::Bare, round)?)),
    )
}

impl Goal {
    fn rising(what: &'static str, (goal, moonshot): (f64, Option<f64>), reached: Option<Summary>) -> Self {
        Self::new(what, Unit::Ratio, true, (goal, moonshot), reached)
    }

    fn falling(what: &'static str, unit: Unit, goal: f64, reached: Option<Summary>) -> Self {
        Self::new(what, unit, false, (goal, None), reached)
    }

    fn new(
        what: &'static str,
        unit: Unit,
        rises: bool,
        (goal, moonshot): (f64, Option<f64>),
        reached: Option<Summary>,
    ) -> Self {
        let is_met = |value: f64, limit: f64| if rises { value >= limit } else { value <= limit };
        let verdict = match reached {
            None => Verdict::NotMeasured,
            Some(Summary { median, .. }) if moonshot.is_some_and(|limit| is_met(median, limit)) => {
                Verdict::Moonshot
            }
            Some(Summary { median, .. }) if is_met(median, goal) => Verdict::Reached,
            Some(Summary { median, .. }) => Verdict::MissedBy(((median - goal) / goal).abs()),
        };
        Self { what, unit, rises, goal, moonshot, reached, note: None, verdict }
    }

    /// The goal, as the table has it.
    pub(crate) fn goal_text(&self) -> String {
        if self.unit == Unit::Kib {
            return format!("none (up to {})", self.amount(self.goal));
        }
        self.limit_text(self.goal)
    }

    /// The moonshot, as the table has it.
    pub(crate) fn moonshot_text(&self) -> String {
        self.moonshot.map_or_else(|| "–".to_owned(), |limit| self.limit_text(limit))
    }

    fn limit_text(&self, limit: f64) -> String {
        format!("{} {}", if self.rises { "≥" } else { "≤" }, self.amount(limit))
    }

    /// What was reached, as the table has it: the median, and the spread of the rounds.
    pub(crate) fn reached_text(&self) -> String {
        let note = self.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        match self.reached {
            None => format!("not measured{note}"),
            Some(Summary { median, rounds: 1, .. }) => format!("{}{note}", self.amount(median)),
            Some(Summary { median, least, greatest, .. }) => {
                format!("{} ({} to {}){note}", self.amount(median), self.amount(least), self.amount(greatest))
            }
        }
    }

    /// The verdict, as the table has it.
    pub(crate) fn verdict_text(&self) -> String {
        match self.verdict {
            Verdict::Moonshot => "moonshot".to_owned(),
            Verdict::Reached => "reached".to_owned(),
            Verdict::MissedBy(part) => format!("**missed by {:.0} %**", (part * 100.0).max(1.0)),
            Verdict::NotMeasured => "–".to_owned(),
        }
    }

    fn amount(&self, value: f64) -> String {
        match self.unit {
            Unit::Ratio => format!("{value:.2}"),
            Unit::Microseconds => format!("{value:.0} µs"),
            Unit::Kib => format!("{value:.0} KiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Aside;

    fn samples(figures: &[(Measure, Contender, &[f64])]) -> Samples {
        let mut samples = Samples::default();
        for &(measure, contender, values) in figures {
            for (round, &value) in values.iter().enumerate() {
                samples.put(measure, contender, Aside::Figure, round, value);
            }
        }
        samples
    }

    #[test]
    fn ratios_are_the_median_of_each_rounds_ratio_and_not_the_ratio_of_medians() {
        let samples = samples(&[
            (Measure::TcpOne, Contender::Bare, &[10.0, 20.0, 40.0]),
            (Measure::TcpOne, Contender::Adit, &[5.0, 6.0, 10.0]),
            (Measure::TcpOne, Contender::Tinc, &[1.0, 2.0, 1.0]),
            (Measure::TcpOne, Contender::Fastd, &[0.5, 1.0, 4.0]),
            (Measure::TcpOne, Contender::Vxlan, &[9.0, 9.0, 9.0]),
        ]);
        let goals = of(&samples, None);
        // 0.5, 0.3, 0.25; the medians' ratio would be 0.3 too, their spread would not be known.
        assert_eq!(goals[0].reached_text(), "0.30 (0.25 to 0.50)");
        assert_eq!(goals[0].verdict_text(), "reached");
        // Each round's best: 1, 2, 4. VXLAN is none of the userspace peers.
        assert_eq!(goals[1].reached_text(), "3.00 (2.50 to 5.00)");
        assert_eq!(goals[1].verdict_text(), "**missed by 25 %**");
        assert_eq!(goals[2].reached_text(), "not measured");
        assert_eq!(goals[6].reached_text(), "not measured (`--soak` measures it)");
    }

    #[test]
    fn moonshots_are_told_from_goals() {
        let ratio = |value: f64| {
            let samples = samples(&[
                (Measure::TcpOne, Contender::Bare, &[1.0]),
                (Measure::TcpOne, Contender::Adit, &[value]),
            ]);
            of(&samples, None)[0].verdict
        };
        assert_eq!(ratio(0.41), Verdict::Moonshot);
        assert_eq!(ratio(0.27), Verdict::Reached);
        assert!(matches!(ratio(0.26), Verdict::MissedBy(_)));
    }

    #[test]
    fn what_is_added_to_a_round_trip_is_a_difference_of_times() {
        let samples = samples(&[
            (Measure::RequestResponse, Contender::Bare, &[50_000.0]),
            (Measure::RequestResponse, Contender::Adit, &[12_500.0]),
            (Measure::Ping, Contender::Bare, &[20.0]),
            (Measure::Ping, Contender::Adit, &[85.0]),
        ]);
        assert_eq!(added(&samples, Measure::RequestResponse).map(|added| added.median), Some(60.0));
        let goals = of(&samples, None);
        assert_eq!(goals[4].reached_text(), "65 µs");
        assert_eq!(goals[4].verdict_text(), "**missed by 8 %**");
    }

    #[test]
    fn memory_that_grows_misses_its_goal() {
        let verdict =
            |resident_kib| of(&Samples::default(), Some(&Soak { seconds: 60.0, resident_kib }))[6].verdict;
        assert_eq!(verdict(vec![9000, 9004]), Verdict::Reached);
        assert_eq!(verdict(vec![9000, 8000]), Verdict::Reached);
        assert!(matches!(verdict(vec![9000, 12_000]), Verdict::MissedBy(_)));
    }
}
