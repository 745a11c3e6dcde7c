//! The filter table in the kernel: set, checked, and read for its counters.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_linux::error::Result;
use adit_linux::nftables::{Counted, Ruleset, Tables};

use super::filter::Filter;

/// See the module. The table outlives this process; whoever removes the interfaces removes it too.
#[derive(Debug)]
pub struct FilterTable(Mutex<State>);

#[derive(Debug)]
struct State {
    tables: Tables,
    ruleset: Ruleset,
    /// Fingerprint of its rules as the kernel lists them.
    rules: u64,
    /// The kernel's generation when the table was last found unchanged.
    generation: u32,
}

impl FilterTable {
    /// Opens nf_tables in the calling thread's network namespace. No table is set yet.
    ///
    /// # Errors
    /// Fails if this kernel has no nf_tables.
    pub fn open() -> Result<Self> {
        let state = State { tables: Tables::open()?, ruleset: Ruleset::default(), rules: 0, generation: 0 };
        Ok(Self(Mutex::new(state)))
    }

    /// Sets the table to `filter` in one transaction.
    ///
    /// # Errors
    /// Fails if the kernel refuses; the table is then unchanged.
    pub fn set(&self, filter: &Filter) -> Result<()> {
        let mut state = self.state();
        let ruleset = filter.ruleset();
        state.tables.set(&ruleset)?;
        let generation = state.tables.generation()?;
        let found = state.tables.look(&ruleset.table)?.unwrap_or_default();
        (state.ruleset, state.rules, state.generation) = (ruleset, found.rules, generation);
        Ok(())
    }

    /// Checks that nobody has changed the table. Costs one request while nobody changes any table.
    ///
    /// # Errors
    /// Fails if the table was changed or cannot be read.
    pub fn check(&self) -> std::result::Result<(), String> {
        let mut state = self.state();
        let state = &mut *state;
        let look = |state: &mut State| -> Result<bool> {
            let generation = state.tables.generation()?;
            if generation == state.generation {
                return Ok(true);
            }
            let found = state.tables.look(&state.ruleset.table)?;
            let is_good = found.is_some_and(|found| found.is(&state.ruleset, state.rules));
            if is_good {
                state.generation = generation;
            }
            Ok(is_good)
        };
        match look(state) {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(format!("the table {} of nf_tables was changed or removed", state.ruleset.table))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The values of its counters, by name.
    ///
    /// # Errors
    /// Fails if the table cannot be read.
    pub fn counters(&self) -> Result<BTreeMap<String, Counted>> {
        let mut state = self.state();
        let table = state.ruleset.table.clone();
        state.tables.counters(&table)
    }

    /// The counts of a set's elements.
    ///
    /// # Errors
    /// Fails if there is no such set, or it cannot be read.
    pub fn elements(&self, set: &str) -> Result<Vec<(Vec<u8>, Counted)>> {
        let mut state = self.state();
        let table = state.ruleset.table.clone();
        state.tables.elements(&table, set)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
