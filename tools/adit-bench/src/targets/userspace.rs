//! The goals of the userspace plane.

use super::{Evidence, Goal, Unit, added};
use crate::measure::Measure;
use crate::peers::Contender;
use crate::statistics::Summary;

/// Growth that is no growth: stacks and tables reach their size within the first minute, a page
/// here and a page there. A leak of one datagram in a thousand would be a hundred times this.
const NO_GROWTH_KIB: f64 = 256.0;

pub(super) fn goals(evidence: &Evidence<'_>) -> Vec<Goal> {
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
        Goal::falling(
            "ping round trip added",
            Unit::Microseconds,
            60.0,
            added(samples, Measure::Ping, Contender::Adit),
        ),
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
        let goals = goals(&evidence(&samples));
        // 0.5, 0.3, 0.25; the medians' ratio would be 0.3 too, their spread would not be known.
        assert_eq!(goals[0].reached_text(), "0.300 (0.250 to 0.500)");
        assert_eq!(goals[0].verdict_text(), "reached");
        // Each round's best: 1, 2, 4. VXLAN is none of the userspace peers.
        assert_eq!(goals[1].reached_text(), "3.000 (2.500 to 5.000)");
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
            goals(&evidence(&samples))[0].verdict
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
        assert_eq!(
            added(&samples, Measure::RequestResponse, Contender::Adit).map(|added| added.median),
            Some(60.0)
        );
        let goals = goals(&evidence(&samples));
        assert_eq!(goals[4].reached_text(), "65 µs");
        assert_eq!(goals[4].verdict_text(), "**missed by 8 %**");
    }

    #[test]
    fn memory_that_grows_misses_its_goal() {
        let samples = Samples::default();
        let verdict = |resident_kib| {
            let soak = Soak { seconds: 60.0, resident_kib };
            goals(&Evidence { soak: Some(&soak), ..evidence(&samples) })[6].verdict
        };
        assert_eq!(verdict(vec![9000, 9004]), Verdict::Reached);
        assert_eq!(verdict(vec![9000, 8000]), Verdict::Reached);
        assert!(matches!(verdict(vec![9000, 12_000]), Verdict::MissedBy(_)));
    }
}
