//! The targets of the combinations of address families: each as fast as IPv4 in IPv4 on the same
//! plane, within the noise between two bare cables.

use super::{Evidence, Target, ratio};
use crate::measure::Measure;
use crate::peers::{Contender, Families};

/// The ratio that counts as not slower, as against an earlier version.
const AS_FAST: f64 = 0.97;

pub(super) fn targets(evidence: &Evidence<'_>) -> Vec<Target> {
    let mut targets = Vec::new();
    for families in Families::ALL {
        let ebpf = (Contender::EbpfOf(families), Contender::AditEbpf);
        let userspace = (Contender::UserspaceOf(families), Contender::Adit);
        let mut against = |what, measure, (one, other)| {
            let control = ratio(evidence.samples, measure, Contender::Control, Contender::Bare);
            let reached = ratio(evidence.samples, measure, one, other);
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

#[cfg(test)]
mod tests {
    use super::super::testing::{evidence, samples};
    use super::*;

    #[test]
    fn ipv4_in_ipv4_is_the_measure() {
        let samples = samples(&[
            (Measure::TcpOne, Contender::AditEbpf, &[2.0]),
            (Measure::TcpOne, Contender::EbpfOf(Families::SixInFour), &[1.98]),
            (Measure::TcpOne, Contender::EbpfOf(Families::SixInSix), &[0.97]),
        ]);
        let texts: Vec<String> =
            targets(&evidence(&samples)).iter().map(|target| target.verdict_text()).collect();
        assert_eq!(texts.len(), 12);
        assert_eq!((&*texts[0], &*texts[1], &*texts[8]), ("reached", "–", "**missed by 50 %**"));
    }
}
