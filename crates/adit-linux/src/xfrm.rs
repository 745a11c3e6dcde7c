//! xfrm, the kernel's IPsec: the security policies of one network namespace, and notice of their
//! changes. IPv4 only.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NlasIterator;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_XFRM;

use crate::error::{Error, Result};
use crate::netlink::{Notifications, messages};

// linux/xfrm.h
const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_GETDEFAULT: u16 = 0x28;
const XFRMNLGRP_SA: u32 = 3;
const XFRMNLGRP_POLICY: u32 = 4;
const XFRMA_TMPL: u16 = 5;
const XFRMA_MARK: u16 = 21;
const XFRMA_IF_ID: u16 = 31;
const XFRM_POLICY_BLOCK: u8 = 1;
/// A default policy that drops what no policy matches.
const XFRM_USERPOLICY_BLOCK: u8 = 1;
/// Bytes of `struct xfrm_userpolicy_info`, `struct xfrm_userpolicy_id` and `struct
/// xfrm_userpolicy_default`.
const INFO_LEN: usize = 168;
const ID_LEN: usize = 64;
const DEFAULT_LEN: usize = 3;
const HEADER_LEN: usize = 16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
/// How often a listing that changes while it is read is started again.
const MAX_LISTINGS: usize = 16;

/// The direction of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this host.
    In,
    /// From this host.
    Out,
    /// From one interface to another.
    Forward,
}

impl Direction {
    /// Its name, as `ip xfrm policy` writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Forward => "fwd",
        }
    }
}

/// A policy of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The source addresses that it matches.
    pub source: IpNet,
    /// The destination addresses that it matches.
    pub destination: IpNet,
    /// The protocol that it matches; 0: every one.
    pub protocol: u8,
    /// The direction.
    pub direction: Direction,
    /// True if it drops what it matches.
    pub blocks: bool,
    /// True if it demands a transformation, such as ESP.
    pub transforms: bool,
    /// The mark that it matches, and the mask that is applied to a packet's mark first.
    pub mark: (u32, u32),
    /// The number of the xfrm interface that it is for; 0: none.
    pub interface: u32,
}

/// The policies of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// All policies, except those of single sockets.
    pub policies: Vec<Policy>,
    /// True if the host drops what no policy matches (`ip xfrm policy setdefault`), in or out.
    pub blocks_by_default: bool,
}

