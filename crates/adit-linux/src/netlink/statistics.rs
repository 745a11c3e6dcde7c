//! The counters of an interface.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;

use super::Netlink;
use super::link::about;
use crate::error::{Error, Result};

/// The counters of an interface since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    /// Datagrams received.
    pub rx_packets: u64,
    /// Datagrams dropped on receipt for their framing; by ipip, for their ECN marks (RFC 6040
    /// section 4.2).
    pub rx_frame_errors: u64,
    /// Datagrams sent.
    pub tx_packets: u64,
    /// Datagrams dropped because there was no route.
    pub tx_carrier_errors: u64,
    /// Datagrams dropped because their route led into the interface again.
    pub collisions: u64,
    /// Datagrams dropped because there was no memory.
    pub tx_dropped: u64,
}

impl Netlink {
    /// Returns the counters of an interface.
    ///
    /// # Errors
    /// There is none of that number (`ENODEV`).
    pub fn link_statistics(&mut self, index: u32) -> Result<LinkStatistics> {
        let what = || format!("cannot read the counters of interface {index}");
        let answers = self.socket.request(RouteNetlinkMessage::GetLink(about(index)), 0, what)?;
        let found = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => {
                message.attributes.into_iter().find_map(|attribute| match attribute {
                    LinkAttribute::Stats64(stats) => Some(LinkStatistics {
                        rx_packets: stats.rx_packets,
                        rx_frame_errors: stats.rx_frame_errors,
                        tx_packets: stats.tx_packets,
                        tx_carrier_errors: stats.tx_carrier_errors,
                        collisions: stats.collisions,
                        tx_dropped: stats.tx_dropped,
                    }),
                    _ => None,
                })
            }
            _ => None,
        });
        found.ok_or_else(|| Error::from_errno(what(), libc::ENODEV))
    }
}
