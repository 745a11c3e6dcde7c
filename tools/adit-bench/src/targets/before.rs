//! The target against an earlier version: not slower, within the noise between two bare cables.

use super::{Evidence, Target, ratio};
use crate::measure::Measure;
use crate::peers::Contender;

/// The ratio that counts as not slower. Two bare cables differ by some hundredths.
const AS_FAST: f64 = 0.97;

pub(super) fn targets(evidence: &Evidence<'_>) -> Vec<Target> {
    let against = |what, measure, now, before| {
        let reached = ratio(evidence.samples, measure, now, before);
        let control = ratio(evidence.samples, measure, Contender::Control, Contender::Bare);
        Target::at_least(what, (AS_FAST, None), reached).beside(control)
    };
    let ebpf = |what, measure| against(what, measure, Contender::AditEbpf, Contender::AditBefore);
    let userspace = |what, measure| against(what, measure, Contender::Adit, Contender::UserspaceBefore);
    vec![
        ebpf("one TCP stream, ratio to the version before", Measure::TcpOne),
        ebpf("64-byte UDP, batched generator, ratio to the version before", Measure::UdpSmall),
        ebpf("requests a second, ratio to the version before", Measure::RequestResponse),
        ebpf("forwarding one TCP stream, ratio to the version before", Measure::ForwardTcp),
        ebpf("forwarding 64-byte UDP, ratio to the version before", Measure::ForwardUdp),
        userspace("userspace, one TCP stream, ratio to the version before", Measure::TcpOne),
        userspace("userspace, 64-byte UDP, ratio to the version before", Measure::UdpSmall),
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
            targets(&evidence(&samples)).iter().take(2).map(|target| target.verdict_text()).collect();
        assert_eq!(verdicts, ["reached", "**missed by 50 %**"]);
    }
}
