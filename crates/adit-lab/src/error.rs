//! Errors of test networks.

use adit_control::ControlError;

/// Why a test network could not be built or measured.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system call failed.
    #[error(transparent)]
    Linux(#[from] adit_linux::error::Error),
    /// An overlay could not be brought up.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Input or output failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// The action that failed, as in "read FILE".
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed on {host}: {said}")]
    Program {
        /// The program and its arguments.
        command: String,
        /// The host's name.
        host: String,
        /// Its standard error.
        said: String,
    },
    /// A host lacks an interface.
    #[error("{host} has no interface `{device}`")]
    NoInterface {
        /// The host's name.
        host: String,
        /// The interface's name.
        device: String,
    },
}

impl LabError {
    /// Maps an I/O error to [`LabError::Io`].
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
