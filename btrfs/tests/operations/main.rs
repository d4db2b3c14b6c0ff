//! The operations on real filesystems in loop files. Needs root and btrfs-progs, and says what it
//! skips without; with `DARLINGS_REQUIRE_ROOT=1` that is a failure instead.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod mounting;
mod moving;
mod nested;
mod subvolumes;
mod support;
mod usage;
