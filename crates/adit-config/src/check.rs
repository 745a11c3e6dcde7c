//! The checks of a file's values against each other.
//!
//! [`AddressPlan`] has the rule for names, underlay addresses and networks. Here each of its
//! conflicts is mapped to the places in the file that take part in it.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::Range;

use adit_peers::{AddressPlan, Conflict, Holder, Keepalive, NAMED_ADDRESSES, Relay};
use ipnet::IpNet;

use crate::model::{DataplaneChoice, MIN_MTU_OF_IPV6, Mtu, OWN_DEVICES, Ttl};
use crate::problem::Diagnostics;
use crate::read::FilePart;
use crate::suggest::nearest;

/// Reports options that conflict with each other.
pub(crate) fn check_options(file: &FilePart, diagnostics: &mut Diagnostics) {
    underlay_of_the_tunnel(file, diagnostics);
    tunnel_drivers(file, diagnostics);
    ipv6(file, diagnostics);
    shared_interface(file, diagnostics);
    keepalive_without_probes(file, diagnostics);
    relayed_peers(file, diagnostics);
}

/// Refuses the tunnel interface as the underlay: it leads only into the tunnel.
fn underlay_of_the_tunnel(file: &FilePart, diagnostics: &mut Diagnostics) {
    let Some(site) = &file.site else { return };
    let (Some(underlay), Some(device)) = (&site.underlay, &site.device) else { return };
    if underlay.value.interface() == Some(device) {
        let message = format!("`underlay` is {device}, the tunnel's own interface (`device`)");
        let help = "name the interface that faces the public network, such as \"eth0\"";
        diagnostics.report(underlay.span.clone(), message, "the tunnel itself", help);
    }
}

fn uses_kernel_plane(file: &FilePart) -> bool {
    file.site.as_ref().is_some_and(|site| site.dataplane == Some(DataplaneChoice::Kernel))
}

/// Refuses what Linux's tunnel drivers would ignore without an error.
fn tunnel_drivers(file: &FilePart, diagnostics: &mut Diagnostics) {
    let Some((tunnel, df)) = file.tunnel.as_ref().zip(file.df.clone()) else { return };
    if let Ttl::Fixed(ttl) = tunnel.ttl
        && uses_kernel_plane(file)
        && !tunnel.df
    {
        diagnostics.report(
            df,
            format!("with dataplane = \"kernel\", df = false needs ttl = \"inherit\": it is {ttl}"),
            "Linux's tunnel drivers set DF wherever the TTL is fixed",
            "write `ttl = \"inherit\"`, leave `df` out, or take another data plane",
        );
    }
}

/// Refuses networks of IPv6 behind an interface whose MTU is too small for IPv6.
fn ipv6(file: &FilePart, diagnostics: &mut Diagnostics) {
    let of_peers = file.peers.iter().flat_map(|peer| &peer.networks);
    let mut all = file.site.iter().flat_map(|site| &site.networks).chain(of_peers);
    let Some(network) = all.find(|network| network.value.addr().is_ipv6()) else { return };
    let fixed = file.tunnel.as_ref().and_then(|tunnel| match tunnel.mtu {
        Mtu::Fixed(mtu) => Some(mtu),
        Mtu::Auto => None,
    });
    if let (Some(mtu), Some(span)) = (fixed.filter(|mtu| *mtu < MIN_MTU_OF_IPV6), &file.mtu) {
        let line = diagnostics.source.line(network.span.start);
        let message =
            format!("`mtu` is {mtu}, and {} (line {line}) needs at least {MIN_MTU_OF_IPV6}", network.value);
        let help = format!("write {MIN_MTU_OF_IPV6} or more, or \"auto\"");
        diagnostics
            .report(span.clone(), message, "the kernel takes IPv6 off such an interface", help)
            .with_other(network.span.clone(), "of IPv6");
    }
}

