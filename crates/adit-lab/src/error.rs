//! Why a lab could not be built.

use adit_control::ControlError;

/// Why a lab could not be built or measured.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system call refused.
    #[error(transparent)]
    Linux(#[from] adit_linux::error::Error),
    /// An overlay could not be brought up.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Something of the standard library's.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A host that should have an interface has none.
    #[error("{host} has no interface `{device}`")]
    NoInterface {
        /// The host.
        host: String,
        /// The interface.
        device: String,
    },
}

impl LabError {
    /// Maps an I/O error to [`LabError::Io`]; `what` is the action that failed, as in "read FILE".
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
