//! The watch over the host's own rules: reads them, and publishes what they mean.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_linux::netlink::Notifications;
use adit_linux::nftables::{Tables, legacy_tables};
use adit_linux::sysctl;
use adit_linux::xfrm::{Policies, Xfrm};
use adit_tunnel::{PeerIndex, Relay, Tunnel};
use arc_swap::ArcSwap;

use super::forward::{Firewall, passed_by, relay_path};
use super::policies::covered;
use super::{HostRules, RelayPath};
use crate::tunnel_interface::TunnelInterface;
use crate::underlay_sources::UnderlaySources;

/// How often to look for changed rules without notice: iptables-legacy and sysctls give none. The
/// number of nf_tables' generation says whether anything has to be listed.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often to list policies without an event, in case one was lost.
const FULL_LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct HostRulesWatch {
    interface: TunnelInterface,
    sources: UnderlaySources,
    /// Whether programs could relay.
    has_programs: bool,
    tables: Option<Tables>,
    generation: Option<u32>,
    firewall: Firewall,
    /// `None`: the kernel has no IPsec.
    xfrm: Option<Xfrm>,
    policies: Result<Policies, String>,
    /// Notice of changed chains, of changed policies, and of changed states, which hold the keys.
    chain_changes: Option<Notifications>,
    policy_changes: Option<Notifications>,
    state_changes: Option<Notifications>,
    looked: Option<Instant>,
    listed: Option<Instant>,
    published: Arc<ArcSwap<HostRules>>,
}

impl HostRulesWatch {
    /// Opens the sources in the calling thread's network namespace, the underlay's. What cannot be
    /// opened counts as a rule.
    pub(crate) fn open(
        interface: &TunnelInterface,
        sources: UnderlaySources,
        has_programs: bool,
        published: Arc<ArcSwap<HostRules>>,
    ) -> Self {
        // Before the first look, so that no change in between is missed.
        let (chain_changes, policy_changes) = (Tables::changes().ok(), Xfrm::changes().ok());
        let state_changes = Xfrm::state_changes().ok();
        let (xfrm, policies) = match Xfrm::open() {
            Ok(xfrm) => (xfrm, Ok(Policies::default())),
            Err(error) => (None, Err(error.to_string())),
        };
        Self {
            interface: interface.clone(),
            sources,
            has_programs,
            tables: None,
            generation: None,
            firewall: Firewall { chains: Ok(Vec::new()), legacy: Ok(Vec::new()) },
            xfrm,
            policies,
            chain_changes,
            policy_changes,
            state_changes,
            looked: None,
            listed: None,
            published,
        }
    }

    /// Reads what has changed since the last look, if it is time, and publishes what it means for
    /// the peers of `tunnel`. Returns true if other peers are covered by a policy than before, or
    /// if there are and what IPsec adds to their datagrams may have changed.
    pub(crate) fn look(&mut self, tunnel: &Tunnel) -> bool {
        let has_new_states = self.state_changes.as_mut().is_some_and(Notifications::any);
        self.look_at_rules(tunnel) || has_new_states && !self.published.load().policies.is_empty()
    }

    fn look_at_rules(&mut self, tunnel: &Tunnel) -> bool {
        let has_new_chains = self.chain_changes.as_mut().is_some_and(Notifications::any);
        let has_new_policies = self.policy_changes.as_mut().is_some_and(Notifications::any);
        let has_news = has_new_chains || has_new_policies;
        if !has_news && self.looked.is_some_and(|looked| looked.elapsed() < LOOK_INTERVAL) {
            return false;
        }
        self.looked = Some(Instant::now());
        self.look_at_firewall();
        let is_due = has_new_policies || self.policy_changes.is_none();
        if is_due || self.listed.is_none_or(|listed| listed.elapsed() >= FULL_LOOK_INTERVAL) {
            self.look_at_policies();
            return self.publish(tunnel);
        }
        let policies = self.published.load().policies.clone();
        self.publish_with(policies, tunnel)
    }

