//! The kernel data plane: Linux's own tunnel drivers carry the packets (ipip, sit, ip6tnl), and
//! tables of nf_tables decide who may send what.

pub mod filter;
mod filter_table;
pub mod limits;
mod monotonic_counters;
mod plane;

pub use filter::{Filter, table_name};
pub use filter_table::FilterTable;
pub use plane::KernelPlane;
