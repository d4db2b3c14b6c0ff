//! The reset of ZFS datasets by the real binary, on real pools, in guests.
//!
//! | module | what it has |
//! |---|---|
//! | `guest` | a guest for a group of checks, and what is cleaned up between them |
//! | `pools` | pools, datasets, what is in them |
//! | `machine` | a dataset with a blank, its configuration, and runs of the binary |
//! | `every_attribute` | what must come back, against the independent model |
//! | `cloning` | blocks are shared and not written again; where they cannot be, and with encryption |
//! | `encrypted` | its own encryption root and an inherited one: keys stay, blocks are shared |
//! | `interrupted` | killed at every call to ZFS, and at many that change files |
//! | `carry` | what is particular to `carry`, and what a purge leaves of it |
//! | `carry_interrupted` | killed, failing, or cut off from power at every call that changes something |
//! | `failing_disk` | a disk that fails below a pool, before a reset and while it runs |
//! | `power_cuts` | the disk as it can have been at any moment, writes lost and out of order |
//! | `generated` | random trees, both strategies, against the model |
//! | `asked` | words on the kernel command line: generations that are kept and restored |
//! | `resumed` | what was begun is completed as it was begun, whatever has changed by then |
//! | `looking` | what was: explained, listed, and brought back from snapshots |
//! | `bad_input` | what is refused: in words, and with nothing changed |
//! | `moving_in` | `check`, `init` and `adopt` on a dataset that is in use |
//! | `properties` | what a dataset's properties forbid, and a result that would not boot |
//! | `full_pool` | a pool that has no room, at each moment that this can come out |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod asked;
mod bad_input;
mod carry;
mod carry_interrupted;
mod cloning;
mod encrypted;
mod every_attribute;
mod failing_disk;
mod full_pool;
mod generated;
mod guest;
mod interrupted;
mod looking;
mod machine;
mod moving_in;
mod pools;
mod power_cuts;
mod properties;
mod resumed;
