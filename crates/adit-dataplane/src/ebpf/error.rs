//! Errors of the eBPF data plane. Their text includes all causes, so they have no sources.

use std::path::PathBuf;

use aya::EbpfError as LoadError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::tc::TcError;

/// Why programs cannot be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The kernel refuses BPF, or this use of it.
    #[error("cannot load the programs: {}", chain(.0))]
    Load(Box<LoadError>),
    /// The kernel's verifier refuses a program.
    #[error("the kernel refuses the program {name}: {}", refusal(.cause))]
    Program {
        /// Which.
        name: &'static str,
        /// What it said.
        cause: Box<ProgramError>,
    },
    /// A map cannot be filled or read.
    #[error("cannot use the map {name}: {}", chain(.cause))]
    Map {
        /// Which.
        name: &'static str,
        /// What the kernel said.
        cause: Box<MapError>,
    },
    /// The committed object does not match this program.
    #[error("the object has no {0}: it was not built from these sources; `cargo xtask bpf` builds it")]
    Missing(&'static str),
    /// The peers have changed so often that the programs must be loaded anew.
    #[error("the generations of the programs' prefixes are used up: the programs must be loaded anew")]
    GenerationsUsedUp,
    /// A program cannot be attached to an interface.
    #[error("cannot attach {name} to {device}: {}", chain(.cause))]
    Attach {
        /// Which.
        name: &'static str,
        /// To what.
        device: String,
        /// What the kernel said.
        cause: Box<ProgramError>,
    },
    /// The qdisc that holds programs without TCX cannot be added.
    #[error("cannot add the clsact qdisc to {device}: {}", chain(.cause))]
    Qdisc {
        /// To what.
        device: String,
        /// What the kernel said.
        cause: Box<TcError>,
    },
    /// A program or map cannot be pinned.
    #[error("cannot pin to {}: {}", path.display(), chain(.cause))]
    Pin {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        cause: Box<PinError>,
    },
    /// An operation on a file failed.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another system call failed.
    #[error(transparent)]
    Linux(#[from] adit_linux::error::Error),
}

/// The text of an error and its causes, each once: libraries put the kernel's own words last.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// Beginnings of the statistics at the end of a verifier log.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// The last lines of the verifier's log, which have the reason. Thousands of lines come before
/// them.
fn refusal(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let said: Vec<&str> = log
            .lines()
            .filter(|line| !line.trim().is_empty() && !STATISTICS.iter().any(|word| line.starts_with(word)))
            .collect();
        let last = said.iter().rev().take(2).rev().copied().collect::<Vec<_>>().join("; ");
        return if last.is_empty() { io_error.to_string() } else { format!("{io_error} ({last})") };
    }
    chain(error)
}
