//! The report: targets, figures, and what was not measured and why. Module `tables` formats it.

use serde::Serialize;

use crate::contenders::Standing;
use crate::machine::Machine;
use crate::measure::{Aside, Lengths, Measure};
use crate::peers::Contender;
use crate::programs::ProgramTime;
use crate::samples::{Failure, Samples};
use crate::soak::Soak;
use crate::startup_time::Loading;
use crate::statistics::Summary;
use crate::targets::{self, Evidence, TargetTable};

/// The data of a report.
pub(crate) struct Run<'a> {
    pub(crate) machine: Machine,
    pub(crate) samples: &'a Samples,
    pub(crate) standings: Vec<Standing>,
    pub(crate) soak: Option<Soak>,
    pub(crate) loading: Vec<Loading>,
    pub(crate) programs: Vec<ProgramTime>,
    pub(crate) lengths: Lengths,
    pub(crate) is_quick: bool,
    pub(crate) is_guest: bool,
}

/// The report of a run, and its JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Version of the shape.
    pub(crate) schema: u32,
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    /// Whether it was a short run, whose figures mean nothing.
    pub(crate) quick: bool,
    /// Whether the machine is an emulated one.
    pub(crate) guest: bool,
    pub(crate) targets: Vec<TargetTable>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) contenders: Vec<Standing>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) loading: Vec<Loading>,
    pub(crate) programs: Vec<ProgramTime>,
    pub(crate) soak: Option<Soak>,
    #[serde(skip)]
    pub(crate) lengths: Lengths,
}

/// A measure of a contender.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) measure: Measure,
    pub(crate) contender: Contender,
    pub(crate) figure: Summary,
    /// Median of each round's ratio to the bare veth.
    pub(crate) of_bare: Option<Summary>,
    /// Microseconds more than the bare veth's, of a round trip.
    pub(crate) added: Option<Summary>,
    pub(crate) processors: Option<f64>,
    pub(crate) retransmits: Option<f64>,
    pub(crate) offered: Option<f64>,
}

impl Figure {
    fn of(samples: &Samples, measure: Measure, contender: Contender) -> Option<Self> {
        let median = |aside| Summary::of(samples.of(measure, contender, aside)).map(|summary| summary.median);
        let is_bare = contender == Contender::Bare;
        let is_a_round_trip = matches!(measure, Measure::Ping | Measure::RequestResponse);
        Some(Self {
            measure,
            contender,
            figure: Summary::of(samples.of(measure, contender, Aside::Figure))?,
            of_bare: Summary::of(samples.ratios(measure, contender, Contender::Bare)).filter(|_| !is_bare),
            added: targets::added(samples, measure, contender).filter(|_| !is_bare && is_a_round_trip),
            processors: median(Aside::Processors).filter(|_| contender.has_programs()),
            retransmits: median(Aside::Retransmits),
            offered: median(Aside::Offered),
        })
    }
}

impl Report {
    pub(crate) fn new(run: Run<'_>) -> Self {
        let Run { machine, samples, standings, soak, loading, programs, lengths, is_quick, is_guest } = run;
        let is_in = |contender| standings.iter().any(|standing| standing.contender == contender);
        let evidence = Evidence { samples, soak: soak.as_ref(), loading: &loading };
        let targets = targets::tables(&evidence, is_in, is_guest);
        let figures = Measure::ALL
            .into_iter()
            .flat_map(|measure| measure.contenders().iter().map(move |&contender| (measure, contender)))
            .filter_map(|(measure, contender)| Figure::of(samples, measure, contender))
            .collect();
        Self {
            schema: 2,
            machine,
            rounds: samples.rounds,
            quick: is_quick,
            guest: is_guest,
            targets,
            figures,
            contenders: standings,
            failures: samples.failures.clone(),
            loading,
            programs,
            soak,
            lengths,
        }
    }

    /// Returns true if everything requested about the bare veth and Adit was measured.
    pub(crate) fn is_whole(&self) -> bool {
        self.contenders.iter().all(|standing| !standing.contender.is_ours() || standing.failure.is_none())
            && self.failures.iter().all(|failure| !failure.contender.is_ours())
    }
}
