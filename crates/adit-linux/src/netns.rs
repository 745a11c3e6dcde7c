//! Network namespaces, and a user namespace for users who are not root.
//!
//! Code runs in another namespace on a thread of its own, so that no thread of the caller changes
//! its namespace.

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

/// The directory of the namespaces that `ip netns` has named.
const NAMED: &str = "/run/netns";
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A reference to a network namespace, which exists as long as a reference, a thread in it or a
/// socket in it. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct NetNs(Arc<OwnedFd>);

impl NetNs {
    /// Opens the calling thread's namespace.
    ///
    /// # Errors
    /// `/proc` is not mounted, or no descriptors are left.
    pub fn current() -> Result<Self> {
        let file =
            File::open(CURRENT).map_err(|error| Error::new(format!("cannot open {CURRENT}"), error))?;
        Ok(Self(Arc::new(file.into())))
    }

    /// Opens a namespace that `ip netns add` has named.
    ///
    /// # Errors
    /// There is none of that name, or it may not be opened.
    pub fn named(name: &str) -> Result<Self> {
        let what = || format!("cannot open the network namespace `{name}`");
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(
                Error::from_errno(what(), libc::EINVAL).with_hint("use a name that `ip netns list` shows")
            );
        }
        let file = File::open(Path::new(NAMED).join(name)).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let error = Error::new(what(), error);
            if missing { error.with_hint("`ip netns list` shows the existing ones") } else { error }
        })?;
        Ok(Self(Arc::new(file.into())))
    }

    /// Opens the namespace of another process's first thread.
    ///
    /// # Errors
    /// There is no such process, or this one may not inspect it.
    pub fn of_process(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let file = File::open(&path).map_err(|error| Error::new(format!("cannot open {path}"), error))?;
        Ok(Self(Arc::new(file.into())))
    }

    /// Creates a namespace. It has a loopback interface that is down, and nothing else. Costs a
    /// thread that ends at once.
    ///
    /// # Errors
    /// CAP_SYS_ADMIN is missing in the user namespace, or there are too many namespaces.
    pub fn fresh() -> Result<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                let error = Error::new("cannot create a network namespace", errno.into());
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

    /// Moves the calling thread into the namespace. Threads that it starts later are in it too.
    /// There is no way back.
    ///
    /// # Errors
    /// CAP_SYS_ADMIN is missing.
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

    /// Runs `work` in this namespace, on a thread that ends with it. Sockets that it opens stay in
    /// the namespace and can be returned. A panic in `work` continues in the caller.
    ///
    /// # Errors
    /// The namespace cannot be entered, as [`Self::enter`]; then `work` did not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().map(|()| work()));
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread with the name `name` in this namespace. Returns when it has entered.
    ///
    /// # Errors
    /// The namespace cannot be entered, or no thread can be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let netns = self.clone();
        let (sender, entered) = mpsc::sync_channel(1);
        let failed = |error| Error::new(format!("cannot start the thread `{name}`"), error);
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = netns.enter();
                let has_entered = result.is_ok();
                // The receiver waits below, so this cannot fail.
                let _ = sender.send(result);
                if !has_entered {
                    // Ends the thread without a value and without a message. Nothing joins it.
                    resume_unwind(Box::new("the network namespace could not be entered"));
                }
                work()
            })
            .map_err(failed)?;
        match entered.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(mpsc::RecvError) => return Err(failed(io::Error::other("it ended before it ran"))),
        }
        Ok(handle)
    }

    /// Returns true if both refer to the same namespace.
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

/// Returns the name that `ip netns` gave to the calling thread's namespace, if it has one.
#[must_use]
pub fn name_of_current() -> Option<String> {
    name_of(Path::new(CURRENT))
}

/// The name of the namespace that another process is in, if it has one. `None`: it is in ours, or
/// cannot be asked.
#[must_use]
pub fn of_other(pid: i32) -> Option<Option<String>> {
    let theirs = format!("/proc/{pid}/ns/net");
    let (there, here) = (fs::metadata(&theirs).ok()?, fs::metadata(CURRENT).ok()?);
    let is_other = (there.dev(), there.ino()) != (here.dev(), here.ino());
    is_other.then(|| name_of(Path::new(&theirs)))
}

fn name_of(namespace: &Path) -> Option<String> {
    let ours = fs::metadata(namespace).ok()?;
    fs::read_dir(NAMED).ok()?.flatten().find_map(|entry| {
        let theirs = fs::metadata(entry.path()).ok()?;
        let is_ours = (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino());
        is_ours.then(|| entry.file_name().into_string().ok()).flatten()
    })
}

/// Returns the device and inode numbers, which identify a namespace.
fn identity(namespace: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let stat = nix::sys::stat::fstat(namespace).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Returns true if this thread may create and configure network namespaces: CAP_NET_ADMIN,
/// CAP_NET_RAW and CAP_SYS_ADMIN are in effect in its user namespace.
#[must_use]
pub fn is_privileged() -> bool {
    [Capability::NetAdmin, Capability::NetRaw, Capability::SysAdmin].into_iter().all(has_capability)
}

/// Makes the process root in a user namespace of its own.
///
/// There it may create and configure network namespaces. Outside, its rights are unchanged. There
/// is no way back. The process must have one thread only: call this first of all.
///
/// # Errors
/// The system does not allow it to ordinary users, or the process has several threads. The hint
/// says which, and which setting allows it.
pub fn enter_user_namespace() -> Result<()> {
    // Read before: in the new namespace the process has no user until the maps are written.
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(user_namespace_error)?;
    // Otherwise the process could drop a group that denies it something (CVE-2014-8989).
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
    let error = Error::new("cannot create a user namespace", errno.into());
    match errno {
        nix::Error::EINVAL => {
            let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
            if threads > 1 {
                error.with_hint(format!("the process has {threads} threads; it may have one only"))
            } else {
                error.with_hint("a kernel with CONFIG_USER_NS is needed, or run as root")
            }
        }
        nix::Error::EPERM | nix::Error::EACCES => error.with_hint(switched_off().unwrap_or(
            "the system denies it to ordinary users (a container by its seccomp profile): run as root",
        )),
        nix::Error::ENOSPC | nix::Error::EUSERS => error.with_hint(switched_off().unwrap_or(
            "there are too many user namespaces, or they are nested too deeply: raise /proc/sys/user/max_user_namespaces",
        )),
        _ => error,
    }
}

/// Returns which setting denies user namespaces to ordinary users, and how to change it.
fn switched_off() -> Option<&'static str> {
    let is = |knob: &str, value: &str| crate::sysctl::read(knob).is_ok_and(|found| found == value);
    if is("user/max_user_namespaces", "0") {
        return Some(
            "user namespaces are switched off: `sysctl user.max_user_namespaces=15000` switches them on, or run as root",
        );
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return Some(
            "ordinary users may not create user namespaces: `sysctl kernel.unprivileged_userns_clone=1` allows it, or run as root",
        );
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some(
            "AppArmor denies rights in user namespaces: `sysctl kernel.apparmor_restrict_unprivileged_userns=0` allows them, or run as root",
        );
    }
    None
}
