//! The rules of the RFCs, one test each, with etherparse as an independent implementation.

mod checksum;
mod ecn;
mod encapsulation;
mod fragment;
mod icmpv4;
mod icmpv6;
mod ipv4;
mod ipv6;
mod packets;
mod print;
mod tcp;
mod udp;
