//! The offloads of an Ethernet interface (`ethtool -K`).

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use crate::error::{Error, Result};
use crate::sockets::hidden_end::Offloads;

// linux/ethtool.h
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const NAME_LEN: usize = 32;
/// Features in a word.
const BLOCK: usize = 32;
/// What the names of transmit offloads begin with.
const TRANSMIT: &str = "tx-";

/// What the tunnel interface may leave to be done by the reader of a packet: what the virtio-net
/// header can say. Everything else the kernel does itself before it hands a packet over.
const READABLE: &[&str] = &[
    "tx-checksum-ip-generic",
    "tx-scatter-gather",
    "tx-scatter-gather-fraglist",
    "tx-generic-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp6-segmentation",
];
const READABLE_UDP: &str = "tx-udp-segmentation";

/// Turns off the offloads of the interface `device` whose packets a packet socket cannot read: the
/// checksum and segments of SCTP, segments inside of tunnels (VXLAN, GRE, ESP), VLAN tags, and UDP
/// segments before Linux 6.2. It works in the calling thread's network namespace.
///
/// # Errors
/// There is no such interface, or CAP_NET_ADMIN is missing.
pub fn limit_offloads(device: &str) -> Result<()> {
    set_unreadable_offloads(device, false)
}

/// Turns the offloads that [`limit_offloads`] turns off on or off. Only tests turn them on.
///
/// # Errors
/// As [`limit_offloads`].
#[doc(hidden)]
pub fn set_unreadable_offloads(device: &str, is_on: bool) -> Result<()> {
    let ethtool = Ethtool::open(device, "limit the offloads")?;
    let features = ethtool.features()?;
    // `struct ethtool_sfeatures`: a command, a count, and for each block of 32 features which are
    // valid and which are requested.
    let blocks = features.len().div_ceil(BLOCK);
    let mut change = vec![0u32; 2 + 2 * blocks];
    change[0] = ETHTOOL_SFEATURES;
    change[1] = blocks as u32;
    for (number, feature) in features.iter().enumerate() {
        if feature.can_change && !feature.is_readable() {
            let (block, bit) = (2 + 2 * (number / BLOCK), 1 << (number % BLOCK));
            change[block] |= bit;
            change[block + 1] |= if is_on { bit } else { 0 };
        }
    }
    ethtool.call(&mut change)
}

/// Lists the offloads of the interface `device` that [`limit_offloads`] would turn off. If there is
/// no such interface, it has none.
///
/// # Errors
/// The kernel cannot be asked.
pub fn unreadable_offloads(device: &str) -> Result<Vec<String>> {
    let features = match Ethtool::open(device, "list the offloads")?.features() {
        Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(Vec::new()),
        features => features?,
    };
    let is_wanted = |it: &Feature| it.can_change && it.is_active && !it.is_readable();
    Ok(features.into_iter().filter(is_wanted).map(|feature| feature.name).collect())
}

/// Lists the transmit offloads of the interface `device` that are on and can be changed, in the
/// calling thread's network namespace.
///
/// # Errors
/// There is no such interface.
pub fn transmit_offloads(device: &str) -> Result<Vec<String>> {
    let features = Ethtool::open(device, "list the offloads")?.features()?;
    let is_wanted = |it: &Feature| it.can_change && it.is_active && it.name.starts_with(TRANSMIT);
    Ok(features.into_iter().filter(is_wanted).map(|feature| feature.name).collect())
}

/// Turns off checksum offload on transmit for the interface `device` of the calling thread's
/// network namespace.
///
/// The kernel then computes checksums itself, and therefore also segments, before it hands a
/// datagram to the interface. A capture behind a veth sees the datagrams that a wire would carry.
/// Only tests use it: they must not depend on the `ethtool` program.
///
/// # Errors
/// There is no such interface, or CAP_NET_ADMIN is missing.
#[doc(hidden)]
pub fn disable_transmit_offloads(device: &str) -> Result<()> {
    // `struct ethtool_value`: a command and its value.
    let mut value = [ETHTOOL_STXCSUM, 0];
    Ethtool::open(device, "turn off the offloads")?.call(&mut value)
}

/// A feature of an interface.
struct Feature {
    name: String,
    can_change: bool,
    is_active: bool,
}

impl Feature {
    /// Returns true if it is no transmit offload, or one whose packets a packet socket can read.
    fn is_readable(&self) -> bool {
        let has_udp = || Offloads::of_this_kernel().udp;
        let name = self.name.as_str();
        !name.starts_with(TRANSMIT) || READABLE.contains(&name) || (name == READABLE_UDP && has_udp())
    }
}

/// The ioctl for one interface.
struct Ethtool<'a> {
    socket: UdpSocket,
    device: &'a str,
    what: &'static str,
}

impl<'a> Ethtool<'a> {
    fn open(device: &'a str, what: &'static str) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .map_err(|error| Error::new(format!("cannot {what} of {device}"), error))?;
        Ok(Self { socket, device, what })
    }

    /// Passes a command of linux/ethtool.h, which begins with its number, to the kernel.
    fn call(&self, command: &mut [u32]) -> Result<()> {
        let Self { socket, device, what } = self;
        let what = || format!("cannot {what} of {device}");
        // SAFETY: `ifreq` is plain old data, for which all zeros is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if device.len() >= request.ifr_name.len() {
            return Err(Error::from_errno(what(), libc::ENODEV));
        }
        for (to, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = byte.cast_signed();
        }
        request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
        // SAFETY: SIOCETHTOOL reads the `ifreq`, and reads and writes the command that it points
        // to. Both outlive the call, and callers size a command by the counts in it.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if done < 0 { Err(Error::last_os(what()).needing("CAP_NET_ADMIN")) } else { Ok(()) }
    }

    /// Returns all features, in the order of their bits.
    fn features(&self) -> Result<Vec<Feature>> {
        let names = self.feature_names()?;
        // `struct ethtool_gfeatures`: a command, a count, and for each block what can be changed,
        // is requested, is active and never changes.
        let blocks = names.len().div_ceil(BLOCK);
        let mut found = vec![0u32; 2 + 4 * blocks];
        found[0] = ETHTOOL_GFEATURES;
        found[1] = blocks as u32;
        self.call(&mut found)?;
        let has = |number: usize, word: usize| {
            found[2 + 4 * (number / BLOCK) + word] & (1 << (number % BLOCK)) != 0
        };
        let feature =
            |(number, name)| Feature { name, can_change: has(number, 0), is_active: has(number, 2) };
        Ok(names.into_iter().enumerate().map(feature).collect())
    }

    /// Returns the names of the features, in the order of their bits.
    fn feature_names(&self) -> Result<Vec<String>> {
        // `struct ethtool_sset_info`: a command, a reserved word, a mask of 64 bits, a count.
        let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
        self.call(&mut info)?;
        let count = info[4] as usize;
        // `struct ethtool_gstrings`: a command, the set, a count, and names of 32 bytes.
        let mut strings = vec![0u32; 3 + count * NAME_LEN / 4];
        strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
        self.call(&mut strings)?;
        let bytes: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let name = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        Ok(bytes.chunks_exact(NAME_LEN).map(name).collect())
    }
}
