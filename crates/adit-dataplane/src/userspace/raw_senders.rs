//! The raw sockets of what the kernel routes: one for each family that the site has.

use adit_linux::error::Error;
use adit_linux::family::Family;
use adit_linux::sockets::frames::FrameSender;
use adit_linux::sockets::raw_frames::RawFrameSender;

use crate::underlay_sources::UnderlaySources;

/// See the module.
pub(super) struct RawSenders {
    first: RawFrameSender,
    /// Of the first.
    family: Family,
    /// Of the other family.
    second: Option<RawFrameSender>,
}

impl RawSenders {
    /// Opens a sender from each address, as [`RawFrameSender::open_from`] does.
    ///
    /// # Errors
    /// As [`RawFrameSender::open_from`].
    pub(super) fn open(sources: UnderlaySources, capacity: usize, batch: usize) -> Result<Self, Error> {
        let open = |source| RawFrameSender::open_from(source, capacity, batch);
        let first = sources.first();
        let second = sources.iter().nth(1).map(open).transpose()?;
        Ok(Self { first: open(first)?, family: Family::of(first.address), second })
    }

    /// The sender of outer packets of a family. The tunnel has paths of the site's families only.
    #[inline]
    pub(super) fn of(&mut self, family: Family) -> &mut RawFrameSender {
        match &mut self.second {
            Some(second) if family != self.family => second,
            _ => &mut self.first,
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut RawFrameSender> {
        std::iter::once(&mut self.first).chain(&mut self.second)
    }

    /// Sends what is queued.
    pub(super) fn flush(&mut self) {
        self.iter_mut().for_each(FrameSender::flush);
    }
}
