//! Attaching programs to interfaces: by a TCX link where the kernel has those (6.6), by a filter of the
//! clsact qdisc elsewhere. Either way a program that an earlier process attached is replaced at once, so
//! that no packet meets none.

use std::mem;
use std::path::PathBuf;

use adit_linux::bpf::tcx;
use adit_linux::netlink::Netlink;
use aya::programs::links::{FdLink, Link, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;

use super::error::EbpfError;
use super::pins::{Pinned, Pins};
use adit_policy::bpf::maps::program;

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AttachPoint {
    /// Egress for the way into the tunnel, ingress for the way out.
    pub(super) kind: TcAttachType,
    /// The interface's index.
    pub(super) device: u32,
}

impl AttachPoint {
    pub(super) fn program(self) -> &'static str {
        match self.kind {
            TcAttachType::Egress => program::ENCAP,
            _ => program::DECAP,
        }
    }
}

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// A link: gone with its last descriptor or pin, replaced in one step.
    Tcx,
    /// A filter: stays until it is removed.
    Clsact,
}

impl Hook {
    /// What this kernel has.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        let has_tcx = KernelVersion::current().is_ok_and(|version| version.code() >= LINUX_6_6);
        if has_tcx { Self::Tcx } else { Self::Clsact }
    }

    /// A word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
        }
    }
}

/// `KERNEL_VERSION(6, 6, 0)`.
const LINUX_6_6: u32 = (6 << 16) | (6 << 8);

/// Filters of one interface are told apart by their handle, which is the tunnel's device; this is
/// where they stand among others'.
const PRIORITY: u16 = 50;

/// Attaches programs for one overlay.
#[derive(Debug)]
pub(super) struct Attacher {
    pub(super) hook: Hook,
    /// Programs stay attached when the process ends.
    pub(super) pins: Option<Pins>,
    /// The tunnel's device.
    pub(super) tunnel: u32,
}

impl Attacher {
    /// Attaches `program`, or puts it in the place of the one that is there.
    pub(super) fn attach(
        &self,
        program: &mut SchedClassifier,
        place: AttachPoint,
        device: &str,
    ) -> Result<(), EbpfError> {
        match self.hook {
            Hook::Tcx => self.attach_link(program, place, device),
            Hook::Clsact => self.attach_filter(program, place, device),
        }
    }

    fn attach_filter(
        &self,
        program: &mut SchedClassifier,
        place: AttachPoint,
        device: &str,
    ) -> Result<(), EbpfError> {
        // It may be there already, as somebody else's.
        let added = qdisc_add_clsact(device);
        let attached = filter(place, device, self.tunnel)
            .map_err(|error| TcError::IoError(error).into())
            .and_then(|there| program.attach_to_link(there))
            .or_else(|_| {
                let handle = TcHandle::from(self.tunnel);
                let options = NlOptions { priority: PRIORITY, handle, classid: None };
                program.attach_with_options(device, place.kind, TcAttachOptions::Netlink(options))
            });
        let id = match (attached, added) {
            (Ok(id), _) => id,
            (Err(_), Err(error)) => {
                return Err(EbpfError::Qdisc { device: device.to_owned(), cause: Box::new(error) });
            }
            (Err(error), Ok(())) => return Err(failed(place, device)(error)),
        };
        let Some(pins) = &self.pins else { return Ok(()) };
        // The filter is to outlive this process.
        mem::forget(program.take_link(id).map_err(failed(place, device))?);
        let path = self.pin(pins, place);
        let _ = std::fs::remove_file(&path);
        program.pin(&path).map_err(|error| EbpfError::Pin { path, cause: Box::new(error) })
    }

    /// Where a program attached by us is pinned.
    pub(super) fn pin(&self, pins: &Pins, place: AttachPoint) -> PathBuf {
        pins.path(place, (self.hook == Hook::Clsact).then_some(self.tunnel))
    }

    fn attach_link(
        &self,
        program: &mut SchedClassifier,
        place: AttachPoint,
        device: &str,
    ) -> Result<(), EbpfError> {
        let failed = failed(place, device);
        let Some(pins) = &self.pins else {
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            return program.attach_with_options(device, place.kind, options).map(drop).map_err(failed);
        };
        let path = self.pin(pins, place);
        if let Ok(link) = PinnedLink::from_pin(&path) {
            let link = SchedClassifierLink::try_from(FdLink::from(link)).ok();
            let replaced = link.and_then(|link| program.attach_to_link(link).ok());
            if let Some(id) = replaced {
                // The pin holds it.
                return program.take_link(id).map(drop).map_err(failed);
            }
            // The interface that it was on is gone, and another has its number.
            let _ = std::fs::remove_file(&path);
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(device, place.kind, options).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        let link = FdLink::try_from(link).map_err(|_| EbpfError::Missing("link"))?;
        link.pin(&path).map(drop).map_err(|error| EbpfError::Pin { path, cause: Box::new(error) })
    }
}

/// Whether a program that is pinned is attached where its pin says. An interface that is gone misses nothing.
pub(super) fn check(pinned: &Pinned) -> Result<(), String> {
    let AttachPoint { kind, device } = pinned.place;
    let told = |error: adit_linux::error::Error| error.to_string();
    let mut netlink = Netlink::open().map_err(told)?;
    let Some(link) = netlink.link_by_index(device).map_err(told)? else { return Ok(()) };
    let is_egress = kind == TcAttachType::Egress;
    let (ours, attached) = match pinned.clsact {
        None => {
            let link = PinnedLink::from_pin(&pinned.path).map(FdLink::from).and_then(|link| link.info());
            let ours = link.map_err(|error| error.to_string())?.program_id();
            (ours, tcx::programs(device, is_egress).map_err(told)?)
        }
        Some(handle) => {
            let ours = ProgramInfo::from_pin(&pinned.path).map_err(|error| error.to_string())?.id();
            let filters = netlink.bpf_filters(device, is_egress).map_err(told)?.into_iter();
            let filters = filters.filter(|filter| (filter.handle, filter.priority) == (handle, PRIORITY));
            (ours, filters.map(|filter| filter.program).collect())
        }
    };
    if attached.contains(&ours) {
        Ok(())
    } else {
        Err(format!("{} is not attached to {} any more", pinned.place.program(), link.name))
    }
}

fn failed(place: AttachPoint, device: &str) -> impl Fn(ProgramError) -> EbpfError + Copy + '_ {
    move |error| EbpfError::Attach {
        name: place.program(),
        device: device.to_owned(),
        cause: Box::new(error),
    }
}

/// The filter of a tunnel's, whether it is there or not.
fn filter(place: AttachPoint, device: &str, tunnel: u32) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, place.kind, PRIORITY, TcHandle::from(tunnel), None)
}

/// Removes the filter behind a pin. One that is gone already, with its interface or by somebody's hand,
/// is no mistake.
pub(super) fn detach_filter(pinned: &Pinned) {
    let Some(tunnel) = pinned.clsact else { return };
    let device = Netlink::open().and_then(|mut netlink| netlink.link_by_index(pinned.place.device));
    let Ok(Some(device)) = device else { return };
    if let Ok(link) = filter(pinned.place, &device.name, tunnel) {
        let _ = Link::detach(link);
    }
}
