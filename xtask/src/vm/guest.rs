//! A run of the guest: starts QEMU, forwards the guest's output, and finds out how it ended.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::initramfs;
use super::job::Job;
use super::kernel::{Kernel, Version, clear};

/// How many lines of the console are shown when the guest dies.
const MAX_CONSOLE_LINES: usize = 30;

/// Words in the console by which the kernel reports a fault of its own.
const KERNEL_FAULTS: &[&str] = &["BUG:", "WARNING:", "Oops", "Kernel panic", "general protection fault"];

/// The processor. Emulation makes these features expensive: with ERMS and FSRM the kernel copies
/// and clears memory by `rep movsb`, which is one emulated access per byte; with SMAP each copy
/// from and to user space ends a block of translated code; AVX is slower than SSE2; LA57 adds a
/// level to each walk of the page tables. Without them, and with [`COMMAND_LINE`], the kernel loads
/// eBPF programs and starts processes in about half the time.
const CPU: &str = "max,-erms,-fsrm,-smap,-avx,-avx2,-la57";

/// The kernel's command line.
///
/// Linux cannot know that QEMU's time stamp counter is a reliable clock. Reading any other clock
/// stops all of QEMU, so threads that read the clock while they wait, as Adit's packet threads do,
/// would starve the rest. Nobody attacks this kernel, so it needs no mitigations.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 tsc=reliable panic=-1 oops=panic mitigations=off \
                            init_on_alloc=0 hardened_usercopy=off";

/// The guest's directory on this machine. Only one guest at a time uses it.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Where cargo builds.
    target: PathBuf,
    /// `vm` in `target`.
    directory: PathBuf,
    version: Version,
    /// Locked for as long as this value exists.
    _lock: fs::File,
}

impl Guest {
    /// Locks the guest's directory in `target`, where cargo builds. Waits while another xtask holds
    /// the lock.
    ///
    /// # Errors
    /// Fails if the directory cannot be made or locked.
    pub(crate) fn lock(target: PathBuf, version: Version) -> Result<Self, String> {
        let directory = target.join("vm");
        let failed = |error: io::Error| format!("cannot use {} for the guest: {error}", directory.display());
        fs::create_dir_all(&directory).map_err(failed)?;
        let lock = fs::File::create(directory.join("lock")).map_err(failed)?;
        if lock.try_lock().is_err() {
            eprintln!("xtask: another guest is running; waiting until it ends");
            lock.lock().map_err(failed)?;
        }
        Ok(Self { target, directory, version, _lock: lock })
    }

    /// Boots a guest, runs the job in it, and returns the exit code of the job's command. Forwards
    /// the command's stdout and stderr unchanged.
    ///
    /// # Errors
    /// Fails if the guest cannot be made, exceeds the job's timeout, or dies before its command
    /// ends.
    pub(crate) fn run(&self, job: &Job) -> Result<u8, String> {
        let kernel = Kernel::in_directory(&self.directory, self.version)?;
        let initramfs = initramfs::build(&self.directory, &kernel, job)?;
        let out = self.out();
        clear(&out)?;
        for file in [self.console(), self.status()] {
            // An earlier run's file must not be taken for this run's.
            let _ = fs::remove_file(file);
        }
        fs::create_dir_all(&out).map_err(|error| format!("cannot make {}: {error}", out.display()))?;
        let has_ended = self.boot(&kernel, &initramfs, job.timeout)?;
        let status = fs::read_to_string(self.status()).unwrap_or_default();
        if let Some(code) = exit_code(&status) {
            self.print_kernel_fault();
            return Ok(code);
        }
        let how = if has_ended {
            "the guest died before the command ended".to_owned()
        } else {
            format!("the guest did not end within {} s, and was killed", job.timeout.as_secs())
        };
        self.print_kernel_fault();
        Err(format!(
            "{how}; the last lines of its console ({}):\n{}",
            self.console().display(),
            self.last_lines()
        ))
    }

    /// The directory that the guest sees as `/out`. Each run starts with an empty one.
    pub(crate) fn out(&self) -> PathBuf {
        self.directory.join("out")
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The path of a file in the guest's directory. The guest reads it under the same path.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    fn status(&self) -> PathBuf {
        self.directory.join("status")
    }

