//! Samples: every figure of every slice, and the rounds' figures computed from them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::measure::{Aside, Measure};
use crate::peers::Contender;

/// Every figure of every round.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// By round, each slice's.
    figures: BTreeMap<(Measure, Contender, Aside), BTreeMap<usize, Vec<f64>>>,
    /// The measurements that failed, with the reasons.
    pub(crate) failures: Vec<Failure>,
    /// How many rounds were done.
    pub(crate) rounds: usize,
}

/// A measurement that failed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) round: usize,
    pub(crate) measure: Measure,
    pub(crate) contender: Contender,
    pub(crate) why: String,
}

impl Samples {
    /// The figures of all rounds.
    pub(crate) fn of(&self, measure: Measure, contender: Contender, aside: Aside) -> Vec<f64> {
        self.figures
            .get(&(measure, contender, aside))
            .map(|rounds| rounds.values().map(|slices| whole(aside, slices)).collect())
            .unwrap_or_default()
    }

    /// The figure of one round: the mean of its slices.
    pub(crate) fn at(&self, measure: Measure, contender: Contender, round: usize) -> Option<f64> {
        let rounds = self.figures.get(&(measure, contender, Aside::Figure))?;
        rounds.get(&round).map(|slices| whole(Aside::Figure, slices))
    }

    /// The ratio of one contender to another in each round that has both.
    pub(crate) fn ratios(&self, measure: Measure, one: Contender, other: Contender) -> Vec<f64> {
        self.each_round(|round| Some(self.at(measure, one, round)? / self.at(measure, other, round)?))
    }

    /// Computes a value, such as a ratio, for each round that has the figures.
    pub(crate) fn each_round(&self, value: impl Fn(usize) -> Option<f64>) -> Vec<f64> {
        (0..self.rounds).filter_map(value).collect()
    }

    /// Adds a slice.
    pub(crate) fn put(
        &mut self,
        measure: Measure,
        contender: Contender,
        aside: Aside,
        round: usize,
        value: f64,
    ) {
        self.rounds = self.rounds.max(round + 1);
        self.figures.entry((measure, contender, aside)).or_default().entry(round).or_default().push(value);
    }
}

/// A round's figure from its slices': events add up, rates and times do not.
fn whole(aside: Aside, slices: &[f64]) -> f64 {
    let sum: f64 = slices.iter().sum();
    if aside == Aside::Retransmits { sum } else { sum / slices.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_lacks_one_of_two_figures_has_no_ratio() {
        let mut samples = Samples::default();
        for (contender, round, value) in
            [(Contender::Bare, 0, 10.0), (Contender::Bare, 1, 20.0), (Contender::Adit, 1, 5.0)]
        {
            samples.put(Measure::TcpOne, contender, Aside::Figure, round, value);
        }
        assert_eq!(samples.ratios(Measure::TcpOne, Contender::Adit, Contender::Bare), [0.25]);
        assert_eq!(samples.of(Measure::TcpOne, Contender::Bare, Aside::Figure), [10.0, 20.0]);
    }

    #[test]
    fn slices_are_averaged_and_events_in_them_add_up() {
        let mut samples = Samples::default();
        for (aside, value) in
            [(Aside::Figure, 1.0), (Aside::Figure, 2.0), (Aside::Retransmits, 3.0), (Aside::Retransmits, 4.0)]
        {
            samples.put(Measure::TcpOne, Contender::Bare, aside, 0, value);
        }
        assert_eq!(samples.at(Measure::TcpOne, Contender::Bare, 0), Some(1.5));
        assert_eq!(samples.of(Measure::TcpOne, Contender::Bare, Aside::Retransmits), [7.0]);
    }
}
