//! The fuzz targets over their committed corpus: each file as it is, and 400 deterministic
//! mutations of it. `ADIT_BLESS=1 cargo test -p adit-tunnel --test corpus` writes the seeds anew.
//! Files that a fuzzer finds go next to them and stay.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use adit_tunnel::fuzz;
use adit_wire::Protocol;
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::icmpv6::{self, Icmpv6Error};
use common::*;

type Target = (&'static str, fn(&[u8]), fn() -> Vec<(&'static str, Vec<u8>)>);

const TARGETS: [Target; 3] = [
    ("encapsulate", fuzz::encapsulate, inner_seeds),
    ("decapsulate", fuzz::decapsulate, outer_seeds),
    ("on_underlay_icmp", fuzz::on_underlay_icmp, icmp_seeds),
];

/// The name of a seed for a tunnel over IPv6 begins so.
const OVER_V6: &str = "over-v6";

/// In an outer header from peer B of the tunnel over IPv6 to us, or from us to B.
fn over_v6(is_from_us: bool, next_header: Protocol, inner: &[u8]) -> Vec<u8> {
    let (us, b) = ("2001:db8:ffff::1", "2001:db8:ffff::2");
    let (from, to) = if is_from_us { (us, b) } else { (b, us) };
    let header = packet_v6_with(from, to, 40 + inner.len(), |repr| repr.next_header = next_header);
    [&header[..40], inner].concat()
}

fn icmp_over_v6(error: Icmpv6Error, about: &[u8]) -> Vec<u8> {
    let mut out = [0; icmpv6::MAX_ERROR_LEN];
    let ends = ["2001:db8:9::1", "2001:db8:ffff::1"].map(v6);
    let len = icmpv6::build_error(&mut out, ends[0], ends[1], error, about);
    out[..len].to_vec()
}

fn inner_seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("udp", a_to_b().build()),
        ("syn", syn(HOST_A, HOST_C).build()),
        ("too-big", a_to_b().len(1600).df(true).build()),
        ("fragment", a_to_b().len(1600).build()),
        ("stranger", datagram(STRANGER, HOST_B).build()),
        ("no-way", datagram(HOST_A, STRANGER).build()),
        ("nested", a_to_b().inside(A, B).build()),
        ("relay", datagram(HOST_C, HOST_B).build()),
        ("v6-udp", packet_v6(A6, B6, 100)),
        ("v6-too-big", packet_v6(A6, C6, 1481)),
        ("v6-stranger", packet_v6("2001:db8:d::1", B6, 100)),
        ("v6-no-way", packet_v6(A6, "2001:db8:d::1", 100)),
        ("over-v6-udp", a_to_b().build()),
        ("over-v6-too-big", a_to_b().len(1600).df(true).build()),
        ("over-v6-fragment", a_to_b().len(1600).build()),
        ("over-v6-v6-udp", packet_v6(A6, B6, 1460)),
        ("over-v6-v6-too-big", packet_v6(A6, B6, 1461)),
        ("over-v6-limit", {
            let mut inner =
                packet_v6_with(A6, B6, 100, |repr| repr.next_header = Protocol::DESTINATION_OPTIONS);
            inner[40..48].copy_from_slice(&[17, 0, 4, 1, 3, 1, 1, 0]);
            inner
        }),
    ]
}

fn outer_seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("udp", datagram(HOST_B, HOST_A).inside(B, A).build()),
        ("syn", syn(HOST_B, GATEWAY_A).inside(B, A).build()),
        ("relay", datagram(HOST_C, HOST_B).inside(C, A).build()),
        ("congested", datagram(HOST_B, HOST_A).tos(2).inside(B, A).tos(3).build()),
        ("nested", datagram(HOST_B, HOST_A).inside(HOST_B, A).inside(B, A).build()),
        ("empty", wrap(B, A, Vec::new()).build()),
        ("v6-udp", wrap_v6(B, A, packet_v6(B6, A6, 100))),
        ("v6-relay", wrap_v6(C, A, packet_v6(C6, B6, 100))),
        ("v6-link-local", wrap_v6(B, A, packet_v6("fe80::1", A6, 100))),
        ("over-v6-udp", over_v6(false, Protocol::IPIP, &datagram(HOST_B, HOST_A).build())),
        ("over-v6-v6-udp", over_v6(false, Protocol::IPV6, &packet_v6(B6, A6, 100))),
        ("over-v6-limit", {
            let inner = [&[41, 0, 4, 1, 4, 1, 1, 0][..], &packet_v6(B6, A6, 100)].concat();
            over_v6(false, Protocol::DESTINATION_OPTIONS, &inner)
        }),
        ("over-v6-fragment", over_v6(false, Protocol::FRAGMENT, &[41, 0, 0, 1, 0, 0, 0, 7, 0x60, 0, 0, 0])),
        ("over-v6-to-gateway", {
            let inner =
                packet_v6_with(B6, "2001:db8:ffff::1", 100, |repr| repr.next_header = Protocol::ICMPV6);
            over_v6(false, Protocol::IPV6, &inner)
        }),
    ]
}

