//! User namespaces of an ordinary user. The program runs itself again as the user nobody.
//!
//! Only a process with one thread can enter a user namespace, so `main` runs the children's code
//! before the harness starts its threads.
#![expect(clippy::print_stdout, reason = "a child reports to the test that way")]

#[macro_use(test)]
extern crate adit_harness;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Output};

use adit_linux::netlink::Netlink;
use adit_linux::netns::{NetNs, enter_user_namespace, is_privileged};

const CHILD: &str = "ADIT_TEST_CHILD";
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    match std::env::var(CHILD).as_deref() {
        Ok("become-root") => become_root(),
        Ok("no-rights") => println!("{}", NetNs::fresh().unwrap_err()),
        Ok("threads") => with_threads(),
        Ok(other) => panic!("{CHILD}={other}"),
        Err(_) => return adit_harness::main(),
    }
    ExitCode::SUCCESS
}

/// Checks that the system allows user namespaces to ordinary users.
fn user_namespaces() -> Result<(), String> {
    let output = myself("become-root", Some(NOBODY));
    match printed(&output).lines().find(|line| line.starts_with("refused: ")) {
        Some(refusal) if output.status.success() => {
            Err(format!("user namespaces for ordinary users ({refusal})"))
        }
        _ => Ok(()),
    }
}

#[test(root, user_namespaces)]
fn an_ordinary_user_is_root_in_its_own_user_namespace() {
    check(&myself("become-root", Some(NOBODY)), "configured");
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
    // Outside, this root has no rights.
    let error = outside.enter().unwrap_err();
    assert!(error.is_permission(), "{error}");
    println!("configured");
}

#[test(root)]
fn the_error_of_an_ordinary_user_has_the_missing_capability() {
    let text = "cannot create a network namespace: Operation not permitted (os error 1); \
                CAP_SYS_ADMIN is needed: run as root, or in a user namespace";
    check(&myself("no-rights", Some(NOBODY)), text);
}

#[test]
fn a_process_with_threads_cannot_enter_a_user_namespace() {
    check(&myself("threads", None), "the process has 2 threads");
}

fn with_threads() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv());
    println!("{}", enter_user_namespace().unwrap_err());
    drop(sender);
    // The receiver ends when the sender is dropped.
    assert!(thread.join().unwrap().is_err());
}

fn myself(child: &str, user: Option<u32>) -> Output {
    // The link and not its target, to whose directory the user nobody may have no access.
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

fn check(output: &Output, saying: &str) {
    let text = printed(output);
    assert!(output.status.success() && text.contains(saying), "{}: {text}", output.status);
}
