//! The cache of what was learned about the paths (RFC 2003 section 5), kept in a file over a
//! restart of the daemon.
//!
//! The file is written only when its content changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_tunnel::{
    Instant, LearnedBy, PathMtu, PeerIndex, Reachability, Remembered, Tunnel, UnreachableError,
};
use serde::{Deserialize, Serialize};

use crate::error::ControlError;
use crate::state::durable_file;
use crate::state::paths::boot;

/// An expiry that has moved by less is not written.
const MIN_EXPIRY_CHANGE: Duration = Duration::from_secs(60);

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// The boot that the times belong to: their clock starts anew with every boot.
    boot: String,
    /// By underlay address, because names and the order of peers may change.
    peers: BTreeMap<IpAddr, KeptPeer>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct KeptPeer {
    #[serde(skip_serializing_if = "Option::is_none")]
    path_mtu: Option<KeptMtu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<KeptUnreachable>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct KeptMtu {
    mtu: u16,
    by_probe: bool,
    expires_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct KeptUnreachable {
    icmp_type: u8,
    icmp_code: u8,
    router: IpAddr,
    since_ms: u64,
}

/// The cache of one overlay.
#[derive(Debug)]
pub(crate) struct PathCache {
    file: PathBuf,
    boot: &'static str,
    written: BTreeMap<IpAddr, KeptPeer>,
}

impl PathCache {
    /// Reads the file. One that is missing, broken, or of another boot gives an empty cache.
    pub(crate) fn open(file: &Path) -> Self {
        let boot = boot();
        let kept = std::fs::read_to_string(file).ok();
        let kept: Option<Kept> = kept.and_then(|text| serde_json::from_str(&text).ok());
        let kept = kept.filter(|kept| kept.boot == boot).unwrap_or_default();
        Self { file: file.to_owned(), boot, written: kept.peers }
    }

    /// Restores the soft state of a new tunnel's peers.
    pub(crate) fn restore(&self, tunnel: &Tunnel, now: Instant) {
        for (peer, address) in addresses(tunnel) {
            if let Some(kept) = self.written.get(&address) {
                tunnel.recall(peer, kept.remembered(), now);
            }
        }
    }

    /// Writes the soft state of the peers, if it differs from what was written last.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(crate) fn save(&mut self, tunnel: &Tunnel) -> Result<(), ControlError> {
        let known: BTreeMap<IpAddr, KeptPeer> = addresses(tunnel)
            .filter_map(|(peer, address)| Some((address, KeptPeer::of(tunnel.remember(peer)?))))
            .collect();
        let is_same = known.len() == self.written.len()
            && known.iter().zip(&self.written).all(|(now, then)| now.0 == then.0 && now.1.is_like(then.1));
        if is_same {
            return Ok(());
        }
        let kept = Kept { boot: self.boot.to_owned(), peers: known };
        durable_file::write(&self.file, &serde_json::to_string(&kept).unwrap_or_default())?;
        self.written = kept.peers;
        Ok(())
    }
}

fn addresses(tunnel: &Tunnel) -> impl Iterator<Item = (PeerIndex, IpAddr)> {
    tunnel.paths().map(|(index, path)| (index, path.destination))
}

impl KeptPeer {
    fn of(remembered: Remembered) -> Self {
        let PathMtu { mtu, learned, expires } = remembered.path_mtu;
        Self {
            path_mtu: learned.zip(expires).map(|(by, expires)| KeptMtu {
                mtu,
                by_probe: by == LearnedBy::Probe,
                expires_ms: expires.as_millis(),
            }),
            unreachable: match remembered.reachability {
                Reachability::Assumed => None,
                Reachability::Unreachable { error, router, since } => Some(KeptUnreachable {
                    icmp_type: error.icmp_type,
                    icmp_code: error.icmp_code,
                    router,
                    since_ms: since.as_millis(),
                }),
            },
        }
    }

    fn remembered(&self) -> Remembered {
        let path_mtu = match self.path_mtu {
            None => PathMtu { mtu: u16::MAX, learned: None, expires: None },
            Some(KeptMtu { mtu, by_probe, expires_ms }) => PathMtu {
                mtu,
                learned: Some(if by_probe { LearnedBy::Probe } else { LearnedBy::Router }),
                expires: Some(Instant::from_millis(expires_ms)),
            },
        };
        let reachability = match self.unreachable {
            None => Reachability::Assumed,
            Some(KeptUnreachable { icmp_type, icmp_code, router, since_ms }) => Reachability::Unreachable {
                error: UnreachableError { icmp_type, icmp_code },
                router,
                since: Instant::from_millis(since_ms),
            },
        };
        Remembered { path_mtu, reachability }
    }

    /// Returns true if it differs only in an expiry that has moved a little, as with every answered
    /// probe.
    fn is_like(&self, other: &Self) -> bool {
        let mtu = |kept: &Self| kept.path_mtu.map(|kept| (kept.mtu, kept.by_probe));
        let expires = |kept: &Self| kept.path_mtu.map_or(0, |kept| kept.expires_ms);
        mtu(self) == mtu(other)
            && self.unreachable == other.unreachable
            && u128::from(expires(self).abs_diff(expires(other))) < MIN_EXPIRY_CHANGE.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_tunnel::{Peer, PeerSet, TunnelConfig};
    use std::net::Ipv4Addr;

    const NOW: Instant = Instant::from_millis(1_000_000);

    fn tunnel(peers: &[u8]) -> Tunnel {
        let underlay = Ipv4Addr::new(10, 1, 1, 1);
        let network = "172.16.17.0/24".parse().expect("a network");
        let mut set = PeerSet::new(Some(underlay.into()), [network]).expect("a site without conflicts");
        for last in peers {
            let peer = Peer {
                name: format!("peer-{last}").parse().expect("a name"),
                underlay: Ipv4Addr::new(10, 1, 1, *last).into(),
                networks: vec![format!("192.168.{last}.0/24").parse().expect("a network")],
                path: adit_tunnel::PathOptions::default(),
            };
            set.insert(peer).expect("a peer without conflicts");
        }
        Tunnel::new(TunnelConfig {
            underlay: underlay.into(),
            peers: set,
            outer: adit_wire::encapsulation::OuterPolicy::default(),
            mss_clamp: true,
            relay: adit_tunnel::Relay::default(),
            mtu_floor: adit_tunnel::DEFAULT_MTU_FLOOR,
            underlay_mtu: 1500,
            local_addresses: Vec::new(),
            reachable_addresses: Vec::new(),
            probe: None,
        })
        .expect("the configuration is good")
    }

    fn learned(mtu: u16, expires: u64) -> Remembered {
        let path_mtu = PathMtu {
            mtu,
            learned: Some(LearnedBy::Probe),
            expires: Some(Instant::from_millis(NOW.as_millis() + expires)),
        };
        Remembered { path_mtu, reachability: Reachability::Assumed }
    }

    #[test]
    fn soft_state_survives_a_restart_and_goes_with_its_peer() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("paths.json");
        let (first, second) = (PeerIndex::new(0), PeerIndex::new(1));
        let before = tunnel(&[2, 3]);
        before.recall(first, learned(1300, 300_000), NOW);
        let unreachable = Remembered {
            reachability: Reachability::Unreachable {
                error: UnreachableError::destination(13),
                router: Ipv4Addr::new(10, 9, 9, 9).into(),
                since: NOW,
            },
            ..learned(1400, 300_000)
        };
        before.recall(second, unreachable, NOW);
        PathCache::open(&file).save(&before).expect("it can be written");

        // The peers have another order, and there is one more.
        let after = tunnel(&[3, 4, 2]);
        let mut memory = PathCache::open(&file);
        memory.restore(&after, NOW);
        assert_eq!(after.remember(PeerIndex::new(2)), Some(learned(1300, 300_000)));
        assert_eq!(after.remember(PeerIndex::new(0)), Some(unreachable));
        assert_eq!(after.remember(PeerIndex::new(1)), None);

        // A peer that is removed loses its state.
        let fewer = tunnel(&[3]);
        memory.restore(&fewer, NOW);
        memory.save(&fewer).expect("it can be written");
        let again = tunnel(&[2, 3]);
        PathCache::open(&file).restore(&again, NOW);
        assert_eq!((again.remember(first), again.remember(second)), (None, Some(unreachable)));
    }

    #[test]
    fn the_file_is_written_only_when_it_changes() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("paths.json");
        let tunnel = tunnel(&[2]);
        let mut memory = PathCache::open(&file);
        let peer = PeerIndex::new(0);
        memory.save(&tunnel).expect("there is nothing to write");
        assert!(!file.exists(), "nothing was learned, and nothing is written");
        for (remembered, is_written) in [
            (learned(1300, 300_000), true),
            (learned(1300, 302_000), false),
            (learned(1300, 400_000), true),
            (learned(1280, 400_000), true),
        ] {
            let _ = std::fs::remove_file(&file);
            tunnel.recall(peer, remembered, NOW);
            memory.save(&tunnel).expect("it can be written");
            assert_eq!(file.exists(), is_written, "{remembered:?}");
        }
    }

    #[test]
    fn a_file_that_is_broken_or_of_another_boot_is_ignored() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("paths.json");
        let of_boot = |boot: &str| {
            let peer = r#"{"path_mtu":{"mtu":1300,"by_probe":true,"expires_ms":1500000}}"#;
            format!(r#"{{"boot":"{boot}","peers":{{"10.1.1.2":{peer}}}}}"#)
        };
        let boot = boot();
        assert!(!boot.is_empty(), "the kernel names it");
        let good = of_boot(boot);
        for (text, is_used) in [
            (good.clone(), true),
            (of_boot("another"), false),
            (good[..good.len() - 1].to_owned(), false),
            (good.replace("1300", "130000"), false),
            (String::new(), false),
        ] {
            std::fs::write(&file, &text).expect("it can be written");
            let tunnel = tunnel(&[2]);
            PathCache::open(&file).restore(&tunnel, NOW);
            assert_eq!(tunnel.remember(PeerIndex::new(0)).is_some(), is_used, "{text}");
        }
    }
}
