//! Linux's own ipip driver as a data plane: it carries the packets, and nothing of ours is in their way but a table of
//! nf_tables that decides who may send what.

pub mod filter;

pub use filter::{Filter, table_name};
