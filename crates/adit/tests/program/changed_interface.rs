//! Somebody renames an end of the tunnel's pair, or changes its address, ARP or master: repaired or
//! followed within a second.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_testbed::needs::ebpf;
use serde_json::Value;

use crate::support::testbed::Testbed;
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
    assert!(bed.reaches(), "before");
    let whole = links(&bed);
    for event in REPAIRED {
        let repairs = bed.repairs();
        event.iter().for_each(|command| bed.ip(command));
        wait_until(A_SECOND, &format!("{event:?} is repaired"), || links(&bed) == whole && bed.reaches());
        wait_until(A_SECOND, &format!("{event:?} is counted"), || bed.repairs() > repairs);
    }
    for event in FOLLOWED {
        event.iter().for_each(|command| bed.ip(command));
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
