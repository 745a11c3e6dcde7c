//! A listener on a gateway's own interface, such as tcpdump: a packet socket that is not Adit's.
//! [`adit_lab::capture::Tap`] is one that is read at its end only.

use std::net::Ipv4Addr;
use std::time::Duration;

use adit_lab::LabError;
use adit_lab::host::Host;
use adit_linux::sockets::capture;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};

/// Bytes of the longest frame that is read whole.
const MAX_FRAME: usize = 2048;
/// How long a frame may be on its way.
const LINGER_TIMEOUT: Duration = Duration::from_millis(5);

/// The listener. It ends when it is dropped.
pub struct ForeignTap(capture::Tap);

/// What it has seen of an IP-in-IP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenDatagram {
    /// The outer source.
    pub source: Ipv4Addr,
    /// The outer destination.
    pub destination: Ipv4Addr,
    /// The Ethernet source.
    pub sender: [u8; 6],
}

impl ForeignTap {
    /// Listens on an interface.
    ///
    /// # Errors
    /// Fails if there is no such interface or the process may not capture.
    pub fn listen(host: &Host, device: &str) -> Result<Self, LabError> {
        let index = host.index(device)?;
        Ok(Self(host.run(|| capture::Tap::open(index))?))
    }

    /// The IP-in-IP datagrams since the last call, in both directions.
    ///
    /// # Errors
    /// Fails if the interface goes down.
    pub fn seen(&self) -> Result<Vec<SeenDatagram>, LabError> {
        let mut buffer = [0; MAX_FRAME];
        let mut seen = Vec::new();
        while let Some((_, len)) =
            self.0.next(&mut buffer, LINGER_TIMEOUT).map_err(LabError::io("receive a frame"))?
        {
            let Some((link, bytes)) = buffer[..len].split_first_chunk::<14>() else { continue };
            let Ok(packet) = Ipv4Packet::parse(bytes, Validation::Datapath) else { continue };
            if link.ends_with(&[0x08, 0x00]) && packet.protocol() == Protocol::IPIP {
                let sender = [link[6], link[7], link[8], link[9], link[10], link[11]];
                let (source, destination) = (packet.source(), packet.destination());
                seen.push(SeenDatagram { source, destination, sender });
            }
        }
        Ok(seen)
    }
}
