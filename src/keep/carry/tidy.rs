//! When the result is complete: what is aside and what is put away go where they stay, and the work
//! is removed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{AtFlags, unlinkat};

use super::again::put_away;
use super::journal::{Journal, Sealed, is_journal};
use super::layout::{ASIDE, Move, ROOT, WORK, Why};
use super::{Aside, GENERATIONS, TRASH, moves, seal_all, work_directory};
use crate::fs::at;
use crate::keep::attic::{ATTIC, List};
use crate::own::state::{self, Manifest};
use crate::text::exact_number;
use crate::tree;

/// The manifest of the tree that a generation in [`GENERATIONS`] was.
const MANIFEST: &CStr = c"manifest";

/// The list of what is put away, in [`WORK`] until it is in the attic.
const ATTIC_LIST: &CStr = c"attic.json";

/// Makes a place in the work for what goes to the attic, and the list of what comes back from there
/// by itself, unless they are there.
pub(super) fn begin_attic(work: BorrowedFd<'_>, listed: &[PathBuf]) -> anyhow::Result<OwnedFd> {
    let name = at::c_name(ATTIC.as_ref())?;
    let begin = || -> anyhow::Result<OwnedFd> {
        // Before the list: where that is alone, the place was moved away already.
        at::ensure_directory(work, &name)?;
        if at::present(at::status(work, ATTIC_LIST))?.is_none() {
            let list = serde_json::to_vec_pretty(&List::new(listed))?;
            at::write_durably(work, ATTIC_LIST, &list)?;
        }
        Ok(at::open_directory(work, &name)?)
    };
    begin().context("cannot make a place for what goes to the attic")
}

/// Moves what is aside to where it belongs and removes the rest of the work, the journal last.
///
/// # Errors
/// What could not be moved or removed.
pub fn finish(root: BorrowedFd<'_>, journal: &Journal, aside: Aside) -> anyhow::Result<()> {
    let own = crate::own::ensure_own_directory(root)?;
    let home = match aside {
        Aside::Trash => TRASH,
        Aside::Generation => {
            bring_together(root, journal)?;
            GENERATIONS
        }
    };
    let work =
        at::open_beneath(root, Path::new(WORK)).with_context(|| format!("cannot open {WORK}"))?;
    let home = crate::own::ensure_directory(own.as_fd(), &at::c_name(home.as_ref())?)?;
    let number = journal.generation();
    let name = at::c_name(number.to_string().as_ref())?;
    moves::move_as(&work, &at::c_name(ASIDE.as_ref())?, &home, &name)?;
    rescue(root, &work, journal)?;
    store(&own, &work, number)?;
    remove_work(own.as_fd())
}

/// Puts into the attic what is left of the new content, for which there was no place: nothing that
/// was kept may be removed with the work.
fn rescue(root: BorrowedFd<'_>, work: &OwnedFd, journal: &Journal) -> anyhow::Result<()> {
    for slot in at::names(work.as_fd()).with_context(|| format!("cannot read {WORK}"))? {
        let Some(number) = slot.to_str().ok().and_then(exact_number) else { continue };
        let is_of_it = |it: &&Move| matches!(it.why, Why::Lay { unit } if unit as u64 == number);
        let directory = at::open_directory(work.as_fd(), &slot)
            .with_context(|| format!("cannot open {WORK}/{number}"))?;
        for name in at::names(directory.as_fd())? {
            let from = at::join(&Path::new(WORK).join(number.to_string()), &name);
            let path = match journal.moves.iter().find(is_of_it) {
                Some(it) => it.path.clone(),
                None => at::join(Path::new(""), &name),
            };
            put_away(root, &from, &path)?;
        }
    }
    Ok(())
}

/// What a reset puts away, in the attic.
fn tree_name(number: u64) -> anyhow::Result<CString> {
    Ok(at::c_name(number.to_string().as_ref())?)
}

/// The list of it.
fn list_name(number: u64) -> anyhow::Result<CString> {
    Ok(at::c_name(format!("{number}.json").as_ref())?)
}

/// Moves what is no longer declared to the attic.
fn store(own: &OwnedFd, work: &OwnedFd, number: u64) -> anyhow::Result<()> {
    let there = at::present(at::status(work.as_fd(), ATTIC_LIST))?;
    if there.is_none() {
        return Ok(());
    }
    let name = at::c_name(ATTIC.as_ref())?;
    let attic = crate::own::ensure_directory(own.as_fd(), &name)?;
    let is = |directory: &OwnedFd, name: &CStr| -> anyhow::Result<bool> {
        Ok(at::present(at::status(directory.as_fd(), name))?.is_some())
    };
    // The list last: a run that was interrupted between the two goes on here. A number that is taken
    // is one of a reset that somebody made forgotten.
    let number = if is(work, &name)? {
        let mut free = number;
        while is(&attic, &tree_name(free)?)? || is(&attic, &list_name(free)?)? {
            free += 1;
        }
        free
    } else {
        let mut moved = None;
        for entry in at::names(attic.as_fd()).context("cannot read the attic")? {
            let Some(other) = exact_number(&entry.to_string_lossy()) else { continue };
            if other >= number && !is(&attic, &list_name(other)?)? {
                moved = Some(moved.map_or(other, |so_far: u64| so_far.min(other)));
            }
        }
        // Somebody has removed it in between, and there is nothing to list.
        let Some(moved) = moved else { return Ok(()) };
        moved
    };
    let (tree, list) = (tree_name(number)?, list_name(number)?);
    for (from, to) in [(name.as_c_str(), tree), (ATTIC_LIST, list)] {
        tree::rename((work.as_fd(), from), (attic.as_fd(), &to))
            .with_context(|| format!("cannot move {from:?} to {to:?} in the attic"))?;
    }
    Ok(())
}

