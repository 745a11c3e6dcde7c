//! Processes and their rights: capabilities, system call filters, lock files, ending another
//! process, and what a child inherits.

mod capability;
mod child;
mod descriptors;
mod lock_file;
pub mod privileges;
mod seccomp;
mod stderr;
mod termination;

pub use capability::{Capability, has_capability};
pub use child::{end_with_parent, inherited_descriptor, is_child_of, pass_descriptor};
pub use descriptors::raise_descriptor_limit;
pub use lock_file::{LockError, LockFile};
pub use stderr::{redirect_stderr, stderr_size_at};
pub use termination::end;
