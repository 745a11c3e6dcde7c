//! Sending over AF_XDP: committed frames arrive, and an interface that is down does not block.

#[macro_use(test)]
extern crate adit_harness;

use std::time::Duration;

use adit_linux::netlink::Netlink;
use adit_linux::netns::NetNs;
use adit_linux::sockets::capture::Tap;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::xdp::XdpSender;

const BROADCAST: [u8; 6] = [0xff; 6];
/// An ethertype for experiments (IEEE 802), to which no host responds.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Connects two new namespaces by a veth. Returns both, and the number of the interface in each.
fn cable() -> (NetNs, NetNs, u32, u32) {
    let (here, there) = (NetNs::fresh().unwrap(), NetNs::fresh().unwrap());
    let index = |ns: &NetNs, name: &str| {
        ns.run(|| {
            let mut netlink = Netlink::open()?;
            let index = netlink.link(name)?.unwrap().index;
            netlink.set_up(index)?;
            Ok::<_, adit_linux::error::Error>(index)
        })
        .unwrap()
        .unwrap()
    };
    here.run(|| Netlink::open().unwrap().add_veth("near", "far", &there).unwrap()).unwrap();
    let (near, far) = (index(&here, "near"), index(&there, "far"));
    (here, there, near, far)
}

fn commit(sender: &mut XdpSender, number: u16) {
    let frame = sender.frame();
    frame[..6].copy_from_slice(&BROADCAST);
    frame[6..12].fill(2);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame[LINK_HEADER..LINK_HEADER + 2].copy_from_slice(&number.to_be_bytes());
    frame[LINK_HEADER + 2..LINK_HEADER + 100].fill(number as u8);
    sender.commit(100, None);
}

#[test(root)]
fn committed_frames_arrive_in_order() {
    let (here, there, near, far) = cable();
    let tap = there.run(|| Tap::open(far).unwrap()).unwrap();
    let mut sender = here.run(|| XdpSender::open(near, 0, 64).unwrap()).unwrap();
    // There are fewer chunks than this, so they must be reused.
    for number in 0..3000u16 {
        commit(&mut sender, number);
        if number % 50 == 49 {
            sender.flush();
            let mut buffer = [0; 2048];
            for expected in number - 49..=number {
                let len = loop {
                    let (_, len) =
                        tap.next(&mut buffer, Duration::from_secs(2)).unwrap().expect("it arrives");
                    // The kernel sends frames of its own on a new link.
                    if buffer[12..14] == ETHERTYPE {
                        break len;
                    }
                };
                assert_eq!((len, &buffer[14..16]), (114, &expected.to_be_bytes()[..]));
                assert!(buffer[16..len].iter().all(|&byte| byte == expected as u8));
            }
        }
    }
    assert_eq!(sender.take_sent().refused, 0);
}

#[test(root)]
fn an_interface_that_is_down_does_not_block_the_sender() {
    let (here, _there, near, _far) = cable();
    let mut sender = here.run(|| XdpSender::open(near, 0, 64).unwrap()).unwrap();
    here.run(|| Netlink::open().unwrap().set_down(near).unwrap()).unwrap();
    for number in 0..1500u16 {
        commit(&mut sender, number);
    }
    sender.flush();
    assert!(sender.take_sent().refused > 0, "lost frames are counted");
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
