//! The testbeds of the bench. Every contender has one of its own, so its programs, filters and
//! routes cannot affect another. All exist at the same time, so that rounds can be interleaved.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_lab::cable::{self, CableEnd, connect_to_gateway};
use adit_lab::host::Host;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use crate::error::BenchError;
use crate::process::Process;

/// The cable's name on both hosts.
pub(crate) const CABLE: &str = "under";
/// Bytes of the largest datagram on the cable.
pub(crate) const CABLE_MTU: u32 = 1500;
/// The name, on both its ends, of the cable to a host behind a gateway.
const LAN: &str = "lan";
/// Time for a program to make its device, including the generation of keys on two busy processors.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// The shape of a testbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Two hosts and a cable between them.
    Pair,
    /// The two are gateways, with a host behind each.
    Chain,
}

/// Two hosts with a cable between them, the hosts behind them, and a directory for configurations.
pub(crate) struct Testbed {
    pub(crate) sides: [Side; 2],
    directory: PathBuf,
}

/// One of the two sides: `a` sends, `b` receives.
pub(crate) struct Side {
    pub(crate) shape: Shape,
    /// Has the cable, and a tunnel's end.
    pub(crate) host: Host,
    /// Where the load starts or ends: the host itself in a pair, the one behind it in a chain.
    pub(crate) end: Host,
    /// `a` or `b`.
    pub(crate) letter: &'static str,
    /// The last octet of its addresses, and the other's.
    pub(crate) number: u8,
    pub(crate) other_letter: &'static str,
    pub(crate) other_number: u8,
}

impl Testbed {
    /// Builds a testbed. Programs on it keep their files in `directory`, which is created.
    pub(crate) fn build(shape: Shape, directory: PathBuf) -> Result<Self, BenchError> {
        std::fs::create_dir_all(&directory)
            .map_err(BenchError::io(format!("make {}", directory.display())))?;
        let sides = [Side::build(shape, ("a", 1), ("b", 2))?, Side::build(shape, ("b", 2), ("a", 1))?];
        let [a, b] = &sides;
        cable::connect(a.cable_end(), b.cable_end(), 24)?;
        for side in &sides {
            side.host.mtu(CABLE, CABLE_MTU)?;
        }
        Ok(Self { sides, directory })
    }

    /// Gives both sides addresses of IPv6 beside those of IPv4.
    pub(crate) fn add_ipv6(&self) -> Result<(), BenchError> {
        for side in &self.sides {
            side.host.address("lo", Ipv6Net::from(side.private_v6()))?;
            side.host.address(CABLE, Ipv6Net::new_assert(side.underlay_v6(), 64))?;
        }
        for side in &self.sides {
            side.host.await_addresses(CABLE, READY_TIMEOUT)?;
        }
        Ok(())
    }

    /// The directory for the files of its programs.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory below it, made if it is not there.
    pub(crate) fn subdirectory(&self, name: &str) -> Result<PathBuf, BenchError> {
        let path = self.directory.join(name);
        std::fs::create_dir_all(&path).map_err(BenchError::io(format!("make {}", path.display())))?;
        Ok(path)
    }
}

impl Side {
    /// Third octet of the private networks, to which the side's number is added.
    const PRIVATE: u8 = 20;

    fn build(
        shape: Shape,
        (letter, number): (&'static str, u8),
        (other_letter, other_number): (&'static str, u8),
    ) -> Result<Self, BenchError> {
        let host = Host::new(letter)?;
        let end = match shape {
            Shape::Pair => host.clone(),
            Shape::Chain => Host::new("behind")?,
        };
        let side = Self { shape, host, end, letter, number, other_letter, other_number };
        match shape {
            // On the loopback interface, the private network costs nothing.
            Shape::Pair => side.host.address("lo", net(side.private(), 32))?,
            Shape::Chain => {
                let gateway = Ipv4Addr::new(10, 42, Self::PRIVATE + number, 254);
                let host = CableEnd::new(&side.end, LAN, side.private());
                connect_to_gateway(host, CableEnd::new(&side.host, LAN, gateway), 24)?;
                side.host.forward()?;
            }
        }
        Ok(side)
    }

    /// The end of the cable to the other side.
    fn cable_end(&self) -> CableEnd<'_> {
        CableEnd::new(&self.host, CABLE, self.underlay())
    }

    /// Whether a host is behind it.
    pub(crate) fn is_gateway(&self) -> bool {
        self.shape == Shape::Chain
    }

    /// Its address on the cable.
    pub(crate) fn underlay(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 1, self.number)
    }

