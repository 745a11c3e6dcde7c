//! Traffic between hosts through Adit at one end and Linux at the other.

use adit_config::DataplaneChoice;
use adit_lab::ping::{Answer, ping};
use adit_lab::throughput::Flow;
use adit_lab::two_sites::TwoSites;
use adit_testbed::transfer::Transfer;
use adit_wire::icmpv4::Icmpv4Error;

use crate::planes::on_every_plane;
use crate::support::{Random, WAIT_TIMEOUT, wait_until};
use crate::testbed::{End, Linux, adit, expect_arrival, linux};

/// The largest UDP payload.
const LARGEST_PAYLOAD: usize = 65_507;
/// 65,535 bytes less the outer header.
const LARGEST_INNER: usize = 65_515;

/// Runs a test with Adit at each end in turn and Linux at the other.
fn on_either_end(plane: DataplaneChoice, how: Linux, test: impl Fn(&TwoSites, End)) {
    for end in End::BOTH {
        let network = TwoSites::build().unwrap();
        let _overlay = adit(&network, end, plane);
        linux(&network, end.other(), how);
        test(&network, end);
    }
}

#[track_caller]
fn expect_pings(network: &TwoSites) {
    for end in End::BOTH {
        let to = end.other().addresses().1;
        for size in [28, 84, 1480] {
            let answer = end.host(network).run(|| ping(to, size, 64, WAIT_TIMEOUT)).unwrap();
            assert!(matches!(answer, Answer::Reply { ttl: 62, .. }), "{size} bytes to {to}: {answer:?}");
        }
    }
}

fn transfer_both_ways(network: &TwoSites) {
    const ENOUGH: u64 = 2 << 20;
    for end in End::BOTH {
        let address = end.other().addresses().1;
        let path =
            Flow { client: end.host(network), server: end.other().host(network), address: address.into() };
        let transfer = Transfer::start(&path, None).unwrap();
        wait_until("2 MiB have arrived", || transfer.received() > ENOUGH);
        let report = transfer.finish().unwrap();
        assert!(report.bytes > ENOUGH, "{report}");
    }
}

fn pings_and_transfers_pass(plane: DataplaneChoice) {
    on_either_end(plane, Linux::Usual, |network, _| {
        expect_pings(network);
        transfer_both_ways(network);
    });
}

/// Linux with `remote any`, as Calico and flannel use it: a route names the peer.
fn pings_and_transfers_pass_with_remote_any(plane: DataplaneChoice) {
    on_either_end(plane, Linux::RemoteAny, |network, _| {
        expect_pings(network);
        transfer_both_ways(network);
    });
}

/// Sizes around every edge, from 1 byte to the largest.
fn udp_of_every_size_arrives_unchanged(plane: DataplaneChoice) {
    on_either_end(plane, Linux::Usual, |network, _| {
        let sockets = End::BOTH.map(|end| end.socket(network));
        let mut random = Random::seeded(43);
        let edges = [1380, 1472, 1500, 2960, 9000].map(|edge| edge - 30);
        let around = edges.into_iter().flat_map(|edge| (edge..edge + 40).step_by(9));
        let sizes: Vec<usize> =
            (1..=9).chain(around).chain([32_768, LARGEST_PAYLOAD - 1, LARGEST_PAYLOAD]).collect();
        for size in sizes {
            let [a, b] = &sockets;
            expect_arrival(a, b, &random.bytes(size));
            expect_arrival(b, a, &random.bytes(size));
        }
    });
}

/// Unfragmented, over cables that take the largest outer datagram.
fn inner_datagrams_of_65515_bytes_arrive_unchanged(plane: DataplaneChoice) {
    for end in End::BOTH {
        let network = TwoSites::build().unwrap();
        network.set_cable_mtus(65_535).unwrap();
        let _overlay = adit(&network, end, plane);
        linux(&network, end.other(), Linux::Usual);
        end.other().gateway(&network).mtu(end.other().device(), LARGEST_INNER as u32).unwrap();
        let [a, b] = End::BOTH.map(|end| end.socket(&network));
        let mut random = Random::seeded(47);
        for size in [LARGEST_INNER - 29, LARGEST_INNER - 28] {
            for (from, to) in [(&a, &b), (&b, &a)] {
                expect_arrival(from, to, &random.bytes(size));
            }
        }
    }
}

/// The hops are the gateways and the host, whichever gateway is Linux.
fn a_traceroute_shows_both_gateways_and_the_host(plane: DataplaneChoice) {
    on_either_end(plane, Linux::Usual, |network, _| {
        for end in End::BOTH {
            let (near, _) = end.addresses();
            let (far, to) = end.other().addresses();
            let hop = |ttl| end.host(network).run(|| ping(to, 84, ttl, WAIT_TIMEOUT)).unwrap();
            let exceeded = |by| Answer::Refused { by, error: Icmpv4Error::TimeExceeded { code: 0 } };
            assert_eq!([hop(1), hop(2)], [exceeded(near), exceeded(far)]);
            assert!(hop(3).is_reply());
        }
    });
}

on_every_plane! {
    needs adit_testbed::needs::ipip;
    pings_and_transfers_pass,
    pings_and_transfers_pass_with_remote_any,
    udp_of_every_size_arrives_unchanged,
    inner_datagrams_of_65515_bytes_arrive_unchanged,
    a_traceroute_shows_both_gateways_and_the_host,
}
