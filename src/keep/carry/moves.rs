//! Renames that can be done again after a crash, and undone.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{AtFlags, Mode, mkdirat, renameat, unlinkat};
use rustix::io::Errno;

use super::GATHERED;
use super::layout::{Move, Why};
use crate::fs::at;
use crate::fs::reserved::Reserved;
use crate::tree::{self};

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
pub(super) fn rename(root: BorrowedFd<'_>, from: &Path, to: &Path) -> anyhow::Result<Renamed> {
    let rename = || -> anyhow::Result<Renamed> {
        let Some((from, from_name)) = parent(root, from)? else { return Ok(Renamed::Missing) };
        if at::present(at::status(from.as_fd(), &from_name))?.is_none() {
            return Ok(Renamed::Missing);
        }
        let Some((to, to_name)) = parent(root, to)? else { return Ok(Renamed::Nowhere) };
        rename_in((&from, &from_name), (&to, &to_name))
    };
    rename().with_context(|| format!("cannot move {from:?} to {to:?}"))
}

/// Makes a move that was not made before: if it cannot be made, what is kept would be taken for
/// what is not.
pub(super) fn make(root: BorrowedFd<'_>, it: &Move) -> anyhow::Result<()> {
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
pub(super) fn progress(work: &OwnedFd) -> anyhow::Result<usize> {
    if let Some(noted) = noted_progress(work)? {
        let number = noted.strip_prefix(PROGRESS).unwrap_or_default();
        return number.parse().with_context(|| format!("{noted:?} is no number of moves"));
    }
    let first = format!("{PROGRESS}0");
    mkdirat(work, first.as_str(), Mode::RWXU).context("cannot note how far the moves came")?;
    Ok(0)
}

fn noted_progress(work: &OwnedFd) -> anyhow::Result<Option<String>> {
    let names = at::names(work.as_fd()).context("cannot see how far the moves came")?;
    let mut names = names.iter().map(|name| name.to_string_lossy().into_owned());
    Ok(names.find(|name| name.starts_with(PROGRESS)))
}

/// Whether anything was moved, or was about to be.
pub(super) fn has_begun(work: &OwnedFd) -> anyhow::Result<bool> {
    let gathered = at::present(at::status(work.as_fd(), GATHERED))
        .context("cannot see whether all is gathered")?;
    Ok(gathered.is_some() || noted_progress(work)?.is_some())
}

/// Takes back that moves were begun, when all of them are undone.
pub(super) fn forget_progress(work: &OwnedFd) -> anyhow::Result<()> {
    let Some(noted) = noted_progress(work)? else { return Ok(()) };
    unlinkat(work, noted.as_str(), AtFlags::REMOVEDIR)
        .with_context(|| format!("cannot remove {noted:?}"))
}

/// Notes that another number of moves was made.
pub(super) fn note_progress(work: &OwnedFd, was: usize, is: usize) -> anyhow::Result<()> {
    renameat(work, format!("{PROGRESS}{was}"), work, format!("{PROGRESS}{is}"))
        .context("cannot note how far the moves came")
}

/// The directory that holds `path`, and the name in it; `None` when there is no such directory.
pub(super) fn parent(
    root: BorrowedFd<'_>,
    path: &Path,
) -> anyhow::Result<Option<(OwnedFd, CString)>> {
    let (above, name) = at::split(path).context("BUG: a move of the root")?;
    let Some(above) = at::directory_beneath(root, above)? else { return Ok(None) };
    Ok(Some((above, at::c_name(name)?)))
}

fn rename_in(from: (&OwnedFd, &CStr), to: (&OwnedFd, &CStr)) -> anyhow::Result<Renamed> {
    if at::present(at::status(to.0.as_fd(), to.1))?.is_some() {
        return Ok(Renamed::InTheWay);
    }
    let rename = || -> Result<Renamed, Errno> {
        let renamed = tree::rename((from.0.as_fd(), from.1), (to.0.as_fd(), to.1))?;
        Ok(if renamed { Renamed::Done } else { Renamed::Missing })
    };
    match rename() {
        // The entry's own seals were seen to; what is left are those of the directories.
        Err(Errno::PERM) => {
            tree::unseal(from.0.as_fd())?;
            tree::unseal(to.0.as_fd())?;
            Ok(rename()?)
        }
        // The directory gives what is in it a project, and the entry has another one.
        Err(Errno::XDEV) => {
            tree::unseal(to.0.as_fd())?;
            Ok(rename()?)
        }
        Err(Errno::NOTEMPTY) => {
            let moved = tree::move_stub((from.0.as_fd(), from.1), (to.0.as_fd(), to.1))?;
            ensure!(moved, Errno::NOTEMPTY);
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
pub(super) fn make_directory(root: BorrowedFd<'_>, path: &Path) -> anyhow::Result<Made> {
    let make = || -> anyhow::Result<Made> {
        if at::directory_beneath(root, path)?.is_some() {
            return Ok(Made::Directory);
        }
        let Some((parent, name)) = parent(root, path)? else { return Ok(Made::Nothing) };
        match mkdirat(&parent, &name, Mode::RWXU) {
            Ok(()) => Ok(Made::Directory),
            Err(Errno::EXIST) => Ok(Made::Nothing),
            Err(error) => Err(error.into()),
        }
    };
    make().with_context(|| format!("cannot make the directory {path:?}"))
}

/// Moves everything in the directory `from` to `to`, but for the names that `stays` says. A name
/// that is taken in `to` gets a number.
pub(super) fn move_all(
    from: &OwnedFd,
    to: &OwnedFd,
    stays: impl Fn(&CStr) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    // Read to its end first: what is renamed while a directory is read may show up again.
    for name in at::names(from.as_fd())? {
        if stays(&name)? {
            continue;
        }
        rename_in((from, &name), (to, &free_name(to, &name)?))
            .with_context(|| format!("cannot move {:?}", at::os_name(&name)))?;
    }
    Ok(())
}

/// Moves `name` out of a directory, if it is there, under the name `wanted` or one that begins with
/// it.
pub(super) fn move_as(
    from: &OwnedFd,
    name: &CStr,
    to: &OwnedFd,
    wanted: &CStr,
) -> anyhow::Result<Renamed> {
    let target = free_name(to, wanted)?;
    rename_in((from, name), (to, &target))
        .with_context(|| format!("cannot move {name:?} to {target:?}"))
}

/// A name that is not taken yet, beginning with `name`.
fn free_name(directory: &OwnedFd, name: &CStr) -> anyhow::Result<CString> {
    let mut free = name.to_owned();
    let mut number = 0;
    while at::present(at::status(directory.as_fd(), &free))?.is_some() {
        number += 1;
        let numbered = [name.to_bytes(), format!("~{number}").as_bytes()].concat();
        // A name of 255 bytes has no room for a number.
        free = CString::new(&numbered[numbered.len().saturating_sub(255)..])?;
    }
    Ok(free)
}

/// Whether a name in a volume's root is not the user's.
pub(super) fn reserved(root: BorrowedFd<'_>) -> anyhow::Result<impl Fn(&CStr) -> bool> {
    let reserved = Reserved::of(root).context("cannot look at the root")?;
    Ok(move |name: &CStr| reserved.holds(name))
}
