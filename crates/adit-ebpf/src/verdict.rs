//! The verdict on a packet.

use adit_policy::{DropReason, PeerIndex, Refusal};

use crate::counters;
use crate::inner::Inner;

/// A program's answer to the kernel.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// Leave the packet, as it came, to other programs and then to the stack or the interface.
    Decline,
    /// Drop the packet. It has been counted.
    Drop,
    /// Send the packet where a redirect helper said.
    Redirect,
}

/// `TC_ACT_UNSPEC`. TCX calls the same value `TCX_NEXT`.
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

    /// The verdict on a refused packet: drop it here if nobody is answered, else leave the ICMP
    /// answer to userspace.
    #[inline(always)]
    pub fn of(refusal: Refusal, inner: &impl Inner, segments: u32) -> Verdict {
        if refusal.error.is_some() {
            return Verdict::Decline;
        }
        counters::dropped(refusal.reason, refusal.peer, inner, segments);
        Verdict::Drop
    }

    /// The verdict on a packet that was already changed when the kernel refused to change it
    /// further.
    #[inline(always)]
    pub fn lost(peer: PeerIndex, inner: &impl Inner, segments: u32) -> Verdict {
        counters::dropped(DropReason::UnderlaySendFailed, Some(peer), inner, segments);
        Verdict::Drop
    }
}
