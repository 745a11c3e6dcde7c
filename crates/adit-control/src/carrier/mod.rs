//! The way an overlay's packets are carried: by a veth pair and a data plane behind it, or by
//! Linux's tunnel drivers. Both make different kernel objects in a different order, and everything
//! else in this crate works with either through [`Carrier`].

pub(crate) mod choice;
mod ip_tunnel;
mod prepared;
mod running;
mod veth;

use adit_config::Config;
use adit_dataplane::kernel::limits::Limit;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Network, Route};

use crate::error::ControlError;
use crate::namespaces::Namespaces;
use crate::reconcile::change::Change;
use crate::reconcile::desired::Desired;
use crate::reconcile::foreign_routes::ForeignRoutes;
use crate::reconcile::objects::Actual;
use crate::reconcile::peer_update::PeerUpdate;

pub(crate) use prepared::Prepared;
pub(crate) use running::Running;

/// How packets are carried. A carrier belongs to one overlay, and holds what it needs beside the
/// objects that every overlay has.
pub(crate) trait Carrier: Send {
    /// Refuses an inner side that this carrier cannot serve.
    fn check_scope(&self, scope: &NetScope) -> Result<(), ControlError>;

    /// Adapts the desired state to the interfaces of the inner side.
    fn adapt(&self, desired: &mut Desired, site: &str, inner: &mut dyn Network) -> Result<(), ControlError>;

    /// Lists the objects of the overlay that exist. `known` are the indices of its interfaces if it
    /// runs, and `routes` those of the table of its routes.
    fn observe(
        &self,
        namespaces: &mut Namespaces,
        site: &str,
        desired: &Desired,
        known: &[u32],
        routes: &[Route],
    ) -> Result<Actual, ControlError>;

    /// Makes everything and starts to forward. Takes over what an earlier daemon left. If a step
    /// fails, what was made until then is removed.
    fn bring_up(
        &mut self,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
    ) -> Result<Running, ControlError>;

    /// Replaces what runs by what was prepared. If a step fails, what was changed until then stays:
    /// the caller installs the previous configuration again.
    fn install(
        &mut self,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
        running: &mut Running,
    ) -> Result<(), ControlError>;

    /// Follows interfaces of ours that somebody has renamed.
    fn follow_renames(
        &mut self,
        desired: &mut Desired,
        site: &str,
        inner: &mut dyn Network,
    ) -> Result<(), ControlError>;

    /// Checks what forwards, and returns what is wrong. `is_whole` says whether all interfaces are
    /// the overlay's.
    fn check_plane(&self, running: &Running, is_whole: bool) -> Option<Change>;

    /// Restores the desired objects, except where routes of others have the place of ours.
    fn repair(
        &mut self,
        namespaces: &mut Namespaces,
        damage: &Damage<'_>,
        running: &mut Running,
    ) -> Result<Repair, ControlError>;

    /// Changes peers while everything else keeps running. `None`: this needs an installation.
    fn update_peers(&mut self, update: PeerUpdate<'_>) -> Result<Option<Vec<Change>>, ControlError>;

    /// Removes what this carrier keeps outside of the network namespace, as far as it is in use.
    fn remove(&mut self, namespaces: &Namespaces, site: &str) -> Result<(), ControlError>;

    /// Returns true if Adit learns the state of paths itself, so that it is kept over a restart.
    fn learns_paths(&self) -> bool;

    /// Returns what this carrier does not do, though others do.
    fn limits(&self) -> &'static [Limit];
}

/// What a repair starts from.
pub(crate) struct Damage<'a> {
    pub(crate) site: &'a str,
    pub(crate) desired: &'a Desired,
    /// Routes of others to desired networks.
    pub(crate) foreign: &'a ForeignRoutes,
    /// All routes of the table of the overlay's routes.
    pub(crate) routes: &'a [Route],
    /// Whether all interfaces are the overlay's.
    pub(crate) is_whole: bool,
}

/// What a repair came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Everything is as desired.
    Done,
    /// Nothing was touched: only an installation restores what is missing.
    NeedsInstall,
}
