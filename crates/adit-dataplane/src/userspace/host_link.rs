//! The way to the host: decapsulated datagrams enter its stack by the tunnel interface.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use adit_linux::sockets::hidden_end::HiddenSender;
use adit_linux::sockets::virtio_net::{Checksum, Gso, VirtioNetHeader};
use adit_wire::fragment;
use adit_wire::ipv4::{self, Ipv4Packet};
use adit_wire::ipv6::is_ipv6;
use adit_wire::validation::Validation;

use super::outbound::MAX_DATAGRAM;
use super::segment::complete_checksum;

/// Bytes by which a veth accepts frames beyond its MTU, for a VLAN tag.
const VETH_SLACK: usize = 4;

/// See the module.
pub(super) struct HostLink {
    pub(super) sender: HiddenSender,
    /// The tunnel interface's MTU, in bytes.
    pub(super) mtu: usize,
    /// Whether the kernel takes UDP GSO packets.
    pub(super) takes_udp: bool,
    /// The next identification for fragments of datagrams that had none.
    pub(super) identification: AtomicU16,
}

impl HostLink {
    /// Sends one datagram or GSO packet to the host, in pieces.
    ///
    /// # Errors
    /// The kernel does not take it.
    #[inline]
    pub(super) fn send<'a>(
        &self,
        header: &VirtioNetHeader,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> io::Result<()> {
        if header.gso == Gso::None {
            let len: usize = pieces.clone().map(<[u8]>::len).sum();
            if len > self.mtu + VETH_SLACK {
                return self.send_in_fragments(header, pieces);
            }
        }
        self.sender.send(header, pieces).map(drop)
    }

    /// Sends a datagram that is larger than the interface's MTU, since a peer's may be larger than
    /// ours. A veth drops such a datagram, so the host gets it in fragments, DF or not: the MTU of
    /// this interface is no limit that its sender could learn of.
    #[cold]
    fn send_in_fragments<'a>(
        &self,
        header: &VirtioNetHeader,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let mut buffer = [0u8; MAX_DATAGRAM];
        let mut len = 0;
        for piece in pieces {
            buffer.get_mut(len..len + piece.len()).ok_or_else(invalid)?.copy_from_slice(piece);
            len += piece.len();
        }
        let datagram = &mut buffer[..len];
        if is_ipv6(datagram) {
            // Only its source may fragment a packet of IPv6 (RFC 8200 section 4.5).
            return Err(invalid());
        }
        if let Checksum::Partial(partial) = header.checksum {
            complete_checksum(datagram, partial);
        }
        let identification = self.identification.fetch_add(1, Ordering::Relaxed);
        ipv4::allow_fragments(datagram, identification).ok_or_else(invalid)?;
        let whole = Ipv4Packet::parse(datagram, Validation::Datapath).map_err(|_| invalid())?;
        for fragment in fragment::fragments(&whole, self.mtu).map_err(|_| invalid())? {
            let payload = datagram.get(fragment.payload()).unwrap_or_default();
            self.sender.send(&VirtioNetHeader::PLAIN, [fragment.header(), payload].into_iter())?;
        }
        Ok(())
    }
}
