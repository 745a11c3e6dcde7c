//! A connection to nf_tables of one network namespace: reads tables, and makes a table match a
//! [`Ruleset`] in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::answer::{Counted, attributes, counted, errno_of, find, number, string};
use super::batch::{Batch, Message, family_number};
use super::ruleset::Ruleset;
use super::uapi::*;
use super::writer::Writer;
use crate::error::{Error, Result};
use crate::family::Family;
use crate::netlink::messages;
use crate::sockets::set_socket_option;

/// Bytes of netfilter's own header: family, version, resource.
const NFGEN_HEADER: usize = 4;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
/// How often a listing that changes while it is read is started again.
const MAX_LISTINGS: usize = 16;
const NEEDED: &str =
    "nf_tables is needed, with its expressions objref, reject and rt (CONFIG_NF_TABLES, NFT_REJECT)";

/// The elements of a set, in the kernel's order: the key and the count of each.
pub type Elements = Vec<(Vec<u8>, Counted)>;

/// A table as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// The elements of each set.
    pub sets: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// True if the table is dormant: the kernel does not apply it.
    pub is_dormant: bool,
    /// The names of its chains.
    pub chains: BTreeSet<String>,
    /// The names of its named counters.
    pub counters: BTreeSet<String>,
    /// A fingerprint of all rules, to be compared with that of an earlier state.
    pub rules: u64,
}