    /// The other's.
    pub(crate) fn other_underlay(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 1, self.other_number)
    }

    /// Its address of IPv6 on the cable.
    pub(crate) fn underlay_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, self.number.into())
    }

    /// The other's.
    pub(crate) fn other_underlay_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, self.other_number.into())
    }

    /// An address in its private network of IPv6, where the load starts or ends.
    pub(crate) fn private_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 42, self.number.into(), 0, 0, 0, 1)
    }

    /// Its private network of IPv6.
    pub(crate) fn private_network_v6(&self) -> Ipv6Net {
        Ipv6Net::new_assert(self.private_v6(), 64).trunc()
    }

    /// The other's.
    pub(crate) fn other_private_network_v6(&self) -> Ipv6Net {
        Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 42, self.other_number.into(), 0, 0, 0, 0), 64)
    }

    /// An address in its private network, where the load starts or ends.
    pub(crate) fn private(&self) -> Ipv4Addr {
        self.inside(Self::PRIVATE + self.number)
    }

    /// The private network that a gateway leads to.
    pub(crate) fn private_network(&self) -> Ipv4Net {
        net(self.private(), 24).trunc()
    }

    /// The other's.
    pub(crate) fn other_private_network(&self) -> Ipv4Net {
        net(self.other_inside(Self::PRIVATE + self.other_number), 24).trunc()
    }

    /// Its address on the device of the contender with this number.
    pub(crate) fn inside(&self, contender: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 42, contender, self.number)
    }

    /// The other's.
    pub(crate) fn other_inside(&self, contender: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 42, contender, self.other_number)
    }

    /// Waits for the device that `process` makes, and sets it up.
    pub(crate) fn set_up(
        &self,
        process: &mut Process,
        device: &str,
        contender: u8,
        mtu: u32,
    ) -> Result<(), BenchError> {
        let mut netlink = self.host.netlink()?;
        process.wait_for(
            &format!("make the device {device}"),
            READY_TIMEOUT,
            || Ok(netlink.link(device)?),
        )?;
        self.configure(device, contender, mtu)
    }

    /// Gives a device its MTU and its address, and brings it up.
    pub(crate) fn configure(&self, device: &str, contender: u8, mtu: u32) -> Result<(), BenchError> {
        self.host.mtu(device, mtu)?;
        self.host.address(device, net(self.inside(contender), 24))?;
        Ok(self.host.up(device)?)
    }

    /// A counter of `/proc/net/snmp` where the load starts or ends, such as `Tcp` and
    /// `RetransSegs`.
    pub(crate) fn counter(&self, protocol: &str, name: &str) -> Option<u64> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
        counter(&self.end.ns().run(read).ok()?.ok()?, protocol, name)
    }
}

/// An address with the length of its network's prefix.
pub(crate) fn net(address: Ipv4Addr, len: u8) -> Ipv4Net {
    Ipv4Net::new(address, len).unwrap_or_default()
}

/// Writes a file that other users cannot read, because it may hold a key.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(BenchError::io(format!("write {}", path.display())))
}

fn counter(snmp: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let at = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name() {
        let snmp = "Ip: Forwarding DefaultTTL\nIp: 2 64\nUdp: InDatagrams NoPorts\nUdp: 7 9\n\
                    UdpLite: InDatagrams NoPorts\nUdpLite: 1 2\n";
        assert_eq!(counter(snmp, "Udp", "NoPorts"), Some(9));
        assert_eq!(counter(snmp, "Ip", "DefaultTTL"), Some(64));
        assert_eq!(counter(snmp, "Udp", "Nonsense"), None);
        assert_eq!(counter(snmp, "Tcp", "RetransSegs"), None);
    }
}
