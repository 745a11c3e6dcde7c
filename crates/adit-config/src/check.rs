//! What only shows when the values of a file are held against each other.
//!
//! Prefixes are either nested or apart, so one walk over them in order, with a stack of those
//! that are still open, finds every overlap: `n log n` for the order and at most 33 steps each.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::Ipv4Net;

use crate::model::{DataplaneChoice, Ttl};
use crate::problem::Sink;
use crate::read::FilePart;

/// How many of the addresses inside one network are named.
const NAMED: usize = 3;

/// Reports what does not fit together.
pub(crate) fn check(file: &FilePart, sink: &mut Sink) {
    names(file, sink);
    underlay_of_the_tunnel(file, sink);
    driver(file, sink);
    underlays(file, sink);
    let networks = ordered(file);
    overlaps(file, &networks, sink);
    enclosed_underlays(file, &networks, sink);
}

/// Whose something is. Ours is the greater, so that of equal prefixes a peer's comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Peer(usize),
    Us,
}

impl Owner {
    fn described(self, file: &FilePart) -> String {
        match self {
            Self::Us => "this site".to_owned(),
            Self::Peer(index) => match &file.peers[index].name {
                Some(name) => format!("peer `{}`", name.value),
                None => format!("peer number {}", index + 1),
            },
        }
    }
}

fn names(file: &FilePart, sink: &mut Sink) {
    let mut first: HashMap<&str, &Range<usize>> = HashMap::new();
    for name in file.peers.iter().filter_map(|peer| peer.name.as_ref()) {
        let text = name.value.as_str();
        let Some(earlier) = first.get(text) else {
            first.insert(text, &name.span);
            continue;
        };
        let line = sink.source.line(earlier.start);
        let message = format!("two peers are named `{text}`: the other one is in line {line}");
        sink.report(name.span.clone(), message, "taken", "give each peer a name of its own")
            .with_other((*earlier).clone(), "first here");
    }
}

/// Our address and where it is written; an interface has none before the overlay starts.
fn our_underlay(file: &FilePart) -> Option<(Ipv4Addr, &Range<usize>)> {
    let underlay = file.site.as_ref()?.underlay.as_ref()?;
    Some((underlay.value.address()?, &underlay.span))
}

/// The tunnel's own interface leads nowhere but into the tunnel.
fn underlay_of_the_tunnel(file: &FilePart, sink: &mut Sink) {
    let Some(site) = &file.site else { return };
    let (Some(underlay), Some(device)) = (&site.underlay, &site.device) else { return };
    if underlay.value.interface() == Some(device) {
        let message = format!("`underlay` is {device}, the tunnel's own interface (`device`)");
        let help = "name the interface that faces the public network, such as \"eth0\"";
        sink.report(underlay.span.clone(), message, "the tunnel itself", help);
    }
}

/// What Linux's ipip driver would not do, though it would not say so either.
fn driver(file: &FilePart, sink: &mut Sink) {
    let is_drivers = file.site.as_ref().is_some_and(|site| site.dataplane == Some(DataplaneChoice::Kernel));
    let Some((tunnel, df)) = file.tunnel.as_ref().zip(file.df.clone()) else { return };
    if let Ttl::Fixed(ttl) = tunnel.ttl
        && is_drivers
        && !tunnel.df
    {
        sink.report(
            df,
            format!("with dataplane = \"kernel\", df = false needs ttl = \"inherit\": it is {ttl}"),
            "the ipip driver of Linux sets DF wherever the TTL is fixed",
            "write `ttl = \"inherit\"`, leave `df` out, or take another data plane",
        );
    }
}

fn underlays(file: &FilePart, sink: &mut Sink) {
    let mut first: HashMap<Ipv4Addr, (Owner, &Range<usize>)> = HashMap::new();
    if let Some((address, span)) = our_underlay(file) {
        first.insert(address, (Owner::Us, span));
    }
    for (index, peer) in file.peers.iter().enumerate() {
        let Some(underlay) = &peer.underlay else { continue };
        let Some((owner, earlier)) = first.get(&underlay.value) else {
            first.insert(underlay.value, (Owner::Peer(index), &underlay.span));
            continue;
        };
        let address = underlay.value;
        let whose = owner.described(file);
        let line = sink.source.line(earlier.start);
        let this = Owner::Peer(index).described(file);
        let message = format!("{this} has the underlay address {address} of {whose} (line {line})");
        let help = match owner {
            Owner::Us => "write the peer's own address: `site.underlay` is ours",
            Owner::Peer(_) => {
                "give each peer an address of its own, or put the networks of both into one peer"
            }
        };
        sink.report(underlay.span.clone(), message, "taken", help)
            .with_other((*earlier).clone(), format!("of {whose}"));
    }
}

/// A network of the file.
struct Network<'f> {
    prefix: Ipv4Net,
    owner: Owner,
    span: &'f Range<usize>,
}

/// Every network of the file, those that contain others before those.
fn ordered(file: &FilePart) -> Vec<Network<'_>> {
    let ours = file.site.iter().flat_map(|site| &site.networks).map(|network| (Owner::Us, network));
    let theirs = file
        .peers
        .iter()
        .enumerate()
        .flat_map(|(index, peer)| peer.networks.iter().map(move |network| (Owner::Peer(index), network)));
    let mut networks: Vec<_> = ours
        .chain(theirs)
        .map(|(owner, network)| Network { prefix: network.value, owner, span: &network.span })
        .collect();
    networks.sort_by_key(|network| {
        (network.prefix.addr(), network.prefix.prefix_len(), network.owner, network.span.start)
    });
    networks
}

