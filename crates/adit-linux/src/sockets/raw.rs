//! Raw sockets: to send whole datagrams, to receive what peers tunnel and ICMP errors, and to claim
//! a protocol so that the kernel does not answer it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Error, Result};
use crate::family::Family;
use crate::flow_source::FlowSource;
use crate::sockets::classic_bpf::answer;
use crate::sockets::options::{
    attach_filter, enlarge_receive_buffer, get_socket_option, set_mark, set_socket_option,
};
use crate::sockets::raw_filter::{self, ICMP_ERRORS, ICMPV6_ERRORS};
use crate::sockets::raw_v6;
use crate::tunnel_protocol::TunnelProtocol;

// linux/icmp.h, linux/icmpv6.h
const SOL_RAW: libc::c_int = 255;
const ICMP_FILTER: libc::c_int = 1;
const ICMPV6_FILTER: libc::c_int = 1;

/// A raw socket of one family. Each constructor makes one for one purpose.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
    family: Family,
    /// The protocol whose datagrams it receives.
    protocol: u8,
}

impl RawSocket {
    /// Opens a socket that sends whole IPv4 datagrams, header included, by the host's routes.
    ///
    /// The kernel fills in the header's checksum and total length. It also fills in the source if
    /// it is 0.0.0.0, and the identification if it is 0 and DF is clear. It refuses datagrams
    /// longer than the interface's MTU (`EMSGSIZE`).
    ///
    /// # Errors
    /// CAP_NET_RAW is missing.
    pub fn sender() -> Result<Self> {
        let raw = Self::open(Family::V4, libc::IPPROTO_RAW, "to send datagrams")?;
        // The path MTU that the kernel has learned must not refuse a probe of the path MTU.
        set_socket_option(&raw.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
            .map_err(|error| Error::new("cannot set IP_MTU_DISCOVER on a raw socket", error))?;
        Ok(raw)
    }

    /// Opens a socket that claims a protocol at the address `local` and receives nothing.
    ///
    /// While it is open, the kernel does not answer datagrams of that protocol to `local` with ICMP
    /// Protocol Unreachable, or with a Parameter Problem of ICMPv6. It does not stop the kernel's
    /// own tunnel drivers: where the module `tunnel4` is loaded (by `ipip` or `sit`), or `tunnel6`
    /// (by `ip6_tunnel`), the driver answers datagrams that belong to none of its tunnels with Port
    /// Unreachable. [`TunnelDropRule`](crate::nftables::TunnelDropRule) stops that.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or `local` is not an address of this host. An IPv6 address is one
    /// only when its check for duplicates is complete.
    pub fn placeholder(local: impl Into<IpAddr>, protocol: TunnelProtocol) -> Result<Self> {
        let local = local.into();
        let raw = Self::open_for(local, protocol)?;
        // Attached before the socket is bound, so that it never queues a datagram.
        raw.attach(&[answer(0)])?;
        raw.bind(local)?;
        Ok(raw)
    }

    /// Opens a socket that receives datagrams of a protocol to `local`, reassembled, and claims the
    /// protocol as [`Self::placeholder`] does. Reading does not block.
    ///
    /// # Errors
    /// As [`Self::placeholder`].
    pub fn tunneled(local: impl Into<IpAddr>, protocol: TunnelProtocol) -> Result<Self> {
        let local = local.into();
        let raw = Self::open_for(local, protocol)?;
        enlarge_receive_buffer(&raw.socket);
        raw.receive_at(local)?;
        Ok(raw)
    }

    /// Opens a socket that receives nothing, for [`Self::path_mtu`] of IP in IP: from `source`,
    /// with its mark.
    ///
    /// # Errors
    /// As [`Self::placeholder`].
    pub fn path_from(source: FlowSource) -> Result<Self> {
        let raw = Self::placeholder(source.address, TunnelProtocol::Ipip)?;
        set_mark(&raw.socket, source.mark)?;
        Ok(raw)
    }

    /// The longest datagram of the socket's protocol to `remote`, in bytes, as the kernel knows the
    /// path, less what policies of IPsec add to it. If keys have to be agreed first, the kernel
    /// asks for them, and the result is the MTU of the loopback interface.
    ///
    /// # Errors
    /// There is no route, a policy blocks the datagrams, or `remote` is not of the socket's family.
    pub fn path_mtu(&self, remote: impl Into<IpAddr>) -> io::Result<u32> {
        self.socket.connect(&SocketAddr::new(remote.into(), 0).into())?;
        let (level, option) = match self.family {
            Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU),
            Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        get_socket_option(&self.socket, level, option)
    }

    /// Stops receiving datagrams that arrive on one of these interfaces. Of more than 250
    /// interfaces, the first 250 are excluded.
    ///
    /// # Errors
    /// The kernel refuses the filter: it has no memory for it.
    pub fn only_from_others_than(&self, devices: &[u32]) -> Result<()> {
        self.attach(&raw_filter::only_from_others_than(devices))
    }

    /// Receives only datagrams from those of these sources that are of the socket's family. From
    /// everybody if there are more than 2000, or 450 for IPv6, or more than the kernel takes: its
    /// limit is `net.core.optmem_max`, by default some 250 sources of IPv6 before Linux 6.7.
    ///
    /// # Errors
    /// The kernel refuses the filter.
    pub fn only_from(&self, sources: &[IpAddr]) -> Result<()> {
        match self.attach(&raw_filter::only_from(self.family, sources)) {
            Err(error) if error.errno() == Some(libc::ENOMEM) => self.attach(&[raw_filter::everything()]),
            result => result,
        }
    }

    /// Opens a socket that receives all errors of ICMP (RFC 792), or of ICMPv6 (RFC 4443), sent to
    /// `local`. Reading does not block.
    ///
    /// # Errors
    /// As [`Self::placeholder`].
    pub fn icmp_errors(local: impl Into<IpAddr>) -> Result<Self> {
        let local = local.into();
        let family = Family::of(local);
        let not_set = |error| Error::new("cannot set a filter of ICMP types", error);
        // A bit for each type; 1 stops it. The kernel tests it before it copies a datagram.
        let raw = match family {
            Family::V4 => {
                let raw = Self::open(family, libc::IPPROTO_ICMP, "for ICMP")?;
                let blocked = ICMP_ERRORS.iter().fold(u32::MAX, |mask, kind| mask & !(1 << kind));
                set_socket_option(&raw.socket, SOL_RAW, ICMP_FILTER, blocked).map_err(not_set)?;
                // The types from 32 on pass that filter.
                raw.attach(&raw_filter::only_icmp_errors())?;
                raw
            }
            Family::V6 => {
                let raw = Self::open(family, libc::IPPROTO_ICMPV6, "for ICMPv6")?;
                let mut blocked = [u32::MAX; 8];
                blocked[0] = ICMPV6_ERRORS.iter().fold(u32::MAX, |mask, kind| mask & !(1 << kind));
                set_socket_option(&raw.socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, blocked)
                    .map_err(not_set)?;
                raw
            }
        };
        raw.receive_at(local)?;
        Ok(raw)
    }

    fn open_for(local: IpAddr, protocol: TunnelProtocol) -> Result<Self> {
        let purpose = match protocol {
            TunnelProtocol::Ipip => "for tunneled IPv4",
            TunnelProtocol::Ipv6 => "for tunneled IPv6",
        };
        Self::open(Family::of(local), protocol.number().into(), purpose)
    }

    fn open(family: Family, protocol: libc::c_int, purpose: &str) -> Result<Self> {
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)));
        let socket = socket.map_err(|error| {
            Error::new(format!("cannot open a raw socket {purpose}"), error).needing("CAP_NET_RAW")
        })?;
        Ok(Self { socket, family, protocol: protocol as u8 })
    }

    fn attach(&self, program: &[libc::sock_filter]) -> Result<()> {
        attach_filter(&self.socket, program)
            .map_err(|error| Error::new("cannot attach a filter to a raw socket", error))
    }

    /// Receives what is sent to `local`, without blocking.
    fn receive_at(&self, local: IpAddr) -> Result<()> {
        if self.family == Family::V6 {
            raw_v6::prepare(&self.socket)
                .map_err(|error| Error::new("cannot ask for the headers on a raw IPv6 socket", error))?;
        }
        self.bind(local)?;
        self.socket
            .set_nonblocking(true)
            .map_err(|error| Error::new("cannot make a raw socket non-blocking", error))
    }

    fn bind(&self, local: IpAddr) -> Result<()> {
        self.socket.bind(&SocketAddr::new(local, 0).into()).map_err(|error| {
            let is_missing = error.raw_os_error() == Some(libc::EADDRNOTAVAIL);
            let error = Error::new(format!("cannot bind a raw socket to {local}"), error);
            match self.family {
                _ if !is_missing => error,
                Family::V4 => {
                    error.with_hint("no interface has this address: `ip address` shows those there are")
                }
                Family::V6 => error.with_hint(
                    "no interface has this address, or the check for duplicates is not complete \
                     (tentative) or has failed (dadfailed): `ip -6 address` shows it",
                ),
            }
        })
    }

    /// Sends one datagram to the destination in its header.
    ///
    /// # Errors
    /// The header is incomplete (`InvalidInput`), there is no route, the datagram is longer than
    /// the interface's MTU, or the queue is full.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let to = destination(datagram)?;
        self.socket.send_to(datagram, &SocketAddrV4::new(to, 0).into()).map(drop)
    }

    /// Receives one datagram, header included, and returns its length in bytes, at most the
    /// buffer's.
    ///
    /// The kernel gives no IPv6 header, and what follows the last extension header only. The header
    /// of 40 bytes is written anew: its flow label is 0, and its next header is the socket's
    /// protocol.
    ///
    /// # Errors
    /// No datagram waits and reading does not block (`WouldBlock`).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.family {
            Family::V4 => io::Read::read(&mut &self.socket, buffer),
            Family::V6 => raw_v6::receive(&self.socket, self.protocol, buffer),
        }
    }

    /// Returns the number of datagrams lost because the socket's buffer was full, since it was
    /// opened (modulo 2^32).
    #[must_use]
    pub fn dropped(&self) -> u32 {
        // linux/sock_diag.h: SK_MEMINFO_DROPS, the last of nine.
        let mut numbers = [0u32; 9];
        let mut len = size_of_val(&numbers) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `numbers`; both outlive the call.
        let done = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                numbers.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if done == 0 { numbers[8] } else { 0 }
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn destination(datagram: &[u8]) -> io::Result<Ipv4Addr> {
    let header = datagram.get(16..20).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    header
        .map(Ipv4Addr::from)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a whole IPv4 header"))
}
