//! Many requests in one system call.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;

use super::datagram::messages;
use super::socket::{Socket, decode, kernel_text, refused};
use crate::error::{Error, Result};

/// Requests in one call. As many answers have to find room in the socket: the kernel takes some 800 bytes
/// of it for each, and gives us 400 KiB where `net.core.rmem_max` is as Linux sets it.
const BATCH: usize = 256;
const ROOM: usize = 1 << 20;

/// What a request of a batch was answered; nothing where that is the sign of success, and where it is
/// something that the decoder does not know.
type Answer = Result<Option<RouteNetlinkMessage>>;

/// Whether the kernel answers a request that it has granted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Granted {
    /// With what was asked for.
    Answered,
    /// Not unless told to.
    Silent,
}

impl Socket {
    /// Changes something by each of `items`, up to the first batch in which something is refused; of that
    /// batch the others are done. `what` reads "cannot ...".
    pub(super) fn change_all<T>(
        &mut self,
        items: &[T],
        flags: u16,
        request: impl Fn(&T) -> RouteNetlinkMessage,
        what: impl Fn(&T) -> String,
    ) -> Result<()> {
        self.make_room(items.len());
        for batch in items.chunks(BATCH) {
            let answers = self.exchange(batch, flags, Granted::Silent, &request, &what)?;
            answers.into_iter().try_for_each(|answer| answer.map(drop))?;
        }
        Ok(())
    }

    /// Looks each of `items` up, and returns what `found` makes of the answers, in their order.
    pub(super) fn ask_all<T, U>(
        &mut self,
        items: &[T],
        request: impl Fn(&T) -> RouteNetlinkMessage,
        found: impl Fn(&T, Option<RouteNetlinkMessage>) -> Result<U>,
        what: impl Fn(&T) -> String,
    ) -> Result<Vec<Result<U>>> {
        self.make_room(items.len());
        let mut all = Vec::with_capacity(items.len());
        for batch in items.chunks(BATCH) {
            let answers = self.exchange(batch, 0, Granted::Answered, &request, &what)?;
            let answers = batch.iter().zip(answers);
            all.extend(answers.map(|(item, answer)| answer.and_then(|answer| found(item, answer))));
        }
        Ok(all)
    }

    /// Room for the answers. Less than was asked for is no failure: see [`Socket::exchange`].
    fn make_room(&self, requests: usize) {
        if requests > 1 {
            let _ = self.set_receive_buffer(ROOM);
        }
    }

    /// Sends the requests of one batch together and returns what each was answered. Where answers found no
    /// room they are sent again, one by one: so nothing may be sent that cannot be repeated.
    fn exchange<T>(
        &mut self,
        batch: &[T],
        flags: u16,
        granted: Granted,
        request: &impl Fn(&T) -> RouteNetlinkMessage,
        what: &impl Fn(&T) -> String,
    ) -> Result<Vec<Answer>> {
        let Some(first_item) = batch.first() else { return Ok(Vec::new()) };
        let first = self.sequence.wrapping_add(1);
        let last = batch.len() - 1;
        let mut bytes = Vec::new();
        for (index, item) in batch.iter().enumerate() {
            // Requests are worked through in their order: the last one's answer is the end of the batch.
            let ack = if granted == Granted::Silent && index == last { NLM_F_ACK } else { 0 };
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

    /// Empties the socket. The kernel does not tell of another answer that is lost before that is done.
    fn discard(&mut self) {
        while self.receive(libc::MSG_DONTWAIT).map_or_else(|error| is_overrun(&error), |_| true) {}
    }

    /// Receives up to the answer to the last request of a batch. The error is `ENOBUFS` when there was no
    /// room for all.
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
                // What is left of a request before these.
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

    /// Looks a neighbour up that is not there: each is refused.
    fn request(number: &u8) -> RouteNetlinkMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 1;
        let address = NeighbourAddress::Inet([192, 0, 2, *number].into());
        message.attributes.push(NeighbourAttribute::Destination(address));
        RouteNetlinkMessage::GetNeighbour(message)
    }

    #[test(root)]
    fn answers_that_find_no_room_are_asked_for_again() {
        let mut socket = NetNs::fresh().unwrap().run(|| Socket::open(&[])).unwrap().unwrap();
        let numbers: Vec<u8> = (0..=255).collect();
        let what = |number: &u8| format!("cannot look up neighbour {number}");
        // The kernel's least: a few answers fill it.
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

        for granted in [Granted::Answered, Granted::Silent] {
            let answers = socket.exchange(&numbers, 0, granted, &request, &what).unwrap();
            assert_eq!(answers.len(), numbers.len());
            for (number, answer) in numbers.iter().zip(answers) {
                let error = answer.unwrap_err();
                assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
                assert!(error.to_string().starts_with(&what(number)), "{number}: {error}");
            }
        }
    }
}