/// Refuses IPv6 for so many peers that they share one interface of Linux's tunnel drivers. A shared
/// interface of sit takes an address of its own and any IPv4-compatible address for a peer's.
fn shared_interface(file: &FilePart, diagnostics: &mut Diagnostics) {
    if !uses_kernel_plane(file) || file.peers.len() <= OWN_DEVICES {
        return;
    }
    let networks = file.peers.iter().flat_map(|peer| &peer.networks);
    let underlays = file.peers.iter().filter_map(|peer| peer.underlay.as_ref());
    let underlays = underlays.flat_map(|underlay| &underlay.addresses);
    let network =
        networks.map(|network| (network.value.addr(), &network.value as &dyn Display, &network.span));
    let underlay = underlays.map(|address| (address.value, &address.value as &dyn Display, &address.span));
    let Some((_, found, span)) = network.chain(underlay).find(|(address, ..)| address.is_ipv6()) else {
        return;
    };
    let message = format!(
        "with dataplane = \"kernel\", more than {OWN_DEVICES} peers have IPv4 only: there are {}, and one has \
         {found}",
        file.peers.len()
    );
    let help = format!("have at most {OWN_DEVICES} peers here, or take another data plane");
    diagnostics.report(span.clone(), message, "of IPv6", help);
}

/// Refuses keepalives that would not be sent, because they are probes.
fn keepalive_without_probes(file: &FilePart, diagnostics: &mut Diagnostics) {
    let Some(tunnel) = file.tunnel.as_ref().filter(|tunnel| !(tunnel.probe && tunnel.df)) else { return };
    let key = if tunnel.probe { "df" } else { "probe" };
    let of_tunnel = file.keepalive.as_ref().filter(|_| tunnel.keepalive.is_some());
    let of_peers = file.peers.iter().filter_map(|peer| {
        let wants = peer.path.is_some_and(|path| matches!(path.keepalive, Keepalive::After(_)));
        peer.keepalive.as_ref().filter(|_| wants)
    });
    for span in of_tunnel.into_iter().chain(of_peers) {
        diagnostics.report(
            span.clone(),
            format!("`keepalive` needs probes, and {key} = false"),
            "keepalives are probes of the smallest size",
            format!("leave `{key}` out, or write `keepalive = \"off\"`"),
        );
    }
}

/// Refuses pairs of `tunnel.relay` with a name that no peer has.
fn relayed_peers(file: &FilePart, diagnostics: &mut Diagnostics) {
    let Some((tunnel, span)) = file.tunnel.as_ref().zip(file.relay.as_ref()) else { return };
    let Relay::Pairs(pairs) = &tunnel.relay else { return };
    let names: Vec<_> = file.peers.iter().filter_map(|peer| peer.name.as_ref()).collect();
    // A name that could not be read may be the one.
    if names.len() < file.peers.len() {
        return;
    }
    for name in pairs.iter().flatten().filter(|name| names.iter().all(|known| known.value != **name)) {
        let message = format!("`relay` names the peer `{name}`, and there is no such peer");
        let help = nearest(name.as_str(), names.iter().map(|known| known.value.as_str())).map_or_else(
            || "add the peer, or remove the pair".to_owned(),
            |near| format!("did you mean \"{near}\"?"),
        );
        diagnostics.report(span.clone(), message, "no such peer", help);
    }
}

/// A peer's place in the file, from 0.
type Place = usize;

/// Where each network of each owner is written first.
type NetworkSpans<'f> = HashMap<(Holder<Place>, IpNet), &'f Range<usize>>;

/// Claims all names and addresses of the file in a plan, and reports the conflicts.
///
/// Underlay addresses come before networks, so that a network is reported once with all that it
/// contains.
pub(crate) fn check_addresses(file: &FilePart, diagnostics: &mut Diagnostics) {
    let owners = Owners { file, networks: OnceCell::new() };
    let mut plan = AddressPlan::new();
    let mut report = |span: &Range<usize>, conflicts: Vec<Conflict<Place>>| {
        for conflict in conflicts {
            owners.report(span, conflict, diagnostics);
        }
    };
    let peers = || file.peers.iter().enumerate();
    for (place, name) in peers().filter_map(|(place, peer)| Some((place, peer.name.as_ref()?))) {
        report(&name.span, plan.claim_name(&name.value, place).err().into_iter().collect());
    }
    let ours = file.site.as_ref().and_then(|site| site.underlay.as_ref());
    for address in ours.iter().flat_map(|underlay| &underlay.addresses) {
        report(&address.span, plan.claim_underlay(address.value, Holder::Site));
    }
    let site = ours.and_then(|underlay| underlay.value.addresses());
    for (place, underlay) in peers().filter_map(|(place, peer)| Some((place, peer.underlay.as_ref()?))) {
        for address in &underlay.addresses {
            report(&address.span, plan.claim_underlay(address.value, Holder::Peer(place)));
        }
        let addresses = underlay.value;
        let apart = site.filter(|site| site.path_to(&addresses).is_none());
        let conflict = apart.map(|site| Conflict::NoCommonFamily { site, peer: place, addresses });
        report(&underlay.span, conflict.into_iter().collect());
    }
    for network in file.site.iter().flat_map(|site| &site.networks) {
        report(&network.span, plan.claim_network(network.value, Holder::Site));
    }
    for (place, peer) in peers() {
        for network in &peer.networks {
            report(&network.span, plan.claim_network(network.value, Holder::Peer(place)));
        }
    }
    check_local(file, diagnostics);
}

