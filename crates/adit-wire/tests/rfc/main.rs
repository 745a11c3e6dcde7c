//! What the RFCs say, rule by rule, with etherparse as an independent opinion.

mod checksum;
mod ecn;
mod encapsulation;
mod fragment;
mod icmpv4;
mod ipv4;
mod packets;
mod print;
mod tcp;
mod udp;
