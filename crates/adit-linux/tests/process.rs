//! Locks, signals and ending processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use adit_linux::process::{LockError, LockFile, end, end_with_parent, pass_descriptor};
use adit_linux::signal::{Signal, Signals};

const CHILD: &str = "ADIT_TEST_CHILD";
const PATIENCE: Duration = Duration::from_secs(5);

fn myself(test: &str, argument: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(CHILD, argument)
        .stdout(Stdio::piped());
    command
}

/// Reads what a child prints until it says that it is there. What libtest prints before a test's
/// own output is on the same line.
fn await_ready(child: &mut std::process::Child) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the child ended before it was ready");
}

#[test]
fn lock_is_held_by_one_and_says_by_whom() {
    if let Some(path) = std::env::var_os(CHILD) {
        let _lock = LockFile::acquire(Path::new(&path)).unwrap();
        let _ = writeln!(std::io::stdout(), "ready");
        loop {
            std::thread::park();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    // Of a holder that was killed, and of whose number another process has become: this one.
    std::fs::write(&path, format!("{} 1\n", std::process::id())).unwrap();

    let mut child = myself("lock_is_held_by_one_and_says_by_whom", &path).spawn().unwrap();
    await_ready(&mut child);
    let pid = child.id().cast_signed();
    match LockFile::acquire(&path) {
        Err(LockError::Held { pid: holder }) => assert_eq!(holder, pid),
        other => panic!("{other:?}"),
    }
    let waited = Instant::now();
    assert!(matches!(
        LockFile::acquire_within(&path, Duration::from_millis(50)),
        Err(LockError::Held { .. })
    ));
    assert!(waited.elapsed() >= Duration::from_millis(50));

    child.kill().unwrap();
    child.wait().unwrap();
    let lock = LockFile::acquire_within(&path, PATIENCE).unwrap();
    let ours = std::fs::read_to_string(&path).unwrap();
    assert!(ours.starts_with(&format!("{} ", std::process::id())), "{ours}");
    drop(lock);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "nobody is taken for the holder");
}

#[test]
fn a_removed_lock_file_locks_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.lock");
    let first = LockFile::acquire(&path).unwrap();
    // Open before it is removed, locked after: what a start in the middle of a `down` does.
    let waiter = {
        let path = path.clone();
        std::thread::spawn(move || {
            LockFile::acquire_within(&path, std::time::Duration::from_secs(5)).unwrap()
        })
    };
    std::fs::remove_file(&path).unwrap();
    drop(first);
    let _held = waiter.join().unwrap();
    assert!(matches!(LockFile::acquire(&path), Err(LockError::Held { .. })), "one lock, one holder");
}

#[test]
fn lock_in_a_missing_directory_names_the_file() {
    match LockFile::acquire(Path::new("/nonexistent/adit.lock")) {
        Err(LockError::Failed(error)) => {
            assert!(
                error.to_string().starts_with("cannot use the lock file /nonexistent/adit.lock: "),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn end_asks_first() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = child.id().cast_signed();
    end(pid, PATIENCE).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    end(pid, PATIENCE).unwrap();
    for pid in [0, -1] {
        assert!(end(pid, PATIENCE).is_err(), "that is a group of processes");
    }
}

#[test]
fn end_insists() {
    // What is ignored stays so across exec; a child of the shell would outlive it.
    let script = "trap '' TERM; echo ready; exec sleep 1000";
    let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    await_ready(&mut child);
    end(child.id().cast_signed(), Duration::from_millis(20)).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn descriptor_reaches_the_child() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("echo hello >&{}", writer.as_raw_fd())]);
    pass_descriptor(&mut command, writer.as_raw_fd());
    let mut child = command.spawn().unwrap();
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "hello\n");
}

#[test]
fn child_does_not_outlive_its_parent() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // The thread that starts it is its parent in this.
    let mut child = std::thread::spawn(move || {
        let mut command = Command::new("sleep");
        command.arg("1000").stdout(writer);
        end_with_parent(&mut command);
        command.spawn().unwrap()
    })
    .join()
    .unwrap();
    // Ends when the last writer is gone.
    reader.read_to_string(&mut String::new()).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn signals_are_read() {
    // In this thread alone: the others of a test program still get them, so they are raised here.
    let signals = Signals::block(&[Signal::Terminate, Signal::Hangup]).unwrap();
    assert_eq!(signals.next(Some(Duration::from_millis(1))).unwrap(), None);
    for (number, signal) in [(libc::SIGTERM, Signal::Terminate), (libc::SIGHUP, Signal::Hangup)] {
        let number = nix::sys::signal::Signal::try_from(number).unwrap();
        nix::sys::signal::raise(number).unwrap();
        assert_eq!(signals.next(Some(PATIENCE)).unwrap(), Some(signal));
    }
    assert_eq!(signals.next(Some(Duration::ZERO)).unwrap(), None);
}
