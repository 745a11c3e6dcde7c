//! The rtnetlink socket: it sends a request and collects the answers and the acknowledgement.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::datagram::messages;
use crate::error::{Error, Result};

/// Bytes of the receive buffer. Of a listing the kernel fills at most 32 KiB at a time.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// How often a listing that changes while it is read is started again.
const MAX_LISTINGS: usize = 16;
const NETLINK_HEADER: usize = 16;
// linux/netlink.h
const NLMSGERR_ATTR_MSG: u16 = 1;

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) socket: netlink_sys::Socket,
    /// The sequence number of the last request.
    pub(super) sequence: u32,
    pub(super) buffer: Vec<u8>,
}

/// How a request ended.
enum Outcome {
    Done,
    /// Something changed while it was listed. Parts may be missing.
    Interrupted,
}

impl Socket {
    /// Opens a socket that receives the notifications of the given multicast groups.
    pub(super) fn open(groups: &[u32]) -> Result<Self> {
        let failed = |step: &str, error| Error::new(format!("cannot {step} a netlink socket"), error);
        let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE).map_err(|error| failed("open", error))?;
        socket.bind_auto().map_err(|error| failed("bind", error))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(|error| failed("connect", error))?;
        let strict = |error| {
            failed("set the options of", error)
                .with_hint("Linux 4.20 or newer is needed: extended acknowledgements, strict checks")
        };
        socket.set_ext_ack(true).map_err(strict)?;
        socket.set_cap_ack(true).map_err(strict)?;
        socket.set_netlink_get_strict_chk(true).map_err(strict)?;
        for &group in groups {
            socket.add_membership(group).map_err(|error| failed("join a group with", error))?;
        }
        Ok(Self { socket, sequence: 0, buffer: vec![0; RECEIVE_BUFFER] })
    }

    /// Sends a request that changes something or looks something up, and returns the answers.
    /// `what` reads "cannot ...".
    pub(super) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags, &what)?;
        self.collect(|answer| answers.push(answer), &what)?;
        Ok(answers)
    }

    /// Lists all objects that `message` matches.
    pub(super) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.dump_of(message, Some, what)
    }

    /// Lists all objects that `message` matches, and keeps only what `of` returns for each.
    pub(super) fn dump_of<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        of: impl Fn(RouteNetlinkMessage) -> Option<T>,
        what: impl Fn() -> String,
    ) -> Result<Vec<T>> {
        for _ in 0..MAX_LISTINGS {
            let mut answers = Vec::new();
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, &what)?;
            match self.collect(|answer| answers.extend(of(answer)), &what)? {
                Outcome::Done => return Ok(answers),
                Outcome::Interrupted => {}
            }
        }
        Err(Error::from_errno(what(), libc::EAGAIN)
            .with_hint("it changes faster than it can be listed: try again"))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16, what: &impl Fn() -> String) -> Result<()> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, flags);
        self.socket.send(&bytes, 0).map(drop).map_err(|error| Error::new(what(), error))
    }

    /// Appends a request with the next sequence number to `bytes`.
    pub(super) fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        // Each message starts at a multiple of four.
        let start = bytes.len().next_multiple_of(4);
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }

    /// Collects answers until the acknowledgement or the end of the listing.
    fn collect(
        &mut self,
        mut answered: impl FnMut(RouteNetlinkMessage),
        what: &impl Fn() -> String,
    ) -> Result<Outcome> {
        let mut outcome = Outcome::Done;
        loop {
            let len = self.receive(0).map_err(|error| Error::new(what(), error))?;
            for raw in messages(&self.buffer[..len]) {
                // An answer that is left of an earlier request that failed.
                if raw.sequence_number() != self.sequence {
                    continue;
                }
                if raw.flags() & NLM_F_DUMP_INTR != 0 {
                    outcome = Outcome::Interrupted;
                }
                let Some(message) = decode(raw.into_inner()) else { continue };
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answered(answer),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(outcome),
                            Some(code) => {
                                let text = kernel_text(message.header.flags, &error.header);
                                Err(refused(what(), code.get(), text))
                            }
                        };
                    }
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(refused(what(), done.code, message_attribute(&done.extended_ack)));
                    }
                    NetlinkPayload::Done(_) => return Ok(outcome),
                    _ => {}
                }
            }
        }
    }

    /// Returns the notifications of a datagram; `None` if none waits. The error is `ENOBUFS` if
    /// notifications were lost.
    pub(super) fn notifications(&mut self) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let len = match self.receive(libc::MSG_DONTWAIT) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let heard = messages(&self.buffer[..len]).filter_map(|raw| decode(raw.into_inner()));
        let heard = heard.filter_map(|message| match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        });
        Ok(Some(heard.collect()))
    }

    pub(super) fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        self.socket.set_rx_buf_sz(bytes)
    }

    pub(super) fn receive(&mut self, flags: libc::c_int) -> io::Result<usize> {
        loop {
            match self.socket.recv(&mut &mut self.buffer[..], flags) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(super) fn refused(what: String, code: i32, text: Option<String>) -> Error {
    let error = Error::from_errno(what, code.saturating_abs());
    let error = match text {
        Some(text) => error.with_kernel_text(text),
        None => error,
    };
    error.needing("CAP_NET_ADMIN")
}

/// Decodes a message. Returns `None`, and logs it, for one that the decoder does not know: an
/// unusual object of another program is no reason to fail, and Adit's own objects are known.
pub(super) fn decode(bytes: &[u8]) -> Option<NetlinkMessage<RouteNetlinkMessage>> {
    NetlinkMessage::deserialize(bytes)
        .inspect_err(|error| tracing::debug!(%error, "skipped a netlink message that cannot be decoded"))
        .ok()
}

/// Returns the kernel's message in an acknowledgement. `rest` are the bytes after the error number.
pub(super) fn kernel_text(flags: u16, rest: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    // First comes the request. If capped, it is the header only; the kernel need not cap it.
    let request = match flags & NLM_F_CAPPED {
        0 => NetlinkBuffer::new_checked(rest).ok()?.length() as usize,
        _ => NETLINK_HEADER,
    };
    message_attribute(rest.get(request.next_multiple_of(4)..)?)
}

fn message_attribute(attributes: &[u8]) -> Option<String> {
    let text =
        NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(text.value());
    Some(text.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attribute NLMSGERR_ATTR_MSG with "no", padded.
    const WORDS: [u8; 8] = [7, 0, 1, 0, b'n', b'o', 0, 0];

    #[test]
    fn the_kernels_message_follows_a_capped_request() {
        let mut rest = vec![0; NETLINK_HEADER];
        rest.extend(WORDS);
        assert_eq!(kernel_text(NLM_F_ACK_TLVS | NLM_F_CAPPED, &rest).as_deref(), Some("no"));
        assert_eq!(kernel_text(NLM_F_CAPPED, &rest), None);
    }

    #[test]
    fn the_kernels_message_follows_a_whole_request() {
        let mut rest = vec![0; NETLINK_HEADER + 4];
        rest[0] = (NETLINK_HEADER + 4) as u8;
        rest.extend(WORDS);
        assert_eq!(kernel_text(NLM_F_ACK_TLVS, &rest).as_deref(), Some("no"));
    }

    #[test]
    fn a_truncated_acknowledgement_has_no_message() {
        let mut rest = vec![0; NETLINK_HEADER];
        rest.extend(WORDS);
        for len in 0..NETLINK_HEADER + 7 {
            assert_eq!(kernel_text(NLM_F_ACK_TLVS | NLM_F_CAPPED, &rest[..len]), None, "{len}");
        }
    }
}
