//! Peers that come, go and change beside others: the data plane goes on, and whoever is not
//! concerned notices nothing.

use adit_testbed::needs::ebpf;
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;

use crate::support::Said;
use crate::support::load::Load;
use crate::support::machine::{PATIENCE, Running};
use crate::support::programs::{pinned, pins};
use crate::support::sites::Sites;
use crate::support::wait_until;
use adit_config::DataplaneChoice;
use adit_linux::netlink::{ROUTE_PROTOCOL, Route, RouteKind};
use adit_testbed::test_planes::plane_name;
use aya::maps::lpm_trie::Key;
use aya::maps::{LpmTrie, Map, MapData};
use ipnet::{IpNet, Ipv4Net};

/// Peers that nobody is.
fn nobodies(numbers: std::ops::Range<u32>) -> String {
    let peer = |n: u32| {
        let (underlay, network) = (Ipv4Addr::from_bits(0x0a4e_0000 + n), nobodys_network(n));
        format!("\n[[peer]]\nname = \"p{n}\"\nunderlay = \"{underlay}\"\nnetworks = [\"{network}\"]\n")
    };
    numbers.map(peer).collect()
}

fn nobodys_network(n: u32) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::from_bits(0x0a4d_0000 + n * 16), 28).unwrap()
}

/// Both sites, and a daemon on each gateway.
struct ManyPeers {
    sites: Sites,
    file: String,
    text: String,
    a: Running,
    _b: Running,
}

impl ManyPeers {
    fn new(plane: DataplaneChoice) -> Self {
        let sites = Sites::with_dataplane(plane_name(plane));
        let (b, a) = (sites.run_b(), sites.run_a(&[]));
        let file = sites.file("a.toml");
        let text = fs::read_to_string(&file).unwrap();
        let bed = Self { sites, file, text, a, _b: b };
        // From one peer to several the routes of all become others; of several one more is one
        // more.
        bed.apply(&nobodies(0..2));
        // A thread takes its name only once it runs.
        wait_until(PATIENCE, "the packet threads have their names", || {
            let (_, threads) = bed.parts();
            ["adit-in", "adit-out", "adit-watch"]
                .iter()
                .all(|kind| threads.iter().any(|thread| thread.contains(kind)))
        });
        bed
    }

    /// Applies the file with these peers too.
    #[track_caller]
    fn apply(&self, more: &str) -> Said {
        fs::write(&self.file, format!("{}{more}", self.text)).unwrap();
        self.sites.machine.adit(self.sites.network.gateway_a.ns(), &["apply", &self.file]).ok()
    }

    fn plan(&self) -> String {
        self.sites.machine.adit(self.sites.network.gateway_a.ns(), &["plan", &self.file]).stdout
    }

    /// Programs and threads: what a data plane that is started anew has others of.
    fn parts(&self) -> (BTreeMap<String, u32>, Vec<String>) {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.a.pid())).unwrap();
        let packet_thread = |task: std::io::Result<fs::DirEntry>| {
            let task = task.unwrap().path();
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            let is_packets = ["adit-in", "adit-out", "adit-watch"].iter().any(|kind| name.starts_with(kind));
            is_packets.then(|| format!("{} {}", task.display(), name.trim()))
        };
        let mut threads: Vec<String> = tasks.filter_map(packet_thread).collect();
        threads.sort();
        (pinned(&self.sites.machine, "a"), threads)
    }

    /// Why datagrams were dropped.
    fn drops(&self) -> Vec<String> {
        let gateway = self.sites.network.gateway_a.ns();
        let status = self.sites.machine.adit(gateway, &["status", "a", "-j"]).ok().json();
        status["overlays"][0]["drops"].as_object().unwrap().keys().cloned().collect()
    }

    /// The networks that are routed into the tunnel.
    fn routed(&self) -> Vec<IpNet> {
        let routes = self.sites.network.gateway_a.netlink().unwrap().routes().unwrap();
        let ours = routes.into_iter().filter(|route| route.protocol == ROUTE_PROTOCOL);
        // Each has a guard behind it.
        let (into, guards): (Vec<_>, Vec<_>) = ours.partition(|route| route.kind == RouteKind::Unicast);
        let networks = |routes: Vec<Route>| routes.into_iter().map(|route| route.destination).collect();
        let (into, guards): (Vec<IpNet>, Vec<IpNet>) = (networks(into), networks(guards));
        assert_eq!(into, guards);
        into
    }
}

