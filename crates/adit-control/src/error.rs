//! What can go wrong, in words that say what was expected, what was found and what to do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use adit_tunnel::TunnelError;
use ipnet::Ipv4Net;

/// Why an overlay could not be brought up, asked or taken down.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A system call refused.
    #[error(transparent)]
    Linux(#[from] adit_linux::error::Error),
    /// The programs in the kernel.
    #[error(transparent)]
    Ebpf(#[from] adit_dataplane::ebpf::EbpfError),
    /// The tunnel's own checks refused the configuration.
    #[error("the tunnel cannot be built from this configuration: {0}")]
    Tunnel(#[from] TunnelError),
    /// `site.underlay` is on no interface.
    #[error(
        "site.underlay is {address}, which is no address of this machine (it has {found}); \
         assign it to the interface that faces the public network, or correct the file"
    )]
    UnderlayMissing {
        /// What the file says.
        address: Ipv4Addr,
        /// What the machine has, for the reader.
        found: String,
    },
    /// The interface that `site.underlay` names is not there, or has no address.
    #[error(
        "site.underlay is {interface}, {why} (the machine's addresses: {found}); give it an address, or correct the file"
    )]
    NoUnderlayAddress {
        /// What the file says.
        interface: String,
        /// What is missing, as it goes on after its name.
        why: String,
        /// What the machine has, for the reader.
        found: String,
    },
    /// There is no network namespace of the name in `site.netns`.
    #[error(
        "site.netns is {name}, and there is no network namespace of that name; `ip netns add {name}` makes it, \
         `ip netns list` shows those there are"
    )]
    NoNetns {
        /// What the file says.
        name: String,
    },
    /// There is no VRF of the name in `site.vrf`.
    #[error(
        "site.vrf is {name}, and {why}; `ip link add {name} type vrf table NUMBER` and `ip link set {name} up` make it"
    )]
    NoVrf {
        /// What the file says.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The underlay's interface is in a VRF.
    #[error(
        "the underlay address {address} is on {interface}, which is in the VRF {vrf}: this version cannot send from \
         there; take the interface out of the VRF, and let the inside have one instead (site.vrf)"
    )]
    UnderlayInVrf {
        /// Ours.
        address: Ipv4Addr,
        /// Who has it.
        interface: String,
        /// Where that is.
        vrf: String,
    },
    /// A data plane that cannot do what else the file asks for.
    #[error("site.dataplane is \"{plane}\", {why}; use \"auto\" or \"userspace\"")]
    PlaneCannot {
        /// Which.
        plane: &'static str,
        /// What it cannot.
        why: &'static str,
    },
    /// What the interface has cannot be ours.
    #[error(transparent)]
    Underlay(#[from] adit_config::Conflict),
    /// A change of peers does not apply to the peers that run.
    #[error(transparent)]
    Peers(#[from] adit_config::DeltaError),
    /// The device's name is taken by something that is not ours.
    #[error(
        "an interface `{device}` exists and is not Adit's ({what}); choose another site.device, or remove it"
    )]
    ForeignDevice {
        /// Its name.
        device: String,
        /// What it is.
        what: String,
    },
    /// Somebody else's route stands where ours would go.
    #[error(
        "a route to {network} exists and is not Adit's ({what}); it is left as it is: remove it, or take {network} \
         out of peer `{peer}`"
    )]
    ForeignRoute {
        /// Where it leads.
        network: Ipv4Net,
        /// The peer that wants it.
        peer: String,
        /// Its device, gateway and protocol.
        what: String,
    },
    /// The device is ours, but of another data plane.
    #[error(
        "an interface `{device}` of this overlay exists and is of kind `{kind}`, which another data plane has left; \
         one cannot take the other's place while packets flow: `adit down {site}` first, which interrupts the tunnel"
    )]
    OtherKind {
        /// Its name.
        device: String,
        /// What it is.
        kind: String,
        /// The site.
        site: String,
    },
    /// Linux's own driver carries the packets, and is not to, or the other way round.
    #[error(
        "site.dataplane cannot change between \"kernel\" and the others while overlay `{site}` runs: an interface of \
         another kind cannot take the other's place while packets flow; `adit down {site}`, then `adit up` with the \
         new file, which interrupts the tunnel for that long"
    )]
    OtherPlane {
        /// The site.
        site: String,
    },
    /// Linux's own driver is missing.
    #[error(
        "site.dataplane is \"kernel\", but this kernel has no ipip driver ({error}): it was asked for an interface of \
         that kind, which loads the module where there is one, and {modprobe}; install the module (Debian has it in \
         linux-image-*), or use dataplane = \"ebpf\" or \"userspace\", which need none"
    )]
    NoDriver {
        /// What the kernel said.
        error: adit_linux::error::Error,
        /// What came of loading it by hand.
        modprobe: String,
    },
    /// A file with mistakes was to be applied; nothing has changed.
    #[error("{problems}\n{file} has mistakes, and nothing was changed")]
    Mistakes {
        /// Which.
        file: String,
        /// Each, at its place.
        problems: String,
    },
    /// The daemon refused.
    #[error("{0}")]
    Refused(String),
    /// Something that cannot change while the overlay runs.
    #[error(
        "{key} is `{old}` in the overlay that runs and `{new}` in the file; it cannot change in place: `adit down {old}`, \
         then `adit up` with the new file"
    )]
    NotInPlace {
        /// What.
        key: &'static str,
        /// As it runs.
        old: String,
        /// As the file has it.
        new: String,
    },
    /// A daemon gave up at its start what its file did not ask for.
    #[error(
        "site.dataplane is \"{asked}\" in the file, for which the daemon that runs has no rights any more: it gave up at its \
         start what its file did not ask for; start it anew with this file (`systemctl restart adit@{name}`, or end it and \
         `adit up`)"
    )]
    GivenUp {
        /// The data plane that the file asks for.
        asked: &'static str,
        /// The site's name.
        name: String,
    },
    /// Another daemon serves the overlay.
    #[error(
        "overlay `{name}` is already running (process {pid}); `adit apply` changes it, `adit down {name}` ends it"
    )]
    AlreadyRunning {
        /// The site's name.
        name: String,
        /// Who holds its lock.
        pid: i32,
    },
    /// No daemon answers.
    #[error("overlay `{name}` is not running (nothing answers on {}); `adit up FILE` starts it", socket.display())]
    NotRunning {
        /// The site's name.
        name: String,
        /// Where it would answer.
        socket: PathBuf,
    },
    /// A file of ours could not be read or written.
    #[error("cannot {what} {}: {source}{hint}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
        /// What to do, if it is known.
        hint: &'static str,
    },
    /// Nobody can listen on `site.metrics`.
    #[error(
        "cannot listen on {address} for site.metrics: {source}; give it an address of this machine and a port \
         that nothing else has, or leave it out{}",
        of_a_low_port(source)
    )]
    Metrics {
        /// What the file says.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The daemon's answer was not understood.
    #[error("{} gave no answer that can be understood: {detail}", socket.display())]
    BadAnswer {
        /// Who answered.
        socket: PathBuf,
        /// What was wrong with it.
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
    /// What is to be waited for, if it is about something that comes by itself while a machine starts.
    #[must_use]
    pub fn retry_reason(&self) -> Option<&'static str> {
        match self {
            Self::UnderlayMissing { .. } | Self::NoUnderlayAddress { .. } => Some("the underlay address"),
            Self::NoNetns { .. } => Some("the network namespace"),
            Self::NoVrf { .. } => Some("the VRF"),
            _ => None,
        }
    }

    /// An interface disappeared while it was set up.
    pub(crate) fn vanished(device: &str) -> Self {
        let what = "it vanished while it was being set up".to_owned();
        Self::ForeignDevice { device: device.to_owned(), what }
    }

    /// A file that a daemon is told to read while it runs.
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

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let hint = match source.kind() {
            std::io::ErrorKind::PermissionDenied => "; run as root",
            _ => "",
        };
        Self::File { what, path: path.into(), source, hint }
    }
}
