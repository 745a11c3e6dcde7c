//! The drop reasons with their counts, as `adit drops` shows them.

use adit_tunnel::DropReason;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::drop_status::DropStatus;
use crate::state::status::{SCHEMA, Status};

/// Every drop reason, including those that have never occurred.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drops {
    /// The version of the shape.
    pub schema: u32,
    /// The site's name.
    pub site: String,
    /// The reasons, in the order in which a datagram meets them.
    pub drops: Vec<Drop>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drop {
    /// Its name, which no release changes.
    pub reason: String,
    /// How many packets, and the last of them.
    #[serde(flatten)]
    pub dropped: DropStatus,
    /// The stage at which a datagram meets it.
    pub stage: String,
    /// The section of the RFC that it follows from.
    pub section: String,
    /// What it means, in one sentence.
    pub explanation: String,
}

impl Drops {
    /// All reasons, with the counts of a status.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let drops = DropReason::ALL.into_iter().map(|reason| Drop {
            reason: reason.as_str().to_owned(),
            dropped: status.drops.get(reason.as_str()).cloned().unwrap_or_default(),
            stage: reason.stage().title().to_owned(),
            section: reason.section().to_owned(),
            explanation: reason.explanation().to_owned(),
        });
        Self { schema: SCHEMA, site: status.site.name.clone(), drops: drops.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::sample;

    #[test]
    fn every_reason_is_listed_once_with_its_count() {
        let mut status = sample::status();
        status.drops.insert("queue-full".to_owned(), DropStatus { count: 7, last: None });
        let drops = Drops::of(&status);
        assert_eq!(drops.drops.len(), DropReason::COUNT);
        let counted: Vec<_> = drops.drops.iter().filter(|drop| drop.dropped.count > 0).collect();
        assert_eq!(counted.len(), 1);
        assert_eq!((counted[0].reason.as_str(), counted[0].dropped.count), ("queue-full", 7));
        assert_eq!(counted[0].section, DropReason::QueueFull.section());
    }
}
