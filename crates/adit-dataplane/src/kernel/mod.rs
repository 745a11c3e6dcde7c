//! Linux's own ipip driver as a data plane: it carries the packets, and nothing of ours is in their way but a table of
//! nf_tables that decides who may send what.

pub mod filter;
mod filter_table;
pub mod limits;
mod monotonic_counters;
mod plane;

pub use filter::{Filter, table_name};
pub use filter_table::FilterTable;
pub use plane::KernelPlane;
