//! Several overlays on one underlay address, between the same two gateways.

use adit_config::DataplaneChoice;
use adit_lab::two_sites::{INSIDE_A, UNDERLAY_A, UNDERLAY_B};
use adit_linux::sockets::raw::RawSocket;
use adit_testbed::needs::ebpf;
use adit_testbed::reality::second_overlay::{self, SECOND_INSIDE_A, SECOND_INSIDE_B};
use adit_testbed::test_planes::plane_name;
use serde_json::Value;

use crate::support::machine::Running;
use crate::support::sites::{assert_reaches, reaches};
use crate::support::testbed::{Side, Testbed};
use crate::support::{datagram, wait_until};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Starts the second overlay beside the first, on both gateways.
fn start_second(bed: &Testbed, plane: DataplaneChoice) -> [Running; 2] {
    second_overlay::add_networks(&bed.sites.network).unwrap();
    let configs = second_overlay::configs(plane);
    Side::BOTH.map(|side| {
        let name = second_overlay::NAMES[side as usize];
        let file = bed.write(&format!("{name}.toml"), &configs[side as usize]);
        let mut running = bed.sites.machine.start(bed.side(side).ns(), &["run", &file]);
        running.wait_for("ready");
        running
    })
}

/// What each overlay of gateway A has dropped.
fn drops(bed: &Testbed) -> [Value; 2] {
    ["a", "a2"].map(|name| bed.adit(&["status", name, "-j"]).ok().json()["overlays"][0]["drops"].clone())
}

/// The same between all overlays, added up.
fn dropped(bed: &Testbed) -> u64 {
    let count = |drops: &Value| -> u64 {
        drops.as_object().unwrap().values().map(|drops| drops["count"].as_u64().unwrap()).sum()
    };
    drops(bed).iter().map(count).sum()
}

fn both_carry(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    let second = start_second(&bed, plane);
    let (a, b) = (bed.side(Side::A), bed.side(Side::B));
    wait_until(PATIENCE, "all four ways", || {
        reaches(a, SECOND_INSIDE_B) && reaches(b, SECOND_INSIDE_A) && bed.reaches()
    });
    // The first learns of the second by its routes, a moment later. Until then it counts what is
    // the second's, which carries it all the same.
    wait_until(PATIENCE, "the first has learned of the second", || {
        let before = dropped(&bed);
        reaches(a, SECOND_INSIDE_B) && reaches(b, SECOND_INSIDE_A) && dropped(&bed) == before
    });
    let before = dropped(&bed);
    for _ in 0..10 {
        assert_reaches(a, SECOND_INSIDE_B);
        assert_reaches(b, SECOND_INSIDE_A);
        bed.sites.assert_joined();
    }
    assert_eq!(dropped(&bed), before, "{}: none drops the other's: {:?}", plane_name(plane), drops(&bed));

    // What is nobody's is dropped. The programs count it once; in userspace both have the peer.
    let inner = datagram([198, 51, 100, 1].into(), INSIDE_A, 17, &[0, 9, 0, 9, 0, 8, 0, 0]);
    let forged = datagram(UNDERLAY_B, UNDERLAY_A, 4, &inner);
    let sent = b.run(|| RawSocket::sender().map(|socket| (0..7).for_each(|_| socket.send(&forged).unwrap())));
    sent.unwrap();
    let times = if plane == DataplaneChoice::Ebpf { 1 } else { 2 };
    wait_until(PATIENCE, "all are counted", || dropped(&bed) >= before + 7 * times);
    assert_eq!(dropped(&bed), before + 7 * times, "{:?}", drops(&bed));

    // One ends, and the other goes on.
    for running in second {
        running.end(nix::sys::signal::Signal::SIGINT);
    }
    bed.sites.assert_joined();
}

#[test(root, ebpf)]
fn two_overlays_between_the_same_gateways_carry_with_ebpf() {
    both_carry(DataplaneChoice::Ebpf);
}

#[test(root)]
fn two_overlays_between_the_same_gateways_carry_with_userspace() {
    both_carry(DataplaneChoice::Userspace);
}

/// The MTU of the underlay belongs to others, and the interface's follows it.
fn follows_the_underlay(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    let file = bed.file("a.toml");
    for (underlay, expected) in [(1400, 1380), (1500, 1480)] {
        for (side, device) in [(Side::A, "underlayA"), (Side::B, "underlayB")] {
            let mtu = underlay.to_string();
            bed.side(side).program("ip", &["link", "set", device, "mtu", &mtu]).unwrap();
        }
        wait_until(PATIENCE, "the interface has it", || bed.status()["site"]["mtu"] == expected);
        let link = bed.gateway().netlink().unwrap().link("ipipA").unwrap().unwrap();
        assert_eq!(link.mtu, expected, "{}", plane_name(plane));
        assert_eq!(bed.adit(&["plan", &file]).ok().stdout, "overlay `a`: nothing to change\n");
        // In userspace another plane takes the place of the first, and packets in between are lost.
        // The other gateway may be slower.
        wait_until(PATIENCE, "the sites are joined", || bed.reaches());
        let told = bed.status()["icmp"].clone();
        assert_eq!(told["state_changed"], 0, "no peer was told that it is unreachable: {told}");
    }
}

#[test(root, ebpf)]
fn the_interface_follows_the_mtu_of_the_underlay_with_ebpf() {
    follows_the_underlay(DataplaneChoice::Ebpf);
}

#[test(root)]
fn the_interface_follows_the_mtu_of_the_underlay_with_userspace() {
    follows_the_underlay(DataplaneChoice::Userspace);
}

#[test(root)]
fn an_overlay_that_hangs_hides_no_other() {
    let bed = Testbed::running(DataplaneChoice::Userspace);
    let second = start_second(&bed, DataplaneChoice::Userspace);
    second[0].signal(nix::sys::signal::Signal::SIGSTOP);
    let start = std::time::Instant::now();
    let said = bed.adit(&["status"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.starts_with("site a ") && !said.stdout.contains("site a2"), "{said:?}");
    assert!(said.stderr.contains("overlay `a2` cannot be read"), "{said:?}");
    let listed = bed.adit(&["status", "-j"]);
    let document: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(document["overlays"][0]["site"]["name"], "a");
    assert_eq!(document["unreadable"][0]["name"], "a2");
    // Each waits once for the answer that does not come.
    assert!(start.elapsed() < std::time::Duration::from_secs(15), "{:?}", start.elapsed());
    second[0].signal(nix::sys::signal::Signal::SIGCONT);
    wait_until(PATIENCE, "both answer", || bed.adit(&["status"]).code == Some(0));
}