fn icmp_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let ours = a_to_b().len(1000).df(true).inside(A, B).df(true).build();
    let relayed = datagram(HOST_C, HOST_B).inside(A, B).df(true).build();
    let echo = datagram(ROUTER, A).protocol(Protocol::ICMP).payload(vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    vec![
        ("too-big", icmp(Icmpv4Error::TooBig { mtu: 600 }, &ours, 576)),
        ("too-big-short", icmp(Icmpv4Error::TooBig { mtu: 0 }, &ours, 28)),
        ("net", icmp(unreachable(0), &relayed, 576)),
        ("host-short", icmp(unreachable(1), &ours, 28)),
        ("time", icmp(Icmpv4Error::TimeExceeded { code: 0 }, &ours, 576)),
        ("parameter", icmp(Icmpv4Error::ParameterProblem { code: 0, pointer: 1 }, &ours, 576)),
        ("about-udp", icmp(unreachable(3), &datagram(A, STRANGER).build(), 100)),
        ("echo", echo.build()),
        ("v6-too-big", icmp(Icmpv4Error::TooBig { mtu: 1300 }, &wrap_v6(A, B, packet_v6(A6, B6, 1400)), 60)),
        ("v6-host-short", icmp(unreachable(1), &wrap_v6(A, B, packet_v6(A6, C6, 100)), 28)),
        (
            "over-v6-too-big",
            icmp_over_v6(
                Icmpv6Error::TooBig { mtu: 1300 },
                &over_v6(true, Protocol::IPIP, &a_to_b().build()),
            ),
        ),
        (
            "over-v6-parameter",
            icmp_over_v6(
                Icmpv6Error::ParameterProblem { code: 1, pointer: 6 },
                &over_v6(true, Protocol::IPV6, &packet_v6(A6, B6, 100)),
            ),
        ),
    ]
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// A small generator (xorshift64) with its own seed for each file, so that every run is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        // Most mutations hit the front, because the headers are there.
        let reach = if random.below(4) == 0 { bytes.len() } else { bytes.len().min(70) };
        let at = random.below(reach);
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.below(256) as u8),
            2 => drop((at < bytes.len()).then(|| bytes.remove(at))),
            3 => bytes.extend(std::iter::repeat_n(0xa5, random.below(2000))),
            _ => {
                let value = [0, 0xff, 1 << random.below(8), random.below(256) as u8][random.below(4)];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= value;
                }
            }
        }
    }
}

#[test]
fn the_corpus_and_its_mutations_keep_every_invariant() {
    for (name, target, seeds) in TARGETS {
        if std::env::var_os("ADIT_BLESS").is_some() {
            fs::create_dir_all(folder(name)).expect("the corpus can be written");
            for (seed, datagram) in seeds() {
                // How the target is called: with right checksums, over the one underlay or the
                // other.
                let how = if seed.starts_with(OVER_V6) { 17 } else { 1 };
                fs::write(folder(name).join(seed), [vec![how], datagram].concat())
                    .expect("a seed can be written");
            }
        }
        let mut files: Vec<_> = fs::read_dir(folder(name))
            .expect("the corpus is committed")
            .map(|entry| entry.expect("a file of the corpus").path())
            .collect();
        files.sort();
        assert!(files.len() >= seeds().len(), "{name}: the corpus has lost files");
        for (number, file) in (1u64..).zip(&files) {
            let seed = fs::read(file).expect("a file of the corpus");
            target(&seed);
            let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            for _ in 0..400 {
                let mut bytes = seed.clone();
                mutate(&mut bytes, &mut random);
                target(&bytes);
            }
        }
    }
}
