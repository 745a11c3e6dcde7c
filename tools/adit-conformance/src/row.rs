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
    /// The RFC states it without such a word.
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

    /// Returns true if Adit must follow the rule.
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

/// A function that drives the testbed and describes what it observes.
pub(crate) type Drive = Box<dyn Fn(&mut Trial<'_>) -> Result<String, Error> + Send + Sync>;

/// One observation of a row, with a site of its own.
pub(crate) struct Part {
    /// How it differs from the row's other parts; empty if it is the only one.
    pub(crate) label: String,
    /// Any of these is what the rule asks for.
    pub(crate) asks: Vec<String>,
    pub(crate) drive: Drive,
}

/// A rule.
pub(crate) struct Row {
    /// The document and section.
    pub(crate) section: &'static str,
    pub(crate) level: Level,
    pub(crate) role: Role,
    /// The id, which also names its packet files.
    pub(crate) name: &'static str,
    /// The rule in one sentence.
    pub(crate) rule: &'static str,
    pub(crate) setup: Setup,
    /// True if it uses up a resource that all namespaces share, so that no other row may run
    /// meanwhile.
    pub(crate) is_alone: bool,
    /// True if Adit breaks the rule on purpose, as the rule's text says.
    pub(crate) is_deviation: bool,
    pub(crate) parts: Vec<Part>,
}

impl Row {
    /// A row without parts, for a tunnel with defaults.
    pub(crate) fn new(
        section: &'static str,
        level: Level,
        role: Role,
        name: &'static str,
        rule: &'static str,
    ) -> Self {
        Self {
            section,
            level,
            role,
            name,
            rule,
            setup: Setup::Default,
            is_alone: false,
            is_deviation: false,
            parts: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    /// Lets no other row run meanwhile.
    pub(crate) fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Marks a rule that Adit breaks on purpose.
    pub(crate) fn deviation(mut self) -> Self {
        self.is_deviation = true;
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

    /// Adds the only observation.
    pub(crate) fn one(
        self,
        asks: &[&str],
        drive: impl Fn(&mut Trial<'_>) -> Result<String, Error> + Send + Sync + 'static,
    ) -> Self {
        self.part("", asks, drive)
    }

    /// Observes all parts, each with an unused site.
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

    /// Returns true if every part's observation is one that the rule asks for.
    pub(crate) fn is_met_by(&self, observed: &[String]) -> bool {
        self.parts.iter().zip(observed).all(|(part, observed)| part.asks.contains(observed))
    }
}

/// One observation in progress: the testbed and an unused site.
pub(crate) struct Trial<'t> {
    pub(crate) testbed: &'t mut Testbed,
    pub(crate) site: Site,
    setup: Setup,
}

impl Trial<'_> {
    /// Takes another unused site.
    pub(crate) fn another_site(&mut self) -> Result<Site, Error> {
        self.testbed.site(self.setup)
    }

    /// Sends a datagram from a host on the inside, and returns all reactions.
    pub(crate) fn send(&mut self, datagram: Vec<u8>) -> Result<Reaction, Error> {
        self.testbed.put(Side::Inside, &[datagram])
    }

    /// Sends a datagram from the underlay, and returns all reactions.
    pub(crate) fn arrive(&mut self, datagram: Vec<u8>) -> Result<Reaction, Error> {
        self.testbed.put(Side::Underlay, &[datagram])
    }

    /// Sends a datagram from a host on the inside, and returns the outer datagram, if one leaves.
    pub(crate) fn carried(&mut self, datagram: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        let site = self.site;
        let complete = |reaction: &Reaction| !reaction.sent_to(site).is_empty();
        let reaction = self.testbed.put_unless(Side::Inside, &[datagram], complete)?;
        Ok(reaction.sent_to(site).first().map(|outer| outer.to_vec()))
    }

    /// Sends an outer datagram to the gateway, and returns what the sender's host receives, if
    /// anything.
    pub(crate) fn delivered(&mut self, outer: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        let to = self.site.sender();
        let complete = |reaction: &Reaction| !reaction.delivered_to(to).is_empty();
        let reaction = self.testbed.put_unless(Side::Underlay, &[outer], complete)?;
        Ok(reaction.delivered_to(to).first().map(|inner| inner.to_vec()))
    }
}
