//! What tests of encryption share: a capture of the cable, and what fits into a packet.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, SystemTime};

use adit_lab::capture::{Frame, Tap};
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{HOST_A, HOST_B};
use adit_testbed::transfer::Transfer;

use super::machine::PATIENCE;
use super::sites::assert_reaches;
use super::testbed::Testbed;
use super::wait_until;

/// The longest time for which a new policy does not hold.
pub(crate) const HOLDS_AFTER: Duration = Duration::from_secs(1);
pub(crate) const PROTOCOL_IPIP: u8 = 4;
pub(crate) const PROTOCOL_UDP: u8 = 17;
pub(crate) const PROTOCOL_ESP: u8 = 50;
/// Bytes of a transfer: many full-size segments, but few for an emulated processor.
const TRANSFER: u64 = 256 << 10;
const ECHO_TIMEOUT: Duration = Duration::from_secs(5);

/// What passes on the cable of gateway A, as the router sees it.
pub(crate) struct Cable(Tap);

impl Cable {
    pub(crate) fn watch(bed: &Testbed) -> Self {
        Self(Tap::start(&bed.sites.network.router, "toA").unwrap())
    }

    /// When datagrams of this protocol passed.
    pub(crate) fn times(self, protocol: u8) -> Vec<SystemTime> {
        times(&self.0.finish(), protocol)
    }

    /// There were datagrams of protocol `carrier`, and no IP in IP after `start`.
    #[track_caller]
    pub(crate) fn assert_only(self, carrier: u8, start: SystemTime) {
        let frames = self.0.finish();
        let late = times(&frames, PROTOCOL_IPIP).iter().filter(|time| **time > start).count();
        assert_eq!(late, 0, "datagrams in the clear");
        assert!(times(&frames, carrier).iter().any(|time| *time > start), "nothing of protocol {carrier}");
    }

    /// There was no IP in IP after `start`.
    #[track_caller]
    pub(crate) fn assert_nothing_clear(self, start: SystemTime) {
        let late = self.times(PROTOCOL_IPIP).iter().filter(|time| **time > start).count();
        assert_eq!(late, 0, "datagrams in the clear");
    }
}

fn times(frames: &[Frame], protocol: u8) -> Vec<SystemTime> {
    let is_one = |frame: &&Frame| frame.ipv4().is_some_and(|datagram| datagram[9] == protocol);
    frames.iter().filter(is_one).map(|frame| frame.time).collect()
}

/// Everything between the hosts arrives: an echo each way, the largest packet of `largest` bytes
/// and none that is larger, a datagram in fragments, and a TCP stream each way. No packet is tried
/// twice.
#[track_caller]
pub(crate) fn assert_carries(bed: &Testbed, largest: usize) {
    let network = &bed.sites.network;
    let ways = [
        (&network.host_a, HOST_A, &network.host_b, HOST_B),
        (&network.host_b, HOST_B, &network.host_a, HOST_A),
    ];
    for (client, _, server, address) in ways {
        assert_reaches(client, address);
        let full = client.run(|| ping(address, largest, 64, ECHO_TIMEOUT)).unwrap();
        assert!(full.is_reply(), "{} bytes from {}: {full:?}", largest, client.name());
        let larger = client.run(|| ping(address, largest + 1, 64, ECHO_TIMEOUT)).unwrap();
        assert!(matches!(larger, Answer::Refused { .. } | Answer::NotSent(_)), "{larger:?}");
        datagram_arrives(client, server, address);
        let transfer = Transfer::start(&Flow { client, server, address: address.into() }, None).unwrap();
        wait_until(PATIENCE, "a transfer makes progress", || transfer.received() > TRANSFER);
        transfer.finish().unwrap();
    }
}

/// One UDP datagram of 8000 bytes, which is fragments before it enters the tunnel.
fn datagram_arrives(from: &Host, to: &Host, address: Ipv4Addr) {
    let bind = |host: &Host, at: Ipv4Addr| host.ns().run(|| UdpSocket::bind((at, 0))).unwrap().unwrap();
    let (sender, receiver) = (bind(from, Ipv4Addr::UNSPECIFIED), bind(to, address));
    receiver.set_read_timeout(Some(ECHO_TIMEOUT)).unwrap();
    let sent: Vec<u8> = (0..8000).map(|at| (at % 251) as u8).collect();
    sender.send_to(&sent, receiver.local_addr().unwrap()).unwrap();
    let mut received = vec![0; 9000];
    let len = receiver.recv(&mut received).expect("a datagram in fragments arrives");
    assert!(received[..len] == sent, "other bytes");
}
