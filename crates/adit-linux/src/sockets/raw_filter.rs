//! The filters of raw sockets.

use std::net::IpAddr;

use crate::family::Family;
use crate::sockets::classic_bpf::{
    Address, INTERFACE, answer, if_equal, load_stored, load_word, store, unless_address, unless_equal,
};

/// The errors of RFC 792: destination unreachable, source quench, redirect, time exceeded,
/// parameter problem.
pub(super) const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
/// The errors of RFC 4443: destination unreachable, packet too big, time exceeded, parameter
/// problem.
pub(super) const ICMPV6_ERRORS: [u8; 4] = [1, 2, 3, 4];
/// The most interfaces that a filter compares.
const MAX_EXCLUDED: usize = 250;

/// The most sources that a filter compares: a program has at most 4096 steps (`BPF_MAXINSNS`), and
/// a source takes two of them, or nine.
const fn max_sources(family: Family) -> usize {
    match family {
        Family::V4 => 2000,
        Family::V6 => 450,
    }
}

/// Returns a program that passes datagrams from these sources; all datagrams if they are too many.
/// Sources of the other family are left out.
pub(super) fn only_from(family: Family, sources: &[IpAddr]) -> Vec<libc::sock_filter> {
    if sources.len() > max_sources(family) {
        return vec![everything()];
    }
    // Loading from the packet is a call in the kernel's program, and the memory of programs is
    // limited (`net.core.optmem_max`).
    let words = match family {
        Family::V4 => 0..1,
        Family::V6 => 0..4,
    };
    let mut program: Vec<_> =
        words.flat_map(|index| [Address::Source.load_word(family, index), store(index)]).collect();
    for source in sources {
        match (family, source) {
            // The word is still in the accumulator.
            (Family::V4, IpAddr::V4(source)) => program.push(unless_equal(source.to_bits(), 1)),
            (Family::V6, IpAddr::V6(_)) => program.extend(unless_address(load_stored, *source, 1)),
            _ => continue,
        }
        program.push(answer(u32::MAX));
    }
    program.push(answer(0));
    program
}

/// The step that passes every datagram whole.
pub(super) const fn everything() -> libc::sock_filter {
    answer(u32::MAX)
}

/// Returns a program that drops what arrives on one of these interfaces.
pub(super) fn only_from_others_than(devices: &[u32]) -> Vec<libc::sock_filter> {
    let mut program = vec![load_word(INTERFACE)];
    for device in devices.iter().take(MAX_EXCLUDED) {
        program.extend([unless_equal(*device, 1), answer(0)]);
    }
    program.push(answer(u32::MAX));
    program
}

/// Returns a program that passes [`ICMP_ERRORS`] only. On a raw IPv4 socket the IP header comes
/// first.
pub(super) fn only_icmp_errors() -> Vec<libc::sock_filter> {
    let mut program = vec![
        // X = the length of the IP header at 0; A = the byte at X.
        libc::sock_filter { code: 0xb1, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: 0x50, jt: 0, jf: 0, k: 0 },
    ];
    for (position, kind) in ICMP_ERRORS.iter().enumerate() {
        program.push(if_equal(u32::from(*kind), (ICMP_ERRORS.len() - position) as u8));
    }
    program.extend([answer(0), answer(u32::MAX)]);
    program
}
