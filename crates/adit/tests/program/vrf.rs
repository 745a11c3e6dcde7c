//! The inside of an overlay in a VRF. Many kernels of build machines have none, so this is for the
//! guest's.

use crate::support::testbed::{Side, Testbed};
use adit_testbed::needs::{ebpf, vrf};
use std::fs;
use std::ops::Deref;
use std::time::Duration;

use crate::support::sites::assert_reaches;
use crate::support::wait_until;
use adit_config::DataplaneChoice;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{CONFIG_A, CONFIG_B, HOST_B, INSIDE_A};
use adit_linux::netlink::{ROUTE_PROTOCOL, Route, RouteKind};
use adit_testbed::test_planes::with_plane;
use ipnet::IpNet;
use nix::sys::signal::Signal;
use serde_json::Value;

/// The guest's processor is an emulated one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The testbed with the daemon on B; the inside of A is to be in a VRF that is not there yet.
struct Vrf(Testbed);

impl Deref for Vrf {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.0
    }
}

impl Vrf {
    fn new(plane: DataplaneChoice) -> Self {
        let config_a = CONFIG_A.replace("[site]", "[site]\nvrf = \"red\"");
        let mut testbed = Testbed::with_configs(&with_plane(&config_a, plane), &with_plane(CONFIG_B, plane));
        testbed.start(Side::B);
        Self(testbed)
    }

    /// Makes the VRF, with the inside's network in it.
    fn make_vrf(&self, table: u32) {
        self.ip(&format!("link add red type vrf table {table}"));
        self.ip("link set red up");
        self.ip("link set dummyA vrf red");
    }

    fn ours(&self, table: u32) -> Vec<Route> {
        let routes = self.gateway().netlink().unwrap().routes_of(table).unwrap();
        let is_into_tunnel =
            |route: &Route| route.protocol == ROUTE_PROTOCOL && route.kind == RouteKind::Unicast;
        routes.into_iter().filter(is_into_tunnel).collect()
    }

    /// The networks with a guard in that table.
    fn guarded(&self, table: u32) -> Vec<String> {
        let (protocol, kind) = (ROUTE_PROTOCOL, RouteKind::Unreachable);
        let found = self.gateway().netlink().unwrap().routes_of_kind(protocol, kind, Some(table)).unwrap();
        found.iter().map(|route| route.destination.to_string()).collect()
    }

    fn reaches(&self) -> bool {
        let from = &self.sites.network.host_a;
        from.run(|| ping(HOST_B, 84, 64, Duration::from_millis(300))).unwrap().is_reply()
    }
}

