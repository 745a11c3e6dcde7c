//! A conversation with nf_tables about one network namespace: what a table of ours is, made what it should be in one
//! transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::answer::{counted, errno_of, find, messages, nested, number, string};
use super::encode::{Batch, IPV4, Message};
use super::message::Writer;
use super::ruleset::Ruleset;
use crate::error::{Error, Result};

/// Of netfilter's own header: family, version, resource.
const NFGEN_HEADER: usize = 4;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
/// A listing that changes while it is made is made again, but not for ever.
const LISTINGS: usize = 16;
const NEEDED: &str =
    "nf_tables is needed, with its expressions objref, reject and rt (CONFIG_NF_TABLES, NFT_REJECT)";

/// Datagrams and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Datagrams.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A table as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// The elements of each set.
    pub sets: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// Whether it is asleep: no datagram meets it.
    pub is_dormant: bool,
    /// Its chains.
    pub chains: BTreeSet<String>,
    /// Counters with a name.
    pub counters: BTreeSet<String>,
    /// A fingerprint of all rules, by which they can be compared with an earlier look.
    pub rules: u64,
}

impl TableState {
    /// Whether it has all that `ruleset` wants, and nothing else; of the rules only that they are the same as those
    /// of `rules`, an earlier fingerprint.
    #[must_use]
    pub fn is(&self, ruleset: &Ruleset, rules: u64) -> bool {
        let is_wanted =
            |name: &String, elements| ruleset.set(name).is_some_and(|set| &set.elements == elements);
        self.rules == rules
            && !self.is_dormant
            && self.sets.len() == ruleset.sets.len()
            && self.sets.iter().all(|(name, elements)| is_wanted(name, elements))
            && self.chains.len() == ruleset.chains.len()
            && ruleset.chains.iter().all(|chain| self.chains.contains(&chain.name))
            && ruleset.counters.iter().all(|counter| self.counters.contains(counter))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Tables {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Tables {
    /// Opens one about the calling thread's network namespace.
    ///
    /// # Errors
    /// No descriptors left; a kernel without netfilter's netlink.
    pub fn open() -> Result<Self> {
        let failed = |error| Error::new("cannot talk to nf_tables", error).with_hint(NEEDED);
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; 1 << 16] })
    }

    /// A number that changes with every change of any table in this namespace.
    ///
    /// # Errors
    /// No nf_tables in this kernel.
    pub fn generation(&mut self) -> Result<u32> {
        const ID: u16 = 1;
        let what = "cannot ask nf_tables for its generation";
        let mut generation = None;
        self.ask(
            Message::GetGeneration,
            0,
            |_| {},
            what,
            |attributes| {
                generation = find(attributes, ID).and_then(number);
            },
        )?;
        generation.ok_or_else(|| Error::from_errno(what, libc::EPROTO))
    }

    /// Whether there is a table of that name.
    ///
    /// # Errors
    /// No nf_tables in this kernel; what the kernel says.
    pub fn exists(&mut self, table: &str) -> Result<bool> {
        self.flags(table).map(|flags| flags.is_some())
    }

