//! Gathering in place, and going on with it in a volume that somebody has used while it was half
//! moved. Nobody should, but a machine can be booted from it all the same: by hand after a run that
//! failed, or with `darlings` taken out of the initrd.
//!
//! | what was done meanwhile | what becomes of it |
//! |---|---|
//! | a kept path that was moved already was made again | the attic keeps it, and the path is what it was |
//! | a kept path that was not moved yet was removed | it stays removed |
//! | something was made where the blank's content goes | it is moved aside |
//! | a directory is gone that something is to be moved into | that goes to the attic |

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracing::warn;

use super::journal::Journal;
use super::layout::{ASIDE, Move, WORK, Why};
use super::moves::{self, Renamed, Run};
use crate::fs::Dir;
use crate::keep::attic::{ATTIC, List};
use crate::names::shown;

/// The list of what is put away, in [`WORK`] until it is in the attic.
pub(super) const ATTIC_LIST: &str = "attic.json";

/// Makes a place in the work for what goes to the attic, and the list of what comes back from there
/// by itself, unless they are there.
pub(super) fn begin_attic(work: &Dir, listed: &[PathBuf]) -> anyhow::Result<Dir> {
    // Before the list: where that is alone, the place was moved away already.
    let place = work.ensure_dir(ATTIC)?;
    if !work.holds(ATTIC_LIST)? {
        work.write_json(ATTIC_LIST, &List::new(listed))?;
    }
    Ok(place)
}

/// Moves the persisted paths into the new content, from where an interrupted run got to. A later
/// move can make an earlier one look as if it had not been done, so how many were is noted after
/// each.
pub(super) fn gather_noting(root: &Dir, journal: &Journal, run: Run) -> anyhow::Result<()> {
    let work = root.open_dir(WORK)?;
    let done = moves::progress(&work)?;
    if run == Run::Resumed {
        let mut made = done;
        if let Some(it) = journal.moves.get(done)
            && matches!(it.why, Why::Lay { .. })
            && moves::there(root, &it.from)?.is_none()
        {
            // Made and not noted: what is kept in an excluded path is in its place again.
            made += 1;
        }
        put_away_what_came_back(root, &journal.moves[..made.min(journal.moves.len())], |_| {
            Ok(false)
        })?;
    }
    for (number, it) in journal.moves.iter().enumerate().skip(done) {
        match run {
            Run::First => moves::make(root, it)?,
            Run::Resumed => make_again(root, it)?,
        }
        moves::note_progress(&work, number, number + 1)?;
    }
    Ok(())
}

/// Makes a move that was perhaps made before, and whose places may not be what they were.
fn make_again(root: &Dir, it: &Move) -> anyhow::Result<()> {
    match (moves::rename(root, &it.from, &it.to)?, it.why) {
        // It was made before, or there is nothing left to move.
        (Renamed::Done | Renamed::Missing, _)
        // What comes back stays in the attic where something has its place.
        | (Renamed::InTheWay | Renamed::Nowhere, Why::Return) => Ok(()),
        (Renamed::InTheWay, Why::Keep | Why::Store) => put_away(root, &it.path, &it.path),
        (Renamed::InTheWay, Why::Clear) => move_aside(root, &it.from),
        (Renamed::InTheWay, Why::Lay { .. }) => {
            move_aside(root, &it.to)?;
            moves::rename(root, &it.from, &it.to).map(drop)
        }
        (Renamed::Nowhere, _) => put_away(root, &it.from, &it.path),
    }
}

/// Puts away what is at paths that were moved into the new content, and have been made again.
/// `is_new` says of a name in the root that it is the new content's.
pub(super) fn put_away_what_came_back(
    root: &Dir,
    done: &[Move],
    is_new: impl Fn(&Path) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    // The outer ones come last, and take those below them along.
    for (number, it) in done.iter().enumerate().rev() {
        if !matches!(it.why, Why::Keep | Why::Store) || is_new(&it.path)? {
            continue;
        }
        // With the excluded path that it lies in, it is in its place again.
        let laid = done[number + 1..]
            .iter()
            .any(|later| matches!(later.why, Why::Lay { .. }) && it.path.starts_with(&later.path));
        if !laid {
            put_away(root, &it.path, &it.path)?;
        }
    }
    Ok(())
}

/// Puts what is at `from`, if there is anything, into the attic at `path`, so that nothing is lost.
/// It does not come back from there by itself: something has its place.
pub(super) fn put_away(root: &Dir, from: &Path, path: &Path) -> anyhow::Result<()> {
    let Some((directory, name)) = moves::there(root, from)? else { return Ok(()) };
    begin_attic(&root.open_dir(WORK)?, &[])?;
    let attic = Path::new(WORK).join(ATTIC);
    let mut above = attic.clone();
    for part in path.parent().unwrap_or(Path::new("")) {
        above.push(part);
        if moves::make_directory(root, &above)? == moves::Made::Nothing {
            above = attic;
            break;
        }
    }
    let above = root.open_dir(&above)?;
    let wanted = path.file_name().context("BUG: a path without a name")?;
    moves::move_as(&directory, &name, &above, wanted)?;
    warn!(
        "{} was written to while the volume was half moved: that is put into the attic",
        shown(path)
    );
    Ok(())
}

/// Moves what is at `from` to where everything goes that is not kept.
fn move_aside(root: &Dir, from: &Path) -> anyhow::Result<()> {
    let Some((directory, name)) = root.open_parent_optional(from)? else { return Ok(()) };
    let aside = root.open_dir(Path::new(WORK).join(ASIDE))?;
    moves::move_as(&directory, &name, &aside, &name).map(drop)
}
