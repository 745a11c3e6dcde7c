//! Two namespaces with a veth between them and addresses of IPv6.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use adit_linux::netlink::{Netlink, RouteKind};
use adit_linux::netns::NetNs;
use adit_linux::sysctl;

use crate::common::{TIMEOUT, await_running};

pub(crate) const HERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const THERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// `HERE` on the interface `near` of one namespace, and `THERE` on `far` of the other.
pub(crate) struct PairV6 {
    pub(crate) here: NetNs,
    pub(crate) there: NetNs,
    pub(crate) here_netlink: Netlink,
    pub(crate) near: u32,
    pub(crate) far: u32,
}

impl PairV6 {
    pub(crate) fn new() -> Self {
        let [here, there] = [(); 2].map(|()| {
            let ns = NetNs::fresh().unwrap();
            ns.run(|| {
                // The link-local addresses are usable at once.
                sysctl::write("net/ipv6/conf/default/accept_dad", "0").unwrap();
                // The tests cause several errors at once, of which the kernel would suppress most.
                sysctl::write("net/ipv6/icmp/ratelimit", "0").unwrap();
            })
            .unwrap();
            ns
        });
        let mut here_netlink = here.run(Netlink::open).unwrap().unwrap();
        let mut there_netlink = there.run(Netlink::open).unwrap().unwrap();
        let near = here_netlink.add_veth("near", "far", &there).unwrap();
        let far = there_netlink.link("far").unwrap().unwrap().index;
        for (netlink, index, address) in [(&mut here_netlink, near, HERE), (&mut there_netlink, far, THERE)] {
            netlink.add_address(index, format!("{address}/64").parse().unwrap()).unwrap();
            netlink.set_up(index).unwrap();
            let loopback = netlink.link("lo").unwrap().unwrap().index;
            netlink.set_up(loopback).unwrap();
        }
        await_running(&here, "near");
        await_running(&there, "far");
        await_usable(&mut here_netlink, HERE);
        await_usable(&mut there_netlink, THERE);
        Self { here, there, here_netlink, near, far }
    }

    /// Runs ip(8) in the namespace `here`.
    pub(crate) fn ip_here(&self, arguments: &str) {
        let ran = self.here.run(|| std::process::Command::new("ip").args(arguments.split(' ')).output());
        let ran = ran.unwrap().unwrap();
        assert!(ran.status.success(), "{arguments}: {ran:?}");
    }
}

/// Waits until packets to `address` are delivered to this host. When an interface comes up, the
/// kernel does that a little later, also for addresses that it does not check for duplicates.
fn await_usable(netlink: &mut Netlink, address: Ipv6Addr) {
    let deadline = Instant::now() + TIMEOUT;
    while !netlink.route_to(address, None).is_ok_and(|found| found.kind == RouteKind::Local) {
        assert!(Instant::now() < deadline, "{address} is not usable");
        std::thread::sleep(Duration::from_millis(1));
    }
}
