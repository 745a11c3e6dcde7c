//! What the userspace plane asks of an offload, and when. A fake records the calls.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_fixtures::Setup;
use adit_linux::error::Error;
use adit_linux::family::Family;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Link, LinkLayer, Netlink, Route, RouteKind, RouteLookup, VethPair};
use adit_linux::netns::NetNs;
use adit_tunnel::{PathOptions, Peer, PeerIndex, TableDelta, Traffic, Tunnel};

use super::offload::{Interfaces, NextHop, Offload, TrafficReader};
use super::offload_sync::{MAX_PRERESOLVED, first_distinct, set_next_hops};
use super::plane::UserspacePlane;
use super::underlay::Underlay;
use crate::plane::DataPlane;
use crate::tunnel_interface::TunnelInterface;

/// The gateway of the fixtures, and its first peer.
const A: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
const D: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 4);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const HIDDEN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Longest wait for the watcher.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Open(Interfaces),
    Widen(Interfaces),
    Sync,
    SetNextHop(PeerIndex, Option<NextHop>),
    /// Addresses of the peers that came.
    UpdatePeers(Vec<IpAddr>),
}

#[derive(Clone, Default)]
struct FakeOffload {
    calls: Arc<Mutex<Vec<Call>>>,
    is_open: bool,
    refuses_open: bool,
    refuses_next_hop_of: Option<PeerIndex>,
}

