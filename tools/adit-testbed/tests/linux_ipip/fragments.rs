//! Linux as a sender of outer fragments.

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::two_sites::TwoSites;

use crate::planes::on_every_plane;
use crate::support::Random;
use crate::testbed::{End, Linux, adit, expect_arrival, linux};

/// With `nopmtudisc` and a device whose MTU leaves no space for the outer header, the kernel
/// fragments the outer datagram.
fn linux_fragments_the_outer_datagram(plane: DataplaneChoice) {
    for end in End::BOTH {
        let network = TwoSites::build().unwrap();
        let overlay = adit(&network, end, plane);
        linux(&network, end.other(), Linux::NoPathMtuDiscovery);
        end.other().gateway(&network).mtu(end.other().device(), 1500).unwrap();
        let [here, there] = [end, end.other()].map(|end| end.socket(&network));
        let tap = Tap::start(&network.router, "toA").unwrap();
        let mut random = Random::seeded(53);
        for size in [1472, 1460, 1453, 1452, 3000, 65_507] {
            expect_arrival(&there, &here, &random.bytes(size));
            expect_arrival(&here, &there, &random.bytes(size));
        }
        let frames = tap.finish();
        let is_fragment = |bytes: &&[u8]| {
            bytes[9] == 4
                && bytes[12..16] == end.other().underlay().octets()
                && u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff != 0
        };
        let fragments = frames.iter().filter_map(Frame::ipv4).filter(is_fragment).count();
        assert!(fragments > 10, "Linux sent only {fragments} fragments");
        assert_eq!(overlay.plane().totals().dropped(), 0);
    }
}

on_every_plane! {
    needs adit_testbed::needs::ipip;
    linux_fragments_the_outer_datagram,
}
