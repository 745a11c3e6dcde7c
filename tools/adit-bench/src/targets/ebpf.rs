//! The targets of the eBPF plane.

use super::{Evidence, Target, Unit, ratio};
use crate::measure::Measure;
use crate::peers::Contender;

pub(super) fn targets(evidence: &Evidence<'_>) -> Vec<Target> {
    let of = |measure, other| ratio(evidence.samples, measure, Contender::AditEbpf, other);
    let of_bare = |what, limits, measure| {
        let control = ratio(evidence.samples, measure, Contender::Control, Contender::Bare);
        Target::at_least(what, limits, of(measure, Contender::Bare)).beside(control)
    };
    let many = ratio(evidence.samples, Measure::UdpSmall, Contender::AditMany, Contender::AditEbpf);
    let load = evidence.loading.iter().find(|loading| loading.contender == Contender::AditEbpf);
    vec![
        of_bare("one TCP stream, ratio to the bare veth", (0.95, Some(0.98)), Measure::TcpOne),
        Target::at_least(
            "one TCP stream, ratio to kernel VXLAN",
            (1.25, None),
            of(Measure::TcpOne, Contender::Vxlan),
        ),
        of_bare(
            "64-byte UDP, batched generator, ratio to the bare veth",
            (0.90, Some(0.97)),
            Measure::UdpSmall,
        ),
        of_bare("requests a second, ratio to the bare veth", (0.95, None), Measure::RequestResponse),
        of_bare("forwarding one TCP stream, ratio to plain forwarding", (0.95, None), Measure::ForwardTcp),
        of_bare("forwarding 64-byte UDP, ratio to plain forwarding", (0.95, None), Measure::ForwardUdp),
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
    fn a_ratio_stands_beside_that_of_a_second_cable() {
        let samples = samples(&[
            (Measure::TcpOne, Contender::Bare, &[10.0, 20.0]),
            (Measure::TcpOne, Contender::Control, &[10.0, 19.0]),
            (Measure::TcpOne, Contender::AditEbpf, &[9.7, 19.0]),
        ]);
        let target = &targets(&evidence(&samples))[0];
        assert_eq!(target.reached_text(), "0.960 (0.950 to 0.970)");
        assert_eq!(target.control_text(), "0.975 (0.950 to 1.000)");
        assert_eq!(target.verdict_text(), "reached");
    }

    #[test]
    fn what_loads_the_userspace_plane_says_nothing_of_this_one() {
        let samples = samples(&[]);
        let verdict = |contender, seconds: &[f64]| {
            let loading = [Loading::of(contender, &[0.1, 0.1], seconds)];
            targets(&super::Evidence { loading: &loading, ..evidence(&samples) })[7].verdict
        };
        assert_eq!(verdict(Contender::Adit, &[0.2, 0.2]), Verdict::NotMeasured);
        assert_eq!(verdict(Contender::AditEbpf, &[1.0, 1.0]), Verdict::Reached);
        assert!(matches!(verdict(Contender::AditEbpf, &[1.6, 1.6]), Verdict::MissedBy(_)));
    }
}
