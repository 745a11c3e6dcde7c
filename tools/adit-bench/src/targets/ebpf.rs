//! The targets of the eBPF plane. The bare veth is a limit that a tunnel with an interface of its
//! own does not reach; the tables show it.

use super::{Evidence, Target, Unit, ratio};
use crate::measure::Measure;
use crate::peers::Contender;

pub(super) fn targets(evidence: &Evidence<'_>) -> Vec<Target> {
    let of_vxlan = |what, limit, measure| {
        let reached = ratio(evidence.samples, measure, Contender::AditEbpf, Contender::Vxlan);
        Target::at_least(what, (limit, None), reached)
    };
    let many = ratio(evidence.samples, Measure::UdpSmall, Contender::AditMany, Contender::AditEbpf);
    let load = evidence.loading.iter().find(|loading| loading.contender == Contender::AditEbpf);
    vec![
        of_vxlan("one TCP stream, ratio to kernel VXLAN", 1.05, Measure::TcpOne),
        of_vxlan("64-byte UDP, batched generator, ratio to kernel VXLAN", 1.10, Measure::UdpSmall),
        Target::at_least("64-byte UDP with 10,000 peers, ratio to one peer", (0.97, None), many),
        Target::at_most(
            "loading 10,000 peers and 100,000 networks",
            Unit::Seconds,
            1.0,
            load.and_then(|loading| loading.more),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{evidence, samples};
    use super::*;
    use crate::startup_time::Loading;
    use crate::targets::Verdict;

    #[test]
    fn the_kernels_vxlan_is_the_measure() {
        let samples = samples(&[
            (Measure::TcpOne, Contender::Vxlan, &[10.0, 20.0]),
            (Measure::TcpOne, Contender::AditEbpf, &[10.5, 22.0]),
            (Measure::UdpSmall, Contender::Vxlan, &[10.0]),
            (Measure::UdpSmall, Contender::AditEbpf, &[5.5]),
        ]);
        let targets = targets(&evidence(&samples));
        assert_eq!(targets[0].reached_text(), "1.075 (1.050 to 1.100)");
        assert_eq!(targets[0].verdict_text(), "reached");
        assert_eq!(targets[1].verdict_text(), "**missed by 50 %**");
    }

    #[test]
    fn what_loads_the_userspace_plane_says_nothing_of_this_one() {
        let samples = samples(&[]);
        let verdict = |contender, seconds: &[f64]| {
            let loading = [Loading::of(contender, &[0.1, 0.1], seconds)];
            targets(&super::Evidence { loading: &loading, ..evidence(&samples) })[3].verdict
        };
        assert_eq!(verdict(Contender::Adit, &[0.2, 0.2]), Verdict::NotMeasured);
        assert_eq!(verdict(Contender::AditEbpf, &[1.0, 1.0]), Verdict::Reached);
        assert!(matches!(verdict(Contender::AditEbpf, &[1.6, 1.6]), Verdict::MissedBy(_)));
    }
}
