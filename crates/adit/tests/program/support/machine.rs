//! A machine of the test's own: a mount namespace in which `/run`, `/var/lib` and the BPF file
//! system are empty, and whatever network namespaces the test makes. Nothing of it is visible
//! outside, and it is gone with the test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use adit_linux::netns::NetNs;
use adit_linux::process::{LockFile, end_with_parent};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ADIT, Said};

/// Nothing that is waited for takes nearly so long, on a machine that builds something meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Where the program is on every machine: ordinary users may not be able to walk to where cargo
/// put it.
pub(crate) const PROGRAM: &str = "/run/adit-under-test";

/// See the module.
#[derive(Clone)]
pub(crate) struct Machine(Arc<File>);

impl Machine {
    pub(crate) fn new() -> Self {
        let mounts = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            let program = File::open(ADIT).unwrap();
            for place in ["/run", "/var/lib"] {
                tmpfs(Path::new(place));
            }
            let pins = Path::new("/sys/fs/bpf");
            if pins.is_dir() {
                mount(Some("bpf"), pins, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
            }
            fs::create_dir("/run/netns").unwrap();
            fs::write(PROGRAM, "").unwrap();
            bind(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&program)), PROGRAM);
            File::open("/proc/thread-self/ns/mnt").unwrap()
        });
        Self(Arc::new(mounts.join().unwrap_or_else(|panic| resume_unwind(panic))))
    }

    /// Does something on this machine, in one of its network namespaces.
    pub(crate) fn within<T: Send>(&self, ns: &NetNs, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter(ns);
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Does something that has to do with files only.
    pub(crate) fn with_files<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.within(&NetNs::current().unwrap(), work)
    }

    /// For good: only for threads of this module.
    fn enter(&self, ns: &NetNs) {
        // A thread that shares its root and working directory cannot change its mount namespace.
        unshare(CloneFlags::CLONE_FS).unwrap();
        setns(&*self.0, CloneFlags::CLONE_NEWNS).unwrap();
        ns.enter().unwrap();
    }

    /// Gives a network namespace a name, as `ip netns` does.
    pub(crate) fn name(&self, ns: &NetNs, name: &str) {
        let path = format!("/run/netns/{name}");
        self.within(ns, || {
            fs::write(&path, "").unwrap();
            bind("/proc/thread-self/ns/net", &path);
        });
    }

    /// Takes the name away, as `ip netns delete` does.
    pub(crate) fn unname(&self, name: &str) {
        let path = format!("/run/netns/{name}");
        self.with_files(|| {
            umount2(path.as_str(), MntFlags::MNT_DETACH).unwrap();
            fs::remove_file(&path).unwrap();
        });
    }

    /// Takes the BPF file system away.
    pub(crate) fn without_bpffs(&self) {
        // There may be one below it.
        self.with_files(|| while umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).is_ok() {});
    }

    /// Mounts a file system again with other options.
    pub(crate) fn remount(&self, place: &str, options: &str) {
        let here = NetNs::current().unwrap();
        self.run(&here, Command::new("mount").args(["-o", options, place])).ok();
    }

    /// Takes the device nodes in `/dev/net` away.
    pub(crate) fn without_net_devices(&self) {
        self.with_files(|| tmpfs(Path::new("/dev/net")));
    }

    /// Runs `adit` to its end. It must not wait for anything but what it does.
    pub(crate) fn adit(&self, ns: &NetNs, arguments: &[&str]) -> Said {
        self.run(ns, &mut command(arguments))
    }

    /// Runs any command to its end.
    pub(crate) fn run(&self, ns: &NetNs, command: &mut Command) -> Said {
        self.within(ns, || command.stdin(Stdio::null()).output().unwrap().into())
    }

    /// Starts `adit`.
    pub(crate) fn start(&self, ns: &NetNs, arguments: &[&str]) -> Running {
        Running::start(self, ns, command(arguments))
    }

    /// Starts any command.
    pub(crate) fn start_command(&self, ns: &NetNs, command: Command) -> Running {
        Running::start(self, ns, command)
    }

    /// The process that holds this lock in `/run/adit`: the daemon of an overlay for its name, and
    /// its supervisor for `NAME.supervisor`.
    pub(crate) fn holder(&self, lock: &str) -> Option<Pid> {
        let path = format!("/run/adit/{lock}.lock");
        self.with_files(|| LockFile::holder(Path::new(&path))).map(Pid::from_raw)
    }

    /// Every file in the places of the contract, by its path.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.with_files(|| {
            let mut found = Vec::new();
            let mut left = vec![PathBuf::from("/run/adit"), PathBuf::from("/var/lib/adit")];
            while let Some(directory) = left.pop() {
                for entry in fs::read_dir(directory).into_iter().flatten() {
                    let entry = entry.unwrap();
                    if entry.file_type().unwrap().is_dir() {
                        left.push(entry.path());
                    }
                    found.push(entry.path());
                }
            }
            found.sort();
            found
        })
    }

    /// From here on, whatever is written below these directories of the root is written to a layer
    /// of the machine's own, which this returns: for each the same path below it.
    pub(crate) fn layer(&self, directories: &[&str]) -> PathBuf {
        let layers = Path::new("/run/layers");
        self.with_files(|| {
            fs::create_dir(layers).unwrap();
            // Layers may not be on a layer, which the root of a container is.
            tmpfs(layers);
            for directory in directories {
                let name = directory.trim_start_matches('/');
                let (upper, work) = (layers.join("upper").join(name), layers.join("work").join(name));
                fs::create_dir_all(&upper).unwrap();
                fs::create_dir_all(&work).unwrap();
                let options =
                    format!("lowerdir={directory},upperdir={},workdir={}", upper.display(), work.display());
                let none = MsFlags::empty();
                mount(Some("overlay"), *directory, Some("overlay"), none, Some(options.as_str())).unwrap();
            }
        });
        layers.join("upper")
    }

    /// Ends whatever `adit up` left in the background: its daemon is nobody's child here.
    fn end_daemons(&self) {
        self.with_files(|| {
            let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt"));
            let ours = namespace("thread-self").unwrap();
            let locks = fs::read_dir("/run/adit").into_iter().flatten().flatten();
            let locks =
                locks.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "lock"));
            for lock in locks.filter_map(|path| fs::read_to_string(path).ok()) {
                let Some(pid) = lock.split_whitespace().next() else { continue };
                // What a dead one wrote stays, and its number may be another's by now.
                if namespace(pid).is_ok_and(|theirs| theirs == ours) {
                    let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
                }
            }
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The last of its clones.
        if Arc::strong_count(&self.0) == 1 {
            self.end_daemons();
        }
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    command
}

