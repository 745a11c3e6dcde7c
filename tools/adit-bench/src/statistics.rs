//! Medians and spread of few samples.

use serde::Serialize;

/// The median, least and greatest of several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
    /// Of how many.
    pub(crate) rounds: usize,
}

impl Summary {
    /// Summarizes numbers. Returns `None` if there are none; NaN does not count.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().filter(|sample| sample.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&least, &greatest) = (sorted.first()?, sorted.last()?);
        Some(Self { median: middle(&sorted), least, greatest, rounds: sorted.len() })
    }
}

/// The median of samples, which are sorted on the way.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    middle(samples)
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&mut []).is_nan());
    }

    #[test]
    fn a_summary_leaves_out_what_is_not_a_number() {
        let summary = Summary::of([5.0, f64::NAN, 1.0, 9.0]);
        assert_eq!(summary, Some(Summary { median: 5.0, least: 1.0, greatest: 9.0, rounds: 3 }));
        assert_eq!(Summary::of([f64::INFINITY]), None);
    }
}
