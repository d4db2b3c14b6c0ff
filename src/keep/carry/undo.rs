//! Going back: what was prepared is removed, and what was moved is moved back. Only in the run that
//! did it: after a crash somebody may have used the machine in between, and the next run goes on.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{AtFlags, unlinkat};

use super::journal::Journal;
use super::layout::WORK;
use super::tidy::remove_work;
use super::{GATHERED, Run, moves, name_of, seal_all, settle_all, work_directory};
use crate::fs::at;
use crate::own::trusted_own_directory;
use crate::tree::{self};

/// Removes what [`super::prepare`] made, all of it or what it got to, when the reset goes no further,
/// and gives the root its times and seals back.
///
/// # Errors
/// What is left over; the next run removes it.
pub fn abandon(root: BorrowedFd<'_>, journal: Option<&Journal>) -> anyhow::Result<()> {
    let Some(own) = trusted_own_directory(root)? else { return Ok(()) };
    // First: what it says is to be done would be done with what is half removed.
    Journal::remove(root)?;
    remove_work(own.as_fd())?;
    match journal {
        Some(journal) => settle_all(root, &journal.undo, Run::First),
        None => Ok(()),
    }
}

/// Undoes everything that [`super::forward`] did, in the run that did it.
///
/// # Errors
/// What could not be undone. The journal is still there: the next run goes forward.
pub fn backward(root: BorrowedFd<'_>, journal: &Journal) -> anyhow::Result<()> {
    Journal::incomplete(root)?;
    tree::unseal(root).context("cannot clear the flags of the root")?;
    let (new, aside) = (work_directory(root, "0")?, work_directory(root, "aside/root")?);
    let here = at::open_beneath(root, Path::new("")).context("cannot open the root")?;
    let work = at::open_beneath(root, Path::new(WORK)).context("cannot open the work")?;
    if at::present(at::status(work.as_fd(), GATHERED))?.is_some() {
        let reserved = moves::reserved(root)?;
        moves::move_all(&here, &new, |name| {
            let is_old = !journal.top.contains(&name_of(name))
                || at::present(at::status(new.as_fd(), name))?.is_some();
            Ok(is_old || reserved(name))
        })
        .context("cannot move the new content out again")?;
        moves::move_all(&aside, &here, |_| Ok(false))
            .context("cannot move the old content back")?;
        unlinkat(&work, GATHERED, AtFlags::REMOVEDIR)
            .context("cannot take back that all is gathered")?;
    }
    scatter(root, journal)?;
    seal_all(root, &journal.undo_seals)?;
    if let Some(attributes) = at::directory_beneath(root, &Path::new(WORK).join("aside/root"))? {
        tree::take_attributes(attributes.as_fd(), root)
            .context("cannot set the attributes of the root")?;
    }
    settle_all(root, &journal.undo, Run::First)
}

/// Undoes what gathering did.
fn scatter(root: BorrowedFd<'_>, journal: &Journal) -> anyhow::Result<()> {
    let work = at::open_beneath(root, Path::new(WORK)).context("cannot open the work")?;
    let done = moves::progress(&work)?;
    if let Some(it) = journal.moves.get(done) {
        // It was noted after it was done, or not done at all.
        moves::rename(root, &it.to, &it.from)?;
    }
    for (number, it) in journal.moves.iter().enumerate().take(done).rev() {
        moves::rename(root, &it.to, &it.from)?;
        moves::note_progress(&work, number + 1, number)?;
    }
    Ok(())
}
