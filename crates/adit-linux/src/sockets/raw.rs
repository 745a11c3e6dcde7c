//! Raw IPv4 sockets: to send whole datagrams, to receive what peers tunnel and ICMP errors, and to
//! claim a protocol so that the kernel does not answer it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Error, Result};
use crate::flow_source::FlowSource;
use crate::sockets::options::{
    attach_filter, enlarge_receive_buffer, get_socket_option, set_mark, set_socket_option,
};
use crate::tunnel_protocol::TunnelProtocol;

// linux/icmp.h
const SOL_RAW: libc::c_int = 255;
const ICMP_FILTER: libc::c_int = 1;
/// The errors of RFC 792: destination unreachable, source quench, redirect, time exceeded,
/// parameter problem.
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
/// The most interfaces that a filter compares: a jump in a classic BPF program reaches 255 steps.
const MAX_EXCLUDED: usize = 250;
/// The most sources that a filter compares: a program has at most 4096 steps (`BPF_MAXINSNS`).
const MAX_SOURCES: usize = 2000;

/// A raw IPv4 socket. Each constructor makes one for one purpose.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
}

impl RawSocket {
    /// Opens a socket that sends whole datagrams, header included, by the host's routes.
    ///
    /// The kernel fills in the header's checksum and total length. It also fills in the source if
    /// it is 0.0.0.0, and the identification if it is 0 and DF is clear. It refuses datagrams
    /// longer than the interface's MTU (`EMSGSIZE`).
    ///
    /// # Errors
    /// CAP_NET_RAW is missing.
    pub fn sender() -> Result<Self> {
        let raw = Self::open(libc::IPPROTO_RAW, "to send datagrams")?;
        // The path MTU that the kernel has learned must not refuse a probe of the path MTU.
        set_socket_option(&raw.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
            .map_err(|error| Error::new("cannot set IP_MTU_DISCOVER on a raw socket", error))?;
        Ok(raw)
    }

    /// Opens a socket that claims a protocol at the address `local` and receives nothing.
    ///
    /// While it is open, the kernel does not answer datagrams of that protocol to `local` with ICMP
    /// Protocol Unreachable. It does not stop the kernel's own tunnel driver: where the module
    /// `tunnel4` is loaded (by `ipip` or `sit`), the driver answers datagrams that belong to none
    /// of its tunnels with Port Unreachable. [`Tunnel4DropRule`](crate::nftables::Tunnel4DropRule)
    /// stops that.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or `local` is not an address of this host.
    pub fn placeholder(local: Ipv4Addr, protocol: TunnelProtocol) -> Result<Self> {
        let raw = Self::open_for(protocol)?;
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
    pub fn tunneled(local: Ipv4Addr, protocol: TunnelProtocol) -> Result<Self> {
        let raw = Self::open_for(protocol)?;
        enlarge_receive_buffer(&raw.socket);
        raw.bind(local)?;
        raw.set_nonblocking()?;
        Ok(raw)
    }

    /// Opens a socket that receives nothing, for [`Self::path_mtu`]: from `source`, with its mark.
    ///
    /// # Errors
    /// As [`Self::placeholder`].
    pub fn ipip_path(source: FlowSource) -> Result<Self> {
        let raw = Self::placeholder(source.address, TunnelProtocol::Ipip)?;
        set_mark(&raw.socket, source.mark)?;
        Ok(raw)
    }

    /// The longest datagram of the socket's protocol to `remote`, in bytes, as the kernel knows the
    /// path, less what policies of IPsec add to it. If keys have to be agreed first, the kernel
    /// asks for them, and the result is the MTU of the loopback interface.
    ///
    /// # Errors
    /// There is no route, or a policy blocks the datagrams.
    pub fn path_mtu(&self, remote: Ipv4Addr) -> io::Result<u32> {
        self.socket.connect(&SocketAddrV4::new(remote, 0).into())?;
        get_socket_option(&self.socket, libc::IPPROTO_IP, libc::IP_MTU)
    }

    /// Stops receiving datagrams that arrive on one of these interfaces. Of more than 250
    /// interfaces, the first 250 are excluded.
    ///
    /// # Errors
    /// The kernel refuses the filter: it has no memory for it.
    pub fn only_from_others_than(&self, devices: &[u32]) -> Result<()> {
        // A = the interface's index.
        let mut program = vec![libc::sock_filter {
            code: 0x20,
            jt: 0,
            jf: 0,
            k: (SKF_AD_OFF + SKF_AD_IFINDEX).cast_unsigned(),
        }];
        for device in devices.iter().take(MAX_EXCLUDED) {
            program.push(libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: *device });
            program.push(answer(0));
        }
        program.push(answer(u32::MAX));
        self.attach(&program)
    }

    /// Receives only datagrams from these sources; from everybody if they are more than 2000.
    ///
    /// # Errors
    /// The kernel refuses the filter: it has no memory for it.
    pub fn only_from(&self, sources: &[Ipv4Addr]) -> Result<()> {
        if sources.len() > MAX_SOURCES {
            return self.attach(&[answer(u32::MAX)]);
        }
        // A = the source in the IP header.
        let mut program = vec![libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 12 }];
        for source in sources {
            program.push(libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: source.to_bits() });
            program.push(answer(u32::MAX));
        }
        program.push(answer(0));
        self.attach(&program)
    }

    /// Opens a socket that receives all ICMP errors of RFC 792 sent to `local`. Reading does not
    /// block.
    ///
    /// # Errors
    /// As [`Self::placeholder`].
    pub fn icmp_errors(local: Ipv4Addr) -> Result<Self> {
        let raw = Self::open(libc::IPPROTO_ICMP, "for ICMP")?;
        // ICMP_FILTER runs before a datagram is copied, but covers only types below 32 and lets the
        // others pass. The BPF program stops those.
        let blocked = ICMP_ERRORS.iter().fold(u32::MAX, |mask, kind| mask & !(1 << kind));
        set_socket_option(&raw.socket, SOL_RAW, ICMP_FILTER, blocked)
            .map_err(|error| Error::new("cannot set a filter of ICMP types", error))?;
        raw.attach(&only_icmp_types(ICMP_ERRORS))?;
        raw.bind(local)?;
        raw.set_nonblocking()?;
        Ok(raw)
    }

    fn open_for(protocol: TunnelProtocol) -> Result<Self> {
        let purpose = match protocol {
            TunnelProtocol::Ipip => "for IP in IP",
            TunnelProtocol::Ipv6 => "for IPv6 in IPv4",
        };
        Self::open(protocol.number().into(), purpose)
    }

    fn open(protocol: i32, purpose: &str) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)));
        let socket = socket.map_err(|error| {
            Error::new(format!("cannot open a raw socket {purpose}"), error).needing("CAP_NET_RAW")
        })?;
        Ok(Self { socket })
    }

    fn attach(&self, program: &[libc::sock_filter]) -> Result<()> {
        attach_filter(&self.socket, program)
            .map_err(|error| Error::new("cannot attach a filter to a raw socket", error))
    }

    fn bind(&self, local: Ipv4Addr) -> Result<()> {
        self.socket.bind(&SocketAddrV4::new(local, 0).into()).map_err(|error| {
            let is_missing = error.raw_os_error() == Some(libc::EADDRNOTAVAIL);
            let error = Error::new(format!("cannot bind a raw socket to {local}"), error);
            if is_missing {
                error.with_hint("no interface has this address: `ip address` shows those there are")
            } else {
                error
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
    /// # Errors
    /// No datagram waits and reading does not block (`WouldBlock`).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &self.socket, buffer)
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

    fn set_nonblocking(&self) -> Result<()> {
        self.socket
            .set_nonblocking(true)
            .map_err(|error| Error::new("cannot make a raw socket non-blocking", error))
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

// linux/filter.h
const SKF_AD_OFF: i32 = -0x1000;
const SKF_AD_IFINDEX: i32 = 8;

/// A classic BPF program that passes these ICMP types only. On a raw socket the IP header comes
/// first.
fn only_icmp_types(kinds: [u8; 5]) -> [libc::sock_filter; 9] {
    let if_equal = |kind: u8, jump| libc::sock_filter { code: 0x15, jt: jump, jf: 0, k: u32::from(kind) };
    let [a, b, c, d, e] = kinds;
    [
        // X = the length of the IP header at 0; A = the byte at X.
        libc::sock_filter { code: 0xb1, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: 0x50, jt: 0, jf: 0, k: 0 },
        if_equal(a, 5),
        if_equal(b, 4),
        if_equal(c, 3),
        if_equal(d, 2),
        if_equal(e, 1),
        answer(0),
        answer(u32::MAX),
    ]
}

/// The BPF step that keeps so many bytes of the datagram; 0 drops it.
fn answer(bytes: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: bytes }
}
