//! Somebody renames an end of the tunnel's pair, or changes its address, ARP or master: repaired or
//! followed within a second, also while the overlay is still starting.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_linux::ethtool;
use adit_linux::netlink::{Event, Events, Group, RouteKind};
use adit_testbed::needs::ebpf;
use serde_json::Value;

use crate::support::machine::PATIENCE;
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

const A_SECOND: Duration = Duration::from_secs(1);

/// Commands of `ip`, one after another, which the kernel must take.
const REPAIRED: &[&[&str]] = &[
    &["link set ipipA address 02:00:00:00:00:77"],
    &["link set ipipA-h address 02:00:00:00:00:77"],
    &["link set ipipA arp on"],
    &["link set ipipA-h arp on"],
    &["link set ipipA mtu 1300"],
    &["link set ipipA-h mtu 1300"],
    &["link set ipipA alias someone"],
    &["link set ipipA master bridge"],
    &["link set ipipA-h master bridge"],
];

/// An interface may have to be down for another name.
const FOLLOWED: &[&[&str]] = &[
    &["link set ipipA-h down", "link set ipipA-h name second", "link set second up"],
    &["link set ipipA down", "link set ipipA name first", "link set first up"],
];

/// Of each link of gateway A what the events change, except for names, by its index.
fn links(bed: &Testbed) -> BTreeMap<u64, Vec<Value>> {
    let shown = bed.sites.machine.run(bed.gateway().ns(), Command::new("ip").args(["-j", "link", "show"]));
    let links: Vec<Value> = serde_json::from_str(&shown.ok().stdout).unwrap();
    let pair = links.into_iter().filter(|link| link["ifalias"].as_str() != Some("of-the-test"));
    let seen = ["address", "flags", "mtu", "master", "ifalias"];
    pair.map(|link| (link["ifindex"].as_u64().unwrap(), seen.map(|key| link[key].clone()).to_vec())).collect()
}

fn changes_are_repaired_or_followed(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    bed.ip("link add bridge type bridge");
    bed.ip("link set bridge alias of-the-test");
    wait_until(PATIENCE, "before", || bed.reaches());
    let whole = links(&bed);
    for event in REPAIRED {
        let repairs = bed.repairs();
        event.iter().for_each(|command| bed.ip(command));
        wait_until(A_SECOND, &format!("{event:?} is repaired"), || links(&bed) == whole && bed.reaches());
        wait_until(A_SECOND, &format!("{event:?} is counted"), || bed.repairs() > repairs);
    }
    // `ethtool -K` by somebody: userspace could not read such packets.
    let excess = || bed.gateway().ns().run(|| ethtool::unreadable_offloads("ipipA")).unwrap().unwrap();
    assert_eq!(excess(), [""; 0]);
    bed.gateway().ns().run(|| ethtool::set_unreadable_offloads("ipipA", true)).unwrap().unwrap();
    assert!(!excess().is_empty(), "the kernel has turned them on");
    wait_until(A_SECOND, "offloads are repaired", || excess().is_empty());
    for end in ["ipipA", "ipipA-h"] {
        // A kernel without IPv6 has no such setting.
        let _ = bed.gateway().sysctl(&format!("ipv6/conf/{end}/disable_ipv6"), "0");
        wait_until(A_SECOND, "IPv6 is off again", || is_ipv6_off(&bed));
    }
    for event in FOLLOWED {
        // In one process: a repair in between would set the interface up again.
        let commands = event.join("\n") + "\n";
        bed.gateway().program_with_input("ip", &["-batch", "-"], &commands).unwrap();
        wait_until(A_SECOND, &format!("{event:?} is followed"), || links(&bed) == whole && bed.reaches());
    }
    assert_eq!(bed.status()["site"]["device"], "first");
}

#[test(alone, root, ebpf)]
fn changes_are_repaired_or_followed_with_ebpf() {
    changes_are_repaired_or_followed(DataplaneChoice::Ebpf);
}

#[test(alone, root)]
fn changes_are_repaired_or_followed_with_userspace() {
    changes_are_repaired_or_followed(DataplaneChoice::Userspace);
}

/// What a network manager with a file for every Ethernet interface does to both ends.
const TAKEN: [&str; 4] = [
    "link set ipipA mtu 1300",
    "link set ipipA-h mtu 1300",
    "route flush dev ipipA",
    "route flush type unreachable",
];

/// Whether IPv6 is off on both ends.
fn is_ipv6_off(bed: &Testbed) -> bool {
    ["ipipA", "ipipA-h"].iter().all(|end| {
        let setting = format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6");
        let read = || std::fs::read_to_string(&setting);
        // A kernel without IPv6 has no such file.
        bed.gateway().ns().run(read).unwrap().map_or(true, |value| value.trim() == "1")
    })
}

/// The routes come before the data plane, which takes its time to start. Nothing of the start looks
/// at them or at the pair again.
fn changes_during_the_start_are_repaired(plane: DataplaneChoice) {
    let mut bed = Testbed::running(plane);
    let whole = links(&bed);
    bed.end(Side::A, nix::sys::signal::Signal::SIGTERM);
    bed.adit(&["down", "a"]).ok();

    let mut events = bed.gateway().ns().run(|| Events::open(&[Group::Route])).unwrap().unwrap();
    let mut daemon = bed.spawn(&[]);
    loop {
        let event = events.next(PATIENCE).unwrap().expect("the start adds a route");
        let Event::RouteChanged { route, gone: false } = event else { continue };
        if route.destination.to_string() == "192.168.199.0/24" && route.kind == RouteKind::Unicast {
            break;
        }
    }
    for end in ["ipipA", "ipipA-h"] {
        let _ = bed.gateway().sysctl(&format!("ipv6/conf/{end}/disable_ipv6"), "0");
    }
    TAKEN.iter().for_each(|command| bed.ip(command));
    daemon.wait_for("ready");
    bed.keep(daemon);
    let values = |links: BTreeMap<u64, Vec<Value>>| links.into_values().collect::<Vec<_>>();
    let whole = values(whole);
    wait_until(2 * A_SECOND, "the changes during the start are repaired", || {
        values(links(&bed)) == whole && is_ipv6_off(&bed) && bed.reaches()
    });
    let shown = bed.sites.machine.run(bed.gateway().ns(), Command::new("ip").args(["route", "show"]));
    assert!(shown.ok().stdout.contains("unreachable 192.168.199.0/24"), "its guard is back, too");
}

#[test(alone, root, ebpf)]
fn changes_during_the_start_are_repaired_with_ebpf() {
    changes_during_the_start_are_repaired(DataplaneChoice::Ebpf);
}

#[test(alone, root)]
fn changes_during_the_start_are_repaired_with_userspace() {
    changes_during_the_start_are_repaired(DataplaneChoice::Userspace);
}
