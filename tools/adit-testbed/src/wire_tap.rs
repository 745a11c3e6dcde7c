//! One end of a cable under a test's control: it injects any bytes, and receives what the host at
//! the other end sends. A test sees what a host does without another host that answers.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use adit_linux::sockets::capture::Tap;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::packet::PacketSender;

use adit_lab::LabError;
use adit_lab::capture::{Frame, SNAPLEN};
use adit_lab::host::Host;

/// The longest datagram that an [`Injector`] sends: more than the MTU of any cable here.
const MAX_DATAGRAM: usize = 2000;
const BATCH: usize = 64;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// The Ethernet address of an interface.
///
/// # Errors
/// Fails if there is no such interface or it is not Ethernet.
pub fn mac(host: &Host, device: &str) -> Result<[u8; 6], LabError> {
    let link = host.netlink()?.link(device)?;
    link.and_then(|link| link.mac)
        .ok_or_else(|| LabError::NoInterface { host: host.name().to_owned(), device: device.to_owned() })
}

/// A sender of frames with any contents.
pub struct Injector {
    sender: PacketSender,
    link_header: [u8; LINK_HEADER],
}

impl Injector {
    /// Sends from an interface of `host` to the interface at the cable's other end.
    ///
    /// # Errors
    /// Fails if there are no such interfaces or no packet socket can be opened.
    pub fn new(host: &Host, device: &str, other: &Host, other_device: &str) -> Result<Self, LabError> {
        let index = host.index(device)?;
        let sender = host.run(|| PacketSender::open(index, MAX_DATAGRAM, BATCH))?;
        let mut link_header = [0; LINK_HEADER];
        link_header[..6].copy_from_slice(&mac(other, other_device)?);
        link_header[6..12].copy_from_slice(&mac(host, device)?);
        link_header[12..].copy_from_slice(&IPV4);
        Ok(Self { sender, link_header })
    }

    /// Queues a datagram.
    pub fn add(&mut self, datagram: &[u8]) {
        let frame = self.sender.frame();
        frame[..LINK_HEADER].copy_from_slice(&self.link_header);
        frame[LINK_HEADER..LINK_HEADER + datagram.len()].copy_from_slice(datagram);
        self.sender.commit(datagram.len(), None);
    }

    /// Sends all queued datagrams.
    ///
    /// # Errors
    /// Fails if the kernel refuses any of them.
    pub fn flush(&mut self) -> Result<(), LabError> {
        self.sender.flush();
        let sent = self.sender.take_sent();
        if sent.refused == 0 {
            return Ok(());
        }
        let source = std::io::Error::from_raw_os_error(sent.last_errno);
        Err(LabError::Io { what: format!("inject {} frames", sent.refused), source })
    }

    /// Sends a datagram at once.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    pub fn send(&mut self, datagram: &[u8]) -> Result<(), LabError> {
        self.add(datagram);
        self.flush()
    }

    /// Sends an unsolicited ARP reply to `to`: `address` is at the Ethernet address of the sender.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    pub fn send_arp_reply(&mut self, address: Ipv4Addr, to: Ipv4Addr) -> Result<(), LabError> {
        let (destination, source) = (&self.link_header[..6], &self.link_header[6..12]);
        let sender = [source, &address.octets()].concat();
        let target = [destination, &to.octets()].concat();
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &sender, &target].concat();
        self.send_as(ARP, &arp)
    }

    /// Sends an IPv6 packet at once.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    pub fn send_ipv6(&mut self, packet: &[u8]) -> Result<(), LabError> {
        self.send_as(IPV6, packet)
    }

    /// Sends a frame of another EtherType.
    fn send_as(&mut self, kind: [u8; 2], bytes: &[u8]) -> Result<(), LabError> {
        self.link_header[12..].copy_from_slice(&kind);
        let sent = self.send(bytes);
        self.link_header[12..].copy_from_slice(&IPV4);
        sent
    }
}

/// A receiver of what the host at the other end of a cable sends. It keeps all frames, in both
/// directions.
pub struct FrameReceiver {
    tap: Tap,
    sender: [u8; 6],
    buffer: Vec<u8>,
    frames: Vec<Frame>,
}

impl FrameReceiver {
    /// Receives on an interface of `host`. `other_device` is the interface at the cable's other
    /// end.
    ///
    /// # Errors
    /// Fails if there are no such interfaces or the process may not capture.
    pub fn new(host: &Host, device: &str, other: &Host, other_device: &str) -> Result<Self, LabError> {
        let index = host.index(device)?;
        let tap = host.run(|| Tap::open(index))?;
        let sender = mac(other, other_device)?;
        Ok(Self { tap, sender, buffer: vec![0; SNAPLEN as usize], frames: Vec::new() })
    }

    /// The next IPv4 datagram from the other end, with any padding, or `None` after `timeout`.
    ///
    /// # Errors
    /// Fails if the interface goes down.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>, LabError> {
        self.next_of(timeout, Frame::ipv4)
    }

    /// The same for the next packet of either family.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_of_any_family(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>, LabError> {
        self.next_of(timeout, |frame| frame.ipv4().or(frame.ipv6()))
    }

    fn next_of(
        &mut self,
        timeout: Duration,
        packet: impl Fn(&Frame) -> Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, LabError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = self.tap.next(&mut self.buffer, left).map_err(LabError::io("receive a frame"))?;
            let Some((time, len)) = next else { return Ok(None) };
            let frame = Frame { time, bytes: self.buffer[..len].to_vec() };
            let is_theirs = frame.bytes.get(6..12) == Some(&self.sender[..]);
            let packet = packet(&frame).filter(|_| is_theirs).map(<[u8]>::to_vec);
            self.frames.push(frame);
            if packet.is_some() {
                return Ok(packet);
            }
        }
    }

    /// The frames that [`FrameReceiver::next`] has seen since the last call.
    pub fn take_frames(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
    }
}