    /// The flags of the table of that name, if there is one.
    fn flags(&mut self, table: &str) -> Result<Option<u32>> {
        let what = format!("cannot look at the table `{table}` of nf_tables");
        let mut flags = None;
        let heard =
            |attributes: &[u8]| flags = Some(find(attributes, 2).and_then(number).unwrap_or_default());
        match self.ask(Message::GetTable, 0, |body| body.string(1, table), &what, heard) {
            Ok(()) => Ok(flags),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The table of that name, if there is one.
    ///
    /// # Errors
    /// No nf_tables in this kernel; what the kernel says.
    pub fn look(&mut self, table: &str) -> Result<Option<TableState>> {
        const NAME: u16 = 2;
        const DORMANT: u32 = 1;
        let Some(flags) = self.flags(table)? else { return Ok(None) };
        let what = format!("cannot look at the table `{table}` of nf_tables");
        let mut state = TableState { is_dormant: flags & DORMANT != 0, ..TableState::default() };
        let about = |body: &mut Writer| body.string(1, table);
        // Not every listing is filtered by the kernel.
        let is_ours = |attributes: &[u8]| find(attributes, 1).and_then(string).as_deref() == Some(table);
        let mut names = Vec::new();
        self.list(Message::GetSet, about, &what, |attributes| {
            names.extend(find(attributes, NAME).and_then(string).filter(|_| is_ours(attributes)));
        })?;
        self.list(Message::GetObject, about, &what, |attributes| {
            state.counters.extend(find(attributes, NAME).and_then(string).filter(|_| is_ours(attributes)));
        })?;
        self.list(
            Message::GetChain,
            |_| {},
            &what,
            |attributes| {
                state.chains.extend(find(attributes, 3).and_then(string).filter(|_| is_ours(attributes)));
            },
        )?;
        let mut rules = Vec::new();
        self.list(Message::GetRule, about, &what, |attributes| {
            if is_ours(attributes) {
                // Chain and expressions; its handle is another after each replacement.
                rules
                    .push((find(attributes, 2).map(<[u8]>::to_vec), find(attributes, 4).map(<[u8]>::to_vec)));
            }
        })?;
        let mut hasher = DefaultHasher::new();
        rules.hash(&mut hasher);
        state.rules = hasher.finish();
        for name in names {
            let elements = self.elements(table, &name)?.into_iter().map(|(key, _)| key).collect();
            state.sets.insert(name, elements);
        }
        Ok(Some(state))
    }

    /// The elements of a set, and what each has counted, where it does.
    ///
    /// # Errors
    /// There is no such set; what the kernel says.
    pub fn elements(&mut self, table: &str, set: &str) -> Result<Vec<(Vec<u8>, Counted)>> {
        let what = format!("cannot list the set `{set}` of the table `{table}` of nf_tables");
        let mut found = Vec::new();
        let about = |body: &mut Writer| {
            body.string(1, table);
            body.string(2, set);
        };
        self.list(Message::GetElements, about, &what, |attributes| {
            let list = find(attributes, 3).unwrap_or_default();
            found.extend(nested(list).filter_map(|(_, item)| {
                let key = find(find(item, 1)?, 1)?.to_vec();
                let counted = find(item, 7).and_then(|counter| find(counter, 2)).map(counted);
                Some((key, counted.unwrap_or_default()))
            }));
        })?;
        Ok(found)
    }

    /// What the counters with a name have counted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&mut self, table: &str) -> Result<BTreeMap<String, Counted>> {
        let what = format!("cannot list the counters of the table `{table}` of nf_tables");
        let mut found = BTreeMap::new();
        self.list(
            Message::GetObject,
            |body| body.string(1, table),
            &what,
            |attributes| {
                let is_ours = find(attributes, 1).and_then(string).as_deref() == Some(table);
                let name = find(attributes, 2).and_then(string).filter(|_| is_ours);
                found.extend(name.map(|name| (name, find(attributes, 4).map(counted).unwrap_or_default())));
            },
        )?;
        Ok(found)
    }

    /// Makes the table what `ruleset` says, in one transaction: no datagram meets half of it. Sets and counters that
    /// stay go on counting.
    ///
    /// # Errors
    /// The kernel refuses; everything is then as it was.
    pub fn set(&mut self, ruleset: &Ruleset) -> Result<()> {
        let what = format!("cannot set the table `{}` of nf_tables", ruleset.table);
        let Some(actual) = self.look(&ruleset.table)? else {
            return self.send(transaction(ruleset, &TableState::default(), false), &what);
        };
        match self.send(transaction(ruleset, &actual, false), &what) {
            // A set or a chain of the name is something else: the whole table is replaced.
            Err(error) if !error.is_permission() => {
                self.send(transaction(ruleset, &TableState::default(), true), &what)
            }
            result => result,
        }
    }

    /// Removes the table of that name; whether there was one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete(&mut self, table: &str) -> Result<bool> {
        let mut batch = Batch::new(table);
        batch.delete_table();
        match self.send(batch, &format!("cannot remove the table `{table}` of nf_tables")) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, batch: Batch, what: &str) -> Result<()> {
        let failed = |error| Error::new(what, error).with_hint(NEEDED);
        let (bytes, count) = batch.finish();
        self.make_room(bytes.len(), count as usize)?;
        let sent = self.socket.send(&bytes, 0).map_err(failed)?;
        debug_assert_eq!(sent, bytes.len());
        let mut answered = 0;
        let mut first_error = None;
        // Every message is acknowledged, in their order; the first that fails undoes the batch.
        while answered < count {
            let len = self.receive().map_err(failed)?;
            for message in messages(self.buffer.get(..len).unwrap_or_default()) {
                if message.kind != ERROR {
                    continue;
                }
                // What is wrong with the transaction as a whole is said about its beginning.
                answered = if message.sequence == 0 { count } else { answered.max(message.sequence) };
                let errno = errno_of(message.body);
                if errno != 0 && first_error.is_none() {
                    first_error = Some(errno);
                }
            }
        }
        match first_error {
            None => Ok(()),
            Some(errno) => Err(failed(io::Error::from_raw_os_error(errno)).needing("CAP_NET_ADMIN")),
        }
    }

