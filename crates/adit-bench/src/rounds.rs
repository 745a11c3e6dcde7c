//! The rounds: everything is measured in each, one contender after another, in an order that is
//! turned round from one to the next (ABBA), so that whatever drifts drifts for all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit_lab::ping::{Answer, ping};
use adit_lab::throughput;
use serde::Serialize;

use crate::bed::Bed;
use crate::error::BenchError;
use crate::interrupt;
use crate::iperf3::{self, Load};
use crate::peers::{Contender, Tunnel};
use crate::statistics::median;

/// How long each measurement takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    /// A stream, or a flood of datagrams.
    pub(crate) load: Duration,
    /// A request after another.
    pub(crate) requests: Duration,
    /// How many echoes.
    pub(crate) pings: usize,
    /// A run of iperf3, which counts in seconds.
    pub(crate) iperf_seconds: u64,
}

impl Lengths {
    /// What a figure needs.
    pub(crate) const FULL: Self =
        Self { load: Duration::from_secs(2), requests: Duration::from_secs(1), pings: 300, iperf_seconds: 2 };
    /// Enough to see that it runs; the figures mean nothing.
    pub(crate) const QUICK: Self = Self {
        load: Duration::from_millis(200),
        requests: Duration::from_millis(200),
        pings: 20,
        iperf_seconds: 1,
    };
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Goodput of one stream, bits a second.
    TcpOne,
    /// Goodput of four streams together, bits a second.
    TcpFour,
    /// 64-byte datagrams from our own batched generator that arrived, a second.
    UdpSmall,
    /// Requests answered, a second.
    RequestResponse,
    /// Median round trip of ICMP echoes, microseconds.
    Ping,
    /// One stream of iperf3, bits a second.
    IperfTcp,
    /// 64-byte datagrams of iperf3 that arrived, a second.
    IperfUdp,
}

impl Measure {
    pub(crate) const ALL: [Self; 7] = [
        Self::TcpOne,
        Self::TcpFour,
        Self::UdpSmall,
        Self::RequestResponse,
        Self::Ping,
        Self::IperfTcp,
        Self::IperfUdp,
    ];

    /// Whom it is measured of.
    pub(crate) fn contenders(self) -> &'static [Contender] {
        const ADIT: &[Contender] = &[Contender::Bare, Contender::Adit];
        const CHECK: &[Contender] = &[Contender::Bare, Contender::Adit, Contender::OpenVpn];
        match self {
            Self::TcpOne | Self::UdpSmall => &Contender::ALL,
            Self::TcpFour | Self::RequestResponse | Self::Ping => ADIT,
            Self::IperfTcp | Self::IperfUdp => CHECK,
        }
    }
}

/// A figure beside what is measured, of the same measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aside {
    /// The figure itself.
    Figure,
    /// Processors that the tunnel's programs kept busy, both sides together.
    Processors,
    /// TCP segments sent again.
    Retransmits,
    /// Datagrams that were offered, a second.
    Offered,
}

/// Every figure of every round.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    figures: BTreeMap<(Measure, Contender, Aside), BTreeMap<usize, f64>>,
    /// What could not be measured, and why.
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
            .map(|rounds| rounds.values().copied().collect())
            .unwrap_or_default()
    }

    /// The figure of one round.
    pub(crate) fn at(&self, measure: Measure, contender: Contender, round: usize) -> Option<f64> {
        self.figures.get(&(measure, contender, Aside::Figure))?.get(&round).copied()
    }

    /// Something of each round in which it can be had, such as a ratio of two figures.
    pub(crate) fn each_round(&self, value: impl Fn(usize) -> Option<f64>) -> Vec<f64> {
        (0..self.rounds).filter_map(value).collect()
    }

    pub(crate) fn put(
        &mut self,
        measure: Measure,
        contender: Contender,
        aside: Aside,
        round: usize,
        value: f64,
    ) {
        self.rounds = self.rounds.max(round + 1);
        self.figures.entry((measure, contender, aside)).or_default().insert(round, value);
    }
}

/// Runs `rounds` rounds. A measurement that fails is noted, and the others go on.
pub(crate) fn run(
    bed: &Bed,
    tunnels: &BTreeMap<Contender, Tunnel>,
    lengths: Lengths,
    rounds: usize,
    tell: &mut dyn FnMut(&str),
) -> Result<Samples, BenchError> {
    let mut samples = Samples::default();
    for round in 0..rounds {
        for measure in Measure::ALL {
            for contender in order(measure.contenders(), round) {
                interrupt::check()?;
                let Some(tunnel) = tunnels.get(&contender) else { continue };
                match measured(bed, tunnel, measure, lengths) {
                    Ok(figures) => {
                        for (aside, value) in figures {
                            samples.put(measure, contender, aside, round, value);
                        }
                    }
                    Err(error) => {
                        interrupt::check()?;
                        let why = error.to_string();
                        tell(&format!("{}, {measure:?}: {why}", contender.name()));
                        samples.failures.push(Failure { round: round + 1, measure, contender, why });
                    }
                }
            }
        }
        samples.rounds = round + 1;
        tell(&format!("round {} of {rounds} done", round + 1));
    }
    Ok(samples)
}

