//! nf_tables: tables that Adit owns, described once and written as netlink messages.
//!
//! A [`Ruleset`] describes a table. It has two forms: the kernel's bytes, which [`Tables`] sends in
//! one transaction, and the text of nft(8). Tests load both and compare the kernel's bytecode.
//! [`TunnelDropRule`] is a table that the kernel removes with the process.
//!
//! # Why the messages are written by hand
//!
//! `netlink-packet-netfilter` 0.4.0 (2026-08-22, on the same netlink-packet-core as ours) has typed
//! messages for tables, chains, sets, elements and rules, but of the eleven kinds of expressions
//! used here it knows six: `objref`, `reject`, `rt`, `byteorder` and `exthdr` are missing, and so
//! are named counters, the counters of elements and the two messages around a transaction. Its
//! attribute numbers are private, so these would be written by hand beside it. Every attribute
//! would be an allocated value of an enum, for ten thousand elements too. It would replace the
//! writer of attributes, about 50 lines, and add two dependencies (`derive_more` 0.99,
//! `convert_case`).

mod answer;
mod base_chains;
mod batch;
mod drop_rule;
mod expression;
mod ruleset;
mod tables;
mod uapi;
mod writer;

pub use answer::Counted;
pub use base_chains::{BaseChain, ChainHook, legacy_tables};
pub use drop_rule::TunnelDropRule;
pub use ruleset::{Chain, Comparison, Field, Hook, Key, Rule, Ruleset, Set, Step};
pub use tables::{Elements, TableState, Tables};
