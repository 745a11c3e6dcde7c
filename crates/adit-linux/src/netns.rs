//! Network namespaces: entering them on threads of their own, so that no thread that the caller
//! knows ever changes its namespace; and a user namespace for those who are not root.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use crate::error::{Error, Result};
use crate::process::{Capability, has_capability};

/// Where `ip netns` keeps the namespaces it names.
const NAMED: &str = "/run/netns";
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A network namespace, held: it lives as long as one of these, a thread in it or a socket of it.
/// Cloning shares the descriptor.
#[derive(Clone, Debug)]
pub struct NetNs(Arc<OwnedFd>);

impl NetNs {
    /// That of the calling thread.
    ///
    /// # Errors
    /// No `/proc`.
    pub fn current() -> Result<Self> {
        let file =
            File::open(CURRENT).map_err(|error| Error::new(format!("cannot open {CURRENT}"), error))?;
        Ok(Self(Arc::new(file.into())))
    }

    /// One that `ip netns add` named.
    ///
    /// # Errors
    /// There is none of that name, or we may not open it.
    pub fn named(name: &str) -> Result<Self> {
        let what = || format!("cannot open the network namespace `{name}`");
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(Error::from_errno(what(), libc::EINVAL)
                .with_hint("a name as `ip netns list` shows it is expected"));
        }
        let file = File::open(Path::new(NAMED).join(name)).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let error = Error::new(what(), error);
            if missing { error.with_hint("`ip netns list` shows those there are") } else { error }
        })?;
        Ok(Self(Arc::new(file.into())))
    }

    /// That of another process's first thread.
    ///
    /// # Errors
    /// There is no such process, or it is not ours to look at.
    pub fn of_process(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let file = File::open(&path).map_err(|error| Error::new(format!("cannot open {path}"), error))?;
        Ok(Self(Arc::new(file.into())))
    }

    /// A new one, empty but for a loopback interface that is down. Costs a thread that ends at once.
    ///
    /// # Errors
    /// No CAP_SYS_ADMIN in the user namespace, or too many namespaces.
    pub fn fresh() -> Result<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                let error = Error::new("cannot make a network namespace", errno.into());
                match errno {
                    nix::Error::EPERM => {
                        error.with_hint("CAP_SYS_ADMIN is needed: run as root, or in a user namespace")
                    }
                    nix::Error::ENOSPC => error.with_hint("raise /proc/sys/user/max_net_namespaces"),
                    nix::Error::EINVAL => error.with_hint("a kernel with CONFIG_NET_NS is needed"),
                    _ => error,
                }
            })?;
            Self::current()
        });
        made.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Moves the calling thread, and the threads it starts from now on, for good.
    ///
    /// # Errors
    /// No CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<()> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
            let error = Error::new("cannot enter a network namespace", errno.into());
            if errno == nix::Error::EPERM {
                error.with_hint("CAP_SYS_ADMIN is needed: run as root")
            } else {
                error
            }
        })
    }

    /// Runs `work` in this namespace, on a thread of its own that ends with it. Sockets that it
    /// opens stay in the namespace and can be returned. A panic in `work` is passed on.
    ///
    /// # Errors
    /// Entering failed, as for [`Self::enter`]; `work` did not run then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.enter().map(|()| work()));
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread called `name` in this namespace and returns when it has entered.
    ///
    /// # Errors
    /// Entering failed, or no thread could be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let netns = self.clone();
        let (told, entered) = mpsc::sync_channel(1);
        let failed = |error| Error::new(format!("cannot start the thread `{name}`"), error);
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = netns.enter();
                let is_inside = result.is_ok();
                // The receiver waits below; it cannot be gone.
                let _ = told.send(result);
                if !is_inside {
                    // Ends the thread without a value and without a message; nobody joins it.
                    resume_unwind(Box::new("the network namespace could not be entered"));
                }
                work()
            })
            .map_err(failed)?;
        match entered.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(mpsc::RecvError) => return Err(failed(io::Error::other("it ended before it began"))),
        }
        Ok(handle)
    }

    /// Whether both are the same namespace.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        matches!((identity(self.as_fd()), identity(other.as_fd())), (Some(ours), Some(theirs)) if ours == theirs)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The name that `ip netns` gave to the calling thread's namespace, if it has one.
