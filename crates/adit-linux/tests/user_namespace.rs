//! A user namespace for an ordinary user, in a process of its own: this program runs itself again
//! as nobody. It has a `main` of its own, since the usual harness runs tests on further threads, and
//! a process with several cannot enter a user namespace.
#![expect(clippy::print_stdout, reason = "it is its own harness, and its children answer it that way")]

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use adit_linux::netlink::Netlink;
use adit_linux::netns::{NetNs, enter_user_namespace, is_privileged};
use adit_linux::testing::{require, require_root};

const CHILD: &str = "ADIT_TEST_CHILD";
const NOBODY: u32 = 65534;

fn main() {
    match std::env::var(CHILD).as_deref() {
        Ok("become-root") => become_root(),
        Ok("no-rights") => println!("{}", NetNs::fresh().unwrap_err()),
        Ok("threads") => with_threads(),
        Ok(other) => panic!("{CHILD}={other}"),
        Err(_) => {
            nobody_becomes_root_of_its_own();
            nobody_is_told_what_is_missing();
            threads_forbid_a_user_namespace();
        }
    }
}

fn nobody_becomes_root_of_its_own() {
    let test = "nobody_becomes_root_of_its_own";
    if !require_root(test) {
        return;
    }
    let output = myself("become-root", Some(NOBODY));
    let refusal = printed(&output).lines().find(|line| line.starts_with("refused: ")).map(str::to_owned);
    let what = format!("user namespaces for ordinary users ({})", refusal.as_deref().unwrap_or_default());
    if !require(test, !(output.status.success() && refusal.is_some()), &what) {
        return;
    }
    check(test, &output, "configured");
}

fn become_root() {
    assert!(!is_privileged());
    if let Err(error) = enter_user_namespace() {
        assert!(error.hint().is_some(), "{error}");
        println!("refused: {error}");
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
}

fn nobody_is_told_what_is_missing() {
    let test = "nobody_is_told_what_is_missing";
    if !require_root(test) {
        return;
    }
    let text = "cannot make a network namespace: Operation not permitted (os error 1); \
                CAP_SYS_ADMIN is needed: run as root, or in a user namespace";
    check(test, &myself("no-rights", Some(NOBODY)), text);
}

fn threads_forbid_a_user_namespace() {
    check("threads_forbid_a_user_namespace", &myself("threads", None), "the process has 2 threads");
}

fn with_threads() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv());
    println!("{}", enter_user_namespace().unwrap_err());
    drop(sender);
    // It ends by the other side's end.
    assert!(thread.join().unwrap().is_err());
}

fn myself(child: &str, user: Option<u32>) -> Output {
    // The link, not what it points to: nobody may not be able to walk there.
    let mut command = Command::new("/proc/self/exe");
    command.env(CHILD, child).current_dir("/");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.output().unwrap()
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn check(test: &str, output: &Output, saying: &str) {
    let text = printed(output);
    assert!(output.status.success() && text.contains(saying), "{test}: {}: {text}", output.status);
    println!("test {test} ... ok");
}
