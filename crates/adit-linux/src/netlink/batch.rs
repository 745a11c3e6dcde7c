//! Batches: many requests in one system call.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;

use super::datagram::messages;
use super::socket::{Socket, decode, kernel_text, refused};
use crate::error::{Error, Result};

/// The most requests in one call. The answers to all of them must fit in the socket's buffer: the
/// kernel uses about 800 bytes for each, and allows 400 KiB with the default `net.core.rmem_max`.
const MAX_BATCH: usize = 256;
/// Bytes asked for the socket's buffer.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The answer to one request. It is empty if success has no answer, or if the decoder does not know
/// the answer.
type Answer = Result<Option<RouteNetlinkMessage>>;

/// How the kernel answers a request that succeeds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Success {
    /// With the object that was asked for.
    Answered,
    /// Not at all, unless an acknowledgement is requested.
    Silent,
}

impl Socket {
    /// Sends a request for each of `items`. Stops after the first batch in which the kernel refuses
    /// one; the other requests of that batch are done. `what` reads "cannot ...".
    pub(super) fn change_all<T>(
        &mut self,
        items: &[T],
        flags: u16,
        request: impl Fn(&T) -> RouteNetlinkMessage,
        what: impl Fn(&T) -> String,
    ) -> Result<()> {
        self.make_room(items.len());
        for batch in items.chunks(MAX_BATCH) {
            let answers = self.exchange(batch, flags, Success::Silent, &request, &what)?;
            answers.into_iter().try_for_each(|answer| answer.map(drop))?;
        }
        Ok(())
    }

    /// Looks up each of `items`, and returns the results of `found` for the answers, in order.
    pub(super) fn ask_all<T, U>(
        &mut self,
        items: &[T],
        request: impl Fn(&T) -> RouteNetlinkMessage,
        found: impl Fn(&T, Option<RouteNetlinkMessage>) -> Result<U>,
        what: impl Fn(&T) -> String,
    ) -> Result<Vec<Result<U>>> {
        self.make_room(items.len());
        let mut all = Vec::with_capacity(items.len());
        for batch in items.chunks(MAX_BATCH) {
            let answers = self.exchange(batch, 0, Success::Answered, &request, &what)?;
            let answers = batch.iter().zip(answers);
            all.extend(answers.map(|(item, answer)| answer.and_then(|answer| found(item, answer))));
        }
        Ok(all)
    }

    /// Makes room for the answers. If there is too little, [`Socket::exchange`] repeats requests.
    fn make_room(&self, requests: usize) {
        if requests > 1 {
            let _ = self.set_receive_buffer(RECEIVE_BUFFER);
        }
    }

    /// Sends the requests of one batch together and returns the answer to each. If answers were
    /// lost for lack of room, it sends all again one by one, so a request must be repeatable.
    fn exchange<T>(
        &mut self,
        batch: &[T],
        flags: u16,
        success: Success,
        request: &impl Fn(&T) -> RouteNetlinkMessage,
        what: &impl Fn(&T) -> String,
    ) -> Result<Vec<Answer>> {
        let Some(first_item) = batch.first() else { return Ok(Vec::new()) };
        let first = self.sequence.wrapping_add(1);
        let last = batch.len() - 1;
        let mut bytes = Vec::new();
        for (index, item) in batch.iter().enumerate() {
            // The kernel processes requests in order, so the last one's answer ends the batch.
            let ack = if success == Success::Silent && index == last { NLM_F_ACK } else { 0 };
            self.append(&mut bytes, request(item), NLM_F_REQUEST | flags | ack);
        }
        self.socket.send(&bytes, 0).map_err(|error| Error::new(what(first_item), error))?;
        match self.answers(first, batch, what) {
            Ok(answers) => Ok(answers),
            Err(error) if is_overrun(&error) => {
                self.discard();
                let mut alone = |item| self.request(request(item), flags, || what(item));
                Ok(batch.iter().map(|item| Ok(alone(item)?.into_iter().next())).collect())
            }
            Err(error) => Err(Error::new(what(first_item), error)),
        }
    }

    /// Empties the socket. Until then the kernel does not report another lost answer.
    fn discard(&mut self) {
        while self.receive(libc::MSG_DONTWAIT).map_or_else(|error| is_overrun(&error), |_| true) {}
    }

    /// Receives up to the answer to the last request of a batch. The error is `ENOBUFS` if answers
    /// were lost for lack of room.
    fn answers<T>(
        &mut self,
        first: u32,
        batch: &[T],
        what: &impl Fn(&T) -> String,
    ) -> io::Result<Vec<Answer>> {
        let mut answers: Vec<Answer> = batch.iter().map(|_| Ok(None)).collect();
        loop {
            let len = self.receive(0)?;
            for raw in messages(&self.buffer[..len]) {
                let index = raw.sequence_number().wrapping_sub(first) as usize;
                // An answer to an earlier request.
                let Some(item) = batch.get(index) else { continue };
                if let Some(message) = decode(raw.into_inner()) {
                    answers[index] = match message.payload {
                        NetlinkPayload::InnerMessage(answer) => Ok(Some(answer)),
                        NetlinkPayload::Error(error) => error.code.map_or(Ok(None), |code| {
                            let text = kernel_text(message.header.flags, &error.header);
                            Err(refused(what(item), code.get(), text))
                        }),
                        _ => Ok(None),
                    };
                }
                if index + 1 == batch.len() {
                    return Ok(answers);
                }
            }
        }
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};

    use super::*;
    use crate::netns::NetNs;

    /// Looks up a neighbour that does not exist: the kernel refuses each.
    fn request(number: &u8) -> RouteNetlinkMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 1;
        let address = NeighbourAddress::Inet([192, 0, 2, *number].into());
        message.attributes.push(NeighbourAttribute::Destination(address));
        RouteNetlinkMessage::GetNeighbour(message)
    }

    #[test(root)]
    fn lost_answers_are_requested_again() {
        let mut socket = NetNs::fresh().unwrap().run(|| Socket::open(&[])).unwrap().unwrap();
        let numbers: Vec<u8> = (0..=255).collect();
        let what = |number: &u8| format!("cannot look up neighbour {number}");
        // The kernel's minimum: a few answers fill it.
        socket.set_receive_buffer(1).unwrap();
        let mut bytes = Vec::new();
        for number in &numbers {
            socket.append(&mut bytes, request(number), NLM_F_REQUEST);
        }
        socket.socket.send(&bytes, 0).unwrap();
        let first = socket.sequence.wrapping_sub(255);
        let lost = socket.answers(first, &numbers, &what).unwrap_err();
        assert!(is_overrun(&lost), "{lost}");
        socket.discard();

        for success in [Success::Answered, Success::Silent] {
            let answers = socket.exchange(&numbers, 0, success, &request, &what).unwrap();
            assert_eq!(answers.len(), numbers.len());
            for (number, answer) in numbers.iter().zip(answers) {
                let error = answer.unwrap_err();
                assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
                assert!(error.to_string().starts_with(&what(number)), "{number}: {error}");
            }
        }
    }
}
