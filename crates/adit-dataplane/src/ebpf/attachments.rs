//! The record of what a start has attached: the health check looks for exactly that.
//!
//! An underlay that is down, has no carrier or is not Ethernet bears no program, so there is no
//! fixed picture to compare with.

use std::sync::{Mutex, PoisonError};

use adit_linux::bpf::tcx;
use adit_linux::error::Error;
use adit_linux::netlink::Netlink;

use super::attach::{Hook, PRIORITY};
use super::attach_point::{AttachPoint, Program};

/// Why userspace carries, as far as is known.
const DECLINED: &str = "the programs decline what arrives";

/// A program at an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) point: AttachPoint,
    /// The kernel's number of the program.
    pub(super) program: u32,
    pub(super) hook: Hook,
    /// The handle of the filter where there is no TCX.
    pub(super) handle: u32,
}

/// All attachments of a data plane. The watcher writes, the health check reads.
#[derive(Debug, Default)]
pub(super) struct Attachments(Mutex<Vec<Attachment>>);

impl Attachments {
    /// Records an attachment, in place of an earlier one at the same point.
    pub(super) fn record(&self, attachment: Attachment) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.point != attachment.point);
        all.push(attachment);
    }

    /// Why datagrams of peers arrive, and not at a program of ours.
    pub(super) fn why_nothing_arrives(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let decaps: Vec<&Attachment> = all.iter().filter(|it| it.point.program == Program::Decap).collect();
        if decaps.is_empty() {
            return "no interface of the underlay bears a program".to_owned();
        }
        let Ok(mut netlink) = Netlink::open() else { return DECLINED.to_owned() };
        for attachment in decaps {
            let found = attached_to(&mut netlink, attachment).unwrap_or_default();
            let Ok(Some(link)) = netlink.link_by_index(attachment.point.device) else { continue };
            if found.iter().position(|id| *id == attachment.program).is_some_and(|before| before > 0) {
                return format!("another program at {} ends the chain before ours", link.name);
            }
        }
        DECLINED.to_owned()
    }

    /// Checks that every program is still where it was attached, in the calling thread's network
    /// namespace. An interface that is gone has taken its program along.
    ///
    /// # Errors
    /// Fails if one is not; the error says which.
    pub(super) fn check(&self) -> Result<(), String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = |error: Error| error.to_string();
        let mut netlink = Netlink::open().map_err(text)?;
        for attachment in all {
            let AttachPoint { program, device } = attachment.point;
            let Some(link) = netlink.link_by_index(device).map_err(text)? else { continue };
            if !attached_to(&mut netlink, &attachment).map_err(text)?.contains(&attachment.program) {
                return Err(format!("{} is not attached to {} any more", program.name(), link.name));
            }
        }
        Ok(())
    }
}

/// Lists the programs at an attachment's hook, or its filter's.
fn attached_to(netlink: &mut Netlink, attachment: &Attachment) -> Result<Vec<u32>, Error> {
    let device = attachment.point.device;
    match attachment.hook {
        Hook::Tcx => tcx::programs(device, false),
        Hook::Clsact => {
            let filters = netlink.bpf_filters(device, false)?.into_iter();
            let ours = filters.filter(|it| (it.handle, it.priority) == (attachment.handle, PRIORITY));
            Ok(ours.map(|filter| filter.program).collect())
        }
    }
}
