//! btrfs: the result is made in a subvolume that nobody uses yet, then exchanged with the
//! live one, atomically.
//!
//! ```text
//! @            the live subvolume
//! @blank       the blank, read-only
//! @darlings/root/
//!     .darlings/record  whose these are, and what the live subvolume was made from
//!     .darlings/next    a result that is being made: worth nothing, removed by the next run
//!     ready-7           a complete, durable result; after the exchange the previous state
//!     7                 the previous state of reset 7: a generation, read-only
//! ```
//!
//! After a crash the next run finds `ready-7`. If the live subvolume says that its last reset
//! was 7, the exchange has happened and what is left is done; else it is removed with `next`.

mod asked;
mod execute;
mod facts;
mod generations;
mod init;
mod journal;
#[cfg(test)]
pub(super) mod modelled;
mod names;
mod naming;
mod obstacles;
mod ownership;
mod plan;
mod record;
mod restoring;
mod step;
mod subvolume;
mod swap;
mod undo;
mod work;

pub(super) use generations::Generations;
pub(super) use init::init;
pub(super) use names::in_words;
#[cfg(test)]
pub(super) use step::Step;
pub(super) use subvolume::Btrfs;