#[must_use]
pub fn name_of_current() -> Option<String> {
    let ours = fs::metadata(CURRENT).ok()?;
    fs::read_dir(NAMED).ok()?.flatten().find_map(|entry| {
        let theirs = fs::metadata(entry.path()).ok()?;
        let is_ours = (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino());
        is_ours.then(|| entry.file_name().into_string().ok()).flatten()
    })
}

/// Device and inode number, by which the kernel identifies a namespace.
fn identity(namespace: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let stat = nix::sys::stat::fstat(namespace).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Whether this thread may make network namespaces and configure them: CAP_NET_ADMIN, CAP_NET_RAW
/// and CAP_SYS_ADMIN, all in effect in the user namespace it is in.
#[must_use]
pub fn is_privileged() -> bool {
    [Capability::NetAdmin, Capability::NetRaw, Capability::SysAdmin].into_iter().all(has_capability)
}

/// Makes the process root in a user namespace of its own, in which it may make network namespaces
/// and configure them; outside it stays who it is. There is no way back. Only a process with one
/// thread can: call this first of all.
///
/// # Errors
/// The system does not let ordinary users do it, or the process has several threads; the hint
/// says which, and what switches it on.
pub fn enter_user_namespace() -> Result<()> {
    // As seen from outside; inside, until the maps are written, we are nobody.
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(user_namespace_error)?;
    // Without this, a group of ours could be dropped that denies us something (CVE-2014-8989).
    write_own("setgroups", "deny")?;
    write_own("uid_map", &format!("0 {user} 1"))?;
    write_own("gid_map", &format!("0 {group} 1"))
}

fn write_own(file: &str, content: &str) -> Result<()> {
    let path = format!("/proc/self/{file}");
    fs::write(&path, content).map_err(|error| {
        let is_refused = error.kind() == io::ErrorKind::PermissionDenied;
        let error = Error::new(format!("cannot write `{content}` to {path}"), error);
        match is_refused.then(switched_off).flatten() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    })
}

fn user_namespace_error(errno: nix::Error) -> Error {
    let error = Error::new("cannot make a user namespace", errno.into());
    match errno {
        nix::Error::EINVAL => {
            let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
            if threads > 1 {
                error.with_hint(format!("the process has {threads} threads, and may have one only"))
            } else {
                error.with_hint("a kernel with CONFIG_USER_NS is needed, or run as root")
            }
        }
        nix::Error::EPERM | nix::Error::EACCES => error.with_hint(switched_off().unwrap_or(
            "the system denies it to ordinary users (in a container: its seccomp profile): run as root",
        )),
        nix::Error::ENOSPC | nix::Error::EUSERS => error.with_hint(switched_off().unwrap_or(
            "too many user namespaces, or too deeply nested: raise /proc/sys/user/max_user_namespaces",
        )),
        _ => error,
    }
}

/// What keeps ordinary users from user namespaces on this system, and how to change it.
fn switched_off() -> Option<&'static str> {
    let is = |knob: &str, value: &str| crate::sysctl::read(knob).is_ok_and(|found| found == value);
    if is("user/max_user_namespaces", "0") {
        return Some(
            "user namespaces are switched off: `sysctl user.max_user_namespaces=15000` switches them on, or run as root",
        );
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return Some(
            "ordinary users may not make user namespaces: `sysctl kernel.unprivileged_userns_clone=1` lets them, or run as root",
        );
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some(
            "AppArmor denies rights in user namespaces: `sysctl kernel.apparmor_restrict_unprivileged_userns=0` lets ordinary users, or run as root",
        );
    }
    None
}