/// Reports addresses of `site.local` that lie in a peer's network: one address has one owner.
fn check_local(file: &FilePart, diagnostics: &mut Diagnostics) {
    for address in file.site.iter().flat_map(|site| &site.local) {
        let mut networks = file.peers.iter().flat_map(|peer| &peer.networks);
        let Some(taken) = networks.find(|network| network.value.contains(&IpAddr::from(address.value)))
        else {
            continue;
        };
        let line = diagnostics.source.line(taken.span.start);
        diagnostics
            .report(
                address.span.clone(),
                format!(
                    "`local`: expected an address of this gateway, found {}, which lies in {} of a peer (line \
                     {line})",
                    address.value, taken.value
                ),
                "in a peer's network",
                "remove it here, or narrow the peer's `networks`",
            )
            .with_other(taken.span.clone(), "behind the peer");
    }
}

/// The owners of addresses in a file: how they are described, and where their addresses are
/// written.
struct Owners<'f> {
    file: &'f FilePart,
    /// Made when the first conflict needs it.
    networks: OnceCell<NetworkSpans<'f>>,
}

impl<'f> Owners<'f> {
    fn described(&self, owner: Holder<Place>) -> String {
        match owner {
            Holder::Site => "this site".to_owned(),
            Holder::Peer(place) => match self.file.peers.get(place).and_then(|peer| peer.name.as_ref()) {
                Some(name) => format!("peer `{}`", name.value),
                None => format!("peer number {}", place + 1),
            },
        }
    }

    fn name(&self, place: Place) -> Range<usize> {
        let name = self.file.peers.get(place).and_then(|peer| peer.name.as_ref());
        name.map(|name| name.span.clone()).unwrap_or_default()
    }

    fn underlay(&self, owner: Holder<Place>, address: IpAddr) -> Range<usize> {
        let span = match owner {
            Holder::Site => {
                self.file.site.as_ref().and_then(|site| Some(site.underlay.as_ref()?.place_of(address)))
            }
            Holder::Peer(place) => {
                self.file.peers.get(place).and_then(|peer| Some(peer.underlay.as_ref()?.place_of(address)))
            }
        };
        span.unwrap_or_default()
    }

    fn network(&self, owner: Holder<Place>, network: IpNet) -> Range<usize> {
        let networks = self.networks.get_or_init(|| {
            let mut spans = HashMap::new();
            for network in self.file.site.iter().flat_map(|site| &site.networks) {
                spans.entry((Holder::Site, network.value)).or_insert(&network.span);
            }
            for (place, peer) in self.file.peers.iter().enumerate() {
                for network in &peer.networks {
                    spans.entry((Holder::Peer(place), network.value)).or_insert(&network.span);
                }
            }
            spans
        });
        networks.get(&(owner, network)).map(|span| (*span).clone()).unwrap_or_default()
    }

