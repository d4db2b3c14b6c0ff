//! Going back: what was prepared is removed, and what was moved is moved back. Only in the run that
//! did it: after a crash somebody may have used the machine in between, and the next run goes on.

use anyhow::Context as _;

use super::flags::{seal_all, settle_all};
use super::journal::{Journal, Name};
use super::layout::{GATHERED, WORK};
use super::moves::{self, Run};
use super::tidy::remove_work;
use crate::fs::Dir;
use crate::fs::reserved::Reserved;
use crate::own::Own;
use crate::tree;

/// Removes what [`super::prepare`] made, all of it or what it got to, when the reset goes no further,
/// and gives the root its times and seals back.
///
/// # Errors
/// What is left over; the next run removes it.
pub fn abandon(root: &Dir, journal: Option<&Journal>) -> anyhow::Result<()> {
    let Some(own) = Own::open(root)? else { return Ok(()) };
    // First: what it says is to be done would be done with what is half removed.
    Journal::remove(root)?;
    remove_work(&own)?;
    match journal {
        Some(journal) => settle_all(root, &journal.undo, Run::First),
        None => Ok(()),
    }
}

/// Undoes everything that [`super::forward`] did, in the run that did it.
///
/// # Errors
/// What could not be undone. The journal is still there: the next run goes forward.
pub fn backward(root: &Dir, journal: &Journal) -> anyhow::Result<()> {
    Journal::incomplete(root)?;
    tree::unseal(root).context("cannot clear the flags of the root")?;
    let work = root.open_dir(WORK)?;
    let (new, aside) = (work.open_dir("0")?, work.open_dir("aside/root")?);
    if work.holds(GATHERED)? {
        let reserved = Reserved::of(root)?;
        moves::move_all(root, &new, |name| {
            let is_old = !journal.top.contains(&Name(name.into())) || new.holds(name)?;
            Ok(is_old || reserved.holds(name))
        })
        .context("cannot move the new content out again")?;
        moves::move_all(&aside, root, |_| Ok(false)).context("cannot move the old content back")?;
        work.remove_dir(GATHERED)?;
    }
    scatter(root, journal)?;
    seal_all(root, &journal.undo_seals)?;
    if let Some(attributes) = work.open_dir_optional("aside/root")? {
        tree::take_attributes(&attributes, root)
            .context("cannot set the attributes of the root")?;
    }
    settle_all(root, &journal.undo, Run::First)
}

/// Undoes what gathering did.
fn scatter(root: &Dir, journal: &Journal) -> anyhow::Result<()> {
    let work = root.open_dir(WORK)?;
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
