//! A route of gateway A in the two-site network to B's network that is not Adit's: a backup with a
//! worse metric, or one that wins against the tunnel's.

use adit_lab::LabError;
use adit_lab::host::Host;
use adit_lab::two_sites::TwoSites;

/// B's network.
pub const NETWORK: &str = "192.168.199.0/24";
/// The metric of [`Rank::Backup`]. The tunnel's route has none, which is best.
pub const BACKUP_METRIC: u32 = 100;
/// The interface of a route that wins.
const WINNING_DEVICE: &str = "dummyA";

/// How the route stands to the tunnel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// It has a worse metric, and holds while the tunnel's is not there.
    Backup,
    /// It is in the place of the tunnel's.
    Replacing,
    /// It is before the tunnel's, with the same metric.
    Preceding,
}

/// The route. Dropping it leaves it in place.
pub struct ForeignRoute {
    gateway: Host,
    device: &'static str,
}

impl ForeignRoute {
    /// Adds the route.
    ///
    /// # Errors
    /// Fails if `ip` refuses it.
    pub fn add(sites: &TwoSites, rank: Rank) -> Result<Self, LabError> {
        let (verb, device) = match rank {
            Rank::Backup => ("add", "underlayA"),
            Rank::Replacing => ("replace", WINNING_DEVICE),
            Rank::Preceding => ("prepend", WINNING_DEVICE),
        };
        let metric = BACKUP_METRIC.to_string();
        let backup: &[&str] =
            if rank == Rank::Backup { &["via", "10.1.1.99", "metric", &metric] } else { &[] };
        let route = [&["route", verb, NETWORK, "dev", device], backup].concat();
        sites.gateway_a.program("ip", &route)?;
        Ok(Self { gateway: sites.gateway_a.clone(), device })
    }

    /// Deletes the route.
    ///
    /// # Errors
    /// Fails if it is not there any more.
    pub fn remove(self) -> Result<(), LabError> {
        self.gateway.program("ip", &["route", "delete", NETWORK, "dev", self.device])
    }
}
