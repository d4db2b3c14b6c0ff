//! Renames that can be done again after a crash, and undone.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;

use super::layout::{GATHERED, Move, Why};
use crate::fs::dir::{Dir, Named};
use crate::tree;

/// Which run it is that moves things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// The one that has written the journal: nobody else is at work in the volume.
    First,
    /// One that completes it: somebody may have used the volume in between.
    Resumed,
}

/// What came of a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renamed {
    /// It was done.
    Done,
    /// There was nothing to rename.
    Missing,
    /// Something has the new name already, and both stay.
    InTheWay,
    /// There is no directory that it could be moved into.
    Nowhere,
}

/// Renames `from` to `to`, both below `root`, unless nothing is at `from` or something is at
/// `to`: then it was done before.
pub(super) fn rename(root: &Dir, from: &Path, to: &Path) -> anyhow::Result<Renamed> {
    let rename = || -> anyhow::Result<Renamed> {
        let Some((from, name)) = there(root, from)? else { return Ok(Renamed::Missing) };
        let Some((to, new)) = root.open_parent_optional(to)? else { return Ok(Renamed::Nowhere) };
        rename_in((&from, &name), (&to, &new))
    };
    rename().with_context(|| format!("cannot move {from:?} to {to:?}"))
}

/// The directory that holds a path, and the name in it, if something is there.
pub(super) fn there(root: &Dir, path: &Path) -> anyhow::Result<Option<Named>> {
    let Some((above, name)) = root.open_parent_optional(path)? else { return Ok(None) };
    Ok(above.holds(&name)?.then_some((above, name)))
}

/// Makes a move that was not made before: if it cannot be made, what is kept would be taken for
/// what is not.
pub(super) fn make(root: &Dir, it: &Move) -> anyhow::Result<()> {
    match (rename(root, &it.from, &it.to)?, it.why) {
        // What an excluded path held may have been put away before.
        (Renamed::Done, _) | (Renamed::Missing, Why::Clear) => Ok(()),
        (Renamed::Missing, _) => {
            bail!("{:?} went away while it was moved; is the volume mounted somewhere?", it.from)
        }
        (Renamed::InTheWay, _) => {
            bail!("BUG: {:?} cannot be moved, since something is at {:?}", it.from, it.to)
        }
        (Renamed::Nowhere, _) => {
            bail!("BUG: {:?} cannot be moved, since nothing would hold {:?}", it.from, it.to)
        }
    }
}

/// What the name begins with of the directory in the work that says how many moves were made.
const PROGRESS: &str = "moved-";

/// How many moves were made for sure; the next one may have been.
pub(super) fn progress(work: &Dir) -> anyhow::Result<usize> {
    if let Some(noted) = noted_progress(work)? {
        let number = noted.strip_prefix(PROGRESS).unwrap_or_default();
        return number.parse().with_context(|| format!("{noted:?} is no number of moves"));
    }
    work.make_dir(format!("{PROGRESS}0")).context("cannot note how far the moves came")?;
    Ok(0)
}

fn noted_progress(work: &Dir) -> anyhow::Result<Option<String>> {
    let names = work.names()?;
    let mut names = names.iter().map(|name| name.to_string_lossy().into_owned());
    Ok(names.find(|name| name.starts_with(PROGRESS)))
}

/// Whether anything was moved, or was about to be.
pub(super) fn has_begun(work: &Dir) -> anyhow::Result<bool> {
    Ok(work.holds(GATHERED)? || noted_progress(work)?.is_some())
}

/// Takes back that moves were begun, when all of them are undone.
pub(super) fn forget_progress(work: &Dir) -> anyhow::Result<()> {
    noted_progress(work)?.map_or(Ok(()), |noted| work.remove_dir(noted))
}

/// Notes that another number of moves was made.
pub(super) fn note_progress(work: &Dir, was: usize, is: usize) -> anyhow::Result<()> {
    let renamed = work.rename(&format!("{PROGRESS}{was}"), &format!("{PROGRESS}{is}"));
    ensure!(renamed?, "cannot note how far the moves came: {PROGRESS}{was} went away");
    Ok(())
}

fn rename_in(from: (&Dir, &OsStr), to: (&Dir, &OsStr)) -> anyhow::Result<Renamed> {
    if to.0.holds(to.1)? {
        return Ok(Renamed::InTheWay);
    }
    let rename = || -> Result<Renamed, Errno> {
        Ok(if tree::rename(from, to)? { Renamed::Done } else { Renamed::Missing })
    };
    match rename() {
        // The entry's own seals were seen to; what is left are those of the directories.
        Err(Errno::PERM) => {
            tree::unseal(from.0)?;
            tree::unseal(to.0)?;
            Ok(rename()?)
        }
        // The directory gives what is in it a project, and the entry has another one.
        Err(Errno::XDEV) => {
            tree::unseal(to.0)?;
            Ok(rename()?)
        }
        Err(Errno::NOTEMPTY) => {
            ensure!(tree::move_stub(from, to)?, Errno::NOTEMPTY);
            Ok(Renamed::Done)
        }
        result => Ok(result?),
    }
}

/// What is at a path after [`make_directory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// A directory, made or found.
    Directory,
    /// Something else, which was left alone, or there is no directory that would hold it.
    Nothing,
}

/// Makes a directory unless there is one.
pub(super) fn make_directory(root: &Dir, path: &Path) -> anyhow::Result<Made> {
    if root.open_dir_optional(path)?.is_some() {
        return Ok(Made::Directory);
    }
    let Some((parent, name)) = root.open_parent_optional(path)? else { return Ok(Made::Nothing) };
    match mkdirat(&parent, &name, Mode::RWXU) {
        Ok(()) => Ok(Made::Directory),
        Err(Errno::EXIST) => Ok(Made::Nothing),
        Err(error) => Err(error).with_context(|| format!("cannot make the directory {path:?}")),
    }
}

/// Moves everything in the directory `from` to `to`, but for the names that `stays` says. A name
/// that is taken in `to` gets a number.
pub(super) fn move_all(
    from: &Dir,
    to: &Dir,
    stays: impl Fn(&OsStr) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    // Read to its end first: what is renamed while a directory is read may show up again.
    for name in from.names()? {
        if !stays(&name)? {
            move_as(from, &name, to, &name)?;
        }
    }
    Ok(())
}

/// Moves `name` out of a directory, if it is there, under the name `wanted` or one that begins with
/// it.
pub(super) fn move_as(
    from: &Dir,
    name: &OsStr,
    to: &Dir,
    wanted: &OsStr,
) -> anyhow::Result<Renamed> {
    let target = to.free_name(wanted, |_| false)?;
    rename_in((from, name), (to, &target))
        .with_context(|| format!("cannot move {name:?} to {target:?}"))
}
