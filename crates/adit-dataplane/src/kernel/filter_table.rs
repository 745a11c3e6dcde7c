//! The table of nf_tables as it is kept: set, looked at whether it still is what was set, read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_linux::error::Result;
use adit_linux::nftables::{Counted, Ruleset, Tables};

use super::filter::Filter;

/// See the module. It outlives this process: removing it is whoever's who removes the interfaces.
#[derive(Debug)]
pub struct FilterTable(Mutex<State>);

#[derive(Debug)]
struct State {
    tables: Tables,
    ruleset: Ruleset,
    /// The fingerprint of its rules as the kernel tells them.
    rules: u64,
    /// When it was last found to be as it was set.
    generation: u32,
}

impl FilterTable {
    /// In the calling thread's network namespace; nothing is set yet.
    ///
    /// # Errors
    /// No nf_tables in this kernel.
    pub fn open() -> Result<Self> {
        let state = State { tables: Tables::open()?, ruleset: Ruleset::default(), rules: 0, generation: 0 };
        Ok(Self(Mutex::new(state)))
    }

    /// Makes the table what `filter` says, in one step.
    ///
    /// # Errors
    /// The kernel refuses; it is then as it was.
    pub fn set(&self, filter: &Filter) -> Result<()> {
        let mut state = self.state();
        let ruleset = filter.ruleset();
        state.tables.set(&ruleset)?;
        let generation = state.tables.generation()?;
        let found = state.tables.look(&ruleset.table)?.unwrap_or_default();
        (state.ruleset, state.rules, state.generation) = (ruleset, found.rules, generation);
        Ok(())
    }

    /// Whether it is still as it was set. Costs one small question as long as nobody changes any table.
    ///
    /// # Errors
    /// What has become of it, in a few words.
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

    /// What its counters have counted, by their names.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&self) -> Result<BTreeMap<String, Counted>> {
        let mut state = self.state();
        let table = state.ruleset.table.clone();
        state.tables.counters(&table)
    }

    /// What the elements of a set have counted.
    ///
    /// # Errors
    /// There is no such set; what the kernel says.
    pub fn elements(&self, set: &str) -> Result<Vec<(Vec<u8>, Counted)>> {
        let mut state = self.state();
        let table = state.ruleset.table.clone();
        state.tables.elements(&table, set)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