fn overlaps(file: &FilePart, networks: &[Network<'_>], sink: &mut Sink) {
    let mut open: Vec<&Network<'_>> = Vec::new();
    for network in networks {
        while open.last().is_some_and(|outer| !outer.prefix.contains(&network.prefix)) {
            open.pop();
        }
        // Equal prefixes count as one, or the stack would grow with them.
        if open.last().is_some_and(|outer| outer.prefix == network.prefix && outer.owner == network.owner) {
            let first = open[open.len() - 1];
            let line = sink.source.line(first.span.start);
            let message = format!(
                "{} is written twice for {}: also in line {line}",
                network.prefix,
                network.owner.described(file)
            );
            sink.report(network.span.clone(), message, "again", "remove one of the two")
                .with_other(first.span.clone(), "first here");
            continue;
        }
        // What is ours is held against every peer's. Of peers among each other the nearest
        // tells enough: one network for all would otherwise be named again at each depth.
        let mut peers_told = false;
        for outer in open.iter().rev().filter(|outer| outer.owner != network.owner) {
            let with_us = outer.owner == Owner::Us || network.owner == Owner::Us;
            if with_us || !peers_told {
                overlap(file, outer, network, sink);
            }
            peers_told |= !with_us;
        }
        if open.last().is_none_or(|outer| outer.prefix != network.prefix) {
            open.push(network);
        }
    }
}

/// Reports that the networks of two owners overlap: at the one further down in the file, or at
/// the peer's where the other one is ours.
fn overlap(file: &FilePart, outer: &Network<'_>, inner: &Network<'_>, sink: &mut Sink) {
    let swap = match (outer.owner, inner.owner) {
        (Owner::Us, _) => false,
        (_, Owner::Us) => true,
        _ => outer.span.start > inner.span.start,
    };
    let (earlier, later) = if swap { (inner, outer) } else { (outer, inner) };
    let this = format!("{} of {}", later.prefix, later.owner.described(file));
    let line = sink.source.line(earlier.span.start);
    let (message, help) = if earlier.owner == Owner::Us {
        (
            format!("{this} overlaps our own network {} (line {line})", earlier.prefix),
            format!(
                "remove it from the peer, or {} from `site.networks`: a network is behind one site",
                earlier.prefix
            ),
        )
    } else {
        (
            format!("{this} overlaps {} of {} (line {line})", earlier.prefix, earlier.owner.described(file)),
            "give each network to one peer: remove or narrow one of the two".to_owned(),
        )
    };
    let label = format!("overlaps {}", earlier.prefix);
    sink.report(later.span.clone(), message, label, help)
        .with_other(earlier.span.clone(), format!("of {}", earlier.owner.described(file)));
}

/// Reports the peers' networks that contain an underlay address: what the tunnel sends there
/// would be routed into the tunnel. A network is reported once, however many are in it.
fn enclosed_underlays(file: &FilePart, networks: &[Network<'_>], sink: &mut Sink) {
    let ours = our_underlay(file).into_iter().map(|(address, span)| (Owner::Us, address, span));
    let theirs = file.peers.iter().enumerate().filter_map(|(index, peer)| {
        let underlay = peer.underlay.as_ref()?;
        Some((Owner::Peer(index), underlay.value, &underlay.span))
    });
    let mut addresses: Vec<_> = ours.chain(theirs).collect();
    addresses.sort_by_key(|(_, address, _)| *address);

    // Of networks that lie in each other all are wrong, so each looks for itself. Equal ones of
    // two peers are looked at once: they overlap, which has been said.
    let mut last = None;
    for network in networks.iter().filter(|network| network.owner != Owner::Us) {
        if last == Some(network.prefix) {
            continue;
        }
        last = Some(network.prefix);
        let from = addresses.partition_point(|(_, address, _)| *address < network.prefix.network());
        let to = addresses.partition_point(|(_, address, _)| *address <= network.prefix.broadcast());
        let inside = &addresses[from..to];
        if inside.is_empty() {
            continue;
        }
        let mut inside_in_file: Vec<_> = inside.iter().take(NAMED).collect();
        inside_in_file.sort_by_key(|(_, _, span)| span.start);
        let mut named: Vec<String> = inside_in_file
            .iter()
            .map(|(owner, address, span)| {
                let line = sink.source.line(span.start);
                format!("{address} of {} (line {line})", owner.described(file))
            })
            .collect();
        if inside.len() > NAMED {
            named.push(format!("and {} more", inside.len() - NAMED));
        }
        let (s, these) = if inside.len() == 1 { ("", "the address") } else { ("es", "the addresses") };
        let message = format!(
            "{} of {} contains the underlay address{s} {}: the tunnel would route into itself",
            network.prefix,
            network.owner.described(file),
            named.join(", "),
        );
        let help = format!(
            "narrow the network so that it leaves out {these} that the tunnel itself sends to or from"
        );
        let problem = sink.report(network.span.clone(), message, "contains an underlay address", help);
        for (owner, _, span) in inside_in_file {
            problem.with_other((*span).clone(), format!("underlay address of {}", owner.described(file)));
        }
    }
}
