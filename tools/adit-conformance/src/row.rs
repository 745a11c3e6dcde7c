//! A row of the document: a rule, what it asks for, and how it is found out what a system does.

use crate::error::Error;
use crate::reaction::Reaction;
use crate::site::Site;
use crate::system::Setup;
use crate::testbed::{Side, Testbed};

/// How strictly the rule is meant (RFC 2119).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Must,
    MustNot,
    Should,
    ShouldNot,
    May,
    /// The RFC says how it is, in no such word.
    Plain,
}

impl Level {
    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
            Self::May => "MAY",
            Self::Plain => "–",
        }
    }

    /// Whether not to follow it is a fault of ours.
    pub(crate) fn binds(self) -> bool {
        !matches!(self, Self::May | Self::Plain)
    }
}

/// Which end of a tunnel the system is in this row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Encapsulator,
    Decapsulator,
}

/// What drives the testbed and says what was observed.
pub(crate) type Drive = Box<dyn Fn(&mut Trial<'_>) -> Result<String, Error> + Send + Sync>;

/// One observation of a row, with a site of its own.
pub(crate) struct Part {
    /// What is different from the row's other parts; empty if there is one only.
    pub(crate) label: String,
    /// Any of these is what the rule asks for.
    pub(crate) asks: Vec<String>,
    pub(crate) drive: Drive,
}

/// A rule.
pub(crate) struct Row {
    /// Of which document.
    pub(crate) section: &'static str,
    pub(crate) level: Level,
    pub(crate) role: Role,
    /// In the name of its files of packets.
    pub(crate) name: &'static str,
    /// In a short sentence.
    pub(crate) rule: &'static str,
    pub(crate) setup: Setup,
    /// It uses up what the kernel shares out among all its namespaces, so that nothing else may run.
    pub(crate) is_alone: bool,
    pub(crate) parts: Vec<Part>,
}

impl Row {
    /// One without parts yet, of a tunnel with defaults.
    pub(crate) fn new(
        section: &'static str,
        level: Level,
        role: Role,
        name: &'static str,
        rule: &'static str,
    ) -> Self {
        Self { section, level, role, name, rule, setup: Setup::Default, is_alone: false, parts: Vec::new() }
    }

    pub(crate) fn with(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    /// Nothing else runs meanwhile.
    pub(crate) fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Adds an observation.
    pub(crate) fn part(
        mut self,
        label: &str,
        asks: &[&str],
        drive: impl Fn(&mut Trial<'_>) -> Result<String, Error> + Send + Sync + 'static,
    ) -> Self {
        let asks = asks.iter().map(|&asked| asked.to_owned()).collect();
        self.parts.push(Part { label: label.to_owned(), asks, drive: Box::new(drive) });
        self
    }

    /// The only observation.
    pub(crate) fn one(
        self,
        asks: &[&str],
        drive: impl Fn(&mut Trial<'_>) -> Result<String, Error> + Send + Sync + 'static,
    ) -> Self {
        self.part("", asks, drive)
    }

    /// Observes all parts, each with a site that nothing is known of.
    pub(crate) fn observe(&self, testbed: &mut Testbed) -> Result<Vec<String>, Error> {
        if !testbed.system.is_adit() && self.setup.linux().is_none() {
            return Ok(self.parts.iter().map(|_| "no such mode".to_owned()).collect());
        }
        self.parts
            .iter()
            .map(|part| {
                let site = testbed.site(self.setup)?;
                (part.drive)(&mut Trial { testbed, site, setup: self.setup })
            })
            .collect()
    }

    /// Whether every part is as asked for.
    pub(crate) fn is_met_by(&self, observed: &[String]) -> bool {
        self.parts.iter().zip(observed).all(|(part, observed)| part.asks.contains(observed))
    }
}

/// A testbed, and a site in it that nothing is known of.
pub(crate) struct Trial<'t> {
    pub(crate) testbed: &'t mut Testbed,
    pub(crate) site: Site,
    setup: Setup,
}

impl Trial<'_> {
    /// Another site that nothing is known of.
    pub(crate) fn another_site(&mut self) -> Result<Site, Error> {
        self.testbed.site(self.setup)
    }

    /// A host on our side sends it; all that comes of it.
    pub(crate) fn send(&mut self, datagram: Vec<u8>) -> Result<Reaction, Error> {
        self.testbed.put(Side::Inside, &[datagram])
    }

    /// It comes by the underlay; all that comes of it.
    pub(crate) fn arrive(&mut self, datagram: Vec<u8>) -> Result<Reaction, Error> {
        self.testbed.put(Side::Underlay, &[datagram])
    }

    /// A host on our side sends it; the outer datagram it leaves in, if it does.
    pub(crate) fn carried(&mut self, datagram: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        let site = self.site;
        let complete = |reaction: &Reaction| !reaction.sent_to(site).is_empty();
        let reaction = self.testbed.put_unless(Side::Inside, &[datagram], complete)?;
        Ok(reaction.sent_to(site).first().map(|outer| outer.to_vec()))
    }

    /// It comes by the tunnel; what the sender's host gets of it, if it does.
    pub(crate) fn delivered(&mut self, outer: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        let to = self.site.sender();
        let complete = |reaction: &Reaction| !reaction.delivered_to(to).is_empty();
        let reaction = self.testbed.put_unless(Side::Underlay, &[outer], complete)?;
        Ok(reaction.delivered_to(to).first().map(|inner| inner.to_vec()))
    }
}