/// Moves what excluded paths held to where they were in the tree that is aside, so that a person
/// finds it there.
fn bring_together(root: BorrowedFd<'_>, journal: &Journal) -> anyhow::Result<()> {
    let aside = Path::new(WORK).join(ASIDE).join(ROOT);
    for it in journal.moves.iter().filter(|it| it.why == Why::Clear) {
        let mut so_far = aside.clone();
        for name in it.path.parent().unwrap_or(Path::new("")) {
            so_far.push(name);
            match moves::make_directory(root, &so_far)? {
                moves::Made::Directory => {}
                // Something else is in its place: what was excluded stays beside the tree.
                moves::Made::Nothing => break,
            }
        }
        if at::directory_beneath(root, &so_far)?.is_some() {
            moves::rename(root, &it.to, &aside.join(&it.path))?;
        }
    }
    let in_it = |Sealed { path, seals }: &Sealed| Sealed { path: aside.join(path), seals: *seals };
    seal_all(root, &journal.undo_seals.iter().map(in_it).collect::<Vec<_>>())
}

/// Writes down what the previous state says of itself, to go with what is moved aside.
///
/// # Errors
/// As reading and writing a file.
pub fn note_manifest(root: BorrowedFd<'_>) -> anyhow::Result<()> {
    let Some(manifest) = state::known_manifest(root, |_| ())? else { return Ok(()) };
    let write = || -> anyhow::Result<()> {
        let aside = work_directory(root, ASIDE)?;
        Ok(at::write_durably(&aside, MANIFEST, &serde_json::to_vec_pretty(&manifest)?)?)
    };
    write().context("cannot write down what the previous state says of itself")
}

/// What a generation in [`GENERATIONS`], which is open, says of itself.
///
/// # Errors
/// It cannot be read.
pub fn manifest_of(home: BorrowedFd<'_>, number: u64) -> anyhow::Result<Option<Manifest>> {
    let cannot = || format!("cannot read the manifest of generation {number}");
    let directory = at::directory_beneath(home, Path::new(&number.to_string()));
    let Some(directory) = directory.with_context(cannot)? else { return Ok(None) };
    let text = at::read_optional(directory, MANIFEST).with_context(cannot)?;
    let Some(text) = text else { return Ok(None) };
    state::parse_manifest(&text, &format!("the manifest of generation {number}")).map(Some)
}

/// Removes [`WORK`], which holds nothing of the previous state, the journal last.
pub(super) fn remove_work(own: BorrowedFd<'_>) -> anyhow::Result<()> {
    let cannot = || format!("cannot empty {WORK}");
    let work = at::present(at::open_directory(own, c"reset")).with_context(cannot)?;
    let Some(work) = work else { return Ok(()) };
    let (journal, rest): (Vec<_>, Vec<_>) =
        at::names(work.as_fd())?.into_iter().partition(|name| is_journal(name));
    for name in rest.iter().chain(&journal) {
        tree::remove(work.as_fd(), name).with_context(cannot)?;
    }
    unlinkat(own, c"reset", AtFlags::REMOVEDIR).with_context(cannot)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    /// The attic after what is in the work was stored as reset 7.
    fn stored(prepare: impl FnOnce(&Path)) -> Vec<String> {
        let holder = tempfile::tempdir().unwrap();
        for directory in ["own", "own/attic", "work"] {
            fs::create_dir(holder.path().join(directory)).unwrap();
        }
        prepare(holder.path());
        let open = |name: &str| OwnedFd::from(fs::File::open(holder.path().join(name)).unwrap());
        store(&open("own"), &open("work"), 7).unwrap();
        let entries = fs::read_dir(holder.path().join("own/attic")).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(name).map(|it| it.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_list_whose_tree_somebody_has_removed_is_not_stored() {
        assert_eq!(stored(|at| fs::write(at.join("work/attic.json"), "").unwrap()), [""; 0]);
        let others = |at: &Path| {
            fs::write(at.join("work/attic.json"), "").unwrap();
            fs::create_dir(at.join("own/attic/6")).unwrap();
            fs::create_dir(at.join("own/attic/7")).unwrap();
            fs::write(at.join("own/attic/7.json"), "").unwrap();
        };
        assert_eq!(stored(others), ["6", "7", "7.json"]);
    }

    #[test]
    fn a_tree_that_was_moved_gets_its_list_and_one_that_was_not_a_free_number() {
        let moved = |at: &Path| {
            fs::write(at.join("work/attic.json"), "").unwrap();
            fs::create_dir(at.join("own/attic/8")).unwrap();
        };
        assert_eq!(stored(moved), ["8", "8.json"]);
        let taken = |at: &Path| {
            fs::write(at.join("work/attic.json"), "").unwrap();
            fs::create_dir(at.join("work/attic")).unwrap();
            fs::write(at.join("own/attic/7.json"), "").unwrap();
        };
        assert_eq!(stored(taken), ["7.json", "8", "8.json"]);
    }
}
