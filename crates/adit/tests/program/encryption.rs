//! The guide's recipes for encryption, as they stand in docs/guide/encryption.md. Build machines
//! may lack WireGuard: `cargo xtask vm test adit:program:encryption::`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use adit_config::DataplaneChoice;
use adit_lab::two_sites::{CONFIG_B, ROUTER};
use adit_testbed::needs::{ebpf, wireguard};
use adit_testbed::test_planes::with_plane;

use crate::support::documents::blocks;
use crate::support::encrypted::{Cable, PROTOCOL_UDP, assert_carries};
use crate::support::testbed::{Side, Testbed};

/// The largest inner datagram over WireGuard: `wg0` has an MTU of 1420, and the outer header takes
/// 20 bytes.
const MAX_INNER_WIREGUARD: usize = 1400;

/// The only code block of the guide's page in this language.
fn recipe(language: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/encryption.md");
    let [block] = blocks(&page, language).try_into().expect("one block");
    block
}

/// The text with each of two words in place of the other.
fn swapped(text: &str, one: &str, other: &str) -> String {
    text.replace(one, "\0").replace(other, one).replace('\0', other)
}

fn of_side(side: Side, text: &str, one: &str, other: &str) -> String {
    if side == Side::A { text.to_owned() } else { swapped(text, one, other) }
}

/// Starts WireGuard at a gateway as the guide says, with this gateway's private key and the other's
/// public one.
fn start_wireguard(bed: &Testbed, side: Side, [private, public]: [&str; 2]) {
    let file = of_side(side, &recipe("ini"), "10.99.0.1", "10.99.0.2");
    let far = if side == Side::A { "10.1.1.2" } else { "10.1.1.1" };
    let file = file.replace("10.1.1.2:", &format!("{far}:"));
    let file = file.replace("PRIVATE-KEY-OF-A", private).replace("PUBLIC-KEY-OF-B", public);
    let folder = bed.file(&format!("wireguard-{}", side.name()));
    fs::create_dir(&folder).unwrap();
    let path = format!("{folder}/wg0.conf");
    fs::write(&path, file).unwrap();
    let mut command = Command::new("wg-quick");
    bed.sites.machine.run(bed.side(side).ns(), command.args(["up", &path])).with(0);
}

/// A private key and its public one.
const KEYS_A: [&str; 2] =
    ["gLpZn3j4C7jxZOlM853kGhAGxEa9LgKHggYn7eT3b1M=", "y0CDeLSpTJK84q6BrqAGMd40OnPGOhA+yQgz1EpTa3Q="];

const KEYS_B: [&str; 2] =
    ["qKkFZD0GySHzZxc3HftF/bA1BFZth06XVtfm0Dgk8H8=", "aJEco8PXLRmgrI1D6vzlse6/IzLZFRXPaAhOCxQm430="];

#[test(root, wireguard, ebpf)]
fn wireguard_carries_the_tunnel() {
    let config_a = recipe("toml");
    let config_b = CONFIG_B.replace("10.1.1.2", "wg0").replace("10.1.1.1", "10.99.0.1");
    let mut bed = Testbed::with_configs(
        &with_plane(&config_a, DataplaneChoice::Ebpf),
        &with_plane(&config_b, DataplaneChoice::Userspace),
    );
    let [private_a, public_a] = KEYS_A;
    let [private_b, public_b] = KEYS_B;
    start_wireguard(&bed, Side::A, [private_a, public_b]);
    start_wireguard(&bed, Side::B, [private_b, public_a]);
    // Where what is not encrypted would go.
    bed.ip(&format!("route add default via {ROUTER}"));
    let cable = Cable::watch(&bed);
    bed.start(Side::B);
    bed.start(Side::A);
    assert_carries(&bed, MAX_INNER_WIREGUARD);
    bed.ip("link delete wg0");
    for _ in 0..10 {
        assert!(!bed.reaches());
    }
    cable.assert_only(PROTOCOL_UDP, SystemTime::UNIX_EPOCH);
}