    /// Reports a conflict of what is written at `span`.
    fn report(&self, span: &Range<usize>, conflict: Conflict<Place>, diagnostics: &mut Diagnostics) {
        match conflict {
            Conflict::NameTaken { name, holder, .. } => {
                let first = self.name(holder);
                let line = diagnostics.source.line(first.start);
                let message = format!("two peers are named `{name}`: the other one is in line {line}");
                diagnostics
                    .report(span.clone(), message, "taken", "give each peer a name of its own")
                    .with_other(first, "first here");
            }
            Conflict::UnderlayTaken { address, claimant, holder } => {
                let first = self.underlay(holder, address);
                let line = diagnostics.source.line(first.start);
                let (this, whose) = (self.described(claimant), self.described(holder));
                let message = format!("{this} has the underlay address {address} of {whose} (line {line})");
                let help = match holder {
                    Holder::Site => "write the peer's own address: `site.underlay` is ours",
                    Holder::Peer(_) => {
                        "give each peer an address of its own, or put the networks of both into one peer"
                    }
                };
                diagnostics
                    .report(span.clone(), message, "taken", help)
                    .with_other(first, format!("of {whose}"));
            }
            Conflict::NoCommonFamily { site, peer, addresses } => {
                let ours = self.underlay(Holder::Site, site.first());
                let line = diagnostics.source.line(ours.start);
                let (this, whose) = (self.described(Holder::Peer(peer)), self.described(Holder::Site));
                let message = format!(
                    "{this} has the underlay address {addresses}, and {whose} {site} (line {line}): they are \
                     of different families"
                );
                diagnostics
                    .report(
                        span.clone(),
                        message,
                        "of another family",
                        "no packet has a source of one family and a destination of the other: give either a \
                         second address, as in `underlay = [\"192.0.2.1\", \"2001:db8::1\"]`",
                    )
                    .with_other(ours, format!("of {whose}"));
            }
            Conflict::NetworkRepeated { network, claimant } => {
                let first = self.network(claimant, network);
                let line = diagnostics.source.line(first.start);
                let owner = self.described(claimant);
                let message = format!("{network} is written twice for {owner}: also in line {line}");
                diagnostics
                    .report(span.clone(), message, "again", "remove one of the two")
                    .with_other(first, "first here");
            }
            Conflict::NetworksOverlap { network, claimant, other, holder } => {
                let claimed = (network, claimant, span.clone());
                let held = (other, holder, self.network(holder, other));
                self.overlap(claimed, held, diagnostics);
            }
            Conflict::UnderlayEnclosed { network, owner, addresses, count } => {
                let addresses = addresses.into_iter().map(|(address, owner)| {
                    (self.underlay(owner, address), format!("{address} of {}", self.described(owner)), owner)
                });
                let mut addresses: Vec<_> = addresses.collect();
                addresses.sort_by_key(|(place, _, _)| place.start);
                let mut named: Vec<String> = addresses
                    .iter()
                    .map(|(place, named, _)| {
                        format!("{named} (line {})", diagnostics.source.line(place.start))
                    })
                    .collect();
                if count > NAMED_ADDRESSES {
                    named.push(format!("and {} more", count - NAMED_ADDRESSES));
                }
                let (s, these) = if count == 1 { ("", "the address") } else { ("es", "the addresses") };
                let why = match owner {
                    Holder::Peer(_) => "the tunnel would route into itself",
                    Holder::Site => "a peer's gateway is not behind this site",
                };
                let message = format!(
                    "{network} of {} contains the underlay address{s} {}: {why}",
                    self.described(owner),
                    named.join(", "),
                );
                let help = format!(
                    "narrow the network so that it leaves out {these} that the tunnel itself sends to or from"
                );
                let problem = diagnostics.report(span.clone(), message, "contains an underlay address", help);
                for (place, _, owner) in addresses {
                    problem.with_other(place, format!("underlay address of {}", self.described(owner)));
                }
            }
            // What a single value may not be has been reported where it was read.
            other => {
                diagnostics.report(span.clone(), other.to_string(), "not possible", "write another value");
            }
        }
    }

    /// Reports that the networks of two owners overlap: at the one further down in the file, or at
    /// the peer's if the other one is ours.
    fn overlap(
        &self,
        claimed: (IpNet, Holder<Place>, Range<usize>),
        held: (IpNet, Holder<Place>, Range<usize>),
        diagnostics: &mut Diagnostics,
    ) {
        let is_swapped = match (held.1, claimed.1) {
            (Holder::Site, _) => false,
            (_, Holder::Site) => true,
            _ => held.2.start > claimed.2.start,
        };
        let (earlier, later) = if is_swapped { (claimed, held) } else { (held, claimed) };
        let this = format!("{} of {}", later.0, self.described(later.1));
        let line = diagnostics.source.line(earlier.2.start);
        let (message, help) = if earlier.1 == Holder::Site {
            (
                format!("{this} overlaps our own network {} (line {line})", earlier.0),
                format!(
                    "remove it from the peer, or {} from `site.networks`: a network is behind one site",
                    earlier.0
                ),
            )
        } else {
            (
                format!("{this} overlaps {} of {} (line {line})", earlier.0, self.described(earlier.1)),
                "give each network to one peer: remove or narrow one of the two".to_owned(),
            )
        };
        let label = format!("overlaps {}", earlier.0);
        diagnostics
            .report(later.2, message, label, help)
            .with_other(earlier.2, format!("of {}", self.described(earlier.1)));
    }
}
