//! Programs inside a host of the bench. They end with the bench, however it ends.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use adit_lab::host::Host;

use crate::error::BenchError;

/// How often a condition without a notification is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Bytes of a program's output that an error quotes.
const SAID: usize = 300;

/// A running program; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    started: Instant,
    out: PathBuf,
    err: PathBuf,
    /// The thread that started the child. The kernel kills the child when this thread ends, so
    /// nothing survives a `kill -9` of the bench. It ends when this is dropped.
    keeper: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Process {
    /// Starts a program inside a host's network namespace. Its output goes to files called `name`
    /// in `directory`.
    pub(crate) fn start(
        host: &Host,
        name: &str,
        mut command: Command,
        directory: &Path,
    ) -> Result<Self, BenchError> {
        let path = |extension: &str| directory.join(format!("{name}.{extension}"));
        let (out, err) = (path("out"), path("err"));
        let create =
            |path: &Path| File::create(path).map_err(BenchError::io(format!("write {}", path.display())));
        command
            .stdin(Stdio::null())
            .stdout(create(&out)?)
            .stderr(create(&err)?)
            .current_dir(directory)
            // The bench itself handles Ctrl-C.
            .process_group(0);
        adit_linux::process::end_with_parent(&mut command);
        let program = command.get_program().to_string_lossy().into_owned();
        let (tell, child) = mpsc::channel();
        let (keep, kept) = mpsc::channel::<()>();
        let started = Instant::now();
        let thread = host.ns().spawn("bench-keeper", move || {
            if tell.send(command.spawn()).is_ok() {
                // Nobody sends: this returns when the other end is dropped.
                let _ = kept.recv();
            }
        })?;
        let gone = |_| std::io::Error::other("the thread that starts it is gone");
        let child =
            child.recv().map_err(gone).flatten().map_err(BenchError::io(format!("start {program}")))?;
        Ok(Self { name: name.to_owned(), child, started, out, err, keeper: Some((keep, thread)) })
    }

    /// Its process number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How long ago it was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// All it wrote to its standard output.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// The end of its output, on one line.
    fn said(&self) -> String {
        let all = fs::read_to_string(&self.err).unwrap_or_default() + &self.output();
        said(&all)
    }

    /// Waits until `ready` returns something, while the program runs.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut() -> Result<Option<T>, BenchError>,
    ) -> Result<T, BenchError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            if let Some(status) = self.try_wait()? {
                return Err(self.failed(status));
            }
            if Instant::now() >= deadline {
                return Err(self.silent(what, patience));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until its output or error output contains `word`.
    pub(crate) fn wait_for_word(&mut self, word: &str, patience: Duration) -> Result<(), BenchError> {
        let files = [self.out.clone(), self.err.clone()];
        self.wait_for(&format!("say `{word}`"), patience, || {
            let has = |file| fs::read_to_string(file).is_ok_and(|text| text.contains(word));
            Ok(files.iter().any(has).then_some(()))
        })
    }

    /// Waits until it ends with success.
    pub(crate) fn wait_for_end(&mut self, patience: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failed(status)),
                None if Instant::now() >= deadline => return Err(self.silent("end", patience)),
                None => thread::sleep(POLL_INTERVAL),
            }
        }
    }

    /// Asks it to end and clean up, and kills it after a timeout.
    pub(crate) fn end(&mut self, patience: Duration) -> Result<(), BenchError> {
        if self.try_wait()?.is_none() {
            adit_linux::process::end(self.id().cast_signed(), patience)?;
        }
        Ok(())
    }

    /// Seconds of processor time it has used, in user and kernel mode.
    pub(crate) fn processor_seconds(&self) -> Option<f64> {
        /// `USER_HZ`, a constant of the interface on every architecture Linux has left.
        const TICKS: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        // The name, in parentheses, may contain anything; utime and stime are fields 14 and 15.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11).map(str::parse::<f64>);
        Some((fields.next()?.ok()? + fields.next()?.ok()?) / TICKS)
    }

    /// Bytes that it has read by read(2) and similar calls. A TUN device is read so, a socket is
    /// not.
    pub(crate) fn bytes_read(&self) -> Option<u64> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.id())).ok()?;
        io.lines().find_map(|line| line.strip_prefix("rchar:"))?.trim().parse().ok()
    }

    /// A field of `/proc/PID/status` that is in kB, such as `VmRSS`.
    pub(crate) fn memory_kib(&self, field: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, BenchError> {
        self.child.try_wait().map_err(BenchError::io(format!("wait for {}", self.name)))
    }

    fn failed(&self, status: ExitStatus) -> BenchError {
        BenchError::Failed { name: self.name.clone(), status: status.to_string(), said: self.said() }
    }

    pub(crate) fn silent(&self, what: &str, patience: Duration) -> BenchError {
        BenchError::Silent { name: self.name.clone(), what: what.to_owned(), patience, said: self.said() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some((keep, thread)) = self.keeper.take() {
            drop(keep);
            let _ = thread.join();
        }
    }
}

/// Finds a program in `PATH` or in the directories of administration programs.
pub(crate) fn find(program: &str, remedy: &'static str) -> Result<PathBuf, BenchError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| BenchError::Missing { program: program.to_owned(), remedy })
}

/// Runs a program to its end inside a host and returns what it wrote to its standard output.
pub(crate) fn output(host: &Host, mut command: Command) -> Result<String, BenchError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = host
        .ns()
        .run(|| command.stdin(Stdio::null()).output())?
        .map_err(BenchError::io(format!("start {name}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Err(BenchError::Failed { name, status: output.status.to_string(), said: said(&text) })
}

/// The first word with a digit in what a program says its version is.
pub(crate) fn version(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    first_version(&String::from_utf8_lossy(&output.stdout))
}

fn first_version(text: &str) -> Option<String> {
    let word =
        text.lines().next()?.split_whitespace().find(|word| word.contains(|c: char| c.is_ascii_digit()))?;
    let word = word.rsplit_once('-').map_or(word, |(_, version)| version);
    Some(word.trim_matches(|c: char| !c.is_ascii_digit()).to_owned())
}

fn said(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return "nothing".to_owned();
    }
    let start = line.char_indices().rev().take(SAID).last().map_or(0, |(at, _)| at);
    line[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, version) in [
            ("tinc version 1.0.36 (built Jan 16 2021 12:00:00, protocol 17)\nmore", "1.0.36"),
            ("fastd v22", "22"),
            ("OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)]", "2.6.14"),
            ("VpnCloud v2.3.0", "2.3.0"),
            ("ip utility, iproute2-6.1.0, libbpf 1.1.0", "6.1.0"),
            ("iperf 3.12 (cJSON 1.7.15)", "3.12"),
        ] {
            assert_eq!(first_version(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(first_version("no digits here"), None);
    }

    #[test]
    fn what_was_said_is_one_short_line() {
        assert_eq!(said(" \n"), "nothing");
        assert_eq!(said("one\n two\n"), "one two");
        let long = "ä".repeat(1000);
        assert_eq!(said(&long).chars().count(), SAID);
    }

    #[test]
    fn a_program_that_is_missing_is_told_with_its_remedy() {
        let error = find("no-such-program-anywhere", "install it").unwrap_err().to_string();
        assert_eq!(error, "`no-such-program-anywhere` is not installed; install it");
    }
}
