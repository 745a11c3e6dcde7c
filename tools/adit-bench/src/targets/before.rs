//! The goal beside an earlier version: no slower than that, but for what two measurements of one cable differ.

use super::{Evidence, Goal, ratio};
use crate::measure::Measure;
use crate::peers::Contender;

/// What counts as no slower: two bare cables differ by some hundredths.
const AS_FAST: f64 = 0.97;

pub(super) fn goals(evidence: &Evidence<'_>) -> Vec<Goal> {
    let of_before = |what, measure| {
        let reached = ratio(evidence.samples, measure, Contender::AditEbpf, Contender::AditBefore);
        let control = ratio(evidence.samples, measure, Contender::Control, Contender::Bare);
        Goal::rising(what, (AS_FAST, None), reached).beside(control)
    };
    vec![
        of_before("one TCP stream, of what it was", Measure::TcpOne),
        of_before("64-byte UDP, batched generator, of what it was", Measure::UdpSmall),
        of_before("requests and answers a second, of what they were", Measure::RequestResponse),
        of_before("one forwarded TCP stream, of what it was", Measure::ForwardTcp),
        of_before("forwarded 64-byte UDP, of what it was", Measure::ForwardUdp),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{evidence, samples};
    use super::*;

    #[test]
    fn an_earlier_version_is_the_measure() {
        let samples = samples(&[
            (Measure::TcpOne, Contender::AditBefore, &[2.0]),
            (Measure::TcpOne, Contender::AditEbpf, &[1.98]),
            (Measure::UdpSmall, Contender::AditBefore, &[2.0]),
            (Measure::UdpSmall, Contender::AditEbpf, &[0.97]),
        ]);
        let verdicts: Vec<String> =
            goals(&evidence(&samples)).iter().take(2).map(|goal| goal.verdict_text()).collect();
        assert_eq!(verdicts, ["reached", "**missed by 50 %**"]);
    }
}