fn coming_and_going(plane: DataplaneChoice) {
    let bed = ManyPeers::new(plane);
    let parts = bed.parts();
    // Bits a second that a process built for debugging keeps up with.
    let load = Load::start(&bed.sites.network, (plane == DataplaneChoice::Userspace).then_some(20_000_000));
    for n in 0..12 {
        let said = bed.apply(&(nobodies(0..2) + &nobodies(2 + n..3 + n)));
        assert!(said.stdout.contains(&format!("+ peer p{}", 2 + n)), "{said:?}");
        assert!(said.stdout.contains(&format!("+ route {}", nobodys_network(2 + n))), "{said:?}");
        assert!(bed.routed().contains(&nobodys_network(2 + n).into()));
        assert_eq!(bed.routed().len(), 4, "those of b, of two that stay, and of one");
    }
    let outcome = load.finish(&format!("{}: a peer comes and another goes, twelve times", plane_name(plane)));
    // A process built for debugging that others keep from running loses what its sockets have no
    // room for, whatever it does; so of userspace the figures are for reading, and nothing else may
    // be why.
    if plane == DataplaneChoice::Ebpf {
        outcome.assert_lossless();
    }
    let drops = bed.drops();
    assert!(drops.iter().all(|reason| reason == "queue-full"), "{outcome}: {drops:?}");
    assert_eq!(bed.parts(), parts, "nothing was started anew");
    // What was done bit by bit is what a start would do.
    assert_eq!(bed.plan(), "overlay `a`: nothing to change\n");
}

#[test(alone, root, ebpf)]
fn a_peer_comes_and_goes_beside_others_with_ebpf() {
    coming_and_going(DataplaneChoice::Ebpf);
}

#[test(alone, root)]
fn a_peer_comes_and_goes_beside_others_in_userspace() {
    coming_and_going(DataplaneChoice::Userspace);
}

/// More than there is room for while it runs: by a start anew, without a loss.
#[test(alone, root, ebpf)]
fn what_has_no_room_is_started_anew() {
    let bed = ManyPeers::new(DataplaneChoice::Ebpf);
    let parts = bed.parts();
    let load = Load::start(&bed.sites.network, None);
    bed.apply(&nobodies(0..200));
    load.finish("ebpf: 198 peers more than there is room for").assert_lossless();
    assert_ne!(bed.parts(), parts);
    assert_eq!(bed.routed().len(), 201);
    assert_eq!(bed.plan(), "overlay `a`: nothing to change\n");
}

/// A step that the kernel refuses: what is half done is replaced, whole.
#[test(alone, root, ebpf)]
fn a_step_that_fails_ends_in_a_start_anew() {
    let bed = ManyPeers::new(DataplaneChoice::Ebpf);
    let parts = bed.parts();
    // Somebody takes an entry out of the programs' map, so that it cannot be taken out once more.
    let path =
        pins(&bed.sites.machine, "a").into_iter().find(|path| path.ends_with("maps/PREFIX_OWNERS")).unwrap();
    bed.sites.machine.with_files(|| {
        let map = Map::from_map_data(MapData::from_pin(&path).unwrap()).unwrap();
        let mut networks: LpmTrie<MapData, [u8; 4], u32> = LpmTrie::try_from(map).unwrap();
        networks.remove(&Key::new(28, nobodys_network(1).network().octets())).unwrap();
    });
    let load = Load::start(&bed.sites.network, None);
    // One comes, which can be done, and one goes, which cannot.
    bed.apply(&(nobodies(0..1) + &nobodies(7..8)));
    load.finish("ebpf: a step fails").assert_lossless();
    assert_ne!(bed.parts(), parts, "started anew");
    let mut expected =
        vec!["192.168.199.0/24".parse().unwrap(), nobodys_network(0).into(), nobodys_network(7).into()];
    let mut routed = bed.routed();
    expected.sort();
    routed.sort();
    assert_eq!(routed, expected);
    // And from there on bit by bit again.
    let parts = bed.parts();
    bed.apply(&nobodies(0..2));
    assert_eq!(bed.parts(), parts);
    assert_eq!(bed.plan(), "overlay `a`: nothing to change\n");
}

/// A foreign route for a network that comes is neither taken over nor lost, and nothing else is
/// done.
#[test(alone, root)]
fn a_peer_whose_network_is_somebody_elses_is_refused() {
    let bed = ManyPeers::new(DataplaneChoice::Userspace);
    let gateway = &bed.sites.network.gateway_a;
    let add = |network: &str| {
        let said = bed.sites.machine.run(
            gateway.ns(),
            std::process::Command::new("ip").args(["route", "add", network, "dev", "underlayA"]),
        );
        assert_eq!(said.code, Some(0), "{said:?}");
    };
    let (routed, parts) = (bed.routed(), bed.parts());
    // To the network itself, and behind a longer one that hides it.
    for n in [5, 6] {
        add(&nobodys_network(n).to_string());
    }
    add(&Ipv4Net::new(nobodys_network(6).network(), 32).unwrap().to_string());
    for n in [5, 6] {
        fs::write(&bed.file, format!("{}{}", bed.text, nobodies(0..2) + &nobodies(n..n + 1))).unwrap();
        let said = bed.sites.machine.adit(gateway.ns(), &["apply", &bed.file]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(&nobodys_network(n).to_string()), "{said:?}");
        assert!(said.stderr.contains("underlayA"), "{said:?}");
        assert_eq!((bed.routed(), bed.parts()), (routed.clone(), parts.clone()));
    }
    // A longer one alone is not its business.
    add(&Ipv4Net::new(nobodys_network(7).network(), 32).unwrap().to_string());
    bed.apply(&(nobodies(0..2) + &nobodies(7..8)));
    assert!(bed.routed().contains(&nobodys_network(7).into()));
}
