//! The targets of the userspace plane.

use super::{Evidence, Target, Unit, added};
use crate::measure::Measure;
use crate::peers::Contender;
use crate::statistics::Summary;

/// Growth that does not count. Stacks and tables grow by some pages within the first minute. A leak
/// of one datagram in a thousand would be a hundred times this.
const NO_GROWTH_KIB: f64 = 256.0;

pub(super) fn targets(evidence: &Evidence<'_>) -> Vec<Target> {
    let &Evidence { samples, soak, .. } = evidence;
    let ratio = |measure, one, other| super::ratio(samples, measure, one, other);
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
    let mut targets = vec![
        Target::at_least(
            "one TCP stream, ratio to the bare veth",
            (0.27, Some(0.40)),
            ratio(Measure::TcpOne, Contender::Adit, Contender::Bare),
        ),
        Target::at_least(
            "one TCP stream, ratio to the best userspace contender of the round",
            (4.0, None),
            peers,
        ),
        Target::at_least(
            "64-byte UDP, batched generator, ratio to the bare veth",
            (0.85, Some(1.0)),
            ratio(Measure::UdpSmall, Contender::Adit, Contender::Bare),
        ),
        Target::at_least(
            "64-byte UDP, iperf3, ratio to plaintext OpenVPN",
            (1.0, None),
            ratio(Measure::IperfUdp, Contender::Adit, Contender::OpenVpn),
        ),
        Target::at_most(
            "round-trip time added to a ping",
            Unit::Microseconds,
            60.0,
            added(samples, Measure::Ping, Contender::Adit),
        ),
        Target::at_least("four TCP streams, ratio to one", (1.0, None), streams),
        Target::at_most("growth in memory under full load, both sides", Unit::Kib, NO_GROWTH_KIB, growth),
    ];
    if let (Some(target), Some(soak)) = (targets.last_mut(), soak) {
        target.note = Some(format!("over {:.0} s", soak.seconds));
    } else if let Some(target) = targets.last_mut() {
        target.note = Some("`--soak` measures it".to_owned());
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::super::testing::{evidence, samples};
    use super::*;
    use crate::samples::Samples;
    use crate::soak::Soak;
    use crate::targets::Verdict;

    #[test]
    fn ratios_are_the_median_of_each_rounds_ratio_and_not_the_ratio_of_medians() {
        let samples = samples(&[
            (Measure::TcpOne, Contender::Bare, &[10.0, 20.0, 40.0]),
            (Measure::TcpOne, Contender::Adit, &[5.0, 6.0, 10.0]),
            (Measure::TcpOne, Contender::Tinc, &[1.0, 2.0, 1.0]),
            (Measure::TcpOne, Contender::Fastd, &[0.5, 1.0, 4.0]),
            (Measure::TcpOne, Contender::Vxlan, &[9.0, 9.0, 9.0]),
        ]);
        let targets = targets(&evidence(&samples));
        // 0.5, 0.3, 0.25; the medians' ratio would be 0.3 too, their spread would not be known.
        assert_eq!(targets[0].reached_text(), "0.300 (0.250 to 0.500)");
        assert_eq!(targets[0].verdict_text(), "reached");
        // Each round's best: 1, 2, 4. VXLAN is none of the userspace peers.
        assert_eq!(targets[1].reached_text(), "3.000 (2.500 to 5.000)");
        assert_eq!(targets[1].verdict_text(), "**missed by 25 %**");
        assert_eq!(targets[2].reached_text(), "not measured");
        assert_eq!(targets[6].reached_text(), "not measured (`--soak` measures it)");
    }

    #[test]
    fn a_stretch_target_is_more_than_a_target() {
        let ratio = |value: f64| {
            let samples = samples(&[
                (Measure::TcpOne, Contender::Bare, &[1.0]),
                (Measure::TcpOne, Contender::Adit, &[value]),
            ]);
            targets(&evidence(&samples))[0].verdict
        };
        assert_eq!(ratio(0.41), Verdict::Stretch);
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
        assert_eq!(
            added(&samples, Measure::RequestResponse, Contender::Adit).map(|added| added.median),
            Some(60.0)
        );
        let targets = targets(&evidence(&samples));
        assert_eq!(targets[4].reached_text(), "65 µs");
        assert_eq!(targets[4].verdict_text(), "**missed by 8 %**");
    }

    #[test]
    fn memory_that_grows_misses_its_target() {
        let samples = Samples::default();
        let verdict = |resident_kib| {
            let soak = Soak { seconds: 60.0, resident_kib };
            targets(&Evidence { soak: Some(&soak), ..evidence(&samples) })[6].verdict
        };
        assert_eq!(verdict(vec![9000, 9004]), Verdict::Reached);
        assert_eq!(verdict(vec![9000, 8000]), Verdict::Reached);
        assert!(matches!(verdict(vec![9000, 12_000]), Verdict::MissedBy(_)));
    }
}
