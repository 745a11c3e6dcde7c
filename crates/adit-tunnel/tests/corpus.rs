//! The fuzz targets over their committed corpus: each file as it is, and 400 deterministic
//! mutations of it. `ADIT_BLESS=1 cargo test -p adit-tunnel --test corpus` writes the seeds anew.
//! Files that a fuzzer finds go next to them and stay.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use adit_tunnel::fuzz;
use adit_wire::Protocol;
use adit_wire::icmpv4::Icmpv4Error;
use common::*;

type Target = (&'static str, fn(&[u8]), fn() -> Vec<(&'static str, Vec<u8>)>);

const TARGETS: [Target; 3] = [
    ("encapsulate", fuzz::encapsulate, inner_seeds),
    ("decapsulate", fuzz::decapsulate, outer_seeds),
    ("on_underlay_icmp", fuzz::on_underlay_icmp, icmp_seeds),
];

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
                fs::write(folder(name).join(seed), [vec![1], datagram].concat())
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