    /// Publishes what the rules mean for the peers of `tunnel`, as last read. Returns true if other
    /// peers are covered by a policy than before.
    pub(crate) fn publish(&self, tunnel: &Tunnel) -> bool {
        // A peer may send to each address of ours from its address of that family.
        let policies = self.sources.iter().flat_map(|source| {
            let peers = tunnel
                .peers()
                .filter_map(|(index, peer)| Some((index, peer.underlay.of_family_of(source.address)?)));
            covered(&self.policies, source, peers)
        });
        let policies: BTreeMap<PeerIndex, String> = policies.collect();
        for (peer, _) in tunnel.peers() {
            tunnel.leave_to_stack(peer, policies.contains_key(&peer));
        }
        self.publish_with(policies, tunnel)
    }

    /// Publishes with the peers that policies cover.
    fn publish_with(&self, policies: BTreeMap<PeerIndex, String>, tunnel: &Tunnel) -> bool {
        let before = self.published.load();
        let passed_by = passed_by(&self.firewall);
        let rules = HostRules { relay: self.relay_path(&tunnel.config().relay), passed_by, policies };
        if rules == **before {
            return false;
        }
        let is_news = rules.policies != before.policies;
        report(&before, &rules, tunnel);
        self.published.store(Arc::new(rules));
        is_news
    }

    /// Whether programs may relay from peer to peer.
    pub(crate) fn relays_directly(&self) -> bool {
        self.published.load().relay.is_direct
    }

    /// Readable when something has changed.
    pub(crate) fn news(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let of_policies = self.policy_changes.iter().chain(&self.state_changes);
        self.chain_changes.iter().chain(of_policies).map(AsFd::as_fd)
    }

    fn relay_path(&self, configured: &Relay) -> RelayPath {
        if !self.has_programs {
            return RelayPath::default();
        }
        let is_separate = self.interface.scope.netns.is_some();
        let forwards = sysctl::forwards(&self.interface.name).unwrap_or(false);
        let firewall = (*configured != Relay::Direct).then_some(&self.firewall);
        relay_path(firewall, is_separate, forwards)
    }

    fn look_at_firewall(&mut self) {
        let generation = match self.tables().and_then(Tables::generation) {
            Ok(generation) => generation,
            Err(error) => {
                self.firewall.chains = Err(error.to_string());
                (self.tables, self.generation) = (None, None);
                return self.look_at_legacy();
            }
        };
        if self.generation != Some(generation) {
            let chains = self.tables().and_then(Tables::base_chains).map_err(|error| error.to_string());
            self.generation = chains.is_ok().then_some(generation);
            self.firewall.chains = chains;
        }
        self.look_at_legacy();
    }

    fn look_at_legacy(&mut self) {
        self.firewall.legacy = legacy_tables().map_err(|error| error.to_string());
    }

    fn tables(&mut self) -> adit_linux::error::Result<&mut Tables> {
        match &mut self.tables {
            Some(tables) => Ok(tables),
            tables => Ok(tables.insert(Tables::open()?)),
        }
    }

    fn look_at_policies(&mut self) {
        let Some(xfrm) = &mut self.xfrm else { return };
        self.policies = xfrm.policies().map_err(|error| error.to_string());
        // What could not be read is read again at the next look.
        self.listed = self.policies.is_ok().then(Instant::now);
    }
}

/// Reads which chains a data plane's frames pass by, in the calling thread's network namespace.
/// What cannot be read names none.
#[must_use]
pub fn chains_passed_by() -> Vec<String> {
    let chains = Tables::open().and_then(|mut tables| tables.base_chains());
    passed_by(&Firewall {
        chains: chains.map_err(|error| error.to_string()),
        legacy: legacy_tables().map_err(|error| error.to_string()),
    })
}

/// Logs which other peers policies cover.
fn report(before: &HostRules, now: &HostRules, tunnel: &Tunnel) {
    for (peer, policy) in &now.policies {
        if !before.policies.contains_key(peer) {
            let name = &tunnel.peer(*peer).name;
            tracing::info!(peer = %name, %policy, "the kernel's stack carries this peer, for IPsec");
        }
    }
    for peer in before.policies.keys().filter(|peer| !now.policies.contains_key(peer)) {
        if let Some((_, peer)) = tunnel.peers().find(|(index, _)| index == peer) {
            tracing::info!(peer = %peer.name, "no policy of IPsec covers this peer any more");
        }
    }
}
