//! The errors of this crate. Each text says what was expected, what was found and what to do.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use adit_tunnel::TunnelError;
use ipnet::IpNet;

/// The reason why an overlay could not be brought up, changed, asked or taken down.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A system call failed.
    #[error(transparent)]
    Linux(#[from] adit_linux::error::Error),
    /// The eBPF data plane could not be used.
    #[error(transparent)]
    Ebpf(#[from] adit_dataplane::ebpf::EbpfError),
    /// The tunnel refused the configuration.
    #[error("the tunnel cannot be built from this configuration: {0}")]
    Tunnel(#[from] TunnelError),
    /// No interface has the address of `site.underlay`.
    #[error(
        "site.underlay is {address}, which is no address of this machine (it has {found}); \
         assign it to the interface that faces the public network, or correct the file"
    )]
    UnderlayMissing {
        /// The value in the file.
        address: IpAddr,
        /// The addresses of the machine.
        found: String,
    },
    /// The address of `site.underlay` may be another host's.
    #[error(
        "site.underlay is {address}, which is tentative: duplicate address detection has not ended, or has found another \
         host with it; `ip -6 address` shows which"
    )]
    UnderlayTentative {
        /// The value in the file.
        address: IpAddr,
    },
    /// The interface of `site.underlay` does not exist, or has no usable address.
    #[error(
        "site.underlay is {interface}, {why} (the machine's addresses: {found}); give it an address, or correct the file"
    )]
    NoUnderlayAddress {
        /// The value in the file.
        interface: String,
        /// What is missing; it follows the name in the text.
        why: String,
        /// The addresses of the machine.
        found: String,
    },
    /// There is no network namespace with the name of `site.netns`.
    #[error(
        "site.netns is {name}, and there is no network namespace of that name; `ip netns add {name}` makes it, \
         `ip netns list` shows the existing ones"
    )]
    NoNetns {
        /// The value in the file.
        name: String,
    },
    /// There is no VRF with the name of `site.vrf`.
    #[error(
        "site.vrf is {name}, and {why}; `ip link add {name} type vrf table NUMBER` and `ip link set {name} up` make it"
    )]
    NoVrf {
        /// The value in the file.
        name: String,
        /// What is wrong; it follows the name in the text.
        why: &'static str,
    },
    /// The interface with our underlay address is in a VRF.
    #[error(
        "the underlay address {address} is on {interface}, which is in the VRF {vrf}: this version cannot send from \
         there; take the interface out of the VRF, and let the inside have one instead (site.vrf)"
    )]
    UnderlayInVrf {
        /// The underlay address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
        /// The VRF of the interface.
        vrf: String,
    },
    /// The data plane cannot do something else that the file asks for.
    #[error("site.dataplane is \"{plane}\", {why}; use \"auto\" or \"userspace\"")]
    PlaneCannot {
        /// The data plane.
        plane: &'static str,
        /// What it cannot do; it follows the name in the text.
        why: &'static str,
    },
    /// The address of the underlay's interface conflicts with a peer.
    #[error(transparent)]
    Underlay(#[from] adit_config::Conflict),
    /// A change of peers does not apply to the peers that run.
    #[error(transparent)]
    Peers(#[from] adit_config::DeltaError),
    /// An interface of somebody else has the name of the tunnel interface.
    #[error(
        "an interface `{device}` exists and is not Adit's ({what}); choose another site.device, or remove it"
    )]
    ForeignDevice {
        /// Its name.
        device: String,
        /// Its alias or kind.
        what: String,
    },
    /// An interface of another overlay has the name of the tunnel interface.
    #[error(
        "an interface `{device}` exists and belongs to overlay `{overlay}` on this machine: choose another site.device, \
         or run `adit down {overlay}` first if that is this site's former name"
    )]
    DeviceOfOverlay {
        /// Its name.
        device: String,
        /// The overlay that has it.
        overlay: String,
    },
    /// Somebody else has a route to a peer's network.
    #[error(
        "a route to {network} exists and is not Adit's ({what}); it is left as it is: remove it, or take {network} \
         out of peer `{peer}`"
    )]
    ForeignRoute {
        /// Its destination.
        network: IpNet,
        /// The peer with that network.
        peer: String,
        /// Its device, gateway and protocol.
        what: String,
    },
    /// Another interface of Linux's tunnel drivers has the same endpoints.
    #[error(
        "an interface of {kind} from {local} to {remote} exists ({device}, {what}), and Linux has only one for each \
         pair of addresses: remove it, use another underlay address, or use dataplane = \"ebpf\" or \"userspace\" here"
    )]
    PairTaken {
        /// Its driver.
        kind: &'static str,
        /// Our address on the underlay.
        local: IpAddr,
        /// The peer's.
        remote: String,
        /// The interface that is there.
        device: String,
        /// Whose it is.
        what: String,
    },
    /// Another overlay has a route to a peer's network.
    #[error(
        "{network} belongs to {overlay} on this machine ({what}), and a network is reached through one tunnel: take \
         {network} out of peer `{peer}`, or out of that overlay's file"
    )]
    RouteOfOverlay {
        /// Its destination.
        network: IpNet,
        /// The peer with that network.
        peer: String,
        /// The overlay that has it.
        overlay: String,
        /// Its device, gateway and protocol.
        what: String,
    },
    /// The guard routes of two overlays would have the same metric.
    #[error(
        "the guard routes of overlay `{site}` would have the same metric as those of overlay `{other}` on this \
         machine, because the metric is made from the name, and neither could tell its own: choose another site.name"
    )]
    SharedGuardMetric {
        /// The site.
        site: String,
        /// The overlay that is there.
        other: String,
    },
    /// The tunnel interface exists and is of another kind.
    #[error(
        "an interface `{device}` of this overlay exists and is of kind `{kind}`: another data plane has \
         left it, and it cannot be replaced without an interruption; run `adit down {site}` first"
    )]
    OtherKind {
        /// Its name.
        device: String,
        /// Its kind.
        kind: String,
        /// The site.
        site: String,
    },
    /// The change leads from the kernel data plane to another, or from another to it.
    #[error(
        "site.dataplane cannot change between \"kernel\" and the others while overlay `{site}` runs, \
         because an interface of another kind cannot replace the tunnel interface in place; run \
         `adit down {site}`, then `adit up` with the new file, which interrupts the tunnel"
    )]
    OtherPlane {
        /// The site.
        site: String,
    },
    /// The kernel lacks one of its tunnel drivers.
    #[error(
        "site.dataplane is \"kernel\", but this kernel has no {driver} driver ({error}): asking for such an \
         interface did not load its module, and {modprobe}; install the module (Debian has it in \
         linux-image-*), or use dataplane = \"ebpf\" or \"userspace\", which need none"
    )]
    NoDriver {
        /// The driver.
        driver: &'static str,
        /// The error of the kernel.
        error: adit_linux::error::Error,
        /// What came of `modprobe`.
        modprobe: String,
    },
    /// The file to be applied has mistakes. Nothing has changed.
    #[error("{problems}\n{file} has mistakes, and nothing was changed")]
    Mistakes {
        /// The file.
        file: String,
        /// All of them, each with its place.
        problems: String,
    },
    /// The daemon refused a request; the text is its own.
    #[error("{0}")]
    Refused(String),
    /// A key cannot change while the overlay runs.
    #[error(
        "{key} is `{old}` in the overlay that runs and `{new}` in the file; it cannot change in place: \
         run `adit down {site}`, then `adit up` with the new file"
    )]
    NotInPlace {
        /// The site that runs.
        site: String,
        /// The key.
        key: &'static str,
        /// The value that runs.
        old: String,
        /// The value in the file.
        new: String,
    },
    /// A daemon gave up at its start what its file did not ask for.
    #[error(
        "site.dataplane is \"{asked}\" in the file, and the daemon that runs lacks the capabilities for \
         it: at its start it gave up what its file did not ask for; restart it with this file \
         (`systemctl restart adit@{name}`, or `adit down {name}` and `adit up`)"
    )]
    GivenUp {
        /// The data plane that the file asks for.
        asked: &'static str,
        /// The site's name.
        name: String,
    },
    /// Another daemon serves the overlay.
    #[error(
        "overlay `{name}` is already running (process {pid}{elsewhere}); `adit apply` changes it, `adit down {name}` \
         ends it"
    )]
    AlreadyRunning {
        /// The site's name.
        name: String,
        /// The process that holds its lock.
        pid: i32,
        /// In which network namespace, if that is another one; it follows the process in the text.
        elsewhere: String,
    },
    /// The process that started the daemon has ended too early.
    #[error("overlay `{name}` was taken down while its daemon started (process {pid} has ended)")]
    Unsupervised {
        /// The site's name.
        name: String,
        /// The supervisor.
        pid: i32,
    },
    /// No daemon answers.
    #[error("overlay `{name}` is not running (nothing answers on {}); `adit up FILE` starts it", socket.display())]
    NotRunning {
        /// The site's name.
        name: String,
        /// The socket that was tried.
        socket: PathBuf,
    },
    /// A file of ours could not be read or written.
    #[error("cannot {what} {}: {source}{hint}", path.display())]
    File {
        /// The attempt; it follows "cannot" in the text.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: std::io::Error,
        /// What to do, or nothing; it ends the text.
        hint: &'static str,
    },
    /// The address of `site.metrics` cannot be listened on.
    #[error(
        "cannot listen on {address} for site.metrics: {source}; give it an address of this machine and a port \
         that nothing else has, or leave it out{}",
        of_a_low_port(source)
    )]
    Metrics {
        /// The value in the file.
        address: SocketAddr,
        /// The error of the kernel.
        source: std::io::Error,
    },
    /// The daemon's answer could not be understood.
    #[error("{} gave no answer that can be understood: {detail}", socket.display())]
    BadAnswer {
        /// The socket of the daemon.
        socket: PathBuf,
        /// What is wrong with the answer.
        detail: String,
    },
}