impl TableState {
    /// Returns true if the table is what `ruleset` describes, and no more.
    ///
    /// Rules are compared with `rules`, the fingerprint taken after the ruleset was set.
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

/// A connection to nf_tables of one network namespace.
#[derive(Debug)]
pub struct Tables {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Tables {
    /// Connects to nf_tables of the calling thread's network namespace.
    ///
    /// # Errors
    /// No descriptors are left, or the kernel has no netfilter netlink.
    pub fn open() -> Result<Self> {
        let failed = |error| Error::new("cannot connect to nf_tables", error).with_hint(NEEDED);
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; 1 << 16] })
    }

    /// Returns a number that changes with every change of any table in the namespace.
    ///
    /// # Errors
    /// The kernel has no nf_tables.
    pub fn generation(&mut self) -> Result<u32> {
        let what = "cannot read the generation of nf_tables";
        let mut generation = None;
        let found = |bytes: &[u8]| generation = find(bytes, NFTA_GEN_ID).and_then(number);
        // All families have the same.
        self.ask(Family::V4, Message::GetGeneration, 0, |_| {}, what, found)?;
        generation.ok_or_else(|| Error::from_errno(what, libc::EPROTO).with_hint(NEEDED))
    }

    /// Returns true if there is a table of that name and family.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or refuses to show the table.
    pub fn exists(&mut self, family: Family, table: &str) -> Result<bool> {
        self.flags(family, table).map(|flags| flags.is_some())
    }

    /// Returns the flags of a table, if there is one of that name and family.
    fn flags(&mut self, family: Family, table: &str) -> Result<Option<u32>> {
        let what = format!("cannot look up the table `{table}` of nf_tables");
        let mut flags = None;
        let found =
            |bytes: &[u8]| flags = Some(find(bytes, NFTA_TABLE_FLAGS).and_then(number).unwrap_or_default());
        let about = |body: &mut Writer| body.string(NFTA_TABLE_NAME, table);
        match self.ask(family, Message::GetTable, 0, about, &what, found) {
            Ok(()) => Ok(flags),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the state of a table, if there is one of that name and family.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or refuses to list a part of the table.
    pub fn look(&mut self, family: Family, table: &str) -> Result<Option<TableState>> {
        let Some(flags) = self.flags(family, table)? else { return Ok(None) };
        let what = format!("cannot list the table `{table}` of nf_tables");
        let mut state = TableState { is_dormant: flags & NFT_TABLE_F_DORMANT != 0, ..TableState::default() };
        let about = |body: &mut Writer| body.string(NFTA_TABLE_NAME, table);
        // The kernel does not filter every listing by it.
        let is_ours = |bytes: &[u8]| find(bytes, NFTA_TABLE_NAME).and_then(string).as_deref() == Some(table);
        let name = |bytes: &[u8], kind| find(bytes, kind).and_then(string).filter(|_| is_ours(bytes));
        let mut sets = Vec::new();
        self.list(family, Message::GetSet, about, &what, |bytes| sets.extend(name(bytes, NFTA_SET_NAME)))?;
        let counters = &mut state.counters;
        self.list(family, Message::GetObject, about, &what, |bytes| {
            counters.extend(name(bytes, NFTA_OBJ_NAME));
        })?;
        let chains = &mut state.chains;
        self.list(
            family,
            Message::GetChain,
            |_| {},
            &what,
            |bytes| {
                chains.extend(name(bytes, NFTA_CHAIN_NAME));
            },
        )?;
        let mut rules = Vec::new();
        self.list(family, Message::GetRule, about, &what, |bytes| {
            if is_ours(bytes) {
                // Not the handle: a rule gets another one each time it is replaced.
                let part = |kind| find(bytes, kind).map(<[u8]>::to_vec);
                rules.push((part(NFTA_RULE_CHAIN), part(NFTA_RULE_EXPRESSIONS)));
            }
        })?;
        let mut hasher = DefaultHasher::new();
        rules.hash(&mut hasher);
        state.rules = hasher.finish();
        for name in sets {
            let elements = self.elements(family, table, &name)?.into_iter().map(|(key, _)| key).collect();
            state.sets.insert(name, elements);
        }
        Ok(Some(state))
    }

    /// Returns the elements of a set, and the count of each. In a set without counters it is 0.
    ///
    /// The kernel moves a growing set to a larger hash table in the background. A listing in that
    /// time can omit elements, and the kernel does not flag it. A listing of several datagrams is
    /// therefore repeated until two have the same elements.
    ///
    /// # Errors
    /// There is no such set, or the kernel refuses to list it.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Elements> {
        let what = format!("cannot list the set `{set}` of the table `{table}` of nf_tables");
        let keys = |elements: &Elements| -> BTreeSet<Vec<u8>> {
            elements.iter().map(|(key, _)| key.clone()).collect()
        };
        let (mut elements, datagrams) = self.list_elements(family, table, set, &what)?;
        if datagrams < 2 {
            return Ok(elements);
        }
        let mut expected = keys(&elements);
        for _ in 0..MAX_LISTINGS {
            (elements, _) = self.list_elements(family, table, set, &what)?;
            let found = keys(&elements);
            if found == expected {
                return Ok(elements);
            }
            expected = found;
        }
        Err(changes_too_fast(&what))
    }

    /// Lists a set once. Also returns how many datagrams with elements the kernel sent.
    fn list_elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        what: &str,
    ) -> Result<(Elements, usize)> {
        let mut elements = Vec::new();
        let mut datagrams = 0;
        let about = |body: &mut Writer| {
            body.string(NFTA_SET_ELEM_LIST_TABLE, table);
            body.string(NFTA_SET_ELEM_LIST_SET, set);
        };
        self.list(family, Message::GetElements, about, what, |bytes| {
            datagrams += 1;
            let list = find(bytes, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
            elements.extend(attributes(list).filter_map(|(_, item)| {
                let key = find(find(item, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)?.to_vec();
                let counter =
                    find(item, NFTA_SET_ELEM_EXPR).and_then(|counter| find(counter, NFTA_EXPR_DATA));
                Some((key, counter.map(counted).unwrap_or_default()))
            }));
        })?;
        Ok((elements, datagrams))
    }

    /// Returns the counts of a table's named counters.
    ///
    /// # Errors
    /// The kernel refuses to list them.
    pub fn counters(&mut self, family: Family, table: &str) -> Result<BTreeMap<String, Counted>> {
        let what = format!("cannot list the counters of the table `{table}` of nf_tables");
        let mut counters = BTreeMap::new();
        let about = |body: &mut Writer| body.string(NFTA_OBJ_TABLE, table);
        self.list(family, Message::GetObject, about, &what, |bytes| {
            let is_ours = find(bytes, NFTA_OBJ_TABLE).and_then(string).as_deref() == Some(table);
            let name = find(bytes, NFTA_OBJ_NAME).and_then(string).filter(|_| is_ours);
            let count = || find(bytes, NFTA_OBJ_DATA).map(counted).unwrap_or_default();
            counters.extend(name.map(|name| (name, count())));
        })?;
        Ok(counters)
    }

    /// Makes the tables named `table` match `rulesets`, which are of different families, in one
    /// transaction, so that every datagram meets the old or the new tables. A family without a
    /// ruleset has no table afterwards. Sets and counters that stay keep their counts.
    ///
    /// # Errors
    /// The kernel refuses; the tables are then unchanged.
    pub fn set(&mut self, table: &str, rulesets: &[Ruleset]) -> Result<()> {
        let mut actual = Vec::with_capacity(Family::BOTH.len());
        for family in Family::BOTH {
            actual.push((family, self.look(family, table)?));
        }
        let what = set_what(table);
        match self.send(changes(table, rulesets, &actual, Present::Changed), &what) {
            // A set or a chain of the same name may be of another type. Replace the whole tables.
            Err(error) if !error.is_permission() && actual.iter().any(|(_, found)| found.is_some()) => {
                self.send(changes(table, rulesets, &actual, Present::Replaced), &what)
            }
            result => result,
        }
    }

    /// Creates the table in one transaction.
    ///
    /// # Errors
    /// The kernel refuses; then it creates nothing.
    pub(super) fn create(&mut self, ruleset: &Ruleset) -> Result<()> {
        let changes = changes(&ruleset.table, std::slice::from_ref(ruleset), &[], Present::Changed);
        self.send(changes, &set_what(&ruleset.table))
    }

    /// Removes the tables of that name, of both families. Returns true if there was one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn delete(&mut self, table: &str) -> Result<bool> {
        let mut had_any = false;
        for family in Family::BOTH {
            let mut batch = Batch::new(table);
            batch.go_to(family);
            batch.delete_table();
            match self.send(batch, &format!("cannot remove the table `{table}` of nf_tables")) {
                Ok(()) => had_any = true,
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(had_any)
    }

    fn send(&mut self, batch: Batch, what: &str) -> Result<()> {
        let failed = |error| Error::new(what, error).with_hint(NEEDED);
        let (bytes, count) = batch.finish();
        self.make_room(bytes.len(), count as usize)?;
        let sent = self.socket.send(&bytes, 0).map_err(failed)?;
        debug_assert_eq!(sent, bytes.len());
        let mut answered = 0;
        let mut first_error = None;
        // The kernel acknowledges the messages in order. The first that fails undoes the
        // transaction.
        while answered < count {
            let len = self.receive().map_err(failed)?;
            for message in messages(self.buffer.get(..len).unwrap_or_default()) {
                if message.message_type() != ERROR {
                    continue;
                }
                // An error of the whole transaction refers to its first message, whose number is 0.
                answered = match message.sequence_number() {
                    0 => count,
                    number => answered.max(number),
                };
                let errno = errno_of(message.payload());
                if errno != 0 && first_error.is_none() {
                    first_error = Some(errno);
                }
            }
        }
        match first_error {
            None => Ok(()),
            Some(libc::EPERM) => Err(Error::from_errno(what, libc::EPERM).needing("CAP_NET_ADMIN")),
            Some(errno) => Err(failed(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Enlarges the socket's buffers: the kernel takes a transaction in one piece only, and uses
    /// about 800 bytes for each answer.
    fn make_room(&self, bytes: usize, answers: usize) -> Result<()> {
        let set = |option, size: usize| {
            let size = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX / 2);
            set_socket_option(&self.socket, libc::SOL_SOCKET, option, size).map_err(|error| {
                Error::new("cannot enlarge the buffers of a netlink socket", error).needing("CAP_NET_ADMIN")
            })
        };
        if bytes > 1 << 17 {
            set(libc::SO_SNDBUFFORCE, bytes + (1 << 16))?;
        }
        if answers > 100 {
            set(libc::SO_RCVBUFFORCE, answers * 1024)?;
        }
        Ok(())
    }

    /// Sends a request about objects of a family, and passes the attributes of each answer to
    /// `found`.
    fn ask(
        &mut self,
        family: Family,
        message: Message,
        flags: i32,
        body: impl FnOnce(&mut Writer),
        what: &str,
        found: impl FnMut(&[u8]),
    ) -> Result<()> {
        self.ask_number(family_number(family), message, flags, body, what, found)
    }

    /// As [`Self::ask`], with netfilter's number of a family, of which there are more.
    fn ask_number(
        &mut self,
        family: u8,
        message: Message,
        flags: i32,
        body: impl FnOnce(&mut Writer),
        what: &str,
        found: impl FnMut(&[u8]),
    ) -> Result<()> {
        let failed = |error| Error::new(what, error).with_hint(NEEDED);
        self.sequence = self.sequence.wrapping_add(1);
        let mut writer = Writer::default();
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        writer.message(message.number(), flags, self.sequence, family, 0, body);
        self.socket.send(&writer.into_bytes(), 0).map_err(failed)?;
        match self.answers(found).map_err(failed)? {
            0 => Ok(()),
            errno => Err(failed(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Lists all objects of a kind and a family, and passes the attributes of each to `found`.
    fn list(
        &mut self,
        family: Family,
        message: Message,
        body: impl Fn(&mut Writer),
        what: &str,
        found: impl FnMut(&[u8]),
    ) -> Result<()> {
        self.list_number(family_number(family), message, body, what, found)
    }

    /// As [`Self::list`], with netfilter's number of a family.
    pub(super) fn list_number(
        &mut self,
        family: u8,
        message: Message,
        body: impl Fn(&mut Writer),
        what: &str,
        found: impl FnMut(&[u8]),
    ) -> Result<()> {
        for _ in 0..MAX_LISTINGS {
            let mut objects = Vec::new();
            let keep = |bytes: &[u8]| objects.push(bytes.to_vec());
            match self.ask_number(family, message, libc::NLM_F_DUMP, &body, what, keep) {
                Ok(()) => {
                    objects.iter().map(Vec::as_slice).for_each(found);
                    return Ok(());
                }
                Err(error) if error.errno() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(changes_too_fast(what))
    }

    /// Receives answers up to the acknowledgement or the end of a listing, and returns the error
    /// number in that; `EINTR` if something changed while it was listed.
    fn answers(&mut self, mut found: impl FnMut(&[u8])) -> io::Result<i32> {
        let mut is_interrupted = false;
        loop {
            let len = self.receive()?;
            for message in messages(self.buffer.get(..len).unwrap_or_default()) {
                if message.sequence_number() != self.sequence {
                    continue;
                }
                is_interrupted |= message.flags() & libc::NLM_F_DUMP_INTR as u16 != 0;
                match message.message_type() {
                    ERROR => return Ok(errno_of(message.payload())),
                    DONE if is_interrupted => return Ok(libc::EINTR),
                    DONE => return Ok(0),
                    _ => found(message.payload().get(NFGEN_HEADER..).unwrap_or_default()),
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

fn changes_too_fast(what: &str) -> Error {
    Error::from_errno(what, libc::EAGAIN).with_hint("it changes faster than it can be listed: try again")
}

fn set_what(table: &str) -> String {
    format!("cannot set the table `{table}` of nf_tables")
}

/// What happens to a table that exists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    Changed,
    Replaced,
}

/// Returns the transaction that changes the tables of a name from `actual` to `rulesets`.
fn changes(
    table: &str,
    rulesets: &[Ruleset],
    actual: &[(Family, Option<TableState>)],
    present: Present,
) -> Batch {
    let mut batch = Batch::new(table);
    let nothing = TableState::default();
    let state_of = |family| actual.iter().find(|(of, _)| *of == family).and_then(|(_, state)| state.as_ref());
    for family in Family::BOTH {
        batch.go_to(family);
        let (ruleset, state) = (rulesets.iter().find(|ruleset| ruleset.family == family), state_of(family));
        if state.is_some() && (ruleset.is_none() || present == Present::Replaced) {
            batch.delete_table();
        }
        let Some(ruleset) = ruleset else { continue };
        let kept = state.filter(|_| present == Present::Changed);
        write_changes(&mut batch, ruleset, kept.unwrap_or(&nothing));
    }
    batch
}

/// Writes the messages that change one table from `actual` to `ruleset`.
fn write_changes(batch: &mut Batch, ruleset: &Ruleset, actual: &TableState) {
    batch.create_frame(ruleset);
    let nothing = BTreeSet::new();
    for set in &ruleset.sets {
        let present = actual.sets.get(&set.name);
        if present.is_none() {
            batch.create_set(set);
        }
        let present = present.unwrap_or(&nothing);
        batch.delete_elements(&set.name, &present.difference(&set.elements).collect::<Vec<_>>());
        batch.add_elements(&set.name, &set.elements.difference(present).collect::<Vec<_>>());
    }
    batch.replace_rules(ruleset);
    for name in actual.sets.keys().filter(|name| ruleset.set(name).is_none()) {
        batch.delete_set(name);
    }
    let is_wanted = |name: &String| ruleset.chains.iter().any(|chain| chain.name == *name);
    for name in actual.chains.iter().filter(|name| !is_wanted(name)) {
        batch.delete_chain(name);
    }
}
