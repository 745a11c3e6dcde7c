//! A subcommand of xtask that runs beside other steps. Its output is kept, so that it does not mix
//! with theirs, and printed when it is waited for.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running subcommand. It is killed if this value is dropped before it ends, and when xtask ends.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    /// The output of the child. It has no name, so nothing has to remove it.
    output: File,
}

impl Background {
    /// Starts a subcommand of xtask.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub(crate) fn start(subcommand: &str) -> Result<Self, String> {
        let xtask = std::env::current_exe();
        let program = xtask.map_err(|error| format!("cannot find xtask itself: {error}"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).arg(subcommand);
        Self::spawn(command).map_err(|error| format!("cannot start xtask {subcommand}: {error}"))
    }

    fn spawn(mut command: Command) -> io::Result<Self> {
        let output = nameless_file()?;
        let copy = || output.as_fd().try_clone_to_owned().map(Stdio::from);
        let child = command.stdin(Stdio::null()).stdout(copy()?).stderr(copy()?).spawn()?;
        Ok(Self { child, output })
    }

    /// Waits until the subcommand ends, and prints its output.
    ///
    /// # Errors
    /// Fails if it does not succeed.
    pub(crate) fn finish(self) -> Result<(), String> {
        self.finish_to(&mut io::stdout())
    }

    fn finish_to(mut self, to: &mut impl io::Write) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot wait for a step in the background: {error}");
        let status = self.child.wait().map_err(failed)?;
        self.output.rewind().map_err(failed)?;
        io::copy(&mut self.output, to).map_err(failed)?;
        if status.success() { Ok(()) } else { Err(format!("failed ({status}), as its output above says")) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail after `finish`, when there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nameless_file() -> io::Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("adit-xtask-output-{}-{number}", std::process::id()));
    let file = File::options().read(true).append(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Background {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Background::spawn(command).unwrap()
    }

    #[test]
    fn output_and_failure_are_known_at_the_end() {
        let mut said = Vec::new();
        shell("echo one; echo two >&2").finish_to(&mut said).unwrap();
        assert_eq!(said, b"one\ntwo\n");
        let error = shell("exit 3").finish_to(&mut said).unwrap_err();
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_step_that_nobody_waits_for_is_ended() {
        let running = shell("exec sleep 1000");
        let process = std::path::PathBuf::from(format!("/proc/{}", running.child.id()));
        assert!(process.exists());
        drop(running);
        assert!(!process.exists());
    }
}
