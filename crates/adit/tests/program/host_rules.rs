//! The host's own rules hold for what the tunnel carries: its firewall between peers, and policies
//! of IPsec between gateways, from the start or later.

use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_lab::host::Host;
use adit_lab::two_sites::HOST_B;
use adit_testbed::hub::{DEVICE, HubNetwork, Site};
use adit_testbed::needs::ebpf;
use adit_testbed::reality::nft_rules::{
    FORWARD_ACCEPT, FORWARD_POLICY_DROP, OUTPUT_DROP_IPIP, flush, forward_drops,
};
use serde_json::Value;

use crate::support::machine::{Machine, PATIENCE, Running};
use crate::support::sites::{assert_reaches, reaches};
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

/// The longest time for which a new rule does not hold. A busy machine gets some more.
const HOLDS_AFTER: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_secs(4);

/// A hub with two peers, all three run by the program.
struct Hub {
    machine: Machine,
    network: HubNetwork,
    folder: tempfile::TempDir,
    _daemons: Vec<Running>,
}

impl Hub {
    fn running(plane: DataplaneChoice) -> Self {
        Self::with(plane, "")
    }

    /// The same, with these lines in the hub's file.
    fn with(plane: DataplaneChoice, lines: &str) -> Self {
        let (machine, network) = (Machine::new(), HubNetwork::build().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let daemons = Site::ALL.map(|site| {
            let file = folder.path().join(site.name());
            let lines = if site == Site::Hub { lines } else { "" };
            std::fs::write(&file, format!("{}{lines}", site.config(plane))).unwrap();
            let mut running = machine.start(network.of(site).gateway.ns(), &["run", file.to_str().unwrap()]);
            running.wait_for("ready");
            running
        });
        Self { machine, network, folder, _daemons: daemons.into() }
    }

    /// Applies the hub's file with these lines.
    fn apply(&self, plane: DataplaneChoice, lines: &str) {
        let file = self.folder.path().join(Site::Hub.name());
        std::fs::write(&file, format!("{}{lines}", Site::Hub.config(plane))).unwrap();
        self.machine.adit(self.gateway().ns(), &["apply", file.to_str().unwrap()]).ok();
    }

    /// Whether an echo from the host behind one peer comes back from the host behind the other.
    fn relays(&self) -> bool {
        reaches(&self.network.of(Site::One).host, Site::Two.host())
    }

    #[track_caller]
    fn assert_relays(&self) {
        assert_reaches(&self.network.of(Site::One).host, Site::Two.host());
    }

    fn status(&self) -> Value {
        self.machine.adit(self.gateway().ns(), &["status", "hub", "-j"]).ok().json()["overlays"][0].clone()
    }

    fn relay(&self) -> Value {
        self.status()["site"]["relay"].clone()
    }

    fn gateway(&self) -> &Host {
        &self.network.of(Site::Hub).gateway
    }

    fn nft(&self, rules: &str) {
        self.gateway().load_nftables(rules).unwrap();
    }
}

/// Waits until `holds`, and says how long that took.
fn held_after(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    wait_until(PATIENCE, what, &mut holds);
    start.elapsed()
}

fn rules_in_forward_hold_between_peers(plane: DataplaneChoice) {
    let hub = Hub::running(plane);
    let is_ebpf = plane == DataplaneChoice::Ebpf;
    hub.assert_relays();
    assert_eq!(hub.relay()["path"], if is_ebpf { "direct" } else { "stack" });

    let rules = forward_drops(Site::One.network(), Site::Two.network(), DEVICE);
    for rule in rules {
        hub.nft(&rule);
        let after = held_after("the rule holds", || !hub.relays());
        assert!(after < HOLDS_AFTER + BUSY, "{rule}: {after:?}");
        for _ in 0..10 {
            assert!(!hub.relays(), "{rule}");
        }
        if is_ebpf {
            let relay = hub.relay();
            assert_eq!(relay["path"], "stack", "{rule}");
            let reason = relay["reason"].as_str().unwrap();
            assert!(reason.contains("fw f (hook forward"), "{reason}");
        }
        flush(hub.gateway()).unwrap();
        held_after("without the rule everything passes", || hub.relays());
        if is_ebpf {
            held_after("the programs relay again", || hub.relay()["path"] == "direct");
            hub.assert_relays();
        }
    }
    // A rule that lets it pass: the host's stack carries, and nothing is lost.
    hub.nft(FORWARD_ACCEPT);
    held_after("the host's stack carries", || hub.relay()["path"] == "stack");
    for _ in 0..10 {
        hub.assert_relays();
    }
}

#[test(root, nft, ebpf)]
fn rules_in_forward_hold_between_peers_on_ebpf() {
    rules_in_forward_hold_between_peers(DataplaneChoice::Ebpf);
}

#[test(root, nft)]
fn rules_in_forward_hold_between_peers_on_userspace() {
    rules_in_forward_hold_between_peers(DataplaneChoice::Userspace);
}

fn the_file_says_which_peers_reach_each_other(plane: DataplaneChoice) {
    let is_ebpf = plane == DataplaneChoice::Ebpf;
    let way = if is_ebpf { "direct" } else { "stack" };
    let hub = Hub::with(plane, "[tunnel]\nrelay = false\n");
    let mut refused = 0;
    let mut check = |relay: &str, path: &str, is_allowed: bool, is_reached: bool| {
        for _ in 0..3 {
            match is_reached {
                true => hub.assert_relays(),
                false => assert!(!hub.relays(), "{relay}"),
            }
        }
        assert_eq!(hub.relay()["path"], path, "{relay}");
        let before = refused;
        refused = hub.status()["drops"]["relay-refused"]["count"].as_u64().unwrap_or(0);
        assert_eq!(refused > before, !is_allowed, "{relay}: {refused} after {before}");
    };
    check("false", "refused", false, false);
    // Each change while the hub runs. What is for its own network passes in any case.
    for (relay, path, is_allowed) in [
        ("[[\"two\", \"one\"]]", way, true),
        ("[]", way, false),
        ("\"auto\"", way, true),
        ("false", "refused", false),
    ] {
        hub.apply(plane, &format!("[tunnel]\nrelay = {relay}\n"));
        check(relay, path, is_allowed, is_allowed);
        assert_reaches(&hub.network.of(Site::One).host, Site::Hub.host());
    }
    hub.nft(FORWARD_POLICY_DROP);
    hub.apply(plane, "[tunnel]\nrelay = \"direct\"\n");
    check("\"direct\"", way, true, is_ebpf);
    assert!(
        !reaches(&hub.network.of(Site::One).host, Site::Hub.host()),
        "the rule holds for the hub's network"
    );
}

#[test(root, nft, ebpf)]
fn the_file_says_which_peers_reach_each_other_on_ebpf() {
    the_file_says_which_peers_reach_each_other(DataplaneChoice::Ebpf);
}

#[test(root, nft)]
fn the_file_says_which_peers_reach_each_other_on_userspace() {
    the_file_says_which_peers_reach_each_other(DataplaneChoice::Userspace);
}

#[test(root, nft)]
fn chains_that_frames_pass_by_are_named() {
    let bed = Testbed::running(DataplaneChoice::Userspace);
    assert_eq!(bed.status()["site"]["passed_by"], serde_json::json!([]));
    bed.gateway().load_nftables(OUTPUT_DROP_IPIP).unwrap();
    let named = "chain ip fw out (hook output, 1 rule)";
    held_after("the chain is named", || bed.status()["site"]["passed_by"] == serde_json::json!([named]));
    let shown = bed.adit(&["status", "a"]).ok().stdout;
    let line = format!("outer datagrams pass by {named}");
    assert!(shown.contains(&line), "{shown}");

    let checked = bed.adit(&["check", "--here", &bed.file("a.toml")]).ok().stdout;
    assert!(checked.contains(&line) && checked.contains("nothing in the way"), "{checked}");
    let json = bed.adit(&["check", "--here", "-j", &bed.file("a.toml")]).ok().json();
    assert_eq!(json["here"]["passed_by"], serde_json::json!([named]));
}

const OUT: &str = "src 10.1.1.1 dst 10.1.1.2 dir out";
const IN: &str = "src 10.1.1.2 dst 10.1.1.1 dir in";

fn xfrm(bed: &Testbed, arguments: &str) {
    bed.ip(&format!("xfrm policy {arguments}"));
}

/// The policy that the status of gateway A says to cover its peer.
fn policy(bed: &Testbed) -> Value {
    bed.status()["peers"][0]["xfrm_policy"].clone()
}

fn blocking_policies_hold(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    assert_reaches(&bed.sites.network.host_a, HOST_B);
    assert_eq!(policy(&bed), Value::Null);
    let of_ipip = [OUT, IN].map(|policy| policy.replace(" dir", " proto 4 dir"));
    for blocked in of_ipip.into_iter().chain([OUT, IN].map(str::to_owned)) {
        xfrm(&bed, &format!("add {blocked} action block"));
        let after = held_after("the policy holds", || !bed.reaches());
        assert!(after < HOLDS_AFTER + BUSY, "{blocked}: {after:?}");
        for _ in 0..10 {
            assert!(!bed.reaches(), "{blocked}");
        }
        assert!(policy(&bed).as_str().unwrap().contains("action block"), "{blocked}");
        xfrm(&bed, &format!("delete {blocked}"));
        held_after("without the policy everything passes", || bed.reaches());
        held_after("nothing covers the peer", || policy(&bed) == Value::Null);
    }
}

#[test(root, ebpf)]
fn blocking_policies_hold_on_ebpf() {
    blocking_policies_hold(DataplaneChoice::Ebpf);
}

#[test(root)]
fn blocking_policies_hold_on_userspace() {
    blocking_policies_hold(DataplaneChoice::Userspace);
}

fn what_policies_let_pass_is_carried(plane: DataplaneChoice) {
    let mut bed = Testbed::new(plane);
    // Optional: without an agreed key, everything passes in the clear.
    let optional = "tmpl proto esp mode transport level use";
    xfrm(&bed, &format!("add {OUT} {optional}"));
    xfrm(&bed, &format!("add {IN} {optional}"));
    bed.start(Side::B);
    bed.start(Side::A);
    assert!(policy(&bed).as_str().unwrap().starts_with("xfrm policy src 10.1.1."));
    for _ in 0..20 {
        assert_reaches(&bed.sites.network.host_a, HOST_B);
    }
    // Required: nothing passes in the clear, in either direction.
    for direction in [OUT, IN] {
        xfrm(&bed, &format!("update {direction} tmpl proto esp mode transport"));
        held_after("the policy holds", || !bed.reaches());
        for _ in 0..10 {
            assert!(!bed.reaches(), "{direction}");
        }
        xfrm(&bed, &format!("update {direction} {optional}"));
        held_after("everything passes", || bed.reaches());
    }
}

#[test(root, ebpf)]
fn what_policies_let_pass_is_carried_on_ebpf() {
    what_policies_let_pass_is_carried(DataplaneChoice::Ebpf);
}

#[test(root)]
fn what_policies_let_pass_is_carried_on_userspace() {
    what_policies_let_pass_is_carried(DataplaneChoice::Userspace);
}

fn a_policy_with_a_mark_holds_for_datagrams_that_carry_it(plane: DataplaneChoice) {
    let mut bed = Testbed::new(plane);
    let marked = bed.write_changed("marked.toml", |text| text.replacen("[site]", "[site]\nfwmark = 7", 1));
    bed.start(Side::B);
    bed.start_with(Side::A, &marked);
    for (mark, is_ours) in [(8, false), (7, true)] {
        xfrm(&bed, &format!("add {OUT} mark {mark} mask 0xff action block"));
        if is_ours {
            held_after("the policy holds", || !bed.reaches() && policy(&bed) != Value::Null);
        } else {
            // A later policy, which is seen, shows that this one was seen before it.
            xfrm(&bed, &format!("add {IN} action block priority 9"));
            held_after("the later policy is seen", || {
                policy(&bed).as_str().is_some_and(|p| p.contains("dir in"))
            });
            xfrm(&bed, &format!("delete {IN}"));
            held_after("nothing covers the peer", || policy(&bed) == Value::Null);
            assert_reaches(&bed.sites.network.host_a, HOST_B);
        }
    }
}

#[test(root, ebpf)]
fn a_policy_with_a_mark_holds_for_datagrams_that_carry_it_on_ebpf() {
    a_policy_with_a_mark_holds_for_datagrams_that_carry_it(DataplaneChoice::Ebpf);
}

#[test(root)]
fn a_policy_with_a_mark_holds_for_datagrams_that_carry_it_on_userspace() {
    a_policy_with_a_mark_holds_for_datagrams_that_carry_it(DataplaneChoice::Userspace);
}
