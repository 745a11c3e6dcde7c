//! The TUN device: the tunnel interface, through which the host's routing exchanges datagrams with
//! the tunnel.
//!
//! With the virtio-net header one call moves a GSO packet: up to 64 KiB of a TCP stream, or of UDP
//! datagrams of one size.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::Error;
use crate::net_scope::NetScope;
use crate::sockets::virtio_net;

/// How to open a TUN device.
#[derive(Clone, Debug)]
pub struct TunOptions {
    /// The interface's name, 1 to 15 bytes.
    pub name: String,
    /// The number of queues, at least one is opened. Each is served by a thread of its own.
    pub queues: usize,
}

/// An open TUN device.
#[derive(Debug)]
pub struct Tun {
    name: String,
    scope: NetScope,
    queues: Vec<TunQueue>,
    offloads: Offloads,
}

/// The GSO packets that the kernel exchanges through the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// TCP.
    pub tcp: bool,
    /// UDP (since Linux 6.2).
    pub udp: bool,
}

/// One queue of a TUN device. Reading or writing a packet, or a GSO packet, costs one system call.
#[derive(Debug)]
pub struct TunQueue {
    file: File,
}

const DEVICE: &str = "/dev/net/tun";

// linux/if_tun.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const IFF_TUN: libc::c_short = 0x0001;
const IFF_MULTI_QUEUE: libc::c_short = 0x0100;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

impl Tun {
    /// Creates the device in the calling thread's network namespace, or takes over a
    /// [persistent](Self::keep) one of that name that no process holds. The kernel removes a device
    /// that is not persistent with the last of its queues.
    ///
    /// # Errors
    /// `/dev/net/tun` is missing or may not be opened, CAP_NET_ADMIN is missing, or the name is
    /// taken. Each error says what to do.
    pub fn open(options: &TunOptions) -> Result<Self, Error> {
        Self::open_in(options, NetScope::default())
    }

    /// Creates the device in `scope`. Its queues can be read and written from any namespace.
    ///
    /// # Errors
    /// As [`Self::open`], or the namespace cannot be entered.
    pub fn open_in(options: &TunOptions, scope: NetScope) -> Result<Self, Error> {
        scope.clone().run(|| Self::create(options, scope))?
    }

    fn create(options: &TunOptions, scope: NetScope) -> Result<Self, Error> {
        let mut queues = Vec::with_capacity(options.queues);
        for _ in 0..options.queues.max(1) {
            queues.push(TunQueue::open(&options.name)?);
        }
        let offloads = queues[0].enable_offloads(&options.name)?;
        for queue in &queues[1..] {
            queue.enable_offloads(&options.name)?;
        }
        Ok(Self { name: options.name.clone(), scope, queues, offloads })
    }

    /// Returns the interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the scope the interface is in.
    #[must_use]
    pub fn scope(&self) -> &NetScope {
        &self.scope
    }

    /// Returns the GSO packets that the kernel agreed to.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Makes the interface persistent: it stays after its last queue is closed, until it is
    /// deleted. Mark it as Adit's before, because the process may die at any moment.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn keep(&self) -> Result<(), Error> {
        let value: libc::c_ulong = 1;
        // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory of ours.
        let done = unsafe { libc::ioctl(self.queues[0].file.as_raw_fd(), TUNSETPERSIST, value) };
        if done < 0 {
            return Err(
                Error::last_os(format!("cannot make {} persistent", self.name)).needing("CAP_NET_ADMIN")
            );
        }
        Ok(())
    }

    /// Returns the queues, for the threads that serve them.
    #[must_use]
    pub fn into_queues(self) -> Vec<TunQueue> {
        self.queues
    }

    /// Returns the queues.
    #[must_use]
    pub fn queues(&self) -> &[TunQueue] {
        &self.queues
    }
}

impl TunQueue {
    fn open(name: &str) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(open_error)?;
        let mut request = interface_request(name)?;
        request.ifr_ifru.ifru_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
        // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `request` is and outlives the
        // call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &mut request) };
        if done < 0 {
            return Err(attach_error(name));
        }
        Ok(Self { file })
    }

    fn enable_offloads(&self, name: &str) -> Result<Offloads, Error> {
        let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        for (flags, udp) in [(tcp | TUN_F_USO4 | TUN_F_USO6, true), (tcp, false)] {
            // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
            if unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETOFFLOAD, flags) } == 0 {
                return Ok(Offloads { tcp: true, udp });
            }
        }
        Err(Error::last_os(format!("cannot enable offloads on {name}")))
    }

    /// Reads one packet, virtio-net header first, and returns the bytes read, that header included.
    ///
    /// # Errors
    /// No packet waits (`WouldBlock`).
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one packet, given in pieces, virtio-net header first.
    ///
    /// # Errors
    /// The interface is down (`EIO`), or the header does not fit the packet (`EINVAL`).
    #[inline]
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        debug_assert!(pieces.iter().map(|piece| piece.len()).sum::<usize>() > virtio_net::LEN);
        (&self.file).write_vectored(pieces)
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Checks that `/dev/net/tun` can be opened.
///
/// # Errors
/// It cannot; the error says why and what to do.
pub fn probe() -> Result<(), Error> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map(drop).map_err(open_error)
}

fn interface_request(name: &str) -> Result<libc::ifreq, Error> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(Error::new(
            format!("cannot use `{name}` as an interface's name"),
            io::Error::from_raw_os_error(libc::EINVAL),
        )
        .with_hint("a name has 1 to 15 bytes"));
    }
    // SAFETY: `ifreq` is plain old data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn open_error(error: io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::ENOENT) => {
            "load the driver (`modprobe tun`), or make the node: `mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c 10 200`"
        }
        Some(libc::ENODEV | libc::ENXIO) => {
            "the kernel has no TUN driver: `modprobe tun`, or a kernel with CONFIG_TUN"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "run as root, or open the node to all as distributions do: `chmod 0666 /dev/net/tun`"
        }
        _ => "",
    };
    let error = Error::new(format!("cannot open {DEVICE}"), error);
    if hint.is_empty() { error } else { error.with_hint(hint) }
}

fn attach_error(name: &str) -> Error {
    let source = io::Error::last_os_error();
    let hint = match source.raw_os_error() {
        Some(libc::EPERM) => "CAP_NET_ADMIN is needed in this network namespace: run as root",
        Some(libc::EBUSY) => {
            "another program holds a device of this name: stop it, or choose another `device`"
        }
        Some(libc::EINVAL) => {
            "an interface of this name exists and is not a multi-queue TUN device: remove it (`ip link delete`), or choose another `device`"
        }
        _ => "",
    };
    let error = Error::new(format!("cannot create the TUN device {name}"), source);
    if hint.is_empty() { error } else { error.with_hint(hint) }
}
