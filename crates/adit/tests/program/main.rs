//! The program as its users meet it: each module is a topic, most in network namespaces of their
//! own.
//!
//! One test program for all topics, because each is linked with all that Adit is built from;
//! `cargo test -p adit --test program lifecycle::` runs one topic.

#[macro_use(test)]
extern crate adit_harness;

mod api;
mod background;
mod beside_others;
mod carried_by;
mod changed_interface;
mod check;
mod connections;
mod continuity;
mod counters;
mod dead;
mod disks;
mod documents;
mod encryption;
mod faults;
mod faults_at_work;
mod first_hour;
mod host_rules;
mod in_the_open;
mod inside;
mod interface;
mod ipsec;
mod kernel_plane;
mod lab;
mod lan_address;
mod large_datagrams;
mod lifecycle;
mod nat;
mod network_managers;
mod package;
mod path_cache;
mod peers;
mod privileges;
mod service;
mod several_overlays;
mod states;
mod support;
mod threads;
mod underlay;
mod unit;
mod usage;
mod vrf;

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