/// What a daemon gives up when it starts with another file.
fn of_a_low_port(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "; a port below 1024 has to be in the file when the daemon is started, as root"
        }
        _ => "",
    }
}

impl ControlError {
    /// Returns what is missing if it may appear by itself while a machine starts, so that another
    /// attempt makes sense.
    #[must_use]
    pub fn retry_reason(&self) -> Option<&'static str> {
        match self {
            Self::UnderlayMissing { .. }
            | Self::UnderlayTentative { .. }
            | Self::NoUnderlayAddress { .. } => Some("the underlay address"),
            Self::NoNetns { .. } => Some("the network namespace"),
            Self::NoVrf { .. } => Some("the VRF"),
            _ => None,
        }
    }

    /// Returns the error of an interface that disappeared while it was set up.
    pub(crate) fn vanished(device: &str) -> Self {
        let what = "it vanished while it was being set up".to_owned();
        Self::ForeignDevice { device: device.to_owned(), what }
    }

    /// Returns the error of a file that a running daemon could not read.
    pub(crate) fn unreadable(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let hint = match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "; a daemon that runs has given up root's right to pass over permissions: let root own the file and the \
                 directories above it, or others read them"
            }
            _ => "",
        };
        Self::File { what: "read", path: path.into(), source, hint }
    }

    /// Returns the error of a configuration that a running daemon could not read.
    pub(crate) fn not_read(path: &std::path::Path, error: adit_config::LoadError) -> Self {
        match error {
            adit_config::LoadError::Read { path, source } => Self::unreadable(path, source),
            other => Self::Mistakes { file: path.display().to_string(), problems: other.to_string() },
        }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let hint = match source.kind() {
            std::io::ErrorKind::PermissionDenied => "; run as root",
            _ => "",
        };
        Self::File { what, path: path.into(), source, hint }
    }
}
