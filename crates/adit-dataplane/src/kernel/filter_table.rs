//! The filter tables in the kernel: set, checked, and read for their counters.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_linux::error::Result;
use adit_linux::family::Family;
use adit_linux::nftables::{Counted, Ruleset, Tables};

use super::filter::{Filter, table_name};

/// See the module. The tables outlive this process; whoever removes the interfaces removes them
/// too.
#[derive(Debug)]
pub struct FilterTable(Mutex<State>);

#[derive(Debug)]
struct State {
    tables: Tables,
    /// The name of the tables.
    name: String,
    /// Each table, with a fingerprint of its rules as the kernel lists them.
    rulesets: Vec<(Ruleset, u64)>,
    /// The kernel's generation when the tables were last found unchanged.
    generation: u32,
}

impl State {
    /// Returns true if the tables are as they were set.
    fn is_good(&mut self) -> Result<bool> {
        let generation = self.tables.generation()?;
        if generation == self.generation {
            return Ok(true);
        }
        for (ruleset, rules) in &self.rulesets {
            let found = self.tables.look(ruleset.family, &self.name)?;
            if !found.is_some_and(|found| found.is(ruleset, *rules)) {
                return Ok(false);
            }
        }
        self.generation = generation;
        Ok(true)
    }
}

impl FilterTable {
    /// Opens nf_tables in the calling thread's network namespace. No table is set yet.
    ///
    /// # Errors
    /// Fails if this kernel has no nf_tables.
    pub fn open() -> Result<Self> {
        let tables = Tables::open()?;
        Ok(Self(Mutex::new(State { tables, name: String::new(), rulesets: Vec::new(), generation: 0 })))
    }

    /// Sets the tables to `filter` in one transaction.
    ///
    /// # Errors
    /// Fails if the kernel refuses; the tables are then unchanged.
    pub fn set(&self, filter: &Filter) -> Result<()> {
        let mut state = self.state();
        let (name, rulesets) = (table_name(&filter.site), filter.rulesets());
        state.tables.set(&name, &rulesets)?;
        state.generation = state.tables.generation()?;
        let mut set = Vec::with_capacity(rulesets.len());
        for ruleset in rulesets {
            let found = state.tables.look(ruleset.family, &name)?.unwrap_or_default();
            set.push((ruleset, found.rules));
        }
        (state.name, state.rulesets) = (name, set);
        Ok(())
    }

    /// Checks that nobody has changed the tables. Costs one request while nobody changes any table.
    ///
    /// # Errors
    /// Fails if a table was changed or cannot be read.
    pub fn check(&self) -> std::result::Result<(), String> {
        let mut state = self.state();
        match state.is_good() {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("the table {} of nf_tables was changed or removed", state.name)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The families that have a table.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        self.state().rulesets.iter().map(|(ruleset, _)| ruleset.family).collect()
    }

    /// The values of a table's counters, by name.
    ///
    /// # Errors
    /// Fails if the table cannot be read.
    pub fn counters(&self, family: Family) -> Result<BTreeMap<String, Counted>> {
        let mut state = self.state();
        let name = state.name.clone();
        state.tables.counters(family, &name)
    }

    /// The counts of the elements of a table's set.
    ///
    /// # Errors
    /// Fails if there is no such set, or it cannot be read.
    pub fn elements(&self, family: Family, set: &str) -> Result<Vec<(Vec<u8>, Counted)>> {
        let mut state = self.state();
        let name = state.name.clone();
        state.tables.elements(family, &name, set)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
