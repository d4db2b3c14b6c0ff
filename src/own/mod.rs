//! What a volume keeps in its `.darlings`.

pub mod state;
pub mod trash;
