//! IPsec protects the tunnel: IP in IP in ESP, in transport mode. While a policy covers a peer,
//! only ESP is on the cable; without one, the data plane carries as before. Build machines may lack
//! ESP: `cargo xtask vm test adit:program:ipsec::`.

use std::time::SystemTime;

use adit_config::DataplaneChoice;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B};
use adit_testbed::needs::{ebpf, esp, ipip};
use adit_testbed::test_planes::with_plane;

use crate::support::encrypted::{Cable, HOLDS_AFTER, PROTOCOL_ESP, PROTOCOL_IPIP, assert_carries};
use crate::support::machine::PATIENCE;
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

/// The largest inner datagram. AES-GCM takes 16 bytes before the payload, 2 to 5 of trailer and 16
/// of check value; the outer header takes 20.
pub(crate) const MAX_INNER: usize = 1446;
/// Without ESP.
const MAX_INNER_CLEAR: usize = 1480;

/// `ip xfrm` on both gateways, with this command for each direction.
fn xfrm(bed: &Testbed, command: impl Fn(&str) -> String) {
    for (side, own, far) in [(Side::A, "10.1.1.1", "10.1.1.2"), (Side::B, "10.1.1.2", "10.1.1.1")] {
        let [out, back] = [format!("src {own} dst {far}"), format!("src {far} dst {own}")];
        let lines = [command(&format!("{out} dir out")), command(&format!("{back} dir in"))].join("\n");
        bed.side(side).program_with_input("ip", &["-batch", "-"], &lines).unwrap();
    }
}

/// Keys for both directions on both gateways.
fn add_keys(bed: &Testbed) {
    let key = "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128";
    xfrm(bed, |direction| {
        let flow = direction.rsplit_once(" dir").unwrap().0;
        let spi = if flow.starts_with("src 10.1.1.1 ") { "0x100" } else { "0x101" };
        format!("xfrm state add {flow} proto esp spi {spi} reqid 1 mode transport {key}")
    });
}

/// Adds policies that ask for ESP, for what `selector` names.
fn add_policies(bed: &Testbed, selector: &str) {
    xfrm(bed, |direction| {
        let (flow, way) = direction.rsplit_once(" dir").unwrap();
        format!("xfrm policy add {flow} {selector} dir{way} tmpl proto esp reqid 1 mode transport")
    });
}

/// Gateway A has the plane under test; B's is the one that starts fastest on an emulated processor.
fn bed(plane: DataplaneChoice) -> Testbed {
    // The ipip driver believes the Port Unreachable of another, which has no tunnel to it.
    let of_b = if plane == DataplaneChoice::Kernel { plane } else { DataplaneChoice::Userspace };
    Testbed::with_configs(&with_plane(CONFIG_A, plane), &with_plane(CONFIG_B, of_b))
}

fn only_esp_while_there_are_policies(plane: DataplaneChoice) {
    let mut bed = bed(plane);
    // Before the start, for every protocol.
    add_keys(&bed);
    add_policies(&bed, "");
    let cable = Cable::watch(&bed);
    bed.start(Side::B);
    bed.start(Side::A);
    assert_carries(&bed, MAX_INNER);
    cable.assert_only(PROTOCOL_ESP, SystemTime::UNIX_EPOCH);

    let cable = Cable::watch(&bed);
    xfrm(&bed, |direction| format!("xfrm policy delete {direction}"));
    wait_until(HOLDS_AFTER, "the data plane carries again", || bed.reaches());
    assert_carries(&bed, MAX_INNER_CLEAR);
    assert!(!cable.times(PROTOCOL_IPIP).is_empty());

    // After the start, for IP in IP.
    let cable = Cable::watch(&bed);
    add_policies(&bed, "proto 4");
    let since = SystemTime::now() + HOLDS_AFTER;
    wait_until(PATIENCE, "a second has passed", || bed.reaches() && SystemTime::now() > since);
    assert_carries(&bed, MAX_INNER);
    cable.assert_only(PROTOCOL_ESP, since);

    // Policies without keys let nothing pass.
    let cable = Cable::watch(&bed);
    for side in Side::BOTH {
        bed.side(side).program("ip", &["xfrm", "state", "flush"]).unwrap();
    }
    for _ in 0..5 {
        assert!(!bed.reaches());
    }
    cable.assert_nothing_clear(SystemTime::UNIX_EPOCH);
}

#[test(root, esp, ebpf)]
fn only_esp_while_there_are_policies_on_ebpf() {
    only_esp_while_there_are_policies(DataplaneChoice::Ebpf);
}

#[test(root, esp)]
fn only_esp_while_there_are_policies_on_userspace() {
    only_esp_while_there_are_policies(DataplaneChoice::Userspace);
}

#[test(root, esp, ipip)]
fn only_esp_while_there_are_policies_on_kernel() {
    only_esp_while_there_are_policies(DataplaneChoice::Kernel);
}
