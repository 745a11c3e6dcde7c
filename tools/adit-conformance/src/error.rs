//! Errors of a run. A system that breaks a rule is an observation and not an error.

use adit_lab::LabError;

/// Why a run could not observe anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Linux(#[from] adit_linux::error::Error),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error(
        "this kernel has no ipip driver to compare with: `cargo xtask conformance` runs this in a guest that has one"
    )]
    NoDriver,
    #[error("network namespaces, tunnels and raw frames need CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root")]
    NotRoot,
    #[error(
        "{system}: nothing passes the tunnel, not even an ordinary datagram; expected one within {seconds} s"
    )]
    Dead { system: &'static str, seconds: u64 },
    #[error("{scenario} ({pair}): {source}")]
    Scenario { scenario: &'static str, pair: String, source: Box<Error> },
    #[error("no row is called `{0}`, or begins so; `--list` names them")]
    NoSuchRow(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
