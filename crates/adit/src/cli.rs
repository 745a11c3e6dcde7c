//! The command line, defined once: the parser, the help, the man pages and the completions all
//! come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Joins private networks through a network that only routes public addresses, by IP in IP
/// (RFC 2003, protocol 4). What it carries is not encrypted.
#[derive(Debug, Parser)]
#[command(name = "adit", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print JSON instead of text.
    #[arg(short, long, global = true)]
    pub(crate) json: bool,

    /// Act in this network namespace (as `ip netns` names it) instead of the present one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) netns: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build two private networks, join them, prove that it works, and leave nothing behind.
    ///
    /// Everything happens in network namespaces that no other program sees. Runs as root, and as
    /// an ordinary user where the system allows user namespaces and opens /dev/net/tun to all.
    Lab(LabArgs),

    /// Say what is wrong with a configuration, each mistake at its line and column.
    Check {
        /// The configuration.
        file: PathBuf,
    },

    /// Say what a configuration would change on this machine, and change nothing.
    ///
    /// Exit code 0: nothing would change; 2: something would; 1: it cannot be done, and why.
    Plan {
        /// The configuration.
        file: PathBuf,
        /// Show the `ip` commands that it is equal to, with the kernel's own tunnel driver.
        #[arg(long)]
        commands: bool,
    },

    /// Make it so: start the overlay, or change the one that runs, all of it or nothing.
    ///
    /// What does not change goes on forwarding.
    Apply {
        /// The configuration.
        file: PathBuf,
        /// Take it all back unless `adit confirm` comes within so many seconds.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        confirm: Option<u64>,
    },

    /// Keep what `adit apply --confirm` has changed.
    Confirm {
        /// The site's name.
        name: String,
    },

    /// Waits for the time to be up of a change that nobody confirms, should the daemon be dead by then.
    #[command(hide = true)]
    Guard {
        /// The configuration that was applied.
        file: PathBuf,
        /// How long.
        seconds: u64,
    },

    /// Bring an overlay up and keep it up, in the foreground.
    ///
    /// Says `ready` on stderr once a packet sent now goes through, and puts right what others change. SIGHUP has it
    /// read the file again. SIGTERM ends it and leaves the
    /// device and its routes, so that nothing meant for a peer takes another way until the next
    /// start, and with the eBPF data plane the programs, which go on forwarding; SIGINT (Ctrl-C)
    /// removes all of it.
    Run {
        /// The configuration.
        file: PathBuf,
        #[command(flatten)]
        options: RunArgs,
    },

    /// The same in the background; returns once it is ready.
    Up {
        /// The configuration.
        file: PathBuf,
    },

    /// Remove all that an overlay made, whether or not its daemon lives.
    Down {
        /// The site's name, or its configuration file.
        overlay: String,
    },

    /// Show running overlays: site, data plane and why, a line a peer, drops by reason.
    Status {
        /// The site's name; all that run if left out.
        name: Option<String>,
    },

    /// Show what was dropped: the reason, how often, the section of the RFC, and why.
    ///
    /// Text has only what has occurred; JSON has every reason.
    Drops {
        /// The site's name; all that run if left out.
        name: Option<String>,
    },

    /// Follow what happens to an overlay, a line each.
    ///
    /// Peers that come up or go down and why, path MTUs that change and who told, probes that are answered or not any
    /// more, what had to be repaired. Begins with what happens next, and ends with the daemon.
    Events {
        /// The site's name; may be left out where one runs.
        name: Option<String>,
    },

    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },

    /// Print the manual page, in roff.
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to do with the device and its routes at the end, whichever signal ends it.
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_exit: Option<OnExit>,

    /// Wait for the underlay address instead of failing where it is not there yet, as at boot.
    #[arg(long)]
    pub(crate) wait: bool,

    /// A descriptor to write `ready` to; how `adit up` waits.
    #[arg(long, hide = true)]
    pub(crate) ready_fd: Option<i32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnExit {
    /// Leave them for the next start.
    Keep,
    /// Remove them.
    Remove,
}

#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    /// Keep what crosses the underlay, as pcapng.
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,

    /// Leave out the throughput measurement.
    #[arg(long)]
    pub(crate) no_throughput: bool,
}
