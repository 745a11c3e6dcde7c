//! Properties of every configuration, and of every text that is none.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use adit_config::{
    Config, DataplaneChoice, DeviceName, DscpChoice, EcnChoice, Keepalive, MAX_MTU, MIN_MTU, Mtu, NetnsName,
    PathOptions, Peer, PeerName, PeerSet, Problems, Relay, SiteConfig, SiteName, Ttl, TunnelOptions,
    Underlay,
};
use adit_peers::UnderlayAddresses;
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const GOOD: &str = include_str!("../../../examples/a.toml");

fn options() -> impl Strategy<Value = TunnelOptions> {
    let ttl = prop_oneof![(1..=255_u8).prop_map(Ttl::Fixed), Just(Ttl::Inherit)];
    let dscp = prop_oneof![(0..=63_u8).prop_map(DscpChoice::Fixed), Just(DscpChoice::Inherit)];
    let ecn = select(vec![EcnChoice::Normal, EcnChoice::Compatibility]);
    let mtu = prop_oneof![(MIN_MTU..=MAX_MTU).prop_map(Mtu::Fixed), Just(Mtu::Auto)];
    (ttl, dscp, ecn, mtu, 88..=1500_u16, any::<[bool; 3]>()).prop_map(
        |(ttl, dscp, ecn, mtu, mtu_floor, [df, mss_clamp, probe])| TunnelOptions {
            ttl,
            dscp,
            ecn,
            mtu,
            df,
            mss_clamp,
            mtu_floor,
            probe,
            keepalive: None,
            relay: Relay::default(),
        },
    )
}

/// The first peer and each other one as pairs, or one of the other rules.
fn relay(kind: usize, peers: &PeerSet) -> Relay {
    let mut names = peers.iter().map(|peer| peer.name.clone());
    match (kind, names.next()) {
        (0, Some(first)) => Relay::Pairs(names.map(|name| [first.clone(), name]).collect()),
        (1, _) => Relay::Off,
        (2, _) => Relay::Direct,
        _ => Relay::Auto,
    }
}

/// The network namespace and VRF.
fn inside() -> impl Strategy<Value = (Option<NetnsName>, Option<DeviceName>)> {
    let name = || proptest::option::of("[a-z]{1,2}|[a-z][!#-$&-.0-9;-\\[\\]-~]{3,14}");
    (name(), name()).prop_filter_map("a word that means something", |(netns, vrf)| {
        let netns = netns.map(NetnsName::new).transpose().ok()?;
        Some((netns, vrf.map(DeviceName::new).transpose().ok()?))
    })
}

