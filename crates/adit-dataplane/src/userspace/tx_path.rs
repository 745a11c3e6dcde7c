//! The transmit path of a datagram: in a frame of our own by one interface, or through the kernel's
//! routing.

use adit_linux::error::Error;
use adit_linux::family::Family;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::packet::PacketSender;
use adit_linux::sockets::virtio_net::PartialChecksum;
use adit_linux::sockets::xdp::XdpSender;
use adit_wire::ipv6;

use super::raw_senders::RawSenders;
use super::segment::complete_checksum;
use crate::next_hop::{LinkDevice, Mac};

/// Frames that one system call sends. Larger batches fill the receiver's caches before it wakes.
pub(super) const BATCH: usize = 64;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// An open sender of one interface.
pub(super) struct Link {
    pub(super) device: LinkDevice,
    pub(super) sender: Box<dyn FrameSender + Send>,
    /// Whether packet sockets on this host, such as captures, see what it sends.
    pub(super) visible: bool,
}

impl Link {
    /// Opens the fastest sender that the interface has: AF_XDP, or else a packet socket. Opens a
    /// packet socket in any case if a capture must see the frames. They have this firewall mark.
    pub(super) fn open(
        device: LinkDevice,
        mark: u32,
        queue: usize,
        capacity: usize,
        visible: bool,
    ) -> Result<Self, Error> {
        let packet = || PacketSender::open(device.index, capacity, BATCH)?.with_mark(mark);
        if visible {
            let sender = Box::new(packet()?);
            return Ok(Self { device, sender, visible });
        }
        let xdp = XdpSender::open(device.index, queue as u32, BATCH).and_then(|sender| {
            let sender = sender.with_mark(mark)?;
            if sender.capacity() < capacity {
                return Err(Error::new(
                    "cannot send datagrams of this size over AF_XDP",
                    std::io::Error::from_raw_os_error(adit_linux::EMSGSIZE),
                ));
            }
            Ok(sender)
        });
        let sender: Box<dyn FrameSender + Send> = match xdp {
            Ok(sender) => Box::new(sender),
            Err(error) if error.errno() == Some(adit_linux::ENOBUFS) => {
                tracing::warn!(%error, "using a packet socket, which is slower than AF_XDP");
                Box::new(packet()?)
            }
            Err(error) => {
                tracing::debug!(%error, "using a packet socket instead of AF_XDP");
                Box::new(packet()?)
            }
        };
        Ok(Self { device, sender, visible })
    }
}

/// How a datagram leaves.
#[derive(Clone, Copy)]
pub(super) enum TxPath {
    /// In a frame with these addresses: destination, source.
    Link(Mac, Mac),
    /// Through a raw socket and the kernel's routing.
    Routed,
}

impl TxPath {
    /// Puts one datagram into a frame: link header, this outer header, and `len` bytes behind it
    /// that `fill` writes.
    #[inline]
    pub(super) fn send(
        self,
        link: &mut Option<Link>,
        raw: &mut RawSenders,
        header: &[u8],
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<PartialChecksum>,
    ) {
        let (sender, addresses): (&mut dyn FrameSender, _) = match (self, link) {
            (Self::Link(destination, source), Some(link)) => {
                (link.sender.as_mut(), Some((destination, source)))
            }
            _ => (raw.of(family_of(header)), None),
        };
        let completes = sender.completes_checksums();
        let (front, rest) = sender.frame().split_at_mut(LINK_HEADER);
        if let Some((destination, source)) = addresses {
            write_link_header(front, destination, source, ipv6::is_ipv6(header));
        }
        let (capacity, inner) = rest.split_at_mut(header.len());
        capacity.copy_from_slice(header);
        let mut partial = fill(inner);
        if !completes && let Some(partial) = partial.take() {
            complete_checksum(&mut inner[..len], partial);
        }
        let partial =
            partial.map(|partial| PartialChecksum { start: partial.start + header.len() as u16, ..partial });
        sender.commit(header.len() + len, partial);
    }
}

/// The family of an outer packet, which begins with its header.
#[inline]
pub(super) fn family_of(outer: &[u8]) -> Family {
    if ipv6::is_ipv6(outer) { Family::V6 } else { Family::V4 }
}

#[inline]
fn write_link_header(front: &mut [u8], destination: Mac, source: Mac, is_ipv6: bool) {
    front[..6].copy_from_slice(&destination);
    front[6..12].copy_from_slice(&source);
    front[12..14].copy_from_slice(if is_ipv6 { &ETHERTYPE_IPV6 } else { &ETHERTYPE_IPV4 });
}
