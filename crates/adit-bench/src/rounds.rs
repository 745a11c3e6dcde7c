//! The rounds: everything is measured in each, in short slices, one contender after another, in
//! an order that is turned round from one slice to the next (ABBA), so that whatever drifts
//! drifts for all.

use std::time::{Duration, Instant};

use adit_lab::ping::{Answer, ping};
use adit_lab::throughput;

use crate::error::BenchError;
use crate::field::Field;
use crate::interrupt;
use crate::iperf3::{self, Load};
use crate::measure::{Aside, Lengths, Measure};
use crate::peers::{Contender, Tunnel};
use crate::samples::{Failure, Samples};
use crate::statistics::median;

/// Runs `rounds` rounds of `measures`. A measurement that fails is noted, and the others go on.
pub(crate) fn run(
    field: &Field,
    measures: &[Measure],
    lengths: Lengths,
    rounds: usize,
    tell: &mut dyn FnMut(&str),
) -> Result<Samples, BenchError> {
    let mut samples = Samples::default();
    for round in 0..rounds {
        for &measure in measures {
            for slice in 0..lengths.slices_of(measure) {
                for contender in order(measure.contenders(), round + slice) {
                    interrupt::check()?;
                    let Some(tunnel) = field.tunnel(measure.shape(), contender) else { continue };
                    match measured(tunnel, contender, measure, lengths) {
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
        }
        samples.rounds = round + 1;
        tell(&format!("round {} of {rounds} done", round + 1));
    }
    Ok(samples)
}

fn order(contenders: &[Contender], turn: usize) -> Vec<Contender> {
    let forward = contenders.iter().copied();
    if turn.is_multiple_of(2) { forward.collect() } else { forward.rev().collect() }
}

/// Processors that the daemons of a plane in the kernel may keep busy, both together. They look
/// after routes and neighbours; carrying a load, they would need one each.
const IDLE: f64 = 0.25;
/// Seconds of processor time that say nothing yet: the kernel counts in hundredths, a side each.
const UNCERTAIN: f64 = 0.05;

fn measured(
    tunnel: &Tunnel,
    contender: Contender,
    measure: Measure,
    lengths: Lengths,
) -> Result<Vec<(Aside, f64)>, BenchError> {
    let path = tunnel.path();
    // A generator waits for its other end; where there is no way, this says so at once.
    if !path.client.run(|| ping(path.address, PING, 64, ECHO))?.is_reply() {
        return Err(silent("carry a ping any more"));
    }
    let busy = || tunnel.processes().map(|process| process.processor_seconds()).sum::<Option<f64>>();
    let repeated = || tunnel.bed.sides[0].counter("Tcp", "RetransSegs");
    let (busy_before, repeated_before, start) = (busy(), repeated(), Instant::now());
    let mut figures = Vec::new();
    let figure = match measure {
        Measure::TcpOne | Measure::ForwardTcp => throughput::tcp(&path, 1, lengths.load)?,
        Measure::TcpFour => throughput::tcp(&path, 4, lengths.load)?,
        Measure::UdpSmall | Measure::ForwardUdp => {
            let rate = throughput::udp_small(&path, lengths.load)?;
            figures.push((Aside::Offered, rate.offered));
            rate.delivered
        }
        Measure::RequestResponse => throughput::request_response(&path, lengths.requests)?,
        Measure::Ping => round_trip(tunnel, lengths.pings)?,
        Measure::IperfTcp => iperf3::run(tunnel, Load::Tcp, lengths.iperf_seconds)?,
        Measure::IperfUdp => iperf3::run(tunnel, Load::Udp, lengths.iperf_seconds)?,
    };
    let elapsed = start.elapsed().as_secs_f64();
    if let (Some(before), Some(after)) = (busy_before, busy()) {
        let processors = (after - before) / elapsed;
        if contender.is_ebpf() && after - before > UNCERTAIN && processors > IDLE {
            return Err(BenchError::Declined { processors });
        }
        figures.push((Aside::Processors, processors));
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
fn round_trip(tunnel: &Tunnel, count: usize) -> Result<f64, BenchError> {
    let path = tunnel.path();
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
        return Err(silent(&format!("answer {} of {count} pings", count - times.len())));
    }
    Ok(median(&mut times))
}

fn silent(what: &str) -> BenchError {
    BenchError::Silent {
        name: "the tunnel".to_owned(),
        what: what.to_owned(),
        patience: ECHO,
        said: "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_slice_goes_the_other_way_round() {
        let both = [Contender::Bare, Contender::Adit];
        assert_eq!(order(&both, 0), [Contender::Bare, Contender::Adit]);
        assert_eq!(order(&both, 1), [Contender::Adit, Contender::Bare]);
        assert_eq!(order(&both, 2), order(&both, 0));
    }
}
