//! Status, metrics and events name the plane that carries, also where another program ends the
//! chain before ours.

use std::os::unix::net::UnixStream;
use std::process::Command;

use adit_config::DataplaneChoice;
use adit_lab::two_sites::HOST_B;
use adit_testbed::needs::{ebpf, tcx};

use crate::support::machine::PATIENCE;
use crate::support::sites::reaches;
use crate::support::testbed::{Side, Testbed};
use crate::support::{exposition, http, wait_until};

/// Loads a program that passes every packet on to the stack (`TCX_PASS`), attaches it in front of
/// all others at the ingress of the interface with that index, says so, and keeps it until it is
/// killed.
const PASS_EVERYTHING: &str = r#"
import ctypes, platform, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    fd = libc.syscall(SYS_BPF, command, buffer, 128)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return fd
code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xb7, 0, 0, 0, 0x95, 0, 0, 0))
licence = ctypes.create_string_buffer(b"GPL")
program = bpf(5, struct.pack("<IIQQ", 3, 2, ctypes.addressof(code), ctypes.addressof(licence)))
BPF_TCX_INGRESS, BPF_F_BEFORE = 46, 1 << 3
link = bpf(28, struct.pack("<IIII", program, int(sys.argv[1]), BPF_TCX_INGRESS, BPF_F_BEFORE))
print("attached", flush=True)
signal.pause()
"#;

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
    let index = bed.gateway().index(device).unwrap().to_string();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PASS_EVERYTHING, &index]);
    let mut other = bed.sites.machine.start_command(bed.side(Side::A).ns(), command);
    other.wait_for("attached");
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

    other.kill();
    wait_until(PATIENCE, "the programs are said to receive again", || {
        assert!(ping(), "traffic passes");
        carried("rx") == "ebpf"
    });
    assert_eq!(status()["repairs"], serde_json::json!({}));
}
