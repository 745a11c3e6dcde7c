//! Status, metrics and events name the plane that carries, also where another program ends the
//! chain before ours.

use std::os::unix::net::UnixStream;

use adit_config::DataplaneChoice;
use adit_lab::two_sites::HOST_B;
use adit_testbed::needs::{ebpf, tcx};
use adit_testbed::reality::tcx_program::TcxProgram;

use crate::support::machine::PATIENCE;
use crate::support::sites::reaches;
use crate::support::testbed::Testbed;
use crate::support::{exposition, http, wait_until};

#[test(root, ebpf, tcx, scapy)]
fn a_program_that_ends_the_chain_is_named() {
    let bed = Testbed::running(DataplaneChoice::Ebpf);
    let host = &bed.sites.network.host_a;
    let status = || bed.adit(&["status", "a", "-j"]).ok().json()["overlays"][0].clone();
    let carried = |direction: &str| status()["site"]["carried_by"][direction].clone();
    let ping = || (0..20).all(|_| reaches(host, HOST_B));
    assert!(ping());
    assert_eq!((carried("tx"), carried("rx")), ("ebpf".into(), "ebpf".into()));

    let device = "underlayA";
    let other = TcxProgram::pass_everything(bed.gateway(), device).unwrap();
    wait_until(PATIENCE, "userspace is said to receive", || {
        assert!(ping(), "traffic passes");
        carried("rx") == "userspace"
    });
    assert_eq!(carried("tx"), "ebpf");
    let site = status()["site"].clone();
    let why = format!("another program at {device} ends the chain before ours");
    assert!(site["dataplane_reason"].as_str().unwrap().contains(&why), "{site}");
    let shown = bed.adit(&["status", "a"]).ok().stdout;
    assert!(shown.contains("data plane ebpf, received by userspace ("), "{shown}");
    let answer = bed
        .sites
        .machine
        .with_files(|| http::get(UnixStream::connect("/run/adit/a.sock").unwrap(), "/v1/metrics"));
    let families = exposition::parse(&answer.body);
    let bypassed = |direction: &str| {
        let label = format!("direction=\"{direction}\"");
        let samples = &families["adit_programs_bypassed"].samples;
        samples.iter().find(|(series, _)| series.contains(&label)).map(|(_, value)| *value)
    };
    assert_eq!((bypassed("tx"), bypassed("rx")), (Some(0.0), Some(1.0)));

    drop(other);
    wait_until(PATIENCE, "the programs are said to receive again", || {
        assert!(ping(), "traffic passes");
        carried("rx") == "ebpf"
    });
    assert_eq!(status()["repairs"], serde_json::json!({}));
}