fn tmpfs(place: &Path) {
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).unwrap();
}

fn bind(from: &str, to: &str) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// A process that runs, and is killed when this is dropped, and when the test is.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    /// Kept for its end: the kernel kills the child when the thread that started it ends.
    _starter: Sender<()>,
}

impl Running {
    fn start(machine: &Machine, ns: &NetNs, mut command: Command) -> Self {
        let (machine, ns) = (machine.clone(), ns.clone());
        let (started, child) = mpsc::sync_channel(1);
        let (starter, held) = mpsc::channel::<()>();
        thread::spawn(move || {
            machine.enter(&ns);
            drop((machine, ns));
            end_with_parent(&mut command);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            started.send(command.spawn().unwrap()).unwrap();
            let _ = held.recv();
        });
        let mut child: Child = child.recv().unwrap();
        let (line, lines) = mpsc::channel();
        forward(child.stdout.take().unwrap(), line.clone());
        forward(child.stderr.take().unwrap(), line);
        Self { child, lines, said: Vec::new(), _starter: starter }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        fs::read_link(format!("/proc/{}/exe", self.pid())).is_ok()
    }

    /// Waits for a line that begins so, on either output, and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, beginning: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.starts_with(beginning) {
                        return line;
                    }
                }
                Err(error) => panic!("{error} waiting for `{beginning}`; it said {:#?}", self.said),
            }
        }
    }

    /// Whether a line that begins so comes before its end.
    #[track_caller]
    pub(crate) fn comes_to(&mut self, beginning: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let is_it = line.starts_with(beginning);
                    self.said.push(line);
                    if is_it {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("it neither ends nor says `{beginning}`: {:#?}", self.said)
                }
            }
        }
    }

    /// The one process that it has started.
    pub(crate) fn child(&self) -> Option<Pid> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).ok()?;
        Some(Pid::from_raw(children.split_whitespace().next()?.parse().ok()?))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for its end; returns how it ended, and all it said.
    #[track_caller]
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                // Both outputs are closed, as the kernel does when a process ends.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it said {:#?}", self.said),
            }
        }
        (self.child.wait().unwrap(), self.said.join("\n"))
    }

    /// Sends a signal that it ends by itself after, well.
    #[track_caller]
    pub(crate) fn end(self, signal: Signal) {
        self.signal(signal);
        let (status, said) = self.wait();
        assert!(status.success(), "{status}: {said}");
    }

    /// Gives it no chance.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.signal(Signal::SIGKILL);
        let (status, said) = self.wait();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}: {said}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(from: impl Read + Send + 'static, to: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
}
