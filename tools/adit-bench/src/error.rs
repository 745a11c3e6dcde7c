//! Why something could not be started or measured.

use std::time::Duration;

use adit_lab::LabError;

/// Why something could not be started or measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Linux(#[from] adit_linux::error::Error),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("`{program}` is not installed; {remedy}")]
    Missing { program: String, remedy: &'static str },
    #[error("{name} failed ({status}): {said}")]
    Failed { name: String, status: String, said: String },
    #[error("{name} did not {what} within {} s; it said: {said}", patience.as_secs())]
    Silent { name: String, what: String, patience: Duration, said: String },
    #[error(transparent)]
    Control(#[from] adit_control::ControlError),
    #[error("the {asked} data plane was asked for, and {found} runs ({why})")]
    OtherPlane { asked: &'static str, found: String, why: String },
    #[error("the programs in the kernel left {percent:.0} % of the load to the userspace plane behind them")]
    Declined { percent: f64 },
    #[error("this kernel has no {what} driver")]
    NoDriver { what: &'static str },
    #[error("the report of iperf3 lacks {what}")]
    Iperf { what: &'static str },
    #[error("the private network is reached without the tunnel: what would be measured is the bare underlay")]
    Bypassed,
    #[error("network namespaces and other tunnels in them need CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root")]
    NotRoot,
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