#[test(alone, root, ebpf, vrf)]
fn the_inside_may_be_in_a_vrf() {
    for plane in [DataplaneChoice::Ebpf, DataplaneChoice::Userspace] {
        let bed = Vrf::new(plane);
        let (status, said) = bed.spawn(&[]).wait();
        let expected = "site.vrf is red, and there is no such interface";
        assert!(!status.success() && said.contains(expected), "{said}");
        let mut a = bed.spawn(&["--wait"]);
        while !a.wait_for("").contains("waiting for the VRF") {}
        bed.make_vrf(10);
        a.wait_for("ready");
        assert_reaches(&bed.sites.network.host_a, HOST_B);
        let network: IpNet = "192.168.199.0/24".parse().unwrap();
        let routes: Vec<IpNet> = bed.ours(10).into_iter().map(|route| route.destination).collect();
        assert_eq!(routes, [network]);
        assert_eq!(bed.ours(254), [], "nothing in the main table");
        assert_eq!((bed.guarded(10), bed.guarded(254)), (vec!["192.168.199.0/24".to_owned()], vec![]));
        assert_eq!(bed.adit(&["plan", &bed.file("a.toml")]).ok().stdout, "overlay `a`: nothing to change\n");

        // What a sender is told comes by the routes of the VRF.
        let narrow = bed.sites.network.router.limit_mtu("toB", 1300).unwrap();
        wait_until(PATIENCE, "the sender is told", || {
            let from = &bed.sites.network.host_a;
            let met = from.run(|| ping(HOST_B, 1400, 64, Duration::from_millis(500))).unwrap();
            matches!(met, Answer::Refused { by: INSIDE_A, .. })
        });
        narrow.remove().unwrap();

        for broken in [
            "route delete 192.168.199.0/24 table 10",
            "route delete unreachable 192.168.199.0/24 table 10",
            "link set ipipA nomaster",
        ] {
            bed.ip(broken);
            let is_whole = || bed.ours(10).len() == 1 && bed.guarded(10).len() == 1;
            wait_until(PATIENCE, broken, || is_whole() && bed.reaches());
        }
        assert_eq!(bed.status()["repairs"]["data-plane"], Value::Null);
        // The LAN moves into another VRF with its address, which is no source for ours any more.
        let sources = || bed.ours(10).iter().map(|route| route.preferred_source).collect::<Vec<_>>();
        assert_eq!(sources(), [Some(INSIDE_A.into())]);
        bed.ip("link add green type vrf table 12");
        bed.ip("link set green up");
        bed.ip("link set dummyA vrf green");
        wait_until(PATIENCE, "the route does without it", || sources() == [None]);
        bed.ip("link set dummyA vrf red");
        wait_until(PATIENCE, "the route has it again", || {
            sources() == [Some(INSIDE_A.into())] && bed.reaches()
        });
        bed.ip("link delete green");
        // Another VRF of the name: another number, another table.
        bed.ip("link delete red");
        bed.make_vrf(11);
        wait_until(PATIENCE, "it is followed", || bed.ours(11).len() == 1 && bed.reaches());
        assert_eq!((bed.ours(10), bed.guarded(10)), (vec![], vec![]));
        assert_eq!(bed.guarded(11), ["192.168.199.0/24"]);

        bed.adit(&["down", "a"]).ok();
        let (status, said) = a.wait();
        assert!(status.success(), "{said}");
        assert_eq!((bed.ours(11), bed.guarded(11)), (vec![], vec![]));
        assert!(bed.gateway().netlink().unwrap().link("ipipA").unwrap().is_none());
    }
}

#[test(alone, root, vrf)]
fn a_plan_for_a_vrf_and_what_is_refused() {
    let bed = Vrf::new(DataplaneChoice::Userspace);
    bed.make_vrf(10);
    let planned = bed.adit(&["plan", "--commands", &bed.file("a.toml")]).stdout;
    let expected = "ip link add name ipipA type ipip local 10.1.1.1 remote 10.1.1.2\n\
                    ip link set ipipA vrf red\n\
                    ip link set ipipA up\n\
                    ip route add unreachable 192.168.199.0/24 metric 4278987208 vrf red\n\
                    ip route add 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1 vrf red\n";
    assert_eq!(planned, expected);

    // A route of somebody else's counts where it is in the way.
    bed.ip("route add 192.168.199.0/24 dev lo");
    let planned = bed.adit(&["plan", &bed.file("a.toml")]).stdout;
    assert!(planned.contains("+ route 192.168.199.0/24"), "in the main table it is not: {planned}");
    bed.ip("route add blackhole 192.168.199.0/24 table 10");
    let said = bed.adit(&["plan", &bed.file("a.toml")]).stderr;
    assert!(said.contains("a route to 192.168.199.0/24 exists and is not Adit's"), "{said}");
    bed.ip("route delete 192.168.199.0/24 table 10");

    bed.ip("link set underlayA vrf red");
    let (status, said) = bed.spawn(&[]).wait();
    let expected = "the underlay address 10.1.1.1 is on underlayA, which is in the VRF red";
    assert!(!status.success() && said.contains(expected), "{said}");
    bed.ip("link set underlayA nomaster");

    fs::write(bed.file("a.toml"), CONFIG_A.replace("[site]", "[site]\nvrf = \"dummyA\"")).unwrap();
    let (status, said) = bed.spawn(&[]).wait();
    assert!(!status.success() && said.contains("that interface is no VRF"), "{said}");
    fs::write(bed.file("a.toml"), CONFIG_A.replace("[site]", "[site]\nvrf = \"red\"")).unwrap();
    bed.ip("link set dummyA vrf red");
    let mut a = bed.spawn(&[]);
    a.wait_for("ready");
    wait_until(PATIENCE, "traffic goes both ways", || bed.reaches());
    a.end(Signal::SIGINT);
}
