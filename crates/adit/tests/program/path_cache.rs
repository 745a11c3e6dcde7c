//! What is learned of a path outlives the daemon, and goes with the overlay.

use adit_lab::ping::ping;
use adit_lab::two_sites::HOST_B;
use adit_testbed::needs::ebpf;
use serde_json::Value;
use std::time::Duration;

use crate::support::sites::Sites;
use crate::support::wait_until;

const PATIENCE: Duration = Duration::from_secs(10);

/// Peer b in the status of A.
fn peer(sites: &Sites) -> Value {
    let status = sites.machine.adit(sites.network.gateway_a.ns(), &["status", "a", "-j"]).ok().json();
    status["overlays"][0]["peers"][0].clone()
}

fn survives(dataplane: &'static str) {
    let sites = Sites::with_dataplane(dataplane);
    let a = sites.run_a(&[]);
    let _b = sites.run_b();
    let network = &sites.network;
    network.router.mtu("toB", 1300).unwrap();
    network.gateway_b.mtu("underlayB", 1300).unwrap();
    network.host_a.run(|| ping(HOST_B, 1480, 64, Duration::from_millis(500))).unwrap();
    wait_until(PATIENCE, "the router's word is heard", || peer(&sites)["path_mtu"] == 1300);
    assert_eq!(peer(&sites)["soft_state"]["path_mtu_from"], "router");
    let file = std::path::Path::new("/var/lib/adit/a/paths.json");
    let written = || sites.machine.with_files(|| std::fs::read_to_string(file).unwrap_or_default());
    wait_until(PATIENCE, "it is written down", || written().contains("1300"));

    a.kill();
    let a = sites.run_a(&[]);
    let known = peer(&sites);
    assert_eq!((&known["path_mtu"], &known["soft_state"]["path_mtu_from"]), (&1300.into(), &"router".into()));
    let left = known["soft_state"]["path_mtu_expires_seconds"].as_f64().expect("it is a number");
    assert!((1.0..=600.0).contains(&left), "{left} s");
    drop(a);

    sites.machine.adit(network.gateway_a.ns(), &["down", "a"]).ok();
    assert_eq!(written(), "", "it goes with the overlay");
    let _a = sites.run_a(&[]);
    assert_eq!(peer(&sites)["path_mtu"], 1500);
}

#[test(root, ebpf)]
fn a_path_mtu_survives_a_kill_with_ebpf() {
    survives("ebpf");
}

#[test(root)]
fn a_path_mtu_survives_a_kill_with_userspace() {
    survives("userspace");
}
