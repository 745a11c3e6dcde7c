//! The underlay comes late, moves and changes, and the overlay follows.

use crate::support::testbed::{Side, Testbed};
use adit_testbed::needs::ebpf;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::time::Duration;

use crate::support::load::Load;
use crate::support::wait_until;
use adit_config::DataplaneChoice;
use adit_lab::two_sites::{CONFIG_A, CONFIG_B};
use adit_testbed::test_planes::{plane_name, with_plane};
use ipnet::Ipv4Net;
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
/// What the issue allows a repair.
const A_SECOND: Duration = Duration::from_secs(1);
const BOTH: [DataplaneChoice; 2] = [DataplaneChoice::Ebpf, DataplaneChoice::Userspace];
const NEW: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 7);

/// How a file names the underlay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Address,
    Interface,
}

/// The testbed, whose underlay changes on A. The file `moved.toml` is B's after A's address moved.
struct Moving(Testbed);

impl Deref for Moving {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.0
    }
}

impl Moving {
    /// With the daemon on B; A's file names its underlay like this.
    fn prepare(plane: DataplaneChoice, by: By) -> Self {
        let own = "underlay = \"10.1.1.1\"";
        let config_a = match by {
            By::Address => CONFIG_A.to_owned(),
            By::Interface => CONFIG_A.replace(own, "underlay = \"underlayA\""),
        };
        let moved = CONFIG_B.replace("underlay = \"10.1.1.1\"", &format!("underlay = \"{NEW}\""));
        assert!(config_a.contains("underlayA") == (by == By::Interface) && moved.contains(&NEW.to_string()));
        let mut testbed = Testbed::with_configs(&with_plane(&config_a, plane), &with_plane(CONFIG_B, plane));
        testbed.write("moved.toml", &with_plane(&moved, plane));
        testbed.start(Side::B);
        Self(testbed)
    }

    /// With the daemon on A, too.
    fn new(plane: DataplaneChoice, by: By) -> Self {
        let mut bed = Self::prepare(plane, by);
        bed.0.start(Side::A);
        bed.sites.assert_joined();
        bed
    }

    fn remove(&self, address: &str) {
        let prefix: Ipv4Net = address.parse().unwrap();
        let index = self.gateway().index("underlayA").unwrap();
        self.gateway().netlink().unwrap().delete_address(index, prefix.into()).unwrap();
    }

    fn add(&self, address: &str) {
        self.gateway().address("underlayA", address.parse::<Ipv4Net>().unwrap()).unwrap();
    }

    fn site(&self) -> Value {
        self.status()["site"].clone()
    }

    /// Reads on in what A's daemon says.
    fn wait_for(&mut self, part: &str) {
        self.0.wait_for(Side::A, part);
    }

    /// The peers' operator follows; and so does the router.
    fn peers_follow(&self) {
        let router = &self.sites.network.router;
        router.route(Ipv4Net::from(NEW), None, Some("toA")).unwrap();
        let gateway_b = &self.sites.network.gateway_b;
        self.sites.machine.adit(gateway_b.ns(), &["apply", &self.file("moved.toml")]).ok();
    }