    /// The kernel takes a transaction only whole, and keeps some 800 bytes for each answer.
    fn make_room(&self, bytes: usize, answers: usize) -> Result<()> {
        let set = |option, size: usize| {
            let size = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX / 2);
            // SAFETY: the descriptor is ours, and the option's value is a c_int of that length.
            let code = unsafe {
                libc::setsockopt(
                    self.socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    std::ptr::from_ref(&size).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if code < 0 { Err(Error::last_os("cannot size the buffers of a netlink socket")) } else { Ok(()) }
        };
        if bytes > 1 << 17 {
            set(libc::SO_SNDBUFFORCE, bytes + (1 << 16))?;
        }
        if answers > 100 {
            set(libc::SO_RCVBUFFORCE, answers * 1024)?;
        }
        Ok(())
    }

    /// Asks for one thing, and hears the attributes of the answer.
    fn ask(
        &mut self,
        message: Message,
        flags: i32,
        body: impl FnOnce(&mut Writer),
        what: &str,
        heard: impl FnMut(&[u8]),
    ) -> Result<()> {
        let failed = |error| Error::new(what, error).with_hint(NEEDED);
        self.sequence = self.sequence.wrapping_add(1);
        let mut writer = Writer::default();
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        writer.message(message.number(), flags, self.sequence, IPV4, 0, body);
        self.socket.send(&writer.into_bytes(), 0).map_err(failed)?;
        match self.answers(heard).map_err(failed)? {
            0 => Ok(()),
            errno => Err(failed(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Asks for all of a kind.
    fn list(
        &mut self,
        message: Message,
        body: impl Fn(&mut Writer),
        what: &str,
        heard: impl FnMut(&[u8]),
    ) -> Result<()> {
        for _ in 0..LISTINGS {
            let mut found = Vec::new();
            let keep = |attributes: &[u8]| found.push(attributes.to_vec());
            match self.ask(message, libc::NLM_F_DUMP, &body, what, keep) {
                Ok(()) => {
                    found.iter().map(Vec::as_slice).for_each(heard);
                    return Ok(());
                }
                Err(error) if error.errno() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::from_errno(what, libc::EAGAIN).with_hint("it changes faster than it can be listed"))
    }

    /// Hears up to the acknowledgement or the end of a listing; its error number, EINTR where something changed
    /// while it was listed.
    fn answers(&mut self, mut heard: impl FnMut(&[u8])) -> io::Result<i32> {
        let mut is_torn = false;
        loop {
            let len = self.receive()?;
            for message in messages(self.buffer.get(..len).unwrap_or_default()) {
                if message.sequence != self.sequence {
                    continue;
                }
                is_torn |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match message.kind {
                    ERROR => return Ok(errno_of(message.body)),
                    DONE if is_torn => return Ok(libc::EINTR),
                    DONE => return Ok(0),
                    _ => heard(message.body.get(NFGEN_HEADER..).unwrap_or_default()),
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// What leads from `actual`, or from nothing after the table that there is has been removed, to `ruleset`.
fn transaction(ruleset: &Ruleset, actual: &TableState, removes: bool) -> Batch {
    let mut batch = Batch::new(&ruleset.table);
    if removes {
        batch.delete_table();
    }
    batch.frame(ruleset);
    let nothing = BTreeSet::new();
    for set in &ruleset.sets {
        let there = actual.sets.get(&set.name);
        if there.is_none() {
            batch.new_set(set);
        }
        let there = there.unwrap_or(&nothing);
        batch.delete_elements(&set.name, &there.difference(&set.elements).collect::<Vec<_>>());
        batch.new_elements(&set.name, &set.elements.difference(there).collect::<Vec<_>>());
    }
    batch.rules(ruleset);
    for name in actual.sets.keys().filter(|name| ruleset.set(name).is_none()) {
        batch.delete_set(name);
    }
    let is_wanted = |name: &String| ruleset.chains.iter().any(|chain| chain.name == *name);
    for name in actual.chains.iter().filter(|name| !is_wanted(name)) {
        batch.delete_chain(name);
    }
    batch
}
