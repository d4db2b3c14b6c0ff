//! How persisted paths stay: left where they are while everything else moves (`carry`), or put away
//! because they are no longer declared (the attic).

pub mod attic;
pub mod carry;
