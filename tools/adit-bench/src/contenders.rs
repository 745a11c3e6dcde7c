//! The contenders that could be started, each on a testbed of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use tempfile::TempDir;

use crate::error::BenchError;
use crate::interrupt;
use crate::measure::Measure;
use crate::peers::{Contender, Tools, Tunnel};
use crate::testbed::Shape;

/// Time for a daemon to remove what it made.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// All contenders of a run.
pub(crate) struct Field {
    tunnels: BTreeMap<(Shape, Contender), Tunnel>,
    pub(crate) standings: Vec<Standing>,
    /// Declared last, so that it is dropped after the programs that use it.
    directory: TempDir,
}

/// A contender on a testbed, with the reason if it could not be started.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Standing {
    pub(crate) contender: Contender,
    pub(crate) shape: Shape,
    pub(crate) version: Option<String>,
    pub(crate) mtu: Option<u32>,
    /// Why it could not be started.
    pub(crate) failure: Option<String>,
}

impl Field {
    /// Starts the contenders on the testbeds that `measures` need. The standing of a contender that
    /// cannot be started has the reason.
    pub(crate) fn start(
        contenders: &BTreeSet<Contender>,
        measures: &[Measure],
        tools: &Tools,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self, BenchError> {
        let directory = tempfile::Builder::new()
            .prefix("adit-bench-")
            .tempdir()
            .map_err(BenchError::io("make a temporary directory"))?;
        let mut field = Self { tunnels: BTreeMap::new(), standings: Vec::new(), directory };
        let needed: BTreeSet<(Shape, Contender)> = measures
            .iter()
            .flat_map(|measure| measure.contenders().iter().map(|&contender| (measure.shape(), contender)))
            .filter(|(_, contender)| contenders.contains(contender))
            .collect();
        for (shape, contender) in needed {
            let outcome = Tunnel::start(contender, shape, field.directory.path(), tools);
            interrupt::check()?;
            let (mut version, mut mtu, mut failure) = (None, None, None);
            match outcome {
                Ok(tunnel) => {
                    version.clone_from(&tunnel.version);
                    mtu = Some(tunnel.mtu);
                    field.tunnels.insert((shape, contender), tunnel);
                }
                Err(error) => {
                    tell(&format!("{} cannot be measured: {error}", contender.name()));
                    failure = Some(error.to_string());
                }
            }
            field.standings.push(Standing { contender, shape, version, mtu, failure });
        }
        Ok(field)
    }

    /// A contender that could be started.
    pub(crate) fn tunnel(&self, shape: Shape, contender: Contender) -> Option<&Tunnel> {
        self.tunnels.get(&(shape, contender))
    }

    /// Adit cleans up when it is asked to end. The others vanish with their namespaces.
    pub(crate) fn end(mut self) -> Result<Vec<Standing>, BenchError> {
        for ((_, contender), tunnel) in &mut self.tunnels {
            if contender.flavour().is_some() {
                tunnel.end(STOP_TIMEOUT)?;
            }
        }
        Ok(self.standings)
    }
}
