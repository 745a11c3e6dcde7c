//! The targets of the combinations of address families: each as fast as IPv4 in IPv4 on the same
//! plane, within the noise between two bare cables.
//!
//! Hosts send IPv6 slower than IPv4, with and without a tunnel. So each figure is first divided by
//! that of the same traffic without a tunnel: of IPv6 if IPv6 is inside.

use super::{Evidence, Target, ratio};
use crate::measure::Measure;
use crate::peers::{Contender, Families};
use crate::samples::Samples;
use crate::statistics::Summary;

/// The ratio that counts as not slower, as against an earlier version.
const AS_FAST: f64 = 0.97;

pub(super) fn targets(evidence: &Evidence<'_>) -> Vec<Target> {
    let mut targets = Vec::new();
    for families in Families::ALL {
        let ebpf = (Contender::EbpfOf(families), Contender::AditEbpf);
        let userspace = (Contender::UserspaceOf(families), Contender::Adit);
        let mut against = |what, measure, planes| {
            let control = ratio(evidence.samples, measure, Contender::Control, Contender::Bare);
            let reached = relative(evidence.samples, measure, families, planes);
            targets.push(Target::at_least(what, (AS_FAST, None), reached).beside(control));
        };
        let tcp = families.pick([
            "6in4, one TCP stream, ratio to 4in4",
            "4in6, one TCP stream, ratio to 4in4",
            "6in6, one TCP stream, ratio to 4in4",
        ]);
        let udp = families.pick([
            "6in4, 64-byte UDP, ratio to 4in4",
            "4in6, 64-byte UDP, ratio to 4in4",
            "6in6, 64-byte UDP, ratio to 4in4",
        ]);
        let userspace_tcp = families.pick([
            "userspace, 6in4, one TCP stream, ratio to 4in4",
            "userspace, 4in6, one TCP stream, ratio to 4in4",
            "userspace, 6in6, one TCP stream, ratio to 4in4",
        ]);
        let userspace_udp = families.pick([
            "userspace, 6in4, 64-byte UDP, ratio to 4in4",
            "userspace, 4in6, 64-byte UDP, ratio to 4in4",
            "userspace, 6in6, 64-byte UDP, ratio to 4in4",
        ]);
        against(tcp, Measure::TcpOne, ebpf);
        against(udp, Measure::UdpSmall, ebpf);
        against(userspace_tcp, Measure::TcpOne, userspace);
        against(userspace_udp, Measure::UdpSmall, userspace);
    }
    targets
}

/// The ratio of a combination to IPv4 in IPv4, each beside the same traffic without a tunnel.
fn relative(
    samples: &Samples,
    measure: Measure,
    families: Families,
    (one, other): (Contender, Contender),
) -> Option<Summary> {
    let plain = if families.is_v6_inside() { Contender::BareV6 } else { Contender::Bare };
    let beside =
        |tunnel, plain, round| Some(samples.at(measure, tunnel, round)? / samples.at(measure, plain, round)?);
    Summary::of(
        samples.each_round(|round| Some(beside(one, plain, round)? / beside(other, Contender::Bare, round)?)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{evidence, samples};
    use super::*;

    #[test]
    fn ipv4_in_ipv4_is_the_measure_each_beside_its_own_plain_traffic() {
        let samples = samples(&[
            (Measure::TcpOne, Contender::Bare, &[4.0]),
            (Measure::TcpOne, Contender::BareV6, &[2.0]),
            (Measure::TcpOne, Contender::AditEbpf, &[2.0]),
            (Measure::TcpOne, Contender::EbpfOf(Families::SixInFour), &[1.0]),
            (Measure::TcpOne, Contender::EbpfOf(Families::FourInSix), &[0.97]),
            (Measure::TcpOne, Contender::EbpfOf(Families::SixInSix), &[0.97]),
        ]);
        let texts: Vec<String> =
            targets(&evidence(&samples)).iter().map(|target| target.verdict_text()).collect();
        assert_eq!(texts.len(), 12);
        assert_eq!((&*texts[0], &*texts[1]), ("reached", "–"));
        assert_eq!((&*texts[4], &*texts[8]), ("**missed by 50 %**", "reached"));
    }
}
