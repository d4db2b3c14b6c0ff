//! What a volume keeps in its `.darlings`.

mod directory;
pub mod state;
pub mod trash;

pub use directory::{ensure_directory, ensure_own_directory, own_directory, trusted_own_directory};
