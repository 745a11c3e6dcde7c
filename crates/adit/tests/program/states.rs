//! The state of a peer says what is known of it: that nothing answers, which router reports what,
//! or that this host has no route.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_lab::two_sites::{HOST_A, HOST_B, ROUTER, UNDERLAY_A, UNDERLAY_B};
use adit_linux::sockets::raw::RawSocket;
use adit_testbed::needs::ebpf;
use serde_json::{Value, json};

use crate::support::machine::Running;
use crate::support::testbed::{Side, Testbed};
use crate::support::{datagram, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// A filter of the router between the gateways: what to do with datagrams of the tunnel.
fn filter(bed: &Testbed, verdict: &str) {
    let chain = format!("chain forward {{ type filter hook forward priority 0; ip protocol 4 {verdict}; }}");
    let rules = format!("table ip between\ndelete table ip between\ntable ip between {{\n{chain}\n}}\n");
    bed.sites.network.router.load_nftables(&rules).unwrap();
}

/// Sends a datagram from host A to host B.
fn send(bed: &Testbed) {
    let host = bed.sites.network.host_a.ns();
    let socket = host.run(|| UdpSocket::bind((HOST_A, 0))).unwrap().unwrap();
    // An error about the datagram before is no concern of this one.
    let _ = socket.send_to(b"anybody there?", (HOST_B, 9));
}

fn peer(bed: &Testbed) -> Value {
    bed.status()["peers"][0].clone()
}

/// Sends until peer b is in this state, and returns it.
fn wait_for(bed: &Testbed, state: &str) -> Value {
    wait_until(PATIENCE, state, || {
        send(bed);
        peer(bed)["state"] == state
    });
    peer(bed)
}

/// Waits for the next event about peer b's state, and returns what it says.
#[track_caller]
fn event(follower: &mut Running) -> Value {
    loop {
        let event: Value = serde_json::from_str(&follower.wait_for("{")).unwrap();
        if event["event"] == "peer-up" || event["event"] == "peer-down" {
            return json!([
                event["event"],
                event["state"],
                event["cause"],
                event["router"],
                event["icmp_code"]
            ]);
        }
    }
}

fn each_state_is_told_from_the_others(plane: DataplaneChoice) {
    let mut bed = Testbed::new(plane);
    bed.start(Side::A);
    let gateway = bed.gateway().ns();
    let mut follower = bed.sites.machine.start(gateway, &["events", "a", "-j"]);
    follower.wait_for("following");
    assert_eq!(peer(&bed)["state"], "idle");

    filter(&bed, "drop");
    let mute = wait_for(&bed, "no-answer");
    assert_eq!(mute["soft_state"]["unreachable"], Value::Null);
    assert_eq!(event(&mut follower), json!(["peer-down", "no-answer", "no-answer", null, null]));
    assert!(bed.adit(&["status", "a"]).ok().stdout.contains("no answer"));

    filter(&bed, "reject with icmp type admin-prohibited");
    let refused = wait_for(&bed, "unreachable")["soft_state"]["unreachable"].clone();
    assert_eq!((&refused["cause"], &refused["icmp_type"]), (&json!("prohibited"), &json!(3)));
    assert_eq!((&refused["router"], &refused["icmp_code"]), (&json!(ROUTER), &json!(13)));
    let prohibited = json!(["peer-down", "unreachable", "prohibited", ROUTER, 13]);
    assert_eq!(event(&mut follower), prohibited);
    let text = bed.adit(&["status", "a"]).ok().stdout;
    assert!(text.contains(&format!("administratively prohibited, says {ROUTER} with ICMP 3/13")), "{text}");

    // Without a tunnel its host would report that it does not know the protocol.
    bed.start(Side::B);
    filter(&bed, "accept");
    wait_for(&bed, "up");
    assert_eq!(event(&mut follower), json!(["peer-up", null, null, null, null]));

    bed.ip("route add unreachable 10.1.1.2/32");
    let lost = wait_for(&bed, "unreachable")["soft_state"]["unreachable"].clone();
    assert_eq!((&lost["cause"], &lost["router"]), (&json!("no-route"), &Value::Null));
    assert_eq!(event(&mut follower), json!(["peer-down", "unreachable", "no-route", null, null]));
    // Answers to B's probes cannot leave either.
    wait_until(PATIENCE, "what cannot leave is counted", || {
        send(&bed);
        let last = bed.status()["drops"]["underlay-no-route"]["last"].clone();
        last["source"] == json!(HOST_A) && last["peer"] == "b"
    });

    bed.ip("route delete unreachable 10.1.1.2/32");
    wait_for(&bed, "up");
}

#[test(root, ebpf)]
fn each_state_is_told_from_the_others_with_ebpf() {
    each_state_is_told_from_the_others(DataplaneChoice::Ebpf);
}

#[test(root)]
fn each_state_is_told_from_the_others_with_userspace() {
    each_state_is_told_from_the_others(DataplaneChoice::Userspace);
}

/// What nobody knows has its outer source, what a peer forges its inner one.
fn a_drop_knows_its_last_source(plane: DataplaneChoice) {
    let mut bed = Testbed::new(plane);
    bed.start(Side::A);
    let last = |bed: &Testbed, reason: &str| {
        wait_until(PATIENCE, reason, || bed.drops(reason) > 0);
        let last = bed.status()["drops"][reason]["last"].clone();
        assert!(last["seconds"].as_f64().is_some_and(|seconds| seconds < PATIENCE.as_secs_f64()), "{last}");
        (last["source"].clone(), last["peer"].clone())
    };
    let forged = Ipv4Addr::new(203, 0, 113, 5);
    let socket = bed.sites.network.router.run(RawSocket::sender).unwrap();
    let send = |outer: Ipv4Addr, source: Ipv4Addr| {
        let inner = datagram(source, HOST_A, 17, &[0, 9, 0, 9, 0, 8, 0, 0]);
        socket.send(&datagram(outer, UNDERLAY_A, 4, &inner)).unwrap();
    };
    send(forged, HOST_B);
    assert_eq!(last(&bed, "outer-source-unknown"), (json!(forged), Value::Null));
    send(UNDERLAY_B, forged);
    assert_eq!(last(&bed, "inner-source-not-from-peer"), (json!(forged), json!("b")));
}

#[test(root, ebpf)]
fn a_drop_knows_its_last_source_with_ebpf() {
    a_drop_knows_its_last_source(DataplaneChoice::Ebpf);
}

#[test(root)]
fn a_drop_knows_its_last_source_with_userspace() {
    a_drop_knows_its_last_source(DataplaneChoice::Userspace);
}
