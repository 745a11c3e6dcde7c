//! Gateways behind 1:1 NAT, and behind firewalls that forget idle flows.

use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, HOST_A, HOST_B, INSIDE_B, UNDERLAY_A, UNDERLAY_B};
use adit_testbed::needs::ebpf;
use adit_testbed::reality::nat::{Gateway, put_behind};
use adit_testbed::reality::stateful_firewall::protect_a;
use adit_testbed::test_planes::with_plane;
use adit_testbed::transfer::Transfer;
use serde_json::Value;

use crate::support::sites::reaches;
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

const PATIENCE: Duration = Duration::from_secs(45);

/// The two-site network with these gateways behind NAT; no daemon runs. The files are changed.
fn behind_nat(
    plane: DataplaneChoice,
    gateways: &[Gateway],
    change: impl Fn(Side, String) -> String,
) -> Testbed {
    let own = |text: &str, gateway: Gateway| {
        if !gateways.contains(&gateway) {
            return text.to_owned();
        }
        let changed = text.replacen(&gateway.public().to_string(), &gateway.private().to_string(), 1);
        assert!(changed.contains(&format!("underlay = \"{}\"", gateway.private())), "{changed}");
        changed
    };
    let a = change(Side::A, own(&with_plane(CONFIG_A, plane), Gateway::A));
    let b = change(Side::B, own(&with_plane(CONFIG_B, plane), Gateway::B));
    let bed = Testbed::with_configs(&a, &b);
    for gateway in gateways {
        let _ = put_behind(&bed.sites.network, *gateway).unwrap();
    }
    bed
}

/// Opens a black hole for datagrams of more than 1300 bytes to gateway B.
fn open_hole(bed: &Testbed) {
    let router = &bed.sites.network.router;
    let senders = [UNDERLAY_A, UNDERLAY_B, Gateway::A.private(), Gateway::B.private()];
    let _ = router.black_hole("toB", 1300, &senders).unwrap();
}

/// What overlay a knows of the path to b.
fn path(bed: &Testbed) -> Value {
    bed.status()["peers"][0].clone()
}

/// Sends through the tunnel until the hole is found.
fn wait_until_found(bed: &Testbed) {
    wait_until(PATIENCE, "probes find the black hole", || {
        bed.reaches();
        let path = path(bed);
        path["path_mtu"] == 1300 && path["soft_state"]["path_mtu_from"] == "probe"
    });
}

/// Without probes, TCP in the hosts finds out what the path takes (RFC 4821), if it may.
#[track_caller]
fn assert_hosts_find_the_hole(bed: &Testbed) {
    let (client, server) = (&bed.sites.network.host_a, &bed.sites.network.host_b);
    client.sysctl("ipv4/tcp_mtu_probing", "1").unwrap();
    let flow = Flow { client, server, address: HOST_B.into() };
    let transfer = Transfer::start(&flow, Some(20_000_000)).unwrap();
    wait_until(PATIENCE, "a host finds the black hole", || transfer.received() > 1 << 20);
    transfer.finish().unwrap();
}

#[track_caller]
fn assert_nothing_is_dropped(bed: &Testbed) {
    for side in Side::BOTH {
        let status = bed.sites.machine.adit(bed.side(side).ns(), &["status", side.name(), "-j"]).ok().json();
        assert_eq!(status["overlays"][0]["drops"], serde_json::json!({}), "{side:?}");
    }
}

/// The peer is behind NAT, or both are. Its own probes show where it can be probed.
fn a_black_hole_behind_nat_is_found(plane: DataplaneChoice, gateways: &[Gateway]) {
    let mut bed = behind_nat(plane, gateways, |_, file| file);
    bed.start(Side::B);
    bed.start(Side::A);
    assert!(bed.is_answered(), "the tunnel works behind NAT");
    open_hole(&bed);
    wait_until_found(&bed);
    let soft = &path(&bed)["soft_state"];
    assert_eq!((&soft["probe"], &soft["probe_address"]), (&"answered".into(), &INSIDE_B.to_string().into()));
    assert_eq!(soft["not_probed"], Value::Null);
    assert_nothing_is_dropped(&bed);
}

#[test(root, ebpf)]
fn a_black_hole_before_a_peer_behind_nat_is_found_ebpf() {
    a_black_hole_behind_nat_is_found(DataplaneChoice::Ebpf, &[Gateway::B]);
}

#[test(root)]
fn a_black_hole_before_a_peer_behind_nat_is_found_userspace() {
    a_black_hole_behind_nat_is_found(DataplaneChoice::Userspace, &[Gateway::B]);
}

