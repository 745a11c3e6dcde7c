//! The veth pair of a tunnel, and the packet sockets on its hidden end.

#[macro_use(test)]
extern crate adit_harness;

use std::net::UdpSocket;
use std::time::Duration;

use adit_linux::ethtool;
use adit_linux::netlink::{Link, Netlink, VethPair};
use adit_linux::netns::NetNs;
use adit_linux::sockets::arena::Arena;
use adit_linux::sockets::hidden_end::{HiddenEnd, HiddenEndOptions};
use adit_linux::sockets::packet_ring::Ready;
use adit_linux::sockets::poll::readable_within;
use adit_linux::sockets::virtio_net::VirtioNetHeader;

const MAC: [u8; 6] = [2, 0xad, 0x17, 0, 0, 1];
const HIDDEN_MAC: [u8; 6] = [2, 0xad, 0x17, 0, 0, 2];
const NOARP: u32 = 0x80;
const TIMEOUT: Duration = Duration::from_secs(5);

fn pair() -> VethPair {
    VethPair {
        name: "tunnel".to_owned(),
        mac: MAC,
        mtu: 1480,
        hidden: "tunnel-h".to_owned(),
        hidden_mac: HIDDEN_MAC,
        hidden_mtu: 65_535,
    }
}

/// Creates the pair in the calling thread's namespace, sets it up, and returns both ends.
fn make(netlink: &mut Netlink) -> (Link, Link) {
    netlink.add_veth_pair(&pair(), None).expect("the kernel has veth");
    for name in ["tunnel", "tunnel-h"] {
        let link = netlink.link(name).expect("it can be looked up").expect("it was created");
        netlink.set_no_arp(link.index).expect("the flags can be set");
        netlink.set_up(link.index).expect("it can be set up");
    }
    let mut link = |name| netlink.link(name).expect("it can be looked up").expect("it was created");
    (link("tunnel"), link("tunnel-h"))
}

fn open(visible: &Link, hidden: &Link) -> HiddenEnd {
    let options = HiddenEndOptions {
        ipv6: false,
        index: hidden.index,
        mac: HIDDEN_MAC,
        visible_mac: MAC,
        visible_mtu: visible.mtu as usize,
        queues: 1,
    };
    HiddenEnd::open(&options).expect("the sockets open")
}

fn in_namespace(work: impl FnOnce(&mut Netlink) + Send) {
    let namespace = NetNs::fresh().expect("a namespace");
    namespace
        .run(|| work(&mut Netlink::open().expect("netlink opens")))
        .expect("the namespace can be entered");
}

#[test(root)]
fn the_ends_have_what_was_asked_for_and_name_each_other() {
    in_namespace(|netlink| {
        let (visible, hidden) = make(netlink);
        assert_eq!((visible.mac, visible.mtu, visible.lower), (Some(MAC), 1480, Some(hidden.index)));
        assert_eq!((hidden.mac, hidden.mtu, hidden.lower), (Some(HIDDEN_MAC), 65_535, Some(visible.index)));
        assert_eq!((visible.flags & NOARP, hidden.flags & NOARP), (NOARP, NOARP));
        netlink.set_mac(visible.index, [2, 0, 0, 0, 0, 9]).expect("it can be set");
        let changed = netlink.link_by_index(visible.index).expect("it can be looked up").expect("it exists");
        assert_eq!(changed.mac, Some([2, 0, 0, 0, 0, 9]));
    });
}

#[test(root)]
fn the_visible_end_may_be_in_another_namespace() {
    let inner = NetNs::fresh().expect("a namespace");
    in_namespace(|netlink| {
        netlink.add_veth_pair(&pair(), Some(&inner)).expect("the kernel has veth");
        assert!(netlink.link("tunnel").expect("it can be looked up").is_none());
        let hidden = netlink.link("tunnel-h").expect("it can be looked up").expect("it was created");
        let visible = inner.run(|| Netlink::open().and_then(|mut netlink| netlink.link("tunnel")));
        let visible = visible.expect("the namespace can be entered").expect("it can be looked up");
        assert_eq!(visible.and_then(|link| link.lower), Some(hidden.index));
    });
}

#[test(root)]
fn datagrams_pass_both_ways_without_the_host_answering_at_the_hidden_end() {
    in_namespace(|netlink| {
        let (visible, hidden) = make(netlink);
        let prefix = "10.0.0.1/24".parse().expect("a prefix");
        netlink.add_address(visible.index, prefix).expect("it can be added");
        let mut end = open(&visible, &hidden);
        let socket = UdpSocket::bind("10.0.0.1:7000").expect("it can be bound");
        socket.set_read_timeout(Some(TIMEOUT)).expect("it can be set");
        socket.send_to(b"out", "10.0.0.2:7001").expect("it can be sent");
        let ring = &mut end.receivers[0][0];
        assert!(readable_within(ring, TIMEOUT).expect("it can be waited for"));
        let Some(Ready::Datagram(received)) = ring.take() else { panic!("no datagram") };
        let mut datagram = ring.bytes(received.datagram.clone()).to_vec();
        ring.release();
        assert_eq!(datagram.get(28..), Some(&b"out"[..]));
        // Back with addresses and ports exchanged; UDP's checksum is optional.
        let (front, back) = (datagram[12..16].to_vec(), datagram[16..20].to_vec());
        datagram[12..16].copy_from_slice(&back);
        datagram[16..20].copy_from_slice(&front);
        let ports = [datagram[22], datagram[23], datagram[20], datagram[21]];
        datagram[20..24].copy_from_slice(&ports);
        datagram[26..28].fill(0);
        end.sender
            .send(&VirtioNetHeader::PLAIN, [&datagram[..20], &datagram[20..]].into_iter())
            .expect("sent");
        let mut buffer = [0; 16];
        let (len, from) = socket.recv_from(&mut buffer).expect("it arrives");
        assert_eq!((&buffer[..len], from.to_string().as_str()), (&b"out"[..], "10.0.0.2:7001"));
    });
}

#[test(root)]
fn a_deleted_pair_is_noticed_and_one_that_is_down_is_not_gone() {
    in_namespace(|netlink| {
        let (visible, hidden) = make(netlink);
        let end = open(&visible, &hidden);
        let ring = &end.receivers[0][0];
        netlink.set_down(hidden.index).expect("it can be set down");
        assert!(readable_within(ring, TIMEOUT).expect("it can be waited for"));
        ring.clear_error();
        assert!(!ring.is_unbound());
        netlink.delete_link(visible.index).expect("it can be deleted");
        assert!(ring.is_unbound());
        assert!(end.sender.send(&VirtioNetHeader::PLAIN, [&[0x45u8; 20][..]].into_iter()).is_err());
    });
}

#[test(root)]
fn the_visible_end_offers_only_what_a_packet_socket_reads() {
    in_namespace(|netlink| {
        make(netlink);
        let offered = |device: &str| ethtool::transmit_offloads(device).expect("they can be listed");
        let all = offered("tunnel");
        assert!(all.iter().any(|name| name == "tx-sctp-segmentation"), "{all:?}");
        ethtool::limit_offloads("tunnel").expect("they can be limited");
        let left = offered("tunnel");
        assert!(left.iter().any(|name| name == "tx-tcp-segmentation"), "{left:?}");
        for gone in
            ["tx-sctp-segmentation", "tx-checksum-sctp", "tx-udp_tnl-segmentation", "tx-vlan-hw-insert"]
        {
            assert!(!left.iter().any(|name| name == gone), "{gone} in {left:?}");
        }
        assert_eq!(offered("tunnel-h"), all);
    });
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
