//! Lock files, ending processes, and what a child inherits.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use adit_linux::process::{LockError, LockFile, end, end_with_parent, pass_descriptor};

const CHILD: &str = "ADIT_TEST_CHILD";
/// How long a test waits for another process.
const TIMEOUT: Duration = Duration::from_secs(5);

fn myself(test: &str, argument: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(CHILD, argument)
        .stdout(Stdio::piped());
    command
}

/// Reads the output of a child up to the line that ends in "ready". libtest prints its own text
/// before that on the same line.
fn await_ready(child: &mut std::process::Child) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the child ended before it was ready");
}

#[test]
fn a_lock_has_one_holder_and_names_it() {
    if let Some(path) = std::env::var_os(CHILD) {
        let _lock = LockFile::acquire(Path::new(&path)).unwrap();
        let _ = writeln!(std::io::stdout(), "ready");
        loop {
            std::thread::park();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    // A holder that was killed and whose number was reused, by this process.
    std::fs::write(&path, format!("{} 1\n", std::process::id())).unwrap();

    let mut child = myself("a_lock_has_one_holder_and_names_it", &path).spawn().unwrap();
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
    let lock = LockFile::acquire_within(&path, TIMEOUT).unwrap();
    let ours = std::fs::read_to_string(&path).unwrap();
    assert!(ours.starts_with(&format!("{} ", std::process::id())), "{ours}");
    drop(lock);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "a released lock names no holder");
}

#[test]
fn a_removed_lock_file_is_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.lock");
    let first = LockFile::acquire(&path).unwrap();
    // It opens the file before it is removed and locks it after, as a start during a `down` does.
    let waiter = {
        let path = path.clone();
        std::thread::spawn(move || LockFile::acquire_within(&path, TIMEOUT).unwrap())
    };
    std::fs::remove_file(&path).unwrap();
    drop(first);
    let _held = waiter.join().unwrap();
    assert!(matches!(LockFile::acquire(&path), Err(LockError::Held { .. })), "one lock, one holder");
}

#[test]
fn a_lock_error_names_the_file() {
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
fn a_process_ends_by_sigterm() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = child.id().cast_signed();
    end(pid, TIMEOUT).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    end(pid, TIMEOUT).unwrap();
    for pid in [0, -1] {
        assert!(end(pid, TIMEOUT).is_err(), "{pid} is a process group");
    }
}

#[test]
fn a_process_that_ignores_sigterm_is_killed() {
    // An ignored signal stays ignored across exec. A child of the shell would outlive it.
    let script = "trap '' TERM; echo ready; exec sleep 1000";
    let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    await_ready(&mut child);
    end(child.id().cast_signed(), Duration::from_millis(20)).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_passed_descriptor_reaches_the_child() {
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
fn a_child_does_not_outlive_the_thread_that_started_it() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = std::thread::spawn(move || {
        let mut command = Command::new("sleep");
        command.arg("1000").stdout(writer);
        end_with_parent(&mut command);
        command.spawn().unwrap()
    })
    .join()
    .unwrap();
    // The read ends when the last writer is gone.
    reader.read_to_string(&mut String::new()).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}
