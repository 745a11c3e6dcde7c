//! ICMP errors to the senders of datagrams that the tunnel refuses.

use adit_linux::error::Error;
use adit_linux::net_scope::NetScope;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_tunnel::{MAX_REPLY_LEN, Reply};
use adit_wire::icmpv4::MAX_ERROR_LEN;

/// Errors that one system call sends.
const BATCH: usize = 16;

/// Opens the socket for replies. It has no source of its own, and takes the routes of the hosts
/// inside: those of our underlay address and of its firewall mark are for peers.
pub(super) fn reply_sender(scope: &NetScope) -> Result<RawFrameSender, Error> {
    RawFrameSender::open_in(scope, MAX_ERROR_LEN, BATCH)
}

/// Queues an ICMP error. The kernel routes it and fills in its own address towards the sender.
#[cold]
pub(super) fn queue_reply(raw: &mut RawFrameSender, reply: &Reply, offending: &[u8]) {
    // Nothing hands packets of IPv6 to this plane yet: the tunnel interface has none.
    if matches!(reply, Reply::V6 { .. }) {
        return;
    }
    let mut out = [0; MAX_REPLY_LEN];
    let len = reply.write(offending, &mut out);
    raw.frame()[LINK_HEADER..LINK_HEADER + len].copy_from_slice(&out[..len]);
    raw.commit(len, None);
}
