//! What a person can ask: every command here only reads.

pub mod diff;
pub mod drift;
pub mod explain;
pub mod history;
pub mod lookup;
pub mod status;
pub mod suggest;
