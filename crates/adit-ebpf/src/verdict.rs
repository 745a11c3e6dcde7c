//! What becomes of a packet.

use adit_policy::{DropReason, PeerIndex, Refusal};

use crate::counters;

/// The answer of a program to the kernel.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// Not for us to decide: other programs, then the stack or the device, have their turn. The packet
    /// is as it came.
    Decline,
    /// Dropped, and counted.
    Drop,
    /// Where a helper said that it goes.
    Redirect,
}

/// `TC_ACT_UNSPEC`: also with TCX, where it reads `TCX_NEXT`.
const UNSPEC: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;

impl Verdict {
    #[inline(always)]
    pub fn code(self) -> i32 {
        match self {
            Verdict::Decline => UNSPEC,
            Verdict::Drop => SHOT,
            Verdict::Redirect => REDIRECT,
        }
    }

    /// What is refused without a word is dropped here; where somebody is to be told, userspace tells.
    #[inline(always)]
    pub fn of(refusal: Refusal, segments: u32) -> Verdict {
        if refusal.error.is_some() {
            return Verdict::Decline;
        }
        counters::dropped(refusal.reason, refusal.peer, segments);
        Verdict::Drop
    }

    /// A packet that was changed already and that the kernel then refused.
    #[inline(always)]
    pub fn lost(peer: PeerIndex, segments: u32) -> Verdict {
        counters::dropped(DropReason::UnderlaySendFailed, Some(peer), segments);
        Verdict::Drop
    }
}
