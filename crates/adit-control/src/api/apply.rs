//! The request to apply a file, and its answer.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reconcile::change::Change;

/// How long a change may take. A client waits that long for the answer, and a daemon whose change
/// takes longer no longer feeds its watchdog. A large overlay takes some seconds to load.
pub(crate) const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);

/// A file to apply.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ApplyRequest {
    /// Its path, which status names from now on. A reload reads the file that the daemon was
    /// started with.
    pub file: PathBuf,
    /// Its content.
    pub text: String,
    /// Seconds until the change is rolled back unless it is confirmed.
    pub confirm_seconds: Option<u64>,
}

/// What an apply or a reload has changed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// The changes; none if everything was already as the file says.
    pub changes: Vec<Change>,
    /// Seconds until the change is rolled back unless it is confirmed; none if nothing waits.
    #[serde(default)]
    pub confirm_seconds: Option<u64>,
}
