//! The guide's recipes for encryption, as they stand in docs/guide/encryption.md. Build machines
//! may lack ESP and WireGuard: `cargo xtask vm test adit:program:encryption::`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use adit_config::DataplaneChoice;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, HOST_A, HOST_B, ROUTER};
use adit_testbed::needs::{ebpf, esp, strongswan, wireguard};
use adit_testbed::test_planes::with_plane;
use nix::sys::signal::Signal;

use crate::ipsec::MAX_INNER;
use crate::support::Said;
use crate::support::documents::blocks;
use crate::support::encrypted::{
    Cable, HOLDS_AFTER, PROTOCOL_ESP, PROTOCOL_IPIP, PROTOCOL_UDP, assert_carries,
};
use crate::support::machine::{PATIENCE, Running};
use crate::support::sites::{assert_reaches, reaches};
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

/// The largest inner datagram over WireGuard: `wg0` has an MTU of 1420, and the outer header takes
/// 20 bytes.
const MAX_INNER_WIREGUARD: usize = 1400;

/// What charon needs of its own: without it, the two would share Debian's files.
const STRONGSWAN_CONF: &str = "charon-systemd {
  load = aes sha1 sha2 hmac kdf gmp random nonce drbg kernel-netlink socket-default vici
  plugins { vici { socket = unix://SOCKET } }
}";

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

/// strongSwan at a gateway.
struct StrongSwan {
    side: Side,
    charon: Running,
}

impl StrongSwan {
    /// As systemd does: starts the daemon, then loads the recipe.
    fn start(bed: &Testbed, side: Side) -> Self {
        let conf = STRONGSWAN_CONF.replace("SOCKET", &Self::socket(side));
        let conf = bed.write(&format!("strongswan-{}.conf", side.name()), &conf);
        let mut command = Command::new("/usr/sbin/charon-systemd");
        command.env("STRONGSWAN_CONF", &conf);
        let charon = bed.sites.machine.start_command(bed.side(side).ns(), command);
        let started = Self { side, charon };
        let has_socket = || bed.sites.machine.with_files(|| Path::new(&Self::socket(side)).exists());
        wait_until(PATIENCE, "charon listens", has_socket);
        let connections = of_side(side, &recipe("text"), "10.1.1.1", "10.1.1.2");
        let file = bed.write(&format!("swanctl-{}.conf", side.name()), &connections);
        started.swanctl(bed, &["--load-all", "--noprompt", "--file", &file]);
        started
    }

    /// On the machine of the test, which has a `/run` of its own.
    fn socket(side: Side) -> String {
        format!("/run/charon-{}.vici", side.name())
    }

    fn swanctl(&self, bed: &Testbed, arguments: &[&str]) -> Said {
        let uri = format!("unix://{}", Self::socket(self.side));
        let mut command = Command::new("/usr/sbin/swanctl");
        command.args(arguments).args(["--uri", &uri]);
        bed.sites.machine.run(bed.side(self.side).ns(), &mut command).with(0)
    }
}

#[test(root, esp, strongswan, ebpf)]
fn strongswan_encrypts_a_tunnel_that_runs() {
    // B's plane is the one that starts fastest on an emulated processor.
    let config_b = with_plane(CONFIG_B, DataplaneChoice::Userspace);
    let mut bed = Testbed::with_configs(&with_plane(CONFIG_A, DataplaneChoice::Ebpf), &config_b);
    bed.start(Side::B);
    bed.start(Side::A);
    let cable = Cable::watch(&bed);
    assert_reaches(&bed.sites.network.host_a, HOST_B);
    assert!(!cable.times(PROTOCOL_IPIP).is_empty());

    let cable = Cable::watch(&bed);
    // B's own policies, below those of strongSwan, forbid everything else there.
    let forbidding = recipe("sh").replace("10.1.1.2", "10.1.1.1").replace("ip xfrm", "xfrm");
    bed.side(Side::B).program_with_input("ip", &["-batch", "-"], &forbidding).unwrap();
    let b = StrongSwan::start(&bed, Side::B);
    let a = StrongSwan::start(&bed, Side::A);
    let since = SystemTime::now() + HOLDS_AFTER;
    wait_until(PATIENCE, "keys are agreed", || bed.reaches() && SystemTime::now() > since);
    assert_carries(&bed, MAX_INNER);
    cable.assert_only(PROTOCOL_ESP, since);
    let shown = a.swanctl(&bed, &["--list-sas"]).stdout;
    assert!(shown.contains("INSTALLED, TRANSPORT, ESP:AES_GCM_16-256"), "{shown}");
    let shown = bed.adit(&["status", "a"]).ok().stdout;
    assert!(shown.contains("xfrm policy src 10.1.1.") && shown.contains("proto 4"), "{shown}");

    // They are still there when strongSwan stops, and hold for what B sends.
    let cable = Cable::watch(&bed);
    b.charon.end(Signal::SIGTERM);
    wait_until(PATIENCE, "nothing passes", || !bed.reaches());
    for _ in 0..5 {
        assert!(!bed.reaches());
        assert!(!reaches(&bed.sites.network.host_b, HOST_A));
    }
    cable.assert_nothing_clear(SystemTime::UNIX_EPOCH);
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