/// A valid configuration: each owner has networks inside a /16 of its own, and the underlay is
/// elsewhere.
fn config() -> impl Strategy<Value = Config> {
    let dataplane = select(vec![
        DataplaneChoice::Auto,
        DataplaneChoice::Ebpf,
        DataplaneChoice::Userspace,
        DataplaneChoice::Kernel,
    ]);
    let owners = vec(("[a-z0-9-]{1,28}", vec((any::<u16>(), 16..=32_u8, any::<bool>()), 1..6)), 1..12);
    let metrics = proptest::option::of((any::<[u8; 16]>(), any::<bool>(), 1..=u16::MAX));
    (
        options(),
        (dataplane, metrics, proptest::option::of("[a-z][!-$&-.0-9;-~]{0,14}"), inside()),
        "[!-$&-.0-9;-~]{1,15}",
        owners,
        any::<u16>(),
    )
        .prop_filter_map(
            "a name that means something to the kernel",
            |(mut tunnel, (dataplane, metrics, interface, inside), device, owners, start)| {
                // Linux's tunnel drivers set DF if the TTL is fixed.
                if dataplane == DataplaneChoice::Kernel && tunnel.ttl != Ttl::Inherit {
                    tunnel.df = true;
                }
                let takes_ipv6 = !matches!(tunnel.mtu, Mtu::Fixed(mtu) if mtu < 1280);
                // Over IPv6, over both families, or over IPv4.
                let families = start % 4;
                let device = DeviceName::new(device).ok()?;
                let interface = interface.map(DeviceName::new).transpose().ok()?;
                let mut owners = owners.into_iter().enumerate().map(|(index, (name, networks))| {
                    let index = index as u8;
                    let networks: BTreeSet<IpNet> = networks
                        .into_iter()
                        .map(|(low, length, is_v6)| {
                            let [c, d] = low.to_be_bytes();
                            let (address, length) = if is_v6 && takes_ipv6 {
                                let address = [0x2001, 0xdb8, index.into(), low, 0, 0, 0, low];
                                (IpAddr::from(address), length * 4)
                            } else {
                                (IpAddr::from([10, index, c, d]), length)
                            };
                            IpNet::new(address, length).unwrap().trunc()
                        })
                        .collect();
                    let [b, c] = start.to_be_bytes();
                    let v4 = IpAddr::from([198, b, c, index]);
                    let v6 = IpAddr::from([0x2001, 0xdb8, 0xffff, start, 0, 0, 0, index.into()]);
                    // The site comes first.
                    let underlay = match (families, index % 4) {
                        (0, _) | (1, 3) => vec![v6],
                        (1, 0) => vec![v6, v4],
                        (1, 1) => vec![v4, v6],
                        _ => vec![v4],
                    };
                    let underlay = UnderlayAddresses::new(underlay).unwrap();
                    (format!("{index}-{name}"), underlay, networks.into_iter().collect())
                });
                let (name, underlay, networks) = owners.next()?;
                let metrics = metrics.map(|(bytes, is_v6, port)| {
                    // Neither multicast nor broadcast.
                    let first = bytes[0] & 0x7f;
                    if is_v6 {
                        let mut address = bytes;
                        address[0] = first;
                        SocketAddr::from((address, port))
                    } else {
                        SocketAddr::from(([first, bytes[1], bytes[2], bytes[3]], port))
                    }
                });
                let name = SiteName::new(name).unwrap();
                let underlay = interface.map_or(Underlay::Addresses(underlay), Underlay::Interface);
                let (netns, vrf) = inside;
                let fwmark = start.into();
                let local = (0..start % 3).map(|n| Ipv4Addr::new(192, 0, 2, n as u8)).collect();
                let seconds = Duration::from_secs(u64::from(start % 3599) + 2);
                let is_kept = tunnel.probe && tunnel.df;
                tunnel.keepalive = Some(seconds).filter(|_| is_kept && start % 2 == 0);
                let site = SiteConfig {
                    name,
                    underlay,
                    networks,
                    local,
                    device,
                    dataplane,
                    netns,
                    vrf,
                    metrics,
                    fwmark,
                    tunnel,
                };
                let v4 = |network: &IpNet| match network {
                    IpNet::V4(network) => Some(network.network()),
                    IpNet::V6(_) => None,
                };
                let first = |networks: &[IpNet]| networks.iter().find_map(v4);
                let peers = owners.map(|(name, underlay, networks): (_, _, Vec<IpNet>)| Peer {
                    name: PeerName::new(name).unwrap(),
                    underlay,
                    path: PathOptions {
                        probe_address: first(&networks).filter(|_| start % 5 < 2),
                        keepalive: match start % 3 {
                            0 => Keepalive::Default,
                            1 if is_kept => Keepalive::After(seconds),
                            _ => Keepalive::Off,
                        },
                    },
                    networks,
                });
                let mut config = Config::new(site, peers).expect("no conflict");
                config.site.tunnel.relay = relay(usize::from(start) % 4, &config.peers);
                Some(config)
            },
        )
}

/// Shows the problems in every way, and checks the invariants of every report.
fn explained(text: &str, result: Result<Config, Problems>) {
    let Err(problems) = result else { return };
    assert!(problems.len() > 0);
    for problem in &problems {
        assert!(problem.line >= 1 && problem.column >= 1);
        assert!(text.get(problem.span.clone()).is_some(), "{:?} is not in the text", problem.span);
        assert!(problem.others.iter().all(|place| text.get(place.span.clone()).is_some()));
    }
    assert_eq!(problems.to_string().lines().count(), 2 * problems.len(), "{problems}");
    assert!(!problems.drawn(false, 100).is_empty());
    assert_eq!(serde_json::to_value(&problems).unwrap().as_array().unwrap().len(), problems.len());
}