    /// Takes A down, and gives back what its daemon said.
    fn end(mut self) -> String {
        self.adit(&["down", "a"]).ok();
        let (status, said) = self.0.take(Side::A).wait();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

#[track_caller]
fn assert_within_a_second(what: &str, took: Duration) {
    assert!(took < A_SECOND, "{what} took {took:?}");
}

/// The interface may come first, its address later.
#[test(alone, root, ebpf)]
fn the_name_of_an_interface_is_enough() {
    let mut bed = Moving::prepare(DataplaneChoice::Ebpf, By::Interface);
    let planned = bed.adit(&["plan", &bed.file("a.toml")]).stdout;
    let expected = "+ site a underlay 10.1.1.1 (underlayA) networks 172.16.17.0/24\n";
    assert!(planned.starts_with(expected), "{planned}");

    bed.remove("10.1.1.1/24");
    let (status, said) = bed.spawn(&[]).wait();
    let expected = "site.underlay is underlayA, which has no IPv4 address yet";
    assert!(!status.success() && said.contains(expected), "{said}");
    let mut a = bed.spawn(&["--wait"]);
    while !a.wait_for("").contains("waiting for the underlay address") {}
    // Neither of them is one that the world could send to.
    bed.ip("address add 169.254.7.7/16 dev underlayA scope link");
    bed.ip("address add 10.9.9.9/24 dev dummyA");
    bed.add("10.1.1.1/24");
    a.wait_for("ready");
    bed.0.keep(a);
    bed.sites.assert_joined();
    let site = bed.site();
    assert_eq!((&site["underlay"], &site["underlay_interface"]), (&"10.1.1.1".into(), &"underlayA".into()));
    let shown = bed.adit(&["status", "a"]).ok().stdout;
    assert!(shown.starts_with("site a  underlay 10.1.1.1 (underlayA)  device ipipA"), "{shown}");
    let planned = bed.adit(&["plan", &bed.file("a.toml")]).ok().stdout;
    assert_eq!(planned, "overlay `a`: nothing to change\n");
    bed.end();
}

/// What the interface turns out to have is held against the peers as what the file says is.
#[test(alone, root, ebpf)]
fn an_address_that_is_a_peers_is_refused() {
    let bed = Moving::prepare(DataplaneChoice::Ebpf, By::Interface);
    bed.remove("10.1.1.1/24");
    for (address, expected) in [
        ("10.1.1.2/24", "10.1.1.2 is the underlay address of both peer b and this site"),
        ("192.168.199.9/32", "contains the underlay address 192.168.199.9 of this site"),
    ] {
        bed.add(address);
        // Nothing that a machine gets by itself: not to be waited for.
        let (status, said) = bed.spawn(&["--wait"]).wait();
        assert!(!status.success() && said.contains(expected), "{said}");
        bed.remove(address);
    }
}

/// DHCP gives another address: in place of the old one, or first beside it.
#[test(alone, root, ebpf)]
fn another_address_is_followed() {
    for (plane, is_beside) in BOTH.into_iter().zip([false, true]) {
        let bed = Moving::new(plane, By::Interface);
        let sent = bed.status()["peers"][0]["tx"]["packets"].as_u64().unwrap();
        assert!(sent > 0);
        if is_beside {
            bed.add("10.1.1.7/24");
            // Nothing to follow: the old one is still good.
            bed.sites.assert_joined();
            assert_eq!(bed.site()["underlay"], "10.1.1.1");
            bed.gateway().sysctl("ipv4/conf/underlayA/promote_secondaries", "1").unwrap();
            bed.remove("10.1.1.1/24");
        } else {
            bed.remove("10.1.1.1/24");
            bed.add("10.1.1.7/24");
        }
        let took = wait_until(PATIENCE, "the new address is shown", || bed.site()["underlay"] == "10.1.1.7");
        assert_within_a_second(plane_name(plane), took);
        bed.peers_follow();
        wait_until(PATIENCE, "traffic goes both ways", || bed.reaches());
        bed.sites.assert_joined();
        let status = bed.status();
        assert_eq!(status["repairs"], serde_json::json!({ "underlay": 1 }));
        assert!(status["peers"][0]["tx"]["packets"].as_u64().unwrap() > sent, "counts go on");
        let said = bed.end();
        let expected = "~ underlay underlayA 10.1.1.1 -> 10.1.1.7: every peer's file has to name 10.1.1.7";
        assert_eq!(said.matches(expected).count(), 1, "{said}");
    }
}

/// A lease that is renewed gives the address new lifetimes, and programs that hear of it something
/// to do.
#[test(alone, root, ebpf)]
fn a_renewed_lease_is_nothing() {
    for by in [By::Address, By::Interface] {
        let bed = Moving::new(DataplaneChoice::Ebpf, by);
        let load = Load::start(&bed.sites.network, None);
        for lifetime in 0..50 {
            let lifetime = 3600 + lifetime;
            bed.ip(&format!(
                "address replace 10.1.1.1/24 dev underlayA valid_lft {lifetime} preferred_lft {lifetime}"
            ));
        }
        load.finish("a renewed lease").assert_lossless();
        let status = bed.status();
        assert_eq!(status["repairs"], serde_json::json!({}));
        assert_eq!(status["site"]["underlay_state"], "present");
        let said = bed.end();
        assert!(!said.contains("underlay address"), "{said}");
    }
}

/// It is said, nothing is torn down, and when the address is back, traffic is too.
#[test(alone, root, ebpf)]
fn an_address_that_is_gone_for_a_while() {
    for (plane, by) in BOTH.into_iter().zip([By::Interface, By::Address]) {
        let mut bed = Moving::new(plane, by);
        let before = bed.sites.routes_of_a();
        bed.remove("10.1.1.1/24");
        wait_until(PATIENCE, "it is missed", || bed.site()["underlay_state"] == "missing");
        let shown = bed.adit(&["status", "a"]).ok().stdout;
        assert!(shown.contains("underlay address missing"), "{shown}");
        assert_eq!(bed.sites.routes_of_a(), before, "what is meant for a peer goes nowhere else");
        assert!(!bed.reaches());
        bed.wait_for("the underlay address is missing");
        bed.add("10.1.1.1/24");
        let took = wait_until(PATIENCE, "traffic is back", || bed.reaches());
        assert_within_a_second(plane_name(plane), took);
        wait_until(PATIENCE, "it is seen", || bed.site()["underlay_state"] == "present");
        bed.sites.assert_joined();
        assert_eq!(bed.status()["repairs"], serde_json::json!({}));
        bed.wait_for("the underlay address is back");
        let said = bed.end();
        for expected in ["the underlay address is missing", "the underlay address is back"] {
            assert_eq!(said.matches(expected).count(), 1, "{said}");
        }
    }
}

/// The cable is put into another socket.
#[test(alone, root, ebpf)]
fn the_address_moves_to_another_interface() {
    for plane in BOTH {
        let bed = Moving::new(plane, By::Address);
        let router = &bed.sites.network.router;
        bed.gateway().connect("wan0", router, "toWan").unwrap();
        router.proxy_arp("toWan").unwrap();
        bed.remove("10.1.1.1/24");
        bed.ip("address add 10.1.1.1/24 dev wan0");
        router.program("ip", &["route", "replace", "10.1.1.1/32", "dev", "toWan"]).unwrap();
        let took = wait_until(PATIENCE, "traffic goes on", || bed.reaches());
        assert_within_a_second(plane_name(plane), took);
        bed.sites.assert_joined();
        bed.end();
    }
}

/// A driver is loaded anew, or a container's network is made anew: another interface of the same
/// name.
#[test(alone, root, ebpf)]
fn the_interface_is_made_anew() {
    for (plane, by) in BOTH.into_iter().zip([By::Interface, By::Address]) {
        let bed = Moving::new(plane, by);
        let router = &bed.sites.network.router;
        bed.ip("link delete underlayA");
        wait_until(PATIENCE, "it is missed", || bed.site()["underlay_state"] == "missing");
        bed.gateway().connect("underlayA", router, "toA").unwrap();
        router.proxy_arp("toA").unwrap();
        router.route("10.1.1.1/32".parse().unwrap(), None, Some("toA")).unwrap();
        bed.add("10.1.1.1/24");
        let took = wait_until(PATIENCE, "traffic goes on", || bed.reaches());
        assert_within_a_second(plane_name(plane), took);
        bed.sites.assert_joined();
        wait_until(PATIENCE, "it is seen", || bed.site()["underlay_state"] == "present");
        let repairs = bed.status()["repairs"].clone();
        bed.daemon(Side::A).signal(Signal::SIGHUP);
        bed.sites.assert_joined();
        assert_eq!(bed.status()["repairs"], repairs);
        bed.end();
    }
}
