//! Linux's own ipip driver as a data plane: it carries the packets, and nothing of ours is in their way but a table of
//! nf_tables that decides who may send what.

mod book;
pub mod filter;
mod guard;
pub mod limits;
mod plane;

pub use filter::{Filter, table_name};
pub use guard::Guard;
pub use plane::KernelPlane;