/// A connection to xfrm of one network namespace.
#[derive(Debug)]
pub struct Xfrm {
    requests: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Xfrm {
    /// Connects to xfrm of the calling thread's network namespace; `None` if the kernel has none.
    ///
    /// # Errors
    /// No descriptors are left, or CAP_NET_ADMIN is missing.
    pub fn open() -> Result<Option<Self>> {
        let failed = |error| Error::new("cannot connect to xfrm", error).needing("CAP_NET_ADMIN");
        let mut requests = match netlink_sys::Socket::new(NETLINK_XFRM) {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(None),
            requests => requests.map_err(failed)?,
        };
        requests.bind_auto().map_err(failed)?;
        requests.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        Ok(Some(Self { requests, sequence: 0, buffer: vec![0; 1 << 16] }))
    }

    /// Subscribes to changes of policies in the calling thread's network namespace.
    ///
    /// # Errors
    /// No descriptors are left, or CAP_NET_ADMIN is missing.
    pub fn changes() -> Result<Notifications> {
        Notifications::open(NETLINK_XFRM, XFRMNLGRP_POLICY)
    }

    /// Subscribes to changes of states (security associations), which hold the keys.
    ///
    /// # Errors
    /// As [`Self::changes`].
    pub fn state_changes() -> Result<Notifications> {
        Notifications::open(NETLINK_XFRM, XFRMNLGRP_SA)
    }

    /// Reads all policies.
    ///
    /// # Errors
    /// CAP_NET_ADMIN is missing, or the policies change faster than they can be listed.
    pub fn policies(&mut self) -> Result<Policies> {
        let what = "cannot list the policies of xfrm";
        let failed = |error| Error::new(what, error).needing("CAP_NET_ADMIN");
        for _ in 0..MAX_LISTINGS {
            let mut policies = Vec::new();
            let mut found = |bytes: &[u8]| policies.extend(of_message(bytes));
            match self.ask(XFRM_MSG_GETPOLICY, libc::NLM_F_DUMP, ID_LEN, &mut found).map_err(failed)? {
                0 => return Ok(Policies { policies, blocks_by_default: self.blocks_by_default() }),
                libc::EINTR => {}
                errno => return Err(failed(io::Error::from_raw_os_error(errno))),
            }
        }
        Err(Error::from_errno(what, libc::EAGAIN)
            .with_hint("they change faster than they can be listed: try again"))
    }

    /// A kernel before Linux 5.15 has no default policies, and lets everything pass.
    fn blocks_by_default(&mut self) -> bool {
        let mut blocks = false;
        let mut found = |bytes: &[u8]| {
            if let Some([inbound, _, outbound]) = bytes.first_chunk() {
                blocks = [inbound, outbound].contains(&&XFRM_USERPOLICY_BLOCK);
            }
        };
        let _ = self.ask(XFRM_MSG_GETDEFAULT, libc::NLM_F_ACK, DEFAULT_LEN, &mut found);
        blocks
    }

    /// Sends a request with a body of zeros, and passes the body of each answer to `found`. Returns
    /// the error number at the end; `EINTR` if something changed while it was listed.
    fn ask(&mut self, kind: u16, flags: i32, len: usize, found: &mut dyn FnMut(&[u8])) -> io::Result<i32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = vec![0; (HEADER_LEN + len).next_multiple_of(4)];
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        request[..4].copy_from_slice(&((HEADER_LEN + len) as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&kind.to_ne_bytes());
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        request[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        self.requests.send(&request, 0)?;
        let mut is_interrupted = false;
        loop {
            let len = match self.requests.recv(&mut &mut self.buffer[..], 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            for message in messages(self.buffer.get(..len).unwrap_or_default()) {
                if message.sequence_number() != self.sequence {
                    continue;
                }
                is_interrupted |= message.flags() & libc::NLM_F_DUMP_INTR as u16 != 0;
                match message.message_type() {
                    ERROR => {
                        let code = message.payload().first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
                        return Ok(code.map_or(libc::EPROTO, |code| -code));
                    }
                    DONE if is_interrupted => return Ok(libc::EINTR),
                    DONE => return Ok(0),
                    XFRM_MSG_NEWPOLICY | XFRM_MSG_GETDEFAULT => found(message.payload()),
                    _ => {}
                }
            }
        }
    }
}

/// Reads a policy from the body of its message; `None` if it is a socket's own, or of neither IPv4
/// nor IPv6.
///
/// The body is `struct xfrm_userpolicy_info`, which begins with `struct xfrm_selector`:
///
/// ```text
///    0  destination, 16 bytes     40  family            44  protocol
///   16  source, 16 bytes          42  destination's prefix length, then the source's
///  160  direction                161  action
/// ```
fn of_message(body: &[u8]) -> Option<Policy> {
    let info: &[u8; INFO_LEN] = body.first_chunk()?;
    let family = i32::from(u16::from_ne_bytes([info[40], info[41]]));
    let network = |at: usize, prefix: u8| {
        let address = match family {
            libc::AF_INET => IpAddr::from(*info[at..].first_chunk::<4>()?),
            libc::AF_INET6 => IpAddr::from(*info[at..].first_chunk::<16>()?),
            _ => return None,
        };
        Some(IpNet::new(address, prefix).ok()?.trunc())
    };
    let direction = match info[160] {
        0 => Direction::In,
        1 => Direction::Out,
        2 => Direction::Forward,
        _ => return None,
    };
    let attributes =
        || NlasIterator::new(body.get(INFO_LEN..).unwrap_or_default()).map_while(std::result::Result::ok);
    let word = |kind: u16, at: usize| {
        let attribute = attributes().find(|attribute| attribute.kind() == kind)?;
        Some(u32::from_ne_bytes(*attribute.value().get(at..)?.first_chunk()?))
    };
    Some(Policy {
        destination: network(0, info[42])?,
        source: network(16, info[43])?,
        protocol: info[44],
        direction,
        blocks: info[161] == XFRM_POLICY_BLOCK,
        transforms: attributes().any(|attribute| attribute.kind() == XFRMA_TMPL),
        mark: (word(XFRMA_MARK, 0).unwrap_or(0), word(XFRMA_MARK, 4).unwrap_or(0)),
        interface: word(XFRMA_IF_ID, 0).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::NetNs;
    use crate::sockets::poll::readable_within;
    use std::process::Command;
    use std::time::Duration;

    fn info(direction: u8, action: u8) -> Vec<u8> {
        let mut bytes = vec![0; INFO_LEN];
        bytes[..4].copy_from_slice(&[10, 1, 2, 1]);
        bytes[16..20].copy_from_slice(&[10, 1, 1, 9]);
        bytes[40..42].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        (bytes[42], bytes[43], bytes[44]) = (32, 24, 4);
        (bytes[160], bytes[161]) = (direction, action);
        bytes
    }

    fn with(mut bytes: Vec<u8>, kind: u16, words: &[u32]) -> Vec<u8> {
        bytes.extend((4 + 4 * words.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    const PLAIN: fn() -> Policy = || Policy {
        source: "10.1.1.0/24".parse().unwrap(),
        destination: "10.1.2.1/32".parse().unwrap(),
        protocol: 4,
        direction: Direction::Out,
        blocks: false,
        transforms: false,
        mark: (0, 0),
        interface: 0,
    };

    #[test]
    fn a_policy_is_read_from_the_kernels_bytes() {
        assert_eq!(of_message(&info(1, 0)), Some(PLAIN()));
        assert_eq!(
            of_message(&info(0, 1)),
            Some(Policy { direction: Direction::In, blocks: true, ..PLAIN() })
        );
        let transforms = with(info(1, 0), XFRMA_TMPL, &[0; 16]);
        assert_eq!(of_message(&transforms), Some(Policy { transforms: true, ..PLAIN() }));
        let marked = with(with(info(1, 0), XFRMA_MARK, &[7, 0xff]), XFRMA_IF_ID, &[3]);
        assert_eq!(of_message(&marked), Some(Policy { mark: (7, 0xff), interface: 3, ..PLAIN() }));
    }

    #[test]
    fn a_policy_of_ipv6_has_longer_addresses() {
        let mut six = info(1, 0);
        six[40..42].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        let source = "a01:100::/24".parse().unwrap();
        let destination = "a01:201::/32".parse().unwrap();
        assert_eq!(of_message(&six), Some(Policy { source, destination, ..PLAIN() }));
    }

    #[test]
    fn what_is_no_policy_is_left_out() {
        let mut other = info(1, 0);
        other[40..42].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
        assert_eq!(of_message(&other), None);
        // A socket's own policy.
        assert_eq!(of_message(&info(4, 0)), None);
        let mut long_prefix = info(1, 0);
        long_prefix[43] = 33;
        assert_eq!(of_message(&long_prefix), None);
        for len in 0..INFO_LEN {
            assert_eq!(of_message(&info(1, 0)[..len]), None);
        }
    }

    #[test(root)]
    fn policies_of_the_kernel_are_listed_and_their_changes_announced() {
        let ip = |arguments: &str| {
            let run = Command::new("ip").args(["xfrm", "policy"]).args(arguments.split(' ')).status();
            assert!(run.unwrap().success(), "{arguments}");
        };
        let netns = NetNs::fresh().unwrap();
        netns
            .run(|| {
                let mut changes = Xfrm::changes().unwrap();
                let mut xfrm = Xfrm::open().unwrap().expect("a kernel with xfrm");
                assert_eq!(xfrm.policies().unwrap(), Policies::default());
                assert!(!changes.any());
                ip("add src 10.1.1.0/24 dst 10.1.2.1 proto 4 dir out action block");
                ip("add src 10.1.2.1 dst 10.1.1.0/24 dir in tmpl proto esp mode transport");
                assert!(readable_within(&changes, Duration::from_secs(5)).unwrap());
                assert!(changes.any());
                let mut policies = xfrm.policies().unwrap().policies;
                policies.sort_by_key(|policy| policy.direction.as_str());
                let inbound = Policy {
                    source: PLAIN().destination,
                    destination: PLAIN().source,
                    protocol: 0,
                    direction: Direction::In,
                    transforms: true,
                    ..PLAIN()
                };
                assert_eq!(policies, [inbound, Policy { blocks: true, ..PLAIN() }]);
                ip("setdefault out block");
                assert!(xfrm.policies().unwrap().blocks_by_default);
            })
            .unwrap();
    }
}
