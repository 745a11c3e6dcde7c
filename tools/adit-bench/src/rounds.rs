//! The rounds. Each one measures everything in short slices, one contender after another. The order
//! reverses from one slice to the next (ABBA), so a drift affects all contenders alike.

use std::time::{Duration, Instant};

use adit_lab::ping::{Answer, ping};
use adit_lab::throughput::{self, Flow};

use crate::contenders::Field;
use crate::error::BenchError;
use crate::interrupt;
use crate::iperf3::{self, Load};
use crate::measure::{Aside, Lengths, Measure};
use crate::peers::{Contender, Tunnel};
use crate::process::Process;
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

/// The fraction of a load that the eBPF programs may leave to the daemon: what passes before a next
/// hop is known.
const DECLINED: f64 = 0.05;

fn measured(
    tunnel: &Tunnel,
    contender: Contender,
    measure: Measure,
    lengths: Lengths,
) -> Result<Vec<(Aside, f64)>, BenchError> {
    let path = tunnel.path();
    drained(&path)?;
    let busy = || tunnel.processes().map(|process| process.processor_seconds()).sum::<Option<f64>>();
    let repeated = || tunnel.testbed.sides[0].counter("Tcp", "RetransSegs");
    // The bytes that the sending daemon reads from the tunnel interface are those that it forwards
    // itself.
    let read = || tunnel.processes().next().and_then(Process::bytes_read);
    let (busy_before, repeated_before, read_before) = (busy(), repeated(), read());
    let start = Instant::now();
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
        figures.push((Aside::Processors, (after - before) / elapsed));
    }
    if let (Some(before), Some(after), Some(sent)) = (read_before, read(), bytes(measure, figure, lengths))
        && contender.is_ebpf()
    {
        let part = after.saturating_sub(before) as f64 / sent;
        if part > DECLINED {
            return Err(BenchError::Declined { percent: part * 100.0 });
        }
    }
    if let (Some(before), Some(after)) = (repeated_before, repeated()) {
        figures.push((Aside::Retransmits, after.saturating_sub(before) as f64));
    }
    figures.push((Aside::Figure, figure));
    Ok(figures)
}

/// Waits until the way is free: in front of a program, the datagrams of the slice before may still
/// be queued, and what comes then is lost. A generator waits for its other end; where there is no
/// way at all, this says so instead.
fn drained(path: &Flow<'_>) -> Result<(), BenchError> {
    let start = Instant::now();
    while !path.client.run(|| ping(path.address, PING, 64, PING_TIMEOUT))?.is_reply() {
        interrupt::check()?;
        if start.elapsed() >= ECHO {
            return Err(silent("carry a ping any more"));
        }
    }
    Ok(())
}

/// The minimum of bytes that a load sent through a tunnel, given what arrived.
fn bytes(measure: Measure, figure: f64, lengths: Lengths) -> Option<f64> {
    let a_second = match measure {
        Measure::TcpOne | Measure::TcpFour | Measure::ForwardTcp => figure / 8.0,
        Measure::UdpSmall | Measure::ForwardUdp => figure * throughput::SMALL_PAYLOAD as f64,
        _ => return None,
    };
    Some(a_second * lengths.load.as_secs_f64())
}

/// Bytes of an echo, as `ping` sends by default.
const PING: usize = 84;
const ECHO: Duration = Duration::from_secs(1);
/// How long to wait for an echo before it counts as lost in a queue.
const PING_TIMEOUT: Duration = Duration::from_millis(100);

/// The median round trip of echoes in microseconds. Each is sent when the one before has returned.
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
    fn what_a_load_has_sent_is_counted_in_bytes() {
        let sent = |measure, figure| {
            bytes(measure, figure, Lengths { load: Duration::from_secs(2), ..Lengths::FULL })
        };
        assert_eq!(sent(Measure::TcpOne, 8e9), Some(2e9));
        assert_eq!(sent(Measure::ForwardUdp, 1000.0), Some(128_000.0));
        assert_eq!(sent(Measure::Ping, 10.0), None);
    }

    #[test]
    fn every_other_slice_goes_the_other_way_round() {
        let both = [Contender::Bare, Contender::Adit];
        assert_eq!(order(&both, 0), [Contender::Bare, Contender::Adit]);
        assert_eq!(order(&both, 1), [Contender::Adit, Contender::Bare]);
        assert_eq!(order(&both, 2), order(&both, 0));
    }
}
