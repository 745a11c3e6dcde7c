//! The incremental reader: of a file that has changed a little, it reads only the change.

use std::sync::Arc;

use adit_peers::{PathOptions, Peer, PeerDelta, PeerName};
use toml::de::DeTable;

use crate::model::{Config, DataplaneChoice, MIN_MTU_OF_IPV6, Mtu};
use crate::problem::Diagnostics;
use crate::read::read_peers;
use crate::source::Source;

/// The header of a peer's section. In a valid file no other line begins with it: no key accepts a
/// string of several lines, and the names in a list of lists are in quotes.
const HEADER: &str = "[[peer]]";

impl Config {
    /// Reads `text`, if it differs from `before` only by peers in one place, and `self` was read
    /// from `before`.
    ///
    /// Cost: a comparison of the texts, a copy of the peers' indexes, and as much as there is
    /// difference.
    ///
    /// `None`: more is different, or there may be a mistake. [`Config::parse`] reads it as a whole
    /// then.
    #[must_use]
    pub fn parse_incremental(&self, before: &str, text: &str) -> Option<Self> {
        let (old, new) = different_sections(before, text)?;
        let (old, new) = (sections(old)?, sections(new)?);
        let is_known = |peer: &Peer| self.peers.get(&peer.name).is_some_and(|known| **known == *peer);
        if old.is_empty() || !old.iter().all(is_known) {
            return None;
        }
        // A keepalive needs probes, which the section [tunnel] may forbid.
        let may_forbid = !(self.site.tunnel.probe && self.site.tunnel.df);
        if may_forbid && new.iter().any(|peer| peer.path != PathOptions::default()) {
            return None;
        }
        // `mtu` may forbid networks of IPv6, and the data plane IPv6 for that many peers.
        let has_ipv6 = |peer: &Peer| peer.networks.iter().any(|network| network.addr().is_ipv6());
        let needs_ipv6 = |peer: &Peer| has_ipv6(peer) || peer.underlay.iter().any(|at| at.is_ipv6());
        let may_forbid = match self.site.dataplane {
            DataplaneChoice::Kernel => self.peers.iter().map(AsRef::as_ref).chain(&new).any(needs_ipv6),
            _ => !self.takes_ipv6() && new.iter().any(has_ipv6),
        };
        if may_forbid {
            return None;
        }
        let is_in = |peers: &[Peer], name: &PeerName| peers.iter().any(|peer| peer.name == *name);
        let gone = old.iter().map(|peer| &peer.name).filter(|name| !is_in(&new, name));
        let mut delta = PeerDelta { removed: gone.cloned().collect(), ..PeerDelta::default() };
        if delta.removed.iter().any(|name| self.site.tunnel.relay.names(name)) {
            return None;
        }
        for peer in new {
            let of_known = is_in(&old, &peer.name);
            if of_known { &mut delta.replaced } else { &mut delta.inserted }.push(Arc::new(peer));
        }
        // A file that is read as a whole has revision 0, too.
        let peers = self.peers.clone().with_revision(delta.base);
        Some(Self { site: self.site.clone(), peers: peers.apply(&delta).ok()? })
    }
}

impl Config {
    /// Whether networks of IPv6 can be reached with the settings of this site.
    fn takes_ipv6(&self) -> bool {
        !matches!(self.site.tunnel.mtu, Mtu::Fixed(mtu) if mtu < MIN_MTU_OF_IPV6)
    }
}

/// The sections of two texts that differ, with an equal one beside them that marks their place.
fn different_sections<'t>(before: &'t str, text: &'t str) -> Option<(&'t str, &'t str)> {
    let first = before.bytes().zip(text.bytes()).take_while(|(before, text)| before == text).count();
    let common = &before.as_bytes()[..first];
    // Another section may follow the last header, so the section before the difference is included.
    let last_head = head_before(common)?;
    let start = head_before(&common[..last_head]).unwrap_or(last_head);
    let most = before.len().min(text.len()) - start;
    let behind = before.bytes().rev().zip(text.bytes().rev()).take(most);
    let last = behind.take_while(|(before, text)| before == text).count();
    // If the first section of all is new, the one behind it marks the place. The byte before a
    // marking section is common, too: it ends a line in both texts.
    let end = section_from(before.as_bytes(), (before.len() - last).max(start) + 1);
    let common = before.len() - end;
    let old = before.get(start..end)?;
    let new = text.get(start..text.len().checked_sub(common)?)?;
    Some((old, new))
}

