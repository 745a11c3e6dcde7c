//! What went wrong with a system call: what was attempted, what the kernel said, what to do.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// A system call that failed. Its text is complete in itself: attempt, the system's reason, the
/// kernel's own words where it gave any (netlink's extended acknowledgement), and what to do.
#[derive(Debug)]
pub struct Error {
    what: String,
    source: io::Error,
    kernel: Option<String>,
    hint: Option<Cow<'static, str>>,
}

/// What is done with this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `what` reads "cannot ...".
    #[must_use]
    pub fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source, kernel: None, hint: None }
    }

    /// With the calling thread's `errno`; to be called before anything else can change it.
    #[must_use]
    pub fn last_os(what: impl Into<String>) -> Self {
        Self::new(what, io::Error::last_os_error())
    }

    /// With an `errno` at hand.
    #[must_use]
    pub fn from_errno(what: impl Into<String>, errno: i32) -> Self {
        Self::new(what, io::Error::from_raw_os_error(errno))
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the kernel's own words.
    #[must_use]
    pub fn with_kernel_text(mut self, text: impl Into<String>) -> Self {
        self.kernel = Some(text.into());
        self
    }

    /// Adds "run as root" where the reason is a missing `capability` and nothing was said yet.
    #[must_use]
    pub(crate) fn needing(self, capability: &str) -> Self {
        if self.is_permission() && self.hint.is_none() {
            return self.with_hint(format!("{capability} is needed in this network namespace: run as root"));
        }
        self
    }

    /// The system's error number, where the reason is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether we lack a right (`EPERM`, `EACCES`).
    #[must_use]
    pub fn is_permission(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }

    /// Whether what was to be made is there already (`EEXIST`).
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// The system's reason.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// The kernel's own words, where it gave any.
    #[must_use]
    pub fn kernel_text(&self) -> Option<&str> {
        self.kernel.as_deref()
    }

    /// What to do about it, where something is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
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

// No `source`: the text above contains it, and a printed chain would say it twice.
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_attempt_reason_kernel_hint() {
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
    fn missing_right_is_explained_once() {
        let error = Error::from_errno("cannot set", libc::EPERM).needing("CAP_NET_ADMIN");
        assert_eq!(error.hint(), Some("CAP_NET_ADMIN is needed in this network namespace: run as root"));
        let kept = Error::from_errno("cannot set", libc::EPERM).with_hint("first").needing("CAP_NET_ADMIN");
        assert_eq!(kept.hint(), Some("first"));
        assert_eq!(Error::from_errno("cannot set", libc::EEXIST).needing("CAP_NET_ADMIN").hint(), None);
    }
}
