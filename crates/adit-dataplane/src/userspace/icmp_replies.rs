//! ICMP errors to the senders of packets that the tunnel refuses.

use adit_linux::error::Error;
use adit_linux::net_scope::NetScope;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::icmpv6_socket::Icmpv6Socket;
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_tunnel::{MAX_REPLY_LEN, Reply};
use adit_wire::icmpv4::MAX_ERROR_LEN;
use adit_wire::ipv6;

use crate::tunnel_interface::TunnelInterface;

/// Errors of IPv4 that one system call sends.
const BATCH: usize = 16;

/// Sends the replies. It has no source of its own, and takes the routes of the hosts inside: those
/// of our underlay address and of its firewall mark are for peers.
pub(super) struct ReplySender {
    v4: RawFrameSender,
    /// `None` if the tunnel interface has no IPv6.
    v6: Option<Icmpv6Socket>,
}

impl ReplySender {
    pub(super) fn open(interface: &TunnelInterface) -> Result<Self, Error> {
        let scope: &NetScope = &interface.scope;
        let v6 = interface.ipv6.then(|| Icmpv6Socket::sender_in(scope)).transpose()?;
        Ok(Self { v4: RawFrameSender::open_in(scope, MAX_ERROR_LEN, BATCH)?, v6 })
    }

    /// Queues an ICMP error, or sends it if it is one of IPv6. The kernel routes it and fills in
    /// its own address towards the sender.
    #[cold]
    pub(super) fn queue(&mut self, reply: &Reply, offending: &[u8]) {
        let mut out = [0; MAX_REPLY_LEN];
        let len = reply.write(offending, &mut out);
        match *reply {
            Reply::V4 { .. } => {
                self.v4.frame()[LINK_HEADER..LINK_HEADER + len].copy_from_slice(&out[..len]);
                self.v4.commit(len, None);
            }
            Reply::V6 { destination, .. } => {
                let message = out.get(ipv6::HEADER_LEN..len);
                if let (Some(sender), Some(message)) = (&self.v6, message) {
                    // As for IPv4: an error that cannot be sent is not repeated.
                    let _ = sender.send(message, destination);
                }
            }
        }
    }

    /// Sends what is queued.
    pub(super) fn flush(&mut self) {
        self.v4.flush();
        // Not sent to the underlay, so not counted.
        let _ = self.v4.take_sent();
    }
}
