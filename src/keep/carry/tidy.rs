//! When the result is complete: what is aside and what is put away go where they stay, and the work
//! is removed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::again::{ATTIC_LIST, put_away};
use super::flags::seal_all;
use super::journal::{Journal, Sealed, is_journal};
use super::layout::{ASIDE, GENERATIONS, Move, ROOT, TRASH, WORK, Why};
use super::moves;
use crate::fs::Dir;
use crate::keep::attic::ATTIC;
use crate::own::Own;
use crate::own::state::{self, Manifest};
use crate::text::exact_number;
use crate::tree;

/// What becomes of what was moved aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// It is removed after the boot: the filesystem keeps the previous state in its own way.
    Trash,
    /// It is the generation.
    Generation,
}

/// The manifest of the tree that a generation in [`GENERATIONS`] was.
const MANIFEST: &str = "manifest";

/// Moves what is aside to where it belongs and removes the rest of the work, the journal last.
pub fn finish(root: &Dir, journal: &Journal, aside: Aside) -> anyhow::Result<()> {
    let own = Own::ensure(root)?;
    let home = match aside {
        Aside::Trash => TRASH,
        Aside::Generation => {
            bring_together(root, journal)?;
            GENERATIONS
        }
    };
    let (work, home) = (root.open_dir(WORK)?, own.directory(home)?);
    let number = journal.generation();
    moves::move_as(&work, ASIDE.as_ref(), &home, number.to_string().as_ref())?;
    rescue(root, &work, journal)?;
    if work.holds(ATTIC_LIST)? {
        store(&own.directory(ATTIC)?, &work, number)?;
    }
    remove_work(&own)
}

/// Puts into the attic what is left of the new content, for which there was no place: nothing that
/// was kept may be removed with the work.
fn rescue(root: &Dir, work: &Dir, journal: &Journal) -> anyhow::Result<()> {
    for slot in work.names()? {
        let Some(number) = slot.to_str().and_then(exact_number) else { continue };
        let is_of_it = |it: &&Move| matches!(it.why, Why::Lay { unit } if unit as u64 == number);
        for name in work.open_dir(&slot)?.names()? {
            let from = Path::new(WORK).join(&slot).join(&name);
            let path = match journal.moves.iter().find(is_of_it) {
                Some(it) => it.path.clone(),
                None => PathBuf::from(name),
            };
            put_away(root, &from, &path)?;
        }
    }
    Ok(())
}

/// The list of what a reset puts away, in the attic, beside a directory with the number for a name.
fn list_name(number: u64) -> String {
    format!("{number}.json")
}

/// Moves what is no longer declared to the attic, and the list of it.
fn store(attic: &Dir, work: &Dir, number: u64) -> anyhow::Result<()> {
    // The list last: a run that was interrupted between the two goes on here. A number that is taken
    // is one of a reset that somebody made forgotten.
    let number = if work.holds(ATTIC)? {
        let mut free = number;
        while attic.holds(free.to_string())? || attic.holds(list_name(free))? {
            free += 1;
        }
        free
    } else {
        let mut moved = None;
        for entry in attic.names()? {
            let Some(other) = exact_number(&entry.to_string_lossy()) else { continue };
            if other >= number && !attic.holds(list_name(other))? {
                moved = Some(moved.map_or(other, |so_far: u64| so_far.min(other)));
            }
        }
        // Somebody has removed it in between, and there is nothing to list.
        let Some(moved) = moved else { return Ok(()) };
        moved
    };
    for (from, to) in [(ATTIC, number.to_string()), (ATTIC_LIST, list_name(number))] {
        tree::rename((work, from), (attic, &to))
            .with_context(|| format!("cannot move {from:?} to {to:?} in the attic"))?;
    }
    Ok(())
}

/// Moves what excluded paths held to where they were in the tree that is aside, so that a person
/// finds it there.
fn bring_together(root: &Dir, journal: &Journal) -> anyhow::Result<()> {
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
        if root.open_dir_optional(&so_far)?.is_some() {
            moves::rename(root, &it.to, &aside.join(&it.path))?;
        }
    }
    let in_it = |Sealed { path, seals }: &Sealed| Sealed { path: aside.join(path), seals: *seals };
    seal_all(root, &journal.undo_seals.iter().map(in_it).collect::<Vec<_>>())
}

/// Writes down what the previous state says of itself, to go with what is moved aside.
pub fn note_manifest(root: &Dir) -> anyhow::Result<()> {
    let Some(manifest) = state::known_manifest(root, |_| ())? else { return Ok(()) };
    root.open_dir(Path::new(WORK).join(ASIDE))?.write_json(MANIFEST, &manifest)
}

/// What a generation in [`GENERATIONS`], which is open, says of itself.
pub fn manifest_of(home: &Dir, number: u64) -> anyhow::Result<Option<Manifest>> {
    let Some(directory) = home.open_dir_optional(number.to_string())? else { return Ok(None) };
    let Some(text) = directory.read_optional(MANIFEST)? else { return Ok(None) };
    state::parse_manifest(&text, &format!("the manifest of generation {number}")).map(Some)
}

/// Removes [`WORK`], which holds nothing of the previous state, the journal last.
pub(super) fn remove_work(own: &Dir) -> anyhow::Result<()> {
    let Some(work) = own.open_dir_optional("reset")? else { return Ok(()) };
    let (journal, rest): (Vec<OsString>, Vec<_>) =
        work.names()?.into_iter().partition(|name| is_journal(name));
    for name in rest.iter().chain(&journal) {
        tree::remove(&work, name).with_context(|| format!("cannot empty {WORK}"))?;
    }
    own.remove_dir("reset")
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
        let open = |name: &str| Dir::open(&holder.path().join(name)).unwrap();
        store(&open("own/attic"), &open("work"), 7).unwrap();
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
