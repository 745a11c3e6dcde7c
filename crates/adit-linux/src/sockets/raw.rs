//! Raw IPv4 sockets of the tunnel's own: one that keeps the kernel quiet about a protocol it does
//! not speak, one that hears what routers say, one that sends whole datagrams.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Error, Result};
use crate::process::wait;
use crate::sockets::packet::{enlarge_receive_buffer, set_socket_option};

/// IP in IP (RFC 2003).
const IPPROTO_IPIP: i32 = libc::IPPROTO_IPIP;
// linux/icmp.h
const SOL_RAW: libc::c_int = 255;
const ICMP_FILTER: libc::c_int = 1;
/// Destination unreachable, source quench, redirect, time exceeded, parameter problem: the errors
/// of RFC 792.
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];

/// A raw IPv4 socket; what it is for, its constructor says.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
}

impl RawSocket {
    /// One that sends whole datagrams, header and all, by the host's routes. The kernel fills in
    /// the header's checksum, its total length, and where they are 0 its source and, unless DF is
    /// set, its identification. Datagrams longer than the interface's MTU are refused (`EMSGSIZE`).
    ///
    /// # Errors
    /// No CAP_NET_RAW.
    pub fn sender() -> Result<Self> {
        let raw = Self::open(libc::IPPROTO_RAW, "to send datagrams")?;
        // What the kernel has heard of the path must not refuse what asks about it.
        set_socket_option(&raw.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
            .map_err(|error| Error::new("cannot set IP_MTU_DISCOVER on a raw socket", error))?;
        Ok(raw)
    }

    /// One whose existence keeps the kernel from answering IP-in-IP datagrams to `local` with ICMP
    /// Protocol Unreachable. It never receives anything. It does not keep the kernel's own tunnel
    /// driver quiet: where the module `tunnel4` is loaded (by `ipip` or `sit`), datagrams that no
    /// tunnel of the kernel's takes are answered with Port Unreachable: [`Quiet`](crate::nftables::Quiet) helps.
    ///
    /// # Errors
    /// No CAP_NET_RAW, `local` is not an address of this host.
    pub fn silencer(local: Ipv4Addr) -> Result<Self> {
        let raw = Self::open(IPPROTO_IPIP, "for IP in IP")?;
        // Before it is bound, so that nothing is ever kept.
        raw.attach(&[answer(0)])?;
        raw.bind(local)?;
        Ok(raw)
    }

    /// One that receives IP-in-IP datagrams to `local`, whole and reassembled, and keeps the kernel from
    /// answering them as [`Self::silencer`] does. Reading does not block.
    ///
    /// # Errors
    /// As for [`Self::silencer`].
    pub fn ipip(local: Ipv4Addr) -> Result<Self> {
        let raw = Self::open(IPPROTO_IPIP, "for IP in IP")?;
        enlarge_receive_buffer(&raw.socket);
        raw.bind(local)?;
        raw.set_nonblocking(true)?;
        Ok(raw)
    }

    /// Receives nothing from now on that comes by one of these interfaces (at most some 250).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn only_from_others_than(&self, devices: &[u32]) -> Result<()> {
        // A = the interface's index.
        let mut program = vec![libc::sock_filter {
            code: 0x20,
            jt: 0,
            jf: 0,
            k: (SKF_AD_OFF + SKF_AD_IFINDEX).cast_unsigned(),
        }];
        for device in devices.iter().take(250) {
            program.push(libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: *device });
            program.push(answer(0));
        }
        program.push(answer(u32::MAX));
        self.attach(&program)
    }

    /// One that receives the ICMP errors of RFC 792 sent to `local`, whatever they are about.
    /// Reading does not block.
    ///
    /// # Errors
    /// As for [`Self::silencer`].
    pub fn icmp_errors(local: Ipv4Addr) -> Result<Self> {
        let raw = Self::open(libc::IPPROTO_ICMP, "for ICMP")?;
        // The filter of the protocol is asked before a datagram is copied, but knows only types
        // below 32 and lets the others pass; the program stops those.
        let blocked = ICMP_ERRORS.iter().fold(u32::MAX, |mask, kind| mask & !(1 << kind));
        set_socket_option(&raw.socket, SOL_RAW, ICMP_FILTER, blocked)
            .map_err(|error| Error::new("cannot set a filter of ICMP types", error))?;
        raw.attach(&only_icmp_types(ICMP_ERRORS))?;
        raw.bind(local)?;
        raw.set_nonblocking(true)?;
        Ok(raw)
    }

    fn open(protocol: i32, purpose: &str) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)));
        let socket = socket.map_err(|error| {
            Error::new(format!("cannot open a raw socket {purpose}"), error).needing("CAP_NET_RAW")
        })?;
        Ok(Self { socket })
    }

    fn attach(&self, program: &[libc::sock_filter]) -> Result<()> {
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        set_socket_option(&self.socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
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

    /// Sends one datagram, to where its header says.
    ///
    /// # Errors
    /// `InvalidInput` when it has no whole header; no route, too long, a full queue.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let to = destination(datagram)?;
        self.socket.send_to(datagram, &SocketAddrV4::new(to, 0).into()).map(drop)
    }

    /// Sends datagrams in one system call (of at most 1024), as [`Self::send`] does one. Returns
    /// how many the kernel took: fewer than all, when the next one failed.
    ///
    /// # Errors
    /// The first one failed.
    pub fn send_batch(&self, datagrams: &[&[u8]]) -> io::Result<usize> {
        let mut names = Vec::with_capacity(datagrams.len());
        for datagram in datagrams {
            names.push(socket_address(destination(datagram)?));
        }
        let mut pieces: Vec<libc::iovec> = datagrams
            .iter()
            .map(|datagram| libc::iovec {
                iov_base: datagram.as_ptr().cast_mut().cast(),
                iov_len: datagram.len(),
            })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = names
            .iter_mut()
            .zip(&mut pieces)
            .map(|(name, piece)| {
                // SAFETY: `mmsghdr` is plain old data, for which all zeros is a value.
                let mut header: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
                header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
                header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
                header.msg_hdr.msg_iov = piece;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        // SAFETY: the headers point to names, pieces and datagrams that outlive the call, which
        // reads the datagrams and writes nothing but the headers.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as libc::c_uint, 0)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Receives one datagram, header and all; returns its length, at most the buffer's.
    ///
    /// # Errors
    /// `WouldBlock` when none waits and reading does not block.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &self.socket, buffer)
    }

    /// The same, waiting for at most `patience`; `None` when none came.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn recv_within(&self, buffer: &mut [u8], patience: Duration) -> io::Result<Option<usize>> {
        if wait(&self.socket, Some(patience))? { self.recv(buffer).map(Some) } else { Ok(None) }
    }

    /// Datagrams that came while the socket's buffer was full, since it was opened (modulo 2^32).
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

    /// Whether reading and sending return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        self.socket
            .set_nonblocking(nonblocking)
            .map_err(|error| Error::new("cannot set whether a raw socket blocks", error))
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

fn socket_address(ip: Ipv4Addr) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    }
}

// linux/filter.h
const SKF_AD_OFF: i32 = -0x1000;
const SKF_AD_IFINDEX: i32 = 8;

/// A classic BPF program for a raw socket, which sees the IP header first: only these ICMP types.
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

/// Keep so many bytes.
fn answer(bytes: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: bytes }
}
