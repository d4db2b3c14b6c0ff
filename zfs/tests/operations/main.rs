//! The operations on real pools.
//!
//! Needs root, the zfs module and the `zpool` and `zfs` commands (which only set things up and
//! check results). Says which tests it skips without; with `DARLINGS_REQUIRE_ZFS=1` that is a
//! failure instead. Each test has its own pool, in a sparse file below the temporary directory. The
//! executable may be copied to another machine and run there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod mounts;
mod pools;
mod properties;
mod rollbacks;
mod snapshots;
mod support;
