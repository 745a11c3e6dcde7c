//! The same test on every data plane.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use adit_config::DataplaneChoice;
use adit_lab::article::{Article, CONFIG_A, CONFIG_B, Tunnels, bring_up};
use adit_lab::sites::word;
use adit_linux::testing::{require, require_root};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Makes each of these functions, which take a data plane, a test for every data plane.
macro_rules! on_every_plane {
    ($($test:ident),+ $(,)?) => {
        mod userspace {
            $(#[test]
            fn $test() {
                let name = concat!(module_path!(), "::", stringify!($test));
                crate::planes::run(name, adit_config::DataplaneChoice::Userspace, super::$test);
            })+
        }
        mod ebpf {
            $(#[test]
            fn $test() {
                let name = concat!(module_path!(), "::", stringify!($test));
                crate::planes::run(name, adit_config::DataplaneChoice::Ebpf, super::$test);
            })+
        }
    };
}
pub(crate) use on_every_plane;

/// Runs a test where this machine can.
pub(crate) fn run(test: &str, plane: DataplaneChoice, body: fn(DataplaneChoice)) {
    if !require_root(test) || plane == DataplaneChoice::Ebpf && !require(test, has_ebpf(), "eBPF") {
        return;
    }
    // One at a time: two that share the processors would measure each other.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    own_pins();
    body(plane);
}

/// Whether this machine can run the programs.
fn has_ebpf() -> bool {
    // Until the data plane is there.
    false
}

/// Gives the test's thread, and all that it starts, a BPF file system of its own: two tests may have an
/// overlay of the same name, and what one of them leaves is gone with it.
fn own_pins() {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("root may");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("root may");
    let place = Path::new("/sys/fs/bpf");
    if place.is_dir() {
        mount(Some("bpf"), place, Some("bpf"), MsFlags::empty(), none).expect("the kernel has BPF");
    }
}

/// Brings the tunnel of the article's network up with this data plane.
pub(crate) fn join(network: &Article, plane: DataplaneChoice) -> Tunnels {
    let with_plane = |config: &str| {
        let changed = config.replace("[site]\n", &format!("[site]\ndataplane = \"{}\"\n", word(plane)));
        assert_ne!(changed, config, "there is a place for the data plane");
        changed
    };
    Tunnels {
        a: bring_up(&network.gateway_a, &with_plane(CONFIG_A)).unwrap(),
        b: bring_up(&network.gateway_b, &with_plane(CONFIG_B)).unwrap(),
    }
}
