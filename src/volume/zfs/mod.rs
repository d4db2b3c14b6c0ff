//! ZFS: the result is staged in a clone of the blank snapshot, the dataset is rolled back, and
//! the result is block-cloned back into it. Or, with `carry`, a snapshot is taken and things are
//! moved in the dataset itself: see `carry.rs`.
//!
//! ```text
//! rpool/local/root                           the dataset, with the property
//!                                            darlings:rolled-back while it is incomplete
//! rpool/local/root@blank                     the blank
//! rpool/local/root/darlings-stage            the stage: worth nothing until the rollback
//! rpool/local/root/darlings-stage@darlings-7 the stage of reset 7 is complete and durable
//! ```
//!
//! The rollback and the property are one transaction group. So after a crash the next run knows:
//! without the property the dataset is the complete previous state and the stage is removed; with
//! it the stage is complete, and the dataset is rolled back once more and filled from it.

mod asked;
mod carry;
mod dataset;
mod execute;
mod generations;
mod init;
#[cfg(test)]
pub(super) mod modelled;
mod mounted;
mod names;
mod obstacles;
mod plan;
mod step;

pub(super) use dataset::Zfs;
pub(super) use generations::Generations;
pub(super) use init::init;
pub(super) use names::in_words;
#[cfg(test)]
pub(super) use step::Step;
