//! The counters of the tunnel interface, of `status` and of the metrics agree about users' packets,
//! and count the tunnel's own probes apart.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::machine::PATIENCE;
use crate::support::sites::assert_reaches;
use crate::support::testbed::{Side, Testbed};
use crate::support::{exposition, http, wait_until};
use adit_config::DataplaneChoice;
use adit_lab::two_sites::HOST_B;
use adit_testbed::needs::ebpf;
use adit_testbed::test_planes::plane_name;
use serde_json::{Value, json};

/// Long enough that each side probes the other more than once.
const IN_USE: Duration = Duration::from_secs(6);

/// Packets sent and received, by what counts them.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    tx: u64,
    rx: u64,
}

/// What `ip -s link` shows of a gateway's tunnel interface.
fn of_interface(bed: &Testbed, side: Side, device: &str) -> Counted {
    let mut command = Command::new("ip");
    command.args(["-s", "-j", "link", "show", device]);
    let shown = bed.sites.machine.run(bed.side(side).ns(), &mut command).ok().json();
    let of = |way: &str| shown[0]["stats64"][way]["packets"].as_u64().unwrap();
    Counted { tx: of("tx"), rx: of("rx") }
}

fn status(bed: &Testbed, side: Side) -> Value {
    bed.sites.machine.adit(bed.side(side).ns(), &["status", side.name(), "-j"]).ok().json()["overlays"][0]
        .clone()
}

/// What a status counts of users' packets.
fn of_peer(status: &Value) -> Counted {
    let of = |way: &str| status["peers"][0][way]["packets"].as_u64().unwrap();
    Counted { tx: of("tx"), rx: of("rx") }
}

fn probes(status: &Value, what: &str) -> u64 {
    status["probes"][what].as_u64().unwrap()
}

/// The sum of a metric's samples whose labels have all of these.
fn metric(bed: &Testbed, name: &str, labels: &[&str]) -> u64 {
    let answer = bed
        .sites
        .machine
        .with_files(|| http::get(UnixStream::connect("/run/adit/a.sock").unwrap(), "/v1/metrics"));
    let families = exposition::parse(&answer.body);
    let samples = families[name].samples.iter();
    let ours = samples.filter(|(series, _)| labels.iter().all(|label| series.contains(label)));
    ours.map(|(_, value)| *value as u64).sum()
}

/// Both sides run; host A pings host B for a while, and `pings` says how often.
fn in_use(plane: DataplaneChoice) -> (Testbed, u64) {
    let bed = Testbed::running(plane);
    let (begin, mut pings) = (Instant::now(), 0);
    while begin.elapsed() < IN_USE {
        assert_reaches(&bed.sites.network.host_a, HOST_B);
        pings += 1;
    }
    (bed, pings)
}

fn agree(plane: DataplaneChoice) {
    let (bed, pings) = in_use(plane);
    let what = plane_name(plane);
    for (side, device) in [(Side::A, "ipipA"), (Side::B, "ipipB")] {
        // A peer's probe and the answer pass through the interface, because the host's stack
        // answers. A probe may be under way, and `status` is half a second old.
        let agrees = || {
            let (interface, status) = (of_interface(&bed, side, device), status(&bed, side));
            let users = of_peer(&status);
            let (replied, received) = (probes(&status, "replied"), probes(&status, "received"));
            interface == Counted { tx: users.tx + replied, rx: users.rx + received }
        };
        wait_until(PATIENCE, "interface and status agree", agrees);
        let status = status(&bed, side);
        assert_eq!(of_peer(&status), Counted { tx: pings, rx: pings }, "{what}, {side:?}: {status}");
        for kind in ["sent", "answered", "received", "replied"] {
            assert!(probes(&status, kind) > 0, "{what}, {side:?}, {kind}: nothing is shown by {status}");
        }
    }
    let users = Counted {
        tx: metric(&bed, "adit_peer_tx_packets", &["peer=\"b\""]),
        rx: metric(&bed, "adit_peer_rx_packets", &["peer=\"b\""]),
    };
    assert_eq!(users, Counted { tx: pings, rx: pings }, "{what}: metrics");
    let counted = |status: &Value| {
        json!([
            probes(status, "sent") + probes(status, "replied"),
            probes(status, "answered") + probes(status, "received"),
        ])
    };
    let by_metrics =
        || json!(["tx", "rx"].map(|way| metric(&bed, "adit_probes", &[&format!("direction=\"{way}\"")])));
    wait_until(PATIENCE, "metrics and status agree about probes", || by_metrics() == counted(&bed.status()));
}

#[test(alone, root, ebpf)]
fn every_counter_counts_users_packets_with_ebpf() {
    agree(DataplaneChoice::Ebpf);
}

#[test(alone, root)]
fn every_counter_counts_users_packets_in_userspace() {
    agree(DataplaneChoice::Userspace);
}