impl FakeOffload {
    fn record(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a call matches.
    fn await_call(&self, matches: impl Fn(&Call) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.calls().iter().any(&matches) {
            assert!(Instant::now() < deadline, "{:#?}", self.calls());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn refused() -> Error {
    Error::new("the fake refuses", io::Error::from(io::ErrorKind::PermissionDenied))
}

impl Offload for FakeOffload {
    type Error = Error;

    fn is_open(&self) -> bool {
        self.is_open
    }

    fn open(&mut self, _: &Tunnel, underlay: &Interfaces) -> Result<(), Error> {
        self.record(Call::Open(underlay.clone()));
        if self.refuses_open {
            return Err(refused());
        }
        self.is_open = true;
        Ok(())
    }

    fn widen(&mut self, underlay: &Interfaces) {
        self.record(Call::Widen(underlay.clone()));
    }

    fn sync(&mut self, _: &Tunnel, _: bool) -> Result<(), Error> {
        self.record(Call::Sync);
        Ok(())
    }

    fn set_next_hop(&mut self, _: &Tunnel, peer: PeerIndex, next_hop: Option<NextHop>) -> Result<(), Error> {
        self.record(Call::SetNextHop(peer, next_hop));
        if self.refuses_next_hop_of == Some(peer) { Err(refused()) } else { Ok(()) }
    }

    fn set_sending(&mut self, _: Family, _: bool) -> Result<(), Error> {
        Ok(())
    }

    fn update_peers(&mut self, _: &Tunnel, steps: &TableDelta) -> Result<(), Error> {
        self.record(Call::UpdatePeers(steps.added.iter().map(|(_, path)| path.destination).collect()));
        Ok(())
    }

    fn traffic(&self) -> TrafficReader {
        Arc::new(|_| Traffic::default())
    }
}

/// Creates a veth pair in the calling thread's network namespace, and sets it up.
fn tunnel_interface() -> Result<TunnelInterface, Error> {
    let mut netlink = Netlink::open()?;
    let pair = VethPair {
        name: "tunnel0".to_owned(),
        mac: MAC,
        mtu: 1480,
        hidden: "tunnel0-h".to_owned(),
        hidden_mac: HIDDEN_MAC,
        hidden_mtu: 65_535,
    };
    netlink.add_veth_pair(&pair, None)?;
    let mut index = |name: &str| -> Result<u32, Error> {
        let link = netlink.link(name)?.expect("it was created");
        netlink.set_no_arp(link.index)?;
        netlink.set_up(link.index)?;
        Ok(link.index)
    };
    Ok(TunnelInterface {
        ipv6: false,
        index: index("tunnel0")?,
        hidden: index("tunnel0-h")?,
        name: pair.name,
        mac: MAC,
        mtu: 1480,
        hidden_name: pair.hidden,
        hidden_mac: HIDDEN_MAC,
        queues: 1,
        scope: NetScope::default(),
    })
}

fn tunnel() -> Tunnel {
    Tunnel::new(Setup::default().config).expect("the fixtures' configuration is valid")
}

fn addresses(tunnel: &Tunnel) -> Vec<(PeerIndex, IpAddr)> {
    tunnel.paths().map(|(index, path)| (index, path.destination)).collect()
}

/// An underlay of two links, Ethernet and not, with a route to each peer by the given link.
fn underlay(tunnel: &Tunnel, by: impl Fn(PeerIndex) -> Option<u32>) -> Underlay {
    let link = |index, hardware| Link {
        index,
        name: format!("link{index}"),
        mtu: 1500,
        up: true,
        running: true,
        mac: Some(MAC),
        alias: None,
        kind: None,
        master: None,
        lower: None,
        is_lower_elsewhere: false,
        vrf_table: None,
        tunnel: None,
        hardware,
        flags: 0,
    };
    let route = |(peer, address)| {
        let lookup = by(peer).map(|device| RouteLookup {
            device,
            next_hop: address,
            source: Some(A.into()),
            mtu: None,
            kind: RouteKind::Unicast,
        });
        (peer, lookup)
    };
    Underlay {
        links: [(1, link(1, LinkLayer::Ethernet)), (2, link(2, LinkLayer::None))].into(),
        routes: addresses(tunnel).into_iter().map(route).collect(),
    }
}

#[test]
fn a_peer_without_a_route_to_ethernet_is_left_to_userspace() {
    let tunnel = tunnel();
    let peers = addresses(&tunnel);
    let (first, second) = (peers[0], peers[1]);
    for other in [None, Some(2)] {
        let mut offload = FakeOffload::default();
        let seen = underlay(&tunnel, |peer| if peer == first.0 { Some(1) } else { other });
        let next_hop = Some(NextHop { device: 1, address: first.1 });
        assert_eq!(set_next_hops(&mut offload, &tunnel, &seen)[..2], [next_hop, None]);
        assert_eq!(
            offload.calls()[..2],
            [Call::SetNextHop(first.0, next_hop), Call::SetNextHop(second.0, None)]
        );
    }
}

#[test]
fn a_next_hop_that_the_offload_refuses_does_not_stop_the_others() {
    let tunnel = tunnel();
    let peers = addresses(&tunnel);
    let mut offload = FakeOffload { refuses_next_hop_of: Some(peers[0].0), ..FakeOffload::default() };
    let next_hops = set_next_hops(&mut offload, &tunnel, &underlay(&tunnel, |_| Some(1)));
    assert!(next_hops.iter().all(Option::is_some), "{next_hops:?}");
    assert_eq!(offload.calls().len(), peers.len());
}

#[test]
fn only_the_first_next_hops_are_resolved_in_advance() {
    let next_hop = |n: u32| Some(NextHop { device: 1, address: Ipv4Addr::from_bits(n / 2).into() });
    let next_hops: Vec<_> = (0..1000).map(next_hop).chain([None]).collect();
    let first = first_distinct(&next_hops);
    assert_eq!(first.len(), MAX_PRERESOLVED);
    assert_eq!(
        first.last().map(|hop| hop.address),
        Some(Ipv4Addr::from_bits(MAX_PRERESOLVED as u32 - 1).into())
    );
}

/// A gateway in a namespace of its own, whose interface `u0` leads to the peers.
struct Bed {
    near: NetNs,
    far: NetNs,
    u0: u32,
}

impl Bed {
    fn new(tunnel: &Tunnel) -> Self {
        let near = NetNs::fresh().expect("a namespace");
        let far = NetNs::fresh().expect("a namespace");
        let mut bed = Self { near, far, u0: 0 };
        bed.u0 = bed.link("u0");
        let u0 = bed.u0;
        let peers = addresses(tunnel);
        bed.netlink(move |netlink| {
            netlink.add_address(u0, "10.1.1.1/24".parse().expect("a prefix")).expect("an address");
            for (_, address) in peers {
                netlink.set_neighbour(u0, address, MAC).expect("a neighbour");
            }
        });
        bed
    }

    fn netlink<T: Send>(&self, work: impl FnOnce(&mut Netlink) -> T + Send) -> T {
        let work = || work(&mut Netlink::open().expect("netlink"));
        self.near.run(work).expect("the namespace can be entered")
    }

    /// A running Ethernet interface.
    fn link(&self, name: &str) -> u32 {
        let far_name = format!("{name}far");
        let index = self.netlink(|netlink| {
            let index = netlink.add_veth(name, &far_name, &self.far).expect("a veth");
            netlink.set_up(index).expect("it goes up");
            index
        });
        let raise = || {
            let mut netlink = Netlink::open()?;
            let far = netlink.link(&far_name)?.map_or(0, |link| link.index);
            netlink.set_up(far)
        };
        self.far.run(raise).expect("the namespace can be entered").expect("it goes up");
        let deadline = Instant::now() + TIMEOUT;
        let is_running =
            |netlink: &mut Netlink| netlink.link(name).expect("netlink").is_some_and(|link| link.running);
        while !self.netlink(is_running) {
            assert!(Instant::now() < deadline, "{name} does not run");
            std::thread::sleep(Duration::from_millis(5));
        }
        index
    }

    fn start(&self, tunnel: Tunnel, offload: FakeOffload) -> Result<UserspacePlane, Error> {
        let start = || {
            let interface = tunnel_interface()?;
            UserspacePlane::start_behind(Arc::new(tunnel), &interface, 0, Some(offload))
        };
        self.near.run(start).expect("the namespace can be entered")
    }
}

fn interfaces(names: &[(u32, &str)]) -> Interfaces {
    names.iter().map(|(index, name)| (*index, (*name).to_owned())).collect()
}

#[test(root)]
fn an_offload_opens_when_it_knows_every_next_hop() {
    let tunnel = tunnel();
    let peers = addresses(&tunnel);
    let bed = Bed::new(&tunnel);
    let offload = FakeOffload::default();
    let _plane = bed.start(tunnel, offload.clone()).expect("it starts");
    let set = |(peer, address)| Call::SetNextHop(peer, Some(NextHop { device: bed.u0, address }));
    let expected: Vec<Call> =
        peers.into_iter().map(set).chain([Call::Sync, Call::Open(interfaces(&[(bed.u0, "u0")]))]).collect();
    assert_eq!(offload.calls()[..expected.len()], expected);
}

#[test(root)]
fn a_start_fails_if_the_offload_does_not_open() {
    let tunnel = tunnel();
    let bed = Bed::new(&tunnel);
    let offload = FakeOffload { refuses_open: true, ..FakeOffload::default() };
    let Err(error) = bed.start(tunnel, offload.clone()) else { panic!("the offload refuses") };
    assert!(error.to_string().contains("the fake refuses"), "{error}");
    assert_eq!(Arc::strong_count(&offload.calls), 1, "no thread keeps the offload");
}

#[test(root)]
fn an_interface_that_a_route_moves_to_is_served() {
    let tunnel = tunnel();
    let (peer, _) = addresses(&tunnel)[0];
    let bed = Bed::new(&tunnel);
    let offload = FakeOffload::default();
    let _plane = bed.start(tunnel, offload.clone()).expect("it starts");
    let u1 = bed.link("u1");
    bed.netlink(|netlink| {
        let prefix = ipnet::Ipv4Net::from(B).into();
        netlink.add_address(u1, "10.9.9.9/32".parse().expect("a prefix")).expect("an address");
        netlink
            .add_route(&Route { destination: prefix, device: Some(u1), ..Route::default() })
            .expect("a route");
    });
    let moved = Call::SetNextHop(peer, Some(NextHop { device: u1, address: B.into() }));
    offload.await_call(|call| *call == moved);
    let both = interfaces(&[(bed.u0, "u0"), (u1, "u1")]);
    offload.await_call(|call| *call == Call::Widen(both.clone()));
}

#[test(root)]
fn a_new_peer_gets_a_next_hop_when_the_offload_knows_it() {
    let tunnel = tunnel();
    let new = Peer {
        name: "new".parse().expect("a name"),
        underlay: D.into(),
        networks: vec!["198.18.0.0/24".parse().expect("a network")],
        path: PathOptions::default(),
    };
    let mut peers = tunnel.config().peers.clone();
    peers.insert(new).expect("no conflict");
    let delta = tunnel.config().peers.delta_to(&peers);
    let bed = Bed::new(&tunnel);
    let offload = FakeOffload::default();
    let mut plane = bed.start(tunnel, offload.clone()).expect("it starts");
    let (with_new, steps) = plane.tunnel().with_peers(&delta).expect("it is valid");
    let (peer, _) = steps.added[0];
    plane.update_peers(Arc::new(with_new), &steps).expect("there is room");
    let calls = offload.calls();
    let position = |wanted: &Call| calls.iter().position(|call| call == wanted);
    let known = position(&Call::UpdatePeers(vec![D.into()])).expect("the offload is asked");
    let next_hop = Some(NextHop { device: bed.u0, address: D.into() });
    let set = position(&Call::SetNextHop(peer, next_hop)).expect("the next hop is set");
    assert!(known < set, "{calls:#?}");
}
