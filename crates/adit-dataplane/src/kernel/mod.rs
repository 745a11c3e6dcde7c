//! The kernel data plane: Linux's own ipip driver carries the packets, and a table of nf_tables
//! decides who may send what.

pub mod filter;
mod filter_table;
pub mod limits;
mod monotonic_counters;
mod plane;

pub use filter::{Filter, table_name};
pub use filter_table::FilterTable;
pub use plane::KernelPlane;
