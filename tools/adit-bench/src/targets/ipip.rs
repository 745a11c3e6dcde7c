//! The targets against Linux's own IP in IP: faster than the kernel's driver.

use super::{Evidence, Target, ratio};
use crate::measure::Measure;
use crate::peers::Contender;

pub(super) fn targets(evidence: &Evidence<'_>) -> Vec<Target> {
    let of_ipip = |what, limit, measure| {
        let of = |contender| ratio(evidence.samples, measure, contender, Contender::Ipip);
        Target::at_least(what, (limit, None), of(Contender::AditEbpf))
    };
    vec![
        of_ipip("one TCP stream, ratio to Linux's ipip", 1.05, Measure::TcpOne),
        of_ipip("64-byte UDP, batched generator, ratio to Linux's ipip", 1.35, Measure::UdpSmall),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{evidence, samples};
    use super::*;

    #[test]
    fn the_kernels_driver_is_the_measure() {
        let samples = samples(&[
            (Measure::TcpOne, Contender::Ipip, &[2.0]),
            (Measure::TcpOne, Contender::AditEbpf, &[2.1]),
            (Measure::UdpSmall, Contender::Ipip, &[2.0]),
            (Measure::UdpSmall, Contender::AditEbpf, &[1.35]),
        ]);
        let verdicts: Vec<String> =
            targets(&evidence(&samples)).iter().map(|target| target.verdict_text()).collect();
        assert_eq!(verdicts, ["reached", "**missed by 50 %**"]);
    }
}
