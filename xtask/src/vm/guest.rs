//! One life of the guest: QEMU, what comes out of it, and how it ended.

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
use super::kernel::{Kernel, clear};

/// How much of the console is shown when the guest dies.
const LAST_LINES: usize = 30;

/// What the kernel says when it has caught itself doing wrong.
const COMPLAINTS: &[&str] = &["BUG:", "WARNING:", "Oops", "Kernel panic", "general protection fault"];

/// Where things are on this machine.
#[derive(Debug)]
pub(crate) struct Home {
    target: PathBuf,
    home: PathBuf,
    /// Held as long as we use the directory.
    _lock: fs::File,
}

impl Home {
    /// In `target`, cargo's directory, whose one guest at a time we become: another waits for us.
    ///
    /// # Errors
    /// The directory cannot be made or locked.
    pub(crate) fn lock(target: PathBuf) -> Result<Self, String> {
        let home = target.join("vm");
        let told = |error: io::Error| format!("cannot use {} for the guest: {error}", home.display());
        fs::create_dir_all(&home).map_err(told)?;
        let lock = fs::File::create(home.join("lock")).map_err(told)?;
        if lock.try_lock().is_err() {
            eprintln!("xtask: another guest runs; waiting for its end");
            lock.lock().map_err(told)?;
        }
        Ok(Self { target, home, _lock: lock })
    }

    /// Runs a job in a guest of its own. Its output is ours, byte for byte; gives back its exit
    /// code.
    ///
    /// # Errors
    /// The guest could not be made, took too long, or died before its command ended.
    pub(crate) fn run(&self, job: &Job) -> Result<u8, String> {
        let kernel = Kernel::in_directory(&self.home)?;
        let initramfs = initramfs::build(&self.home, &kernel, job)?;
        let out = self.out();
        clear(&out)?;
        for file in [self.console(), self.status()] {
            // A file of an earlier life says nothing about this one.
            let _ = fs::remove_file(file);
        }
        fs::create_dir_all(&out).map_err(|error| format!("cannot make {}: {error}", out.display()))?;
        let is_over = self.boot(&kernel, &initramfs, job.timeout)?;
        let status = fs::read_to_string(self.status()).unwrap_or_default();
        if let Some(code) = exit_code(&status) {
            self.tell_complaints();
            return Ok(code);
        }
        let how = if is_over {
            "the guest died before the command ended".to_owned()
        } else {
            format!("the guest did not end within {} s, and was killed", job.timeout.as_secs())
        };
        self.tell_complaints();
        Err(format!("{how}; the last of its console ({}):\n{}", self.console().display(), self.last_lines()))
    }

    /// What the guest sees as `/out`. Emptied at the start of each life.
    pub(crate) fn out(&self) -> PathBuf {
        self.home.join("out")
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// A file that the guest can read, by its name.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    fn console(&self) -> PathBuf {
        self.home.join("console.log")
    }

    fn status(&self) -> PathBuf {
        self.home.join("status")
    }

    /// Whether the guest ended by itself.
    fn boot(&self, kernel: &Kernel, initramfs: &Path, timeout: Duration) -> Result<bool, String> {
        let told = |error: io::Error| format!("cannot run qemu-system-x86_64: {error}");
        let (stdout, guests_stdout) = UnixStream::pair().map_err(told)?;
        let (stderr, guests_stderr) = UnixStream::pair().map_err(told)?;
        // Whatever ends us ends it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        command.args(self.machine(kernel, initramfs));
        // A child gets its standard descriptors and no other. QEMU reads nothing, so its standard
        // input is where the guest's stderr leaves; its standard error is its own.
        command.stdin(Stdio::from(OwnedFd::from(guests_stderr)));
        command.stdout(Stdio::from(OwnedFd::from(guests_stdout)));
        let mut qemu = command.spawn().map_err(told)?;
        // Our copies of QEMU's ends: with them open, its end would not be seen.
        drop(command);

        let (ended, ends) = mpsc::channel();
        let pipes = [
            thread::spawn({
                let ended = ended.clone();
                move || forward(stdout, io::stdout(), &ended)
            }),
            thread::spawn(move || forward(stderr, io::stderr(), &ended)),
        ];
        // Nobody sends: the channel is closed when both threads have met QEMU's end.
        let is_over = ends.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected);
        end(&mut qemu, is_over).map_err(told)?;
        for pipe in pipes {
            let _ = pipe.join();
        }
        Ok(is_over)
    }

    /// QEMU's arguments.
    fn machine(&self, kernel: &Kernel, initramfs: &Path) -> Vec<String> {
        // The one character that QEMU's options are separated by is doubled inside them.
        let option = |path: &Path| path.to_string_lossy().replace(',', ",,");
        let mut arguments: Vec<String> = [
            "-nodefaults -display none -no-reboot -net none -accel tcg,thread=multi -cpu max -smp 2 -m 2048",
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
        // Inode numbers of this machine's several file systems must not meet in the guest's one.
        let readable = "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap";
        add("-virtfs", readable.to_owned());
        let writable = format!("local,path={},mount_tag=out,security_model=none", option(&self.out()));
        add("-virtfs", writable);
        add("-kernel", kernel.image.to_string_lossy().into_owned());
        add("-initrd", initramfs.to_string_lossy().into_owned());
        // Linux cannot know that QEMU's time stamp counter is a good clock, and reading another
        // stops all of QEMU: who looks at the clock while waiting, as Adit's packet threads do,
        // then starves the rest.
        add("-append", "console=ttyS0 loglevel=5 tsc=reliable panic=-1 oops=panic".to_owned());
        arguments
    }

    /// A kernel that warned and lived on is told of too: it may be Adit that made it.
    fn tell_complaints(&self) {
        let console = self.read_console();
        let complaint = console.lines().find(|line| COMPLAINTS.iter().any(|word| line.contains(word)));
        if let Some(complaint) = complaint {
            eprintln!("xtask: the guest's kernel said: {complaint}\n(more in {})", self.console().display());
        }
    }

    fn last_lines(&self) -> String {
        let console = self.read_console();
        let lines: Vec<&str> = console.lines().collect();
        lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
    }

    fn read_console(&self) -> String {
        let bytes = fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

/// Copies what comes until QEMU's end, as it comes. `ended` is only dropped.
fn forward(mut from: UnixStream, mut to: impl Write, ended: &mpsc::Sender<()>) {
    let _ = ended;
    let mut buffer = [0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..length) else { return };
        // Who does not want to read on does not end the command.
        let _ = to.write_all(bytes).and_then(|()| to.flush());
    }
}

fn end(qemu: &mut Child, is_over: bool) -> io::Result<()> {
    if !is_over {
        qemu.kill()?;
    }
    qemu.wait().map(drop)
}

/// What the guest wrote to its channel for nothing but this, once its command had ended.
fn exit_code(status: &str) -> Option<u8> {
    // Half a line is no answer.
    status.strip_suffix('\n')?.strip_prefix("exit ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_whole_line() {
        assert_eq!(exit_code("exit 0\n"), Some(0));
        assert_eq!(exit_code("exit 124\n"), Some(124));
        for not_one in ["", "exit 1", "exit\n", "exit 256\n", "exit x\n", "0\n", "exit 1\nexit 2\n"] {
            assert_eq!(exit_code(not_one), None, "{not_one:?}");
        }
    }
}
