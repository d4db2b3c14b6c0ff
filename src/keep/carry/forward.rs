//! Moving: what follows once everything is prepared, in the run that prepared it or in a later one.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::Context as _;

use super::flags::{seal_all, settle_all};
use super::journal::{Journal, Name, Stage};
use super::layout::{GATHERED, OF_RESULT, WORK};
use super::moves::Run;
use super::{again, moves};
use crate::fs::Dir;
use crate::fs::reserved::Reserved;
use crate::tree;

/// Why nothing in the volume at `root` may be removed now: an interrupted reset that the next run
/// completes.
///
/// # Errors
/// It cannot be completed, in words that say what to do.
pub fn unfinished(root: &Dir) -> anyhow::Result<Option<String>> {
    let moving = Journal::read(root)?.is_some_and(|(_, stage)| stage == Stage::Moving);
    Ok(moving.then(|| "its journal is there".to_owned()))
}

/// Moves the persisted paths into the new content.
///
/// # Errors
/// The rename that failed.
pub fn gather(root: &Dir, journal: &Journal) -> anyhow::Result<()> {
    journal.moves.iter().try_for_each(|it| moves::make(root, it))
}

/// Moves the old content of the root aside, and the new content in.
///
/// # Errors
/// The rename that failed.
pub fn exchange(root: &Dir, journal: &Journal, run: Run) -> anyhow::Result<()> {
    tree::unseal(root).context("cannot clear the flags of the root")?;
    let work = root.open_dir(WORK)?;
    let (new, aside) = (work.open_dir("0")?, work.open_dir("aside/root")?);
    let reserved = Reserved::of(root)?;
    // Already moved in: it is no longer in the new content.
    let is_new = |name: &OsStr| -> anyhow::Result<bool> {
        Ok(journal.top.contains(&Name(name.into())) && !new.holds(name)?)
    };
    if run == Run::Resumed {
        again::put_away_what_came_back(root, &journal.moves, |path| {
            path.iter().next().map_or(Ok(false), is_new)
        })?;
    }
    moves::move_all(root, &aside, |name| Ok(is_new(name)? || reserved.holds(name)))
        .context("cannot move the old content aside")?;
    moves::move_all(&new, root, |_| Ok(false)).context("cannot move the new content in")
}

/// Sets what the moves have changed: seals of what was moved, times and seals of directories
/// that things came into, and every attribute of the root. The root's own seals are set only if
/// `seal_root` says so.
///
/// # Errors
/// What could not be set.
pub fn settle(root: &Dir, journal: &Journal, run: Run, seal_root: bool) -> anyhow::Result<()> {
    seal_all(root, &journal.seals)?;
    settle_all(root, &journal.settle, run)?;
    tree::take_attributes(root.open_dir(Path::new(WORK).join(OF_RESULT))?, root)
        .context("cannot set the attributes of the root")?;
    let settled = if seal_root { journal.root.clone() } else { journal.root.clone().unsealed() };
    settled.settle(root).context("cannot set the times of the root")
}

/// Does everything that an interrupted run had still to do but [`super::finish`], or all of it in a run
/// that was not interrupted.
///
/// # Errors
/// What failed. Running again goes on from there.
pub fn forward(root: &Dir, journal: &Journal, run: Run) -> anyhow::Result<()> {
    let work = root.open_dir(WORK)?;
    if !work.holds(GATHERED)? {
        again::gather_noting(root, journal, run)?;
        root.sync_filesystem().context("cannot make the moves durable")?;
        work.make_dir(GATHERED)?;
    }
    exchange(root, journal, run)?;
    settle(root, journal, run, true)
}
