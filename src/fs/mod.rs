//! What this tool asks of the kernel, whatever the filesystem is.

pub mod at;
pub mod dir;
pub(crate) mod octal;
pub mod process;
pub mod reserved;

pub use dir::Dir;
