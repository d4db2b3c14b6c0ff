//! How persisted paths stay: left where they are while everything else moves (`carry`), copied into the
//! blank (`copy_in`, for `rollback`), or put away because they are no longer declared (the attic).

pub mod attic;
pub mod carry;
pub mod copy_in;
pub mod lay;
pub mod room;
pub mod survey;
pub mod trees;
