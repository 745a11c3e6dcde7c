//! The error of a failed system call: what was attempted, what the kernel answered, what to do.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// A failed system call.
///
/// Its text needs no context: the attempt, the system's reason, the kernel's own message if there
/// is one (netlink's extended acknowledgement), and what to do about it.
#[derive(Debug)]
pub struct Error {
    what: String,
    source: io::Error,
    kernel: Option<String>,
    hint: Option<Cow<'static, str>>,
}

/// The result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns true if what was asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Makes an error from a system error. `what` reads "cannot ...".
    #[must_use]
    pub fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source, kernel: None, hint: None }
    }

    /// Makes an error from the calling thread's `errno`. Call it before anything else changes that.
    #[must_use]
    pub fn last_os(what: impl Into<String>) -> Self {
        Self::new(what, io::Error::last_os_error())
    }

    /// Makes an error from an `errno`.
    #[must_use]
    pub fn from_errno(what: impl Into<String>, errno: i32) -> Self {
        Self::new(what, io::Error::from_raw_os_error(errno))
    }

    /// Adds what the reader can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the kernel's own message.
    #[must_use]
    pub fn with_kernel_text(mut self, text: impl Into<String>) -> Self {
        self.kernel = Some(text.into());
        self
    }

    /// Adds the advice to run as root if `capability` is missing and there is no other advice.
    #[must_use]
    pub(crate) fn needing(self, capability: &str) -> Self {
        if self.is_permission() && self.hint.is_none() {
            return self.with_hint(format!("{capability} is needed in this network namespace: run as root"));
        }
        self
    }

    /// Returns the system's error number, if the reason is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Returns true if a right is missing (`EPERM`, `EACCES`).
    #[must_use]
    pub fn is_permission(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }

    /// Returns true if the reason is that there is no route.
    #[must_use]
    pub fn is_no_route(&self) -> bool {
        self.errno().is_some_and(is_no_route)
    }

    /// Returns the system's reason.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// Returns the kernel's own message, if it gave one.
    #[must_use]
    pub fn kernel_text(&self) -> Option<&str> {
        self.kernel.as_deref()
    }

    /// Returns what to do about it, if something is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Returns true for the errors by which the kernel says that it has no route to a destination, or
/// one that refuses it (`unreachable`, `prohibit`).
#[must_use]
pub const fn is_no_route(errno: i32) -> bool {
    matches!(errno, libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES)
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.what, self.source)?;
        if let Some(kernel) = &self.kernel {
            write!(formatter, ": {kernel}")?;
        }
        if let Some(hint) = &self.hint {
            write!(formatter, "; {hint}")?;
        }
        Ok(())
    }
}

// There is no `source`: the text contains it, and a printed chain would repeat it.
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_attempt_reason_kernel_message_and_hint() {
        let error = Error::from_errno("cannot open /dev/net/tun", libc::ENOENT);
        assert_eq!(error.to_string(), "cannot open /dev/net/tun: No such file or directory (os error 2)");
        let error = error.with_kernel_text("Nothing there").with_hint("load the driver");
        assert_eq!(
            error.to_string(),
            "cannot open /dev/net/tun: No such file or directory (os error 2): Nothing there; load the driver"
        );
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert!(!error.is_permission());
    }

    #[test]
    fn a_missing_capability_adds_a_hint_unless_there_is_one() {
        let error = Error::from_errno("cannot set", libc::EPERM).needing("CAP_NET_ADMIN");
        assert_eq!(error.hint(), Some("CAP_NET_ADMIN is needed in this network namespace: run as root"));
        let kept = Error::from_errno("cannot set", libc::EPERM).with_hint("first").needing("CAP_NET_ADMIN");
        assert_eq!(kept.hint(), Some("first"));
        assert_eq!(Error::from_errno("cannot set", libc::EEXIST).needing("CAP_NET_ADMIN").hint(), None);
    }
}
