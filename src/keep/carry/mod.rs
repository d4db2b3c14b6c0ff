//! `carry`: everything that is not persisted is moved out of the way, and the blank's content
//! takes its place. What is persisted is not copied but moved, whatever lies below it.
//!
//! | step | what it does | if it is interrupted |
//! |---|---|---|
//! | [`prepare`] | lays the new content beside the old one, and writes the journal | nothing was moved; it is removed |
//! | [`gather`] | moves the persisted paths into the new content | goes on |
//! | [`exchange`] | moves the old content aside and the new content into the root | goes on |
//! | [`settle`] | sets times and seals that the moves have changed | is done again |
//! | [`Journal::complete`] | notes that the result is complete: it may be used | |
//! | [`finish`] | moves what is aside to the trash, and removes the journal | goes on |
//!
//! How many persisted paths were moved is noted after each; whether the last rename was done is
//! seen by looking: it has a source and no target before, a target afterwards. Filesystems that
//! `carry` works on make renames durable in the order in which they were made, and between two steps
//! everything is made durable.
//!
//! On btrfs all of it happens in a snapshot that nobody uses yet, and an interrupted run's is
//! thrown away. On ZFS and in plain directories it happens in place: [`forward`] completes it
//! after a crash, whatever was done in between, and [`backward`] undoes it where the filesystem
//! cannot.

mod again;
mod flags;
mod forward;
mod journal;
mod layout;
mod moves;
mod prepare;
mod tidy;
mod undo;

pub use forward::{exchange, forward, gather, settle, unfinished};
pub use journal::{Journal, Stage};
pub use layout::{ASIDE_ROOT, GENERATIONS, Layout, Move, Observed, TRASH, WORK, Why, arrange};
pub use moves::Run;
pub use prepare::{Prepared, Roots, prepare};
pub use tidy::{Aside, finish, manifest_of, note_manifest};
pub use undo::{abandon, backward};