/// The offset of the last header in `text`.
fn head_before(text: &[u8]) -> Option<usize> {
    let last = text.len().checked_sub(HEADER.len())?;
    (0..=last).rev().find(|&at| begins_line(text, at) && text[at..].starts_with(HEADER.as_bytes()))
}

/// The offset of the first section from `start` on, or the end.
fn section_from(text: &[u8], start: usize) -> usize {
    (start..text.len()).find(|&at| begins_line(text, at) && text[at] == b'[').unwrap_or(text.len())
}

fn begins_line(text: &[u8], at: usize) -> bool {
    at == 0 || text[at - 1] == b'\n'
}

/// Reads the peers of some sections; `None`: the text is something else, or has a mistake.
fn sections(text: &str) -> Option<Vec<Peer>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() && tree.get_ref().is_empty() {
        return Some(Vec::new());
    }
    if !errors.is_empty() || tree.get_ref().len() != 1 {
        return None;
    }
    let mut diagnostics = Diagnostics::new(Source::new("", text));
    let parts = read_peers(tree.get_ref().get("peer")?, &mut diagnostics);
    diagnostics.finish().ok()?;
    parts.into_iter().map(|part| part.finish()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OWN_DEVICES;
    use proptest::prelude::*;

    const SITE: &str = "[site]\nname = \"a\"\nunderlay = \"10.1.1.1\"\nnetworks = [\"172.16.17.0/24\"]\n";

    fn section(name: u8, underlay: u8, networks: &[u8]) -> String {
        let networks: Vec<String> =
            networks.iter().map(|network| format!("\"10.9.{network}.0/24\"")).collect();
        let networks = networks.join(", ");
        format!("[[peer]]\nname = \"p{name}\"\nunderlay = \"10.1.1.{underlay}\"\nnetworks = [{networks}]\n")
    }

    fn assert_same(before: &str, text: &str) -> bool {
        let Ok(known) = Config::parse("before", before) else { return false };
        let incremental = known.parse_incremental(before, text);
        if let Some(incremental) = &incremental {
            assert_eq!(Some(incremental), Config::parse("text", text).ok().as_ref(), "{before}\n->\n{text}");
        }
        incremental.is_some()
    }

    #[test]
    fn a_peer_that_is_added_removed_or_changed_is_read_alone() {
        let peers = |list: &[(u8, u8, &[u8])]| -> String {
            list.iter().map(|(name, underlay, networks)| section(*name, *underlay, networks)).collect()
        };
        let all = peers(&[(2, 2, &[2]), (3, 3, &[3]), (4, 4, &[4]), (5, 5, &[5])]);
        for other in [
            peers(&[(2, 2, &[2]), (3, 3, &[3]), (4, 4, &[4])]),
            peers(&[(3, 3, &[3]), (4, 4, &[4]), (5, 5, &[5])]),
            peers(&[(2, 2, &[2]), (3, 3, &[3]), (5, 5, &[5])]),
            peers(&[(2, 2, &[2]), (3, 3, &[3, 33]), (4, 4, &[4]), (5, 5, &[5])]),
            peers(&[(2, 2, &[2]), (3, 33, &[3]), (4, 4, &[4]), (5, 5, &[5])]),
            all.replace("p5", "p55"),
            all.replace("p4\"", "p4\" # the fourth"),
        ] {
            for tail in ["", "[tunnel]\nttl = 32\n", "# the end"] {
                let (all, other) = (format!("{SITE}{all}{tail}"), format!("{SITE}{other}{tail}"));
                assert!(assert_same(&all, &other), "{other}");
                assert!(assert_same(&other, &all), "{other}");
            }
        }
    }

    #[test]
    fn larger_changes_and_possible_mistakes_are_not_read_incrementally() {
        let before = format!("{SITE}{}{}", section(2, 2, &[2]), section(3, 3, &[3]));
        for text in [
            before.replace("a\"", "b\""),
            format!("{before}{}", section(3, 4, &[4])),
            format!("{before}{}", section(4, 3, &[4])),
            format!("{before}{}", section(4, 1, &[4])),
            format!("{before}{}", section(4, 4, &[3])),
            format!("{before}{}", section(4, 4, &[4, 4])),
            format!("{before}{}", section(4, 4, &[4]).replace("10.9.4.0/24", "10.1.0.0/16")),
            format!("{before}{}", section(4, 4, &[4]).replace("10.9.4.0/24", "172.16.0.0/12")),
            format!("{before}{}", section(4, 4, &[4]).replace("10.1.1.4", "10.9.2.7")),
            format!("{before}{}", section(4, 4, &[])),
            format!("{before}{}ttl = 3\n", section(4, 4, &[4])),
            format!("{before}{}[tunnel]\nttl = 3\n", section(4, 4, &[4])),
            format!("{before}{}", section(4, 4, &[4]).replace("\"p4\"", "\"\"\"p4")),
            format!("{SITE}{}", section(2, 2, &[2]).replace("[[peer]]", "[peer]")),
            before.replace("[[peer]]\nname = \"p3\"", "#[[peer]]\nname = \"p3\""),
            SITE.to_owned(),
        ] {
            assert!(!assert_same(&before, &text), "{text}");
        }
        // A peer that the rest of the file names.
        let relay = "[tunnel]\nrelay = [\n[\"p2\", \"p3\"],\n]\n";
        assert!(!assert_same(&format!("{before}{relay}"), &format!("{SITE}{}{relay}", section(2, 2, &[2]))));
    }

    /// Linux's drivers have IPv4 only for so many peers, and that includes the underlay.
    #[test]
    fn ipv6_with_the_kernel_plane_is_not_read_incrementally() {
        let site = SITE.replace("\"10.1.1.1\"", "[\"10.1.1.1\", \"2001:db8::1\"]");
        let many = (2..).take(OWN_DEVICES).map(|n| section(n, n, &[n]));
        let before = format!("{site}dataplane = \"kernel\"\n{}", many.collect::<String>());
        let one_more = section(99, 99, &[99]);
        assert!(assert_same(&before, &format!("{before}{one_more}")));
        let over_ipv6 = one_more.replace("10.1.1.99", "2001:db8::99");
        assert!(!assert_same(&before, &format!("{before}{over_ipv6}")));
        let of_ipv6 = one_more.replace("10.9.99.0/24", "2001:db8:99::/48");
        assert!(!assert_same(&before, &format!("{before}{of_ipv6}")));
    }

    /// Valid sections, invalid ones, and other text.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            8 => (0u8..9, 0u8..9, proptest::collection::vec(0u8..9, 0..3))
                .prop_map(|(name, underlay, networks)| section(name, underlay, &networks)),
            8 => (2u8..9).prop_map(|n| section(n, n, &[n])),
            1 => Just("# a word\n".to_owned()),
            1 => Just("[tunnel]\nttl = 9\n".to_owned()),
            1 => Just("[tunnel]\nrelay = [\n[\"p2\", \"p3\"],\n]\n".to_owned()),
            1 => Just("[[ peer ]]\nname = \"x\"\nunderlay = \"10.1.1.99\"\nnetworks = [\"10.9.99.0/24\"]\n".to_owned()),
            1 => Just("[[peer]]\nname = \"\"\"y\"\"\"\nunderlay = \"10.1.1.98\"\nnetworks = [\n\"10.9.98.0/24\",\n]\n".to_owned()),
            1 => Just("\"\"\"\n[[peer]]\n".to_owned()),
            1 => Just("networks = [\n[[peer]]\n]\n".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn the_result_equals_that_of_the_whole_file_or_is_none(
            pieces in proptest::collection::vec(piece(), 0..7),
            other in proptest::collection::vec(piece(), 0..3),
            at in 0usize..7,
            cut in (any::<prop::sample::Index>(), 0usize..40, "[\\[\\]a-z0-9\"=\n# .]{0,6}"),
        ) {
            let before = format!("{SITE}{}", pieces.concat());
            let mut changed = pieces.clone();
            let at = at.min(changed.len());
            let to = (at + other.len() / 2).min(changed.len());
            changed.splice(at..to, other);
            assert_same(&before, &format!("{SITE}{}", changed.concat()));
            // Bytes anywhere in the file.
            let (index, len, with) = cut;
            let from = index.index(before.len());
            let to = (from + len).min(before.len());
            assert_same(&before, &format!("{}{with}{}", &before[..from], &before[to..]));
        }
    }
}
