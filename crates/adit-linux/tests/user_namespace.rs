//! A user namespace for an ordinary user, in a process of its own: the test runs itself again as
//! nobody, with one thread.

use std::os::unix::process::CommandExt;
use std::process::Command;

use adit_linux::netlink::Netlink;
use adit_linux::netns::{NetNs, enter_user_namespace, is_privileged};
use adit_linux::testing::{require, require_root};

const CHILD: &str = "ADIT_TEST_CHILD";
const NOBODY: u32 = 65534;

/// This binary again, for one test alone, without threads; as nobody when asked to.
fn myself(test: &str, nobody: bool) -> Command {
    // The link, not what it points to: nobody may not be able to walk there.
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", test, "--test-threads=1", "--nocapture"]).env(CHILD, "1").current_dir("/");
    if nobody {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

fn check(output: &std::process::Output, saying: &str) {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains(saying), "{}: {text}", output.status);
}

#[test]
fn nobody_becomes_root_of_its_own() {
    if is_child() {
        assert!(!is_privileged());
        if let Err(error) = enter_user_namespace() {
            println!("refused: {error}");
            assert!(error.hint().is_some(), "{error}");
            return;
        }
        assert!(is_privileged());
        assert_eq!(nix::unistd::geteuid().as_raw(), 0);
        let outside = NetNs::current().unwrap();
        let (left, right) = (NetNs::fresh().unwrap(), NetNs::fresh().unwrap());
        assert!(!left.is_same(&outside));
        let mut netlink = left.run(Netlink::open).unwrap().unwrap();
        let index = netlink.add_veth("a", "b", &right).unwrap();
        netlink.add_address(index, "192.0.2.1/24".parse().unwrap()).unwrap();
        netlink.set_up(index).unwrap();
        // Root here is nobody outside.
        let error = outside.enter().unwrap_err();
        assert!(error.is_permission(), "{error}");
        println!("configured");
        return;
    }
    if !require_root("nobody_becomes_root_of_its_own") {
        return;
    }
    let output = myself("nobody_becomes_root_of_its_own", true).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let refusal = text.lines().find(|line| line.starts_with("refused: "));
    let what = format!("user namespaces for ordinary users ({})", refusal.unwrap_or_default());
    if !require("nobody_becomes_root_of_its_own", !(output.status.success() && refusal.is_some()), &what) {
        return;
    }
    check(&output, "configured");
}

#[test]
fn nobody_is_told_what_is_missing() {
    if is_child() {
        let error = NetNs::fresh().unwrap_err();
        println!("{error}");
        return;
    }
    if !require_root("nobody_is_told_what_is_missing") {
        return;
    }
    let output = myself("nobody_is_told_what_is_missing", true).output().unwrap();
    check(
        &output,
        "cannot make a network namespace: Operation not permitted (os error 1); CAP_SYS_ADMIN is needed: run as root, or in a user namespace",
    );
}

#[test]
fn threads_forbid_a_user_namespace() {
    if is_child() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        let error = enter_user_namespace().unwrap_err();
        println!("{error}");
        drop(sender);
        let _ = thread.join();
        return;
    }
    let output = myself("threads_forbid_a_user_namespace", false).output().unwrap();
    check(&output, "the process must have one thread only");
}
