//! The start-up time of a site with many peers, compared with a single peer.

use std::path::Path;

use serde::Serialize;

use crate::error::BenchError;
use crate::interrupt;
use crate::peers::adit::{Flavour, Site};
use crate::peers::{Contender, Tools};
use crate::statistics::Summary;
use crate::testbed::{Shape, Testbed};

/// Seconds from the start of `adit run` until packets pass.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Loading {
    /// Whose data plane.
    pub(crate) contender: Contender,
    /// With one peer.
    pub(crate) one: Option<Summary>,
    /// With 10,000 peers.
    pub(crate) many: Option<Summary>,
    /// The difference between each pair of starts.
    pub(crate) more: Option<Summary>,
}

impl Loading {
    pub(crate) fn of(contender: Contender, one: &[f64], many: &[f64]) -> Self {
        let summary = |values: &[f64]| Summary::of(values.iter().copied());
        let more: Vec<f64> = many.iter().zip(one).map(|(many, one)| many - one).collect();
        Self { contender, one: summary(one), many: summary(many), more: summary(&more) }
    }
}

/// Starts and ends a site `starts` times, with one peer and with many in turns.
pub(crate) fn run(contender: Contender, tools: &Tools, starts: usize) -> Result<Option<Loading>, BenchError> {
    let Some(flavour) = contender.flavour() else { return Ok(None) };
    let directory = tempfile::Builder::new()
        .prefix("adit-bench-")
        .tempdir()
        .map_err(BenchError::io("make a temporary directory"))?;
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        one.push(start(directory.path(), tools, Flavour { tag: "l", is_large: false, ..flavour })?);
        many.push(start(directory.path(), tools, Flavour { tag: "l", is_large: true, ..flavour })?);
    }
    Ok(Some(Loading::of(contender, &one, &many)))
}

fn start(directory: &Path, tools: &Tools, flavour: Flavour) -> Result<f64, BenchError> {
    interrupt::check()?;
    let testbed = Testbed::build(Shape::Pair, directory.join("loading"))?;
    let mut site = Site::start(&testbed, &testbed.sides[0], tools, flavour)?;
    let after = site.wait_until_ready()?;
    site.insist(flavour)?;
    site.end()?;
    Ok(after.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_is_compared_with_the_one_before_it() {
        let loading = Loading::of(Contender::Adit, &[0.1, 0.3], &[1.1, 1.5]);
        assert_eq!(loading.more.map(|more| (more.least, more.greatest)), Some((1.0, 1.2)));
    }
}
