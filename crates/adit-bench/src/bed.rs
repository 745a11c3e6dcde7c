//! The bed of the bench: two hosts and a bare cable between them. Every contender has addresses
//! of its own on both, so that all of them are there at once and rounds can be interleaved.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_lab::host::Host;
use ipnet::Ipv4Net;
use tempfile::TempDir;

use crate::error::BenchError;
use crate::process::Process;

/// The cable's name on both hosts.
pub(crate) const CABLE: &str = "under";
/// Bytes of the largest datagram on the cable.
pub(crate) const CABLE_MTU: u32 = 1500;
/// Time for a program to make its device. Two processors, and keys may have to be generated.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two hosts, a cable, a directory for the configurations.
pub(crate) struct Bed {
    pub(crate) sides: [Side; 2],
    directory: TempDir,
}

/// One of the two hosts: `a` sends, `b` receives.
pub(crate) struct Side {
    pub(crate) host: Host,
    /// `a` or `b`.
    pub(crate) letter: &'static str,
    /// The last octet of its addresses, and the other's.
    pub(crate) number: u8,
    pub(crate) other_letter: &'static str,
    pub(crate) other_number: u8,
}

impl Bed {
    pub(crate) fn build() -> Result<Self, BenchError> {
        let directory = tempfile::Builder::new()
            .prefix("adit-bench-")
            .tempdir()
            .map_err(BenchError::io("make a temporary directory"))?;
        let side = |letter, number, other_letter, other_number| {
            Ok::<_, BenchError>(Side { host: Host::new(letter)?, letter, number, other_letter, other_number })
        };
        let sides = [side("a", 1, "b", 2)?, side("b", 2, "a", 1)?];
        let [a, b] = &sides;
        a.host.connect(CABLE, &b.host, CABLE)?;
        for side in &sides {
            side.host.mtu(CABLE, CABLE_MTU)?;
            side.host.address(CABLE, net(side.underlay(), 24))?;
        }
        Ok(Self { sides, directory })
    }

    /// Where files of `contender` go; made if it is not there.
    pub(crate) fn directory(&self, contender: &str) -> Result<PathBuf, BenchError> {
        let path = self.directory.path().join(contender);
        std::fs::create_dir_all(&path).map_err(BenchError::io(format!("make {}", path.display())))?;
        Ok(path)
    }
}

impl Side {
    /// Its address on the cable.
    pub(crate) fn underlay(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 1, self.number)
    }

    /// The other's.
    pub(crate) fn other_underlay(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 1, self.other_number)
    }

    /// Its address inside the contender with this number.
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
        process.wait_for(&format!("make the device {device}"), PATIENCE, || Ok(netlink.link(device)?))?;
        self.configure(device, contender, mtu)
    }

    /// Gives a device its MTU and its address, and brings it up.
    pub(crate) fn configure(&self, device: &str, contender: u8, mtu: u32) -> Result<(), BenchError> {
        self.host.mtu(device, mtu)?;
        self.host.address(device, net(self.inside(contender), 24))?;
        Ok(self.host.up(device)?)
    }

    /// A counter of `/proc/net/snmp` on this host, such as `Tcp` and `RetransSegs`.
    pub(crate) fn counter(&self, protocol: &str, name: &str) -> Option<u64> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
        counter(&self.host.ns().run(read).ok()?.ok()?, protocol, name)
    }
}

/// An address with the length of its network's prefix.
pub(crate) fn net(address: Ipv4Addr, len: u8) -> Ipv4Net {
    Ipv4Net::new(address, len).unwrap_or_default()
}

/// Writes a file that others must not read, since it may hold a key.
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
