//! Attaches programs to interfaces: by a TCX link where the kernel has those (Linux 6.6), by a
//! filter of the clsact qdisc elsewhere. Either way it replaces an earlier process's program in one
//! step, so that every packet meets one of the two.

use std::mem;
use std::path::PathBuf;

use adit_linux::netlink::{BpfFilter, Netlink};
use aya::programs::links::{FdLink, Link, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier};
use aya::util::KernelVersion;

use super::attach_point::{AttachPoint, HOOK, Pinned, Program};
use super::error::EbpfError;

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// A TCX link: goes with its last descriptor or pin, and is replaced in one step.
    Tcx,
    /// A clsact filter: stays until it is removed.
    Clsact,
}

impl Hook {
    /// The best that this kernel has.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        let has_tcx = KernelVersion::current().is_ok_and(|version| version.code() >= LINUX_6_6);
        if has_tcx { Self::Tcx } else { Self::Clsact }
    }

    /// Its name.
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

/// Priority of our filters among others'. The handle, which is the index of the tunnel interface,
/// tells the filters of several overlays on one interface apart.
pub(super) const PRIORITY: u16 = 50;

/// Attaches the programs of one overlay.
#[derive(Debug)]
pub(super) struct Attacher {
    pub(super) hook: Hook,
    /// Directory of the pins, by which programs stay attached when the process ends.
    pub(super) pins: Option<PathBuf>,
    /// Whether filters stay attached without pins.
    pub(super) keeps_filters: bool,
    /// Index of the tunnel interface.
    pub(super) tunnel: u32,
}

impl Attacher {
    /// Attaches `program`, in the place of an earlier process's one if there is one.
    pub(super) fn attach(
        &self,
        program: &mut SchedClassifier,
        point: AttachPoint,
        device: &str,
    ) -> Result<(), EbpfError> {
        match self.hook {
            Hook::Tcx => self.attach_link(program, point, device),
            Hook::Clsact => self.attach_filter(program, point, device),
        }
    }

    /// The path where a program is pinned; `None` without pins.
    pub(super) fn pin(&self, point: AttachPoint) -> Option<PathBuf> {
        let clsact = (self.hook == Hook::Clsact).then_some(self.tunnel);
        self.pins.as_ref().map(|directory| point.pin(directory, clsact))
    }

    fn attach_filter(
        &self,
        program: &mut SchedClassifier,
        point: AttachPoint,
        device: &str,
    ) -> Result<(), EbpfError> {
        // Fails if somebody else has added it, which does no harm.
        let added = qdisc_add_clsact(device);
        let attached = filter(device, self.tunnel)
            .map_err(|error| TcError::IoError(error).into())
            .and_then(|existing| program.attach_to_link(existing))
            .or_else(|_| {
                let handle = TcHandle::from(self.tunnel);
                let options = NlOptions { priority: PRIORITY, handle, classid: None };
                program.attach_with_options(device, HOOK, TcAttachOptions::Netlink(options))
            });
        let id = match (attached, added) {
            (Ok(id), _) => id,
            (Err(_), Err(error)) => {
                return Err(EbpfError::Qdisc { device: device.to_owned(), cause: Box::new(error) });
            }
            (Err(error), Ok(())) => return Err(failed(point, device)(error)),
        };
        let pin = self.pin(point);
        if pin.is_some() || self.keeps_filters {
            // The filter must outlive this process.
            mem::forget(program.take_link(id).map_err(failed(point, device))?);
        }
        let Some(path) = pin else { return Ok(()) };
        let _ = std::fs::remove_file(&path);
        program.pin(&path).map_err(|error| EbpfError::Pin { path, cause: Box::new(error) })
    }

    fn attach_link(
        &self,
        program: &mut SchedClassifier,
        point: AttachPoint,
        device: &str,
    ) -> Result<(), EbpfError> {
        let failed = failed(point, device);
        let Some(path) = self.pin(point) else {
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            return program.attach_with_options(device, HOOK, options).map(drop).map_err(failed);
        };
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
        let id = program.attach_with_options(device, HOOK, options).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        let link = FdLink::try_from(link).map_err(|_| EbpfError::Missing("link"))?;
        link.pin(&path).map(drop).map_err(|error| EbpfError::Pin { path, cause: Box::new(error) })
    }
}

fn failed(point: AttachPoint, device: &str) -> impl Fn(ProgramError) -> EbpfError + Copy + '_ {
    move |error| EbpfError::Attach {
        name: point.program.name(),
        device: device.to_owned(),
        cause: Box::new(error),
    }
}

/// The filter of a tunnel, whether it exists or not.
fn filter(device: &str, tunnel: u32) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, HOOK, PRIORITY, TcHandle::from(tunnel), None)
}

/// Removes the filters of the overlay whose hidden end has that index, in the calling thread's
/// network namespace, and those of overlays whose hidden end is gone. It touches no filter of
/// others.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub fn remove_filters(hidden: u32) -> Result<(), EbpfError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    for link in &links {
        let filters = netlink.bpf_filters(link.index, false).unwrap_or_default();
        let names = Program::ALL.map(Program::name);
        let is_ours = |it: &BpfFilter| it.priority == PRIORITY && names.contains(&it.name.as_str());
        for found in filters.iter().filter(|it| is_ours(it)) {
            let is_orphan = !links.iter().any(|link| link.index == found.handle);
            if (found.handle == hidden || is_orphan)
                && let Ok(link) = filter(&link.name, found.handle)
            {
                let _ = Link::detach(link);
            }
        }
    }
    Ok(())
}

/// Removes the filter behind a pin. It may be gone already, with its interface or by somebody's
/// hand.
pub(super) fn detach_filter(pinned: &Pinned) {
    let Some(tunnel) = pinned.clsact else { return };
    let device = Netlink::open().and_then(|mut netlink| netlink.link_by_index(pinned.point.device));
    let Ok(Some(device)) = device else { return };
    if let Ok(link) = filter(&device.name, tunnel) {
        let _ = Link::detach(link);
    }
}
