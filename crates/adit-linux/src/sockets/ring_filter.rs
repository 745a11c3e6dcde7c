//! The filter of the rings that receive what peers tunnel.

use std::net::IpAddr;

use crate::family::Family;
use crate::sockets::classic_bpf::{
    Address, PACKET_TYPE, answer, if_equal, load_byte, network, unless_address, unless_equal,
};
use crate::tunnel_protocol::TunnelProtocol;

/// Returns a program that passes these protocols to `local` if the frame is for this host, or, with
/// `marked`, if it is marked as another host's.
///
/// Of IPv6 it also passes fragments, and packets with Destination Options: Linux's ip6tnl puts its
/// limit of encapsulations (RFC 2473 section 4.1.1) there.
pub(super) fn tunneled_to(
    local: IpAddr,
    protocols: &[TunnelProtocol],
    marked: bool,
) -> Vec<libc::sock_filter> {
    let family = Family::of(local);
    let (protocol_at, extensions): (u32, &[libc::c_int]) = match family {
        Family::V4 => (9, &[]),
        Family::V6 => (6, &[libc::IPPROTO_FRAGMENT, libc::IPPROTO_DSTOPTS]),
    };
    let protocols = protocols.iter().map(|protocol| u32::from(protocol.number()));
    let passed: Vec<u32> = protocols.chain(extensions.iter().map(|number| number.cast_unsigned())).collect();
    let mut program = vec![load_byte(network(protocol_at))];
    for (position, number) in passed.iter().enumerate() {
        // Over the comparisons that follow, and over the answer behind them.
        program.push(if_equal(*number, (passed.len() - position) as u8));
    }
    program.push(answer(0));
    let wanted = [
        load_byte(PACKET_TYPE),
        if_equal(u32::from(libc::PACKET_HOST), 1),
        unless_equal(u32::from(if marked { libc::PACKET_OTHERHOST } else { libc::PACKET_HOST }), 1),
        answer(u32::MAX),
    ];
    let load = |index| Address::Destination.load_word(family, index);
    program.extend(unless_address(load, local, wanted.len() as u8));
    program.extend(wanted);
    program.push(answer(0));
    program
}