/// Valid and invalid pieces of files.
const PIECES: [&str; 60] = [
    "keepalive = \"25s\"",
    "keepalive = \"1h\"",
    "keepalive = \"é\"",
    "keepalive = 25",
    "probe-address = \"10.1.0.0\"",
    "probe-address = \"auto\"",
    "[site]",
    "[[site]]",
    "[tunnel]",
    "[peer]",
    "[[peer]]",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "\n",
    "\n",
    "\n",
    "\r\n",
    " ",
    "#",
    "name",
    "underlay",
    "networks",
    "device",
    "dataplane",
    "ttl",
    "dscp",
    "ecn",
    "mtu",
    "df",
    "mss-clamp",
    "probe",
    "relay",
    "site",
    "peer",
    "tunnel",
    "\"a\"",
    "\"10.1.1.1\"",
    "\"10.1.1.2\"",
    "10.1.1.1",
    "\"10.0.0.0/8\"",
    "\"172.16.17.0/24\"",
    "\"0.0.0.0/0\"",
    "\"::1\"",
    "64",
    "-1",
    "0x",
    "1_",
    "true",
    "True",
    "\"",
    "'''",
    "“ä”",
    "\u{feff}",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn what_is_written_is_read_again(config in config()) {
        let text = config.to_toml();
        let read = Config::parse("x.toml", &text);
        prop_assert!(read.is_ok(), "{}\n{}", text, read.unwrap_err());
        prop_assert_eq!(read.unwrap(), config);
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        explained(&text, Config::parse("x", &text));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        explained(&text, Config::parse("x", &text));
    }

    #[test]
    fn no_pieces_panic(pieces in vec(select(&PIECES[..]), 0..60)) {
        let text: String = pieces.concat();
        explained(&text, Config::parse("x", &text));
    }

    #[test]
    fn no_mutation_panics(
        edits in vec((any::<Index>(), 0..20_usize, select(&PIECES[..])), 1..6),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let mut text: Vec<char> = GOOD.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n").chars().collect();
        for (at, remove, insert) in edits {
            let at = at.index(text.len() + 1);
            let to = (at + remove).min(text.len());
            text.splice(at..to, insert.chars());
        }
        if let Some(cut) = cut {
            text.truncate(cut.index(text.len() + 1));
        }
        let text: String = text.into_iter().collect();
        explained(&text, Config::parse("x", &text));
    }

    /// The reports of overlaps against a comparison of each network with each.
    #[test]
    fn overlaps_as_a_slow_model_finds_them(
        owners in vec(vec((0..64_u32, 24..=30_u8), 0..5), 1..5),
    ) {
        let networks: Vec<(usize, IpNet)> = owners
            .iter()
            .enumerate()
            .flat_map(|(owner, networks)| networks.iter().map(move |(bits, length)| {
                (owner, IpNet::new(Ipv4Addr::from(0x0a00_0000 | (bits << 4)).into(), *length).unwrap().trunc())
            }))
            .collect();
        let written = |owner: usize| {
            let list: Vec<String> =
                networks.iter().filter(|(of, _)| *of == owner).map(|(_, network)| format!("\"{network}\"")).collect();
            if list.is_empty() { format!("[\"172.16.{owner}.0/24\"]") } else { format!("[{}]", list.join(", ")) }
        };
        let mut text = format!("[site]\nname = \"a\"\nunderlay = \"192.0.2.99\"\nnetworks = {}\n", written(0));
        for owner in 1..owners.len() {
            text += &format!("[[peer]]\nname = \"p{owner}\"\nunderlay = \"192.0.2.{owner}\"\nnetworks = {}\n", written(owner));
        }
        let nested = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
        let mut wrong = BTreeSet::new();
        for (i, (owner, network)) in networks.iter().enumerate() {
            for (other_owner, other) in &networks[..i] {
                if owner != other_owner && nested(network, other) || owner == other_owner && network == other {
                    wrong.extend([network, other]);
                }
            }
        }
        let mut found = BTreeSet::new();
        if let Err(problems) = Config::parse("x", &text) {
            for problem in &problems {
                for span in std::iter::once(&problem.span).chain(problem.others.iter().map(|place| &place.span)) {
                    found.insert(text[span.clone()].trim_matches('"').parse::<IpNet>().unwrap());
                }
            }
        }
        // The model names all networks that take part. The reader may leave out the larger of two
        // if a nearer one is named. It names no network without a conflict, and accepts no
        // conflict.
        let wrong: BTreeSet<IpNet> = wrong.into_iter().copied().collect();
        prop_assert!(found.is_subset(&wrong), "{:?} but not {:?}\n{}", found, wrong, text);
        prop_assert_eq!(found.is_empty(), wrong.is_empty(), "{}", text);
    }
}

#[test]
fn every_prefix_of_a_good_file_is_explained() {
    for end in (0..=GOOD.len()).filter(|end| GOOD.is_char_boundary(*end)) {
        explained(&GOOD[..end], Config::parse("x", &GOOD[..end]));
    }
}

#[test]
fn deep_nesting_ends() {
    for open in ["[", "{a=", "a.", "[["] {
        let text = format!("a = {}", open.repeat(10_000));
        explained(&text, Config::parse("x", &text));
        let text = open.repeat(10_000);
        explained(&text, Config::parse("x", &text));
    }
}
