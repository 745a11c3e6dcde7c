//! One end of a cable in our hands: whatever bytes we like onto it, and what the host at its other end
//! sends by it. What a host does can so be seen without any other host that answers.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use adit_linux::sockets::capture::Tap;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::packet::PacketSender;

use adit_lab::LabError;
use adit_lab::capture::{Frame, SNAPLEN};
use adit_lab::host::Host;

/// The longest datagram that an [`Injector`] sends: what an Ethernet takes.
const CAPACITY: usize = 1500;
const BATCH: usize = 64;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];

/// The Ethernet address of an interface.
///
/// # Errors
/// There is no such interface, or it is no Ethernet.
pub fn mac(host: &Host, device: &str) -> Result<[u8; 6], LabError> {
    let link = host.netlink()?.link(device)?;
    link.and_then(|link| link.mac)
        .ok_or_else(|| LabError::NoInterface { host: host.name().to_owned(), device: device.to_owned() })
}

/// Puts frames onto a cable, whatever is in them.
pub struct Injector {
    sender: PacketSender,
    link_header: [u8; LINK_HEADER],
}

impl Injector {
    /// From an interface of `host` to the interface at the cable's other end.
    ///
    /// # Errors
    /// No such interfaces, or no packet socket.
    pub fn new(host: &Host, device: &str, other: &Host, other_device: &str) -> Result<Self, LabError> {
        let index = host.index(device)?;
        let sender = host.run(|| PacketSender::open(index, CAPACITY, BATCH))?;
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

    /// Sends what is queued; all of it must be taken.
    ///
    /// # Errors
    /// The kernel refused frames.
    pub fn flush(&mut self) -> Result<(), LabError> {
        self.sender.flush();
        let sent = self.sender.take_sent();
        if sent.refused == 0 {
            return Ok(());
        }
        let source = std::io::Error::from_raw_os_error(sent.last_errno);
        Err(LabError::Io { what: format!("put {} frames onto a cable", sent.refused), source })
    }

    /// Sends a datagram now.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn send(&mut self, datagram: &[u8]) -> Result<(), LabError> {
        self.add(datagram);
        self.flush()
    }

    /// Says to `to`, unasked, that `address` is at the Ethernet address frames are sent from.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn send_arp_reply(&mut self, address: Ipv4Addr, to: Ipv4Addr) -> Result<(), LabError> {
        let (destination, source) = (&self.link_header[..6], &self.link_header[6..12]);
        let sender = [source, &address.octets()].concat();
        let target = [destination, &to.octets()].concat();
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &sender, &target].concat();
        self.link_header[12..].copy_from_slice(&ARP);
        let sent = self.send(&arp);
        self.link_header[12..].copy_from_slice(&IPV4);
        sent
    }
}

/// Hears what the host at the other end of a cable sends, and keeps all that passes, in both directions.
pub struct FrameReceiver {
    tap: Tap,
    speaker: [u8; 6],
    buffer: Vec<u8>,
    frames: Vec<Frame>,
}

impl FrameReceiver {
    /// At an interface of `host`; `other_device` is the interface at the cable's other end.
    ///
    /// # Errors
    /// No such interfaces, or not allowed to listen.
    pub fn new(host: &Host, device: &str, other: &Host, other_device: &str) -> Result<Self, LabError> {
        let index = host.index(device)?;
        let tap = host.run(|| Tap::open(index))?;
        let speaker = mac(other, other_device)?;
        Ok(Self { tap, speaker, buffer: vec![0; SNAPLEN as usize], frames: Vec::new() })
    }

    /// The next IPv4 datagram that the other end has sent, with whatever padding follows it, waiting so
    /// long at most.
    ///
    /// # Errors
    /// The interface went down.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, LabError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let heard = self.tap.next(&mut self.buffer, left).map_err(LabError::io("listen at a cable"))?;
            let Some((time, len)) = heard else { return Ok(None) };
            let frame = Frame { time, bytes: self.buffer[..len].to_vec() };
            let is_theirs = frame.bytes.get(6..12) == Some(&self.speaker[..]);
            let datagram = frame.ipv4().filter(|_| is_theirs).map(<[u8]>::to_vec);
            self.frames.push(frame);
            if datagram.is_some() {
                return Ok(datagram);
            }
        }
    }

    /// All frames since this was last asked, as far as they have been waited for.
    pub fn take_frames(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
    }
}