#[test(root, ebpf)]
fn a_black_hole_between_two_gateways_behind_nat_is_found_ebpf() {
    a_black_hole_behind_nat_is_found(DataplaneChoice::Ebpf, &[Gateway::A, Gateway::B]);
}

#[test(root)]
fn a_black_hole_between_two_gateways_behind_nat_is_found_userspace() {
    a_black_hole_behind_nat_is_found(DataplaneChoice::Userspace, &[Gateway::A, Gateway::B]);
}

/// A peer behind NAT that probes nobody: nothing can be learned, status says so, and nobody counts
/// a drop. The key helps, at once.
fn a_configured_address_is_probed(plane: DataplaneChoice) {
    let mut bed = behind_nat(plane, &[Gateway::B], |side, file| match side {
        Side::A => file,
        Side::B => file.replacen("\n[[peer]]", "\n[tunnel]\nprobe = false\n\n[[peer]]", 1),
    });
    bed.start(Side::B);
    bed.start(Side::A);
    open_hole(&bed);
    wait_until(PATIENCE, "the peer answers no probe", || {
        bed.reaches();
        path(&bed)["soft_state"]["not_probed"] == "it answers no probe"
    });
    let shown = bed.adit(&["status", "a"]).ok().stdout;
    assert!(shown.contains("path mtu 1500 (not probed: it answers no probe)"), "{shown}");
    assert_nothing_is_dropped(&bed);
    assert_hosts_find_the_hole(&bed);
    let file = bed.write_changed("probed.toml", |file| format!("{file}\nprobe-address = \"{INSIDE_B}\"\n"));
    bed.adit(&["apply", &file]).ok();
    wait_until_found(&bed);
    assert_eq!(path(&bed)["soft_state"]["probe_address"], INSIDE_B.to_string());
    assert_eq!(path(&bed)["soft_state"]["not_probed"], Value::Null);
}

#[test(root, ebpf)]
fn a_configured_address_is_probed_ebpf() {
    a_configured_address_is_probed(DataplaneChoice::Ebpf);
}

#[test(root)]
fn a_configured_address_is_probed_userspace() {
    a_configured_address_is_probed(DataplaneChoice::Userspace);
}

/// A firewall in front of gateway A forgets idle flows. Without keepalives the site is then out of
/// reach from outside.
fn keepalives_keep_a_firewall_open(plane: DataplaneChoice) {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let mut bed = Testbed::new(plane);
    let _ = protect_a(&bed.sites.network, TIMEOUT).unwrap();
    bed.start(Side::B);
    bed.start(Side::A);
    let from_outside = |bed: &Testbed| reaches(&bed.sites.network.host_b, HOST_A);
    assert!(!from_outside(&bed), "nothing was sent from inside yet");
    assert!(bed.is_answered());
    assert!(from_outside(&bed), "the answers come through, and so does everything from there");
    // A path in use is probed for a few seconds more. What comes from outside would keep the flow
    // alive, so the time itself has to be waited for.
    let probes = |bed: &Testbed| bed.status()["probes"].clone();
    let mut seen = (probes(&bed), std::time::Instant::now());
    wait_until(PATIENCE, "the tunnel is idle for longer than the firewall remembers", || {
        let now = probes(&bed);
        if now != seen.0 {
            seen = (now, std::time::Instant::now());
        }
        seen.1.elapsed() > TIMEOUT + Duration::from_secs(1)
    });
    assert!(!from_outside(&bed), "the firewall has forgotten the flow");

    let file = bed.write_changed("kept.toml", |file| format!("{file}\nkeepalive = \"2s\"\n"));
    bed.adit(&["apply", &file]).ok();
    let keepalives = |bed: &Testbed| bed.status()["probes"]["keepalives"].as_u64().unwrap();
    wait_until(PATIENCE, "keepalives are sent for longer than the firewall remembers", || {
        keepalives(&bed) > 4
    });
    assert!(from_outside(&bed), "the firewall is open");
    let status = bed.status();
    assert_eq!(status["drops"], serde_json::json!({}));
    assert_eq!(status["peers"][0]["state"], "up", "the peer answers keepalives");
}

#[test(root, ebpf)]
fn keepalives_keep_a_firewall_open_ebpf() {
    keepalives_keep_a_firewall_open(DataplaneChoice::Ebpf);
}

#[test(root)]
fn keepalives_keep_a_firewall_open_userspace() {
    keepalives_keep_a_firewall_open(DataplaneChoice::Userspace);
}