fn order(contenders: &[Contender], round: usize) -> Vec<Contender> {
    let forward = contenders.iter().copied();
    if round.is_multiple_of(2) { forward.collect() } else { forward.rev().collect() }
}

fn measured(
    bed: &Bed,
    tunnel: &Tunnel,
    measure: Measure,
    lengths: Lengths,
) -> Result<Vec<(Aside, f64)>, BenchError> {
    let path = tunnel.path(bed);
    // A generator waits for its other end; where there is no way, this says so at once.
    if !path.client.run(|| ping(path.address, PING, 64, ECHO))?.is_reply() {
        return Err(BenchError::Silent {
            name: "the tunnel".to_owned(),
            what: "carry a ping any more".to_owned(),
            patience: ECHO,
            said: "nothing".to_owned(),
        });
    }
    let busy = || tunnel.processes.iter().map(|process| process.processor_seconds()).sum::<Option<f64>>();
    let repeated = || bed.sides[0].counter("Tcp", "RetransSegs");
    let (busy_before, repeated_before, start) = (busy(), repeated(), Instant::now());
    let mut figures = Vec::new();
    let figure = match measure {
        Measure::TcpOne => throughput::tcp(&path, 1, lengths.load)?,
        Measure::TcpFour => throughput::tcp(&path, 4, lengths.load)?,
        Measure::UdpSmall => {
            let rate = throughput::udp_small(&path, lengths.load)?;
            figures.push((Aside::Offered, rate.offered));
            rate.delivered
        }
        Measure::RequestResponse => throughput::request_response(&path, lengths.requests)?,
        Measure::Ping => round_trip(tunnel, bed, lengths.pings)?,
        Measure::IperfTcp => iperf3::run(bed, tunnel, Load::Tcp, lengths.iperf_seconds)?,
        Measure::IperfUdp => iperf3::run(bed, tunnel, Load::Udp, lengths.iperf_seconds)?,
    };
    let elapsed = start.elapsed().as_secs_f64();
    if let (Some(before), Some(after)) = (busy_before, busy()) {
        figures.push((Aside::Processors, (after - before) / elapsed));
    }
    if let (Some(before), Some(after)) = (repeated_before, repeated()) {
        figures.push((Aside::Retransmits, after.saturating_sub(before) as f64));
    }
    figures.push((Aside::Figure, figure));
    Ok(figures)
}

/// Bytes of an echo, as `ping` sends by default.
const PING: usize = 84;
const ECHO: Duration = Duration::from_secs(1);

/// The median of echoes, each sent when the one before has come back, in microseconds.
fn round_trip(tunnel: &Tunnel, bed: &Bed, count: usize) -> Result<f64, BenchError> {
    let path = tunnel.path(bed);
    let answers = path.client.run(|| -> Result<Vec<Answer>, adit_lab::LabError> {
        (0..count).map(|_| ping(path.address, PING, 64, ECHO)).collect()
    })?;
    let mut times: Vec<f64> = answers
        .iter()
        .filter_map(|answer| match answer {
            Answer::Reply { after, .. } => Some(after.as_secs_f64() * 1e6),
            _ => None,
        })
        .collect();
    if times.len() < count {
        return Err(BenchError::Silent {
            name: "the tunnel".to_owned(),
            what: format!("answer {} of {count} pings", count - times.len()),
            patience: ECHO,
            said: "nothing".to_owned(),
        });
    }
    Ok(median(&mut times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_round_goes_the_other_way_round() {
        let both = [Contender::Bare, Contender::Adit];
        assert_eq!(order(&both, 0), [Contender::Bare, Contender::Adit]);
        assert_eq!(order(&both, 1), [Contender::Adit, Contender::Bare]);
        assert_eq!(order(&both, 2), order(&both, 0));
    }

    #[test]
    fn a_round_that_lacks_one_of_two_figures_has_no_ratio() {
        let mut samples = Samples::default();
        for (contender, round, value) in
            [(Contender::Bare, 0, 10.0), (Contender::Bare, 1, 20.0), (Contender::Adit, 1, 5.0)]
        {
            samples.put(Measure::TcpOne, contender, Aside::Figure, round, value);
        }
        let ratios = samples.each_round(|round| {
            let of = |contender| samples.at(Measure::TcpOne, contender, round);
            Some(of(Contender::Adit)? / of(Contender::Bare)?)
        });
        assert_eq!(ratios, [0.25]);
        assert_eq!(samples.of(Measure::TcpOne, Contender::Bare, Aside::Figure), [10.0, 20.0]);
    }
}