    /// Runs QEMU until it ends or the timeout expires. Returns true if it ended by itself.
    fn boot(&self, kernel: &Kernel, initramfs: &Path, timeout: Duration) -> Result<bool, String> {
        let failed = |error: io::Error| format!("cannot run qemu-system-x86_64: {error}");
        let (stdout, guests_stdout) = UnixStream::pair().map_err(failed)?;
        let (stderr, guests_stderr) = UnixStream::pair().map_err(failed)?;
        // QEMU ends with xtask, however xtask ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        command.args(self.machine(kernel, initramfs));
        // A child inherits only its three standard descriptors. QEMU reads no input, so
        // descriptor 0 carries the guest's stderr; descriptor 2 is for QEMU's own errors.
        command.stdin(Stdio::from(OwnedFd::from(guests_stderr)));
        command.stdout(Stdio::from(OwnedFd::from(guests_stdout)));
        let mut qemu = command.spawn().map_err(failed)?;
        // This closes our copies of QEMU's sockets. Open copies would hide that QEMU has ended.
        drop(command);

        let (ended, ends) = mpsc::channel();
        let pipes = [
            thread::spawn({
                let ended = ended.clone();
                move || forward(stdout, io::stdout(), &ended)
            }),
            thread::spawn(move || forward(stderr, io::stderr(), &ended)),
        ];
        // Nothing is sent. The channel closes when both threads have read to the end.
        let has_ended = ends.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected);
        end(&mut qemu, has_ended).map_err(failed)?;
        for pipe in pipes {
            let _ = pipe.join();
        }
        Ok(has_ended)
    }

    /// QEMU's arguments.
    fn machine(&self, kernel: &Kernel, initramfs: &Path) -> Vec<String> {
        // A comma separates QEMU's options. In a value it is doubled.
        let option = |path: &Path| path.to_string_lossy().replace(',', ",,");
        let mut arguments: Vec<String> = [
            "-nodefaults -display none -no-reboot -net none -accel tcg,thread=multi -smp 2 -m 2048",
            "-device virtio-rng-pci -device virtio-serial-pci",
            "-chardev socket,id=stdout,fd=1 -device virtserialport,chardev=stdout,name=stdout",
            "-chardev socket,id=stderr,fd=0 -device virtserialport,chardev=stderr,name=stderr",
            "-device virtserialport,chardev=status,name=status -serial chardev:console",
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        .map(str::to_owned)
        .collect();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("-chardev", format!("file,id=status,path={}", option(&self.status())));
        add("-chardev", format!("file,id=console,path={}", option(&self.console())));
        // This machine's file systems may use the same inode numbers. `remap` keeps them distinct
        // in the guest's single one.
        let readable = "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap";
        add("-virtfs", readable.to_owned());
        let writable = format!("local,path={},mount_tag=out,security_model=none", option(&self.out()));
        add("-virtfs", writable);
        add("-kernel", kernel.image.to_string_lossy().into_owned());
        add("-initrd", initramfs.to_string_lossy().into_owned());
        add("-append", COMMAND_LINE.to_owned());
        add("-cpu", CPU.to_owned());
        arguments
    }

    /// Prints the kernel's first fault report, if there is one. A kernel that only warned keeps
    /// running, but Adit may have caused the warning.
    fn print_kernel_fault(&self) {
        let console = self.read_console();
        let fault = console.lines().find(|line| KERNEL_FAULTS.iter().any(|word| line.contains(word)));
        if let Some(fault) = fault {
            eprintln!(
                "xtask: the guest's kernel reported a fault: {fault}\n(see {})",
                self.console().display()
            );
        }
    }

    fn last_lines(&self) -> String {
        let console = self.read_console();
        let lines: Vec<&str> = console.lines().collect();
        lines.get(lines.len().saturating_sub(MAX_CONSOLE_LINES)..).unwrap_or_default().join("\n")
    }

    fn read_console(&self) -> String {
        let bytes = fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

/// Copies bytes as they arrive, until QEMU ends. Dropping `ended` signals that.
fn forward(mut from: UnixStream, mut to: impl Write, ended: &mpsc::Sender<()>) {
    let _ = ended;
    let mut buffer = [0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..length) else { return };
        // A closed stdout, as in `xtask … | head`, must not end the command.
        let _ = to.write_all(bytes).and_then(|()| to.flush());
    }
}

/// Waits for QEMU, and kills it first if it still runs.
fn end(qemu: &mut Child, has_ended: bool) -> io::Result<()> {
    if !has_ended {
        qemu.kill()?;
    }
    qemu.wait().map(drop)
}

/// The exit code that the guest wrote to its status channel when its command ended.
fn exit_code(status: &str) -> Option<u8> {
    // A guest that dies may leave a part of the line.
    status.strip_suffix('\n')?.strip_prefix("exit ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_read_only_from_a_whole_line() {
        assert_eq!(exit_code("exit 0\n"), Some(0));
        assert_eq!(exit_code("exit 124\n"), Some(124));
        for invalid in ["", "exit 1", "exit\n", "exit 256\n", "exit x\n", "0\n", "exit 1\nexit 2\n"] {
            assert_eq!(exit_code(invalid), None, "{invalid:?}");
        }
    }
}
