//! The command line's definition. The parser, the help texts, the manual page and the shell
//! completions are all generated from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Shown below the list of commands.
const EXAMPLES: &str = "\
Examples:
  adit lab                           Try it out: two sites in namespaces, tested and removed
  adit check /etc/adit/a.toml        Report every mistake in a configuration
  adit up /etc/adit/a.toml           Start an overlay
  adit status                        Show what runs
  adit apply --confirm 60 a.toml     Change it; roll back unless confirmed within 60 s
  adit drops                         Show why packets were dropped";

/// Shown below [`EXAMPLES`] by `--help`, not by `-h`.
const EXIT_CODES_AND_FILES: &str = "\
Exit codes:
  0   done
  1   failed; the reason is on stderr
  2   `plan` only: something would change
  64  wrong usage

Files:
  /etc/adit/NAME.toml    configuration that the systemd unit adit@NAME runs
  /run/adit/NAME.sock    the daemon's API: HTTP and JSON, root only
  /run/adit/NAME.log     what a daemon started by `adit up` logs
  /var/lib/adit/NAME/    state kept across restarts
  /sys/fs/bpf/adit/NAME/ eBPF programs and maps, which forward while no daemon runs";

/// Join private networks over a public one with IP in IP (RFC 2003)
///
/// Adit carries private IP packets between sites inside public IP packets (protocols 4 and 41).
/// It does not encrypt them. One file describes a site and its peers; one daemon keeps the
/// tunnel as the file says.
#[derive(Debug, Parser)]
#[command(name = "adit", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES_AND_FILES}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print JSON instead of text.
    #[arg(short, long, global = true)]
    pub(crate) json: bool,

    /// Act in this network namespace (a name of `ip netns`) instead of the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) netns: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build two sites in network namespaces, join them, test the tunnel, and remove it all
    ///
    /// No other program sees these namespaces. Needs root, or a system that allows user namespaces.
    Lab(LabArgs),

    /// Report every mistake in a configuration, with line and column
    Check {
        /// Configuration file.
        file: PathBuf,
        /// Look at this machine too: what would keep the overlay from starting, or traffic from
        /// passing.
        #[arg(long)]
        here: bool,
    },

    /// Show what a configuration would change on this machine, without changing it
    ///
    /// Exit code 0: nothing would change. 2: something would. 1: it cannot be applied; the reason
    /// is on stderr.
    Plan {
        /// Configuration file.
        file: PathBuf,
        /// Print equivalent `ip` and `nft` commands, for the kernel's own tunnel drivers.
        #[arg(long)]
        commands: bool,
    },

    /// Apply a configuration atomically: start the overlay, or update the running one
    ///
    /// Peers that do not change keep forwarding. If any step fails, the old configuration stays.
    Apply {
        /// Configuration file.
        file: PathBuf,
        /// Roll back unless `adit confirm` follows within this time, even if the daemon dies.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        confirm: Option<u64>,
    },

    /// Keep a change made by `adit apply --confirm`
    Confirm {
        /// Name of the site.
        name: String,
    },

    /// Let a running overlay read the file again that it was started with
    ///
    /// If the file cannot be read or applied, nothing changes, and `adit status` says so.
    Reload {
        /// Name of the site, or its configuration file.
        #[arg(value_name = "NAME|FILE")]
        overlay: String,
    },

    /// Roll an unconfirmed change back after the given time, if the daemon is dead by then.
    #[command(hide = true)]
    Guard {
        /// Configuration file that was applied.
        file: PathBuf,
    },

    /// Run an overlay in the foreground
    ///
    /// Prints `ready` on stderr once the tunnel forwards, and repairs what others change.
    /// SIGHUP reloads the file. SIGTERM ends the daemon and keeps the tunnel interface and its
    /// routes, so that packets for a peer never take another route; the eBPF programs keep
    /// forwarding. SIGINT (Ctrl-C) removes everything.
    Run {
        /// Configuration file.
        file: PathBuf,
        #[command(flatten)]
        options: RunArgs,
    },

    /// Start an overlay in the background, and return once it forwards
    Up {
        /// Configuration file.
        file: PathBuf,
    },

    /// Start the daemon in the foreground, and again whenever it ends by itself.
    #[command(hide = true)]
    Supervise {
        /// Name of the site.
        #[arg(long)]
        name: String,
        /// Descriptor to write `ready` and the daemon's process number to.
        #[arg(long)]
        ready_fd: i32,
    },

    /// Remove an overlay and all that it created, even if its daemon is dead
    Down {
        /// Name of the site, or its configuration file.
        overlay: String,
    },

    /// Show running overlays: data plane, peers, traffic, drops
    Status {
        /// Name of the site [default: all that run].
        name: Option<String>,
    },

    /// Show dropped packets: reason, count, RFC section, explanation
    ///
    /// Text lists the reasons that have occurred; JSON lists all of them.
    Drops {
        /// Name of the site [default: all that run].
        name: Option<String>,
    },

    /// Follow an overlay's events, one per line
    ///
    /// Events are: a peer goes up or down, a path MTU changes, a peer answers probes or stops, the
    /// underlay address moves, something was repaired. Past events are not shown. The command
    /// ends when the daemon ends.
    Events {
        /// Name of the site [default: the only one that runs].
        name: Option<String>,
    },

    /// Print a shell completion script
    Completions {
        /// Shell to complete for.
        shell: clap_complete::Shell,
    },

    /// Print the manual page in roff
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to do with the tunnel interface and its routes at the end, whatever the signal.
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_exit: Option<OnExit>,

    /// Wait for an underlay address, namespace or VRF that does not exist yet, as at boot.
    #[arg(long)]
    pub(crate) wait: bool,

    /// Descriptor to write `ready` to; `adit up` waits for it.
    #[arg(long, hide = true)]
    pub(crate) ready_fd: Option<i32>,

    /// File to log to instead of stderr.
    #[arg(long, hide = true)]
    pub(crate) log: Option<PathBuf>,

    /// Process that starts the daemon again if it ends by itself.
    #[arg(long, hide = true)]
    pub(crate) supervisor: Option<i32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnExit {
    /// Keep them for the next start.
    Keep,
    /// Remove them.
    Remove,
}

#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    /// Write what crosses the underlay to this file, as pcapng.
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,

    /// Skip the throughput measurement.
    #[arg(long)]
    pub(crate) no_throughput: bool,
}
