//! Removing a subtree, whatever flags its owner set, without following a link out of it.

use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, ensure};
use darlings_btrfs as btrfs;
use rustix::fs::{
    AtFlags, FileType, IFlags, RenameFlags, SeekFrom, renameat, renameat_with, seek, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::attributes::{seal, unseal};
use crate::fs::Dir;
use crate::fs::at::{self, BATCH, next_batch, open_directory, open_file};

/// Removes `name` in `parent` and everything below it. Answers whether there was anything.
///
/// # Errors
/// What could not be removed and why; what was removed before stays removed.
pub fn remove(parent: impl AsFd, name: impl AsRef<OsStr>) -> anyhow::Result<bool> {
    remove_telling(parent, name, &mut || {})
}

/// Removes `name` in `parent` alone: a directory must be empty.
///
/// # Errors
/// As unlinkat(2); `ENOTEMPTY` when something is in it, which is all left alone.
pub fn remove_single(parent: impl AsFd, name: impl AsRef<OsStr>) -> Result<(), Errno> {
    let (parent, name) = (parent.as_fd(), &*at::c_name(name.as_ref())?);
    match unlink(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlink(parent, name, AtFlags::REMOVEDIR),
        removed => removed,
    }
}

/// As [`remove`], and calls `removed` after each entry that is gone.
pub fn remove_telling(
    parent: impl AsFd,
    name: impl AsRef<OsStr>,
    removed: &mut dyn FnMut(),
) -> anyhow::Result<bool> {
    let (parent, name) = (parent.as_fd(), &*at::c_name(name.as_ref())?);
    let status = at::present(at::status(parent, name)).with_context(|| cannot("read", name))?;
    let Some(status) = status else { return Ok(false) };
    if at::kind(&status) != FileType::Directory {
        unlink(parent, name, AtFlags::empty()).with_context(|| cannot("remove", name))?;
        removed();
        return Ok(true);
    }
    remove_directory(parent, name, removed)?;
    Ok(true)
}

/// A directory that is being emptied.
struct Level {
    name: CString,
    /// Its device and inode numbers. Its owner may have it open, and move what is in it elsewhere.
    identity: Identity,
    /// `None` while it is far above the directory that is being emptied now.
    fd: Option<OwnedFd>,
    /// Directories in it that are still to be removed.
    inside: Vec<CString>,
}

impl Level {
    fn fd(&self) -> anyhow::Result<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd).context("BUG: the level is closed")
    }
}

type Identity = ((u32, u32), u64);

fn identity(directory: BorrowedFd<'_>) -> Result<Identity, Errno> {
    let status = at::status_of(directory)?;
    Ok(((status.stx_dev_major, status.stx_dev_minor), status.stx_ino))
}

/// Opens a directory again from the one in it that was just emptied.
fn open_above(below: BorrowedFd<'_>, above: &Level) -> anyhow::Result<OwnedFd> {
    let cannot = || cannot("open", &above.name);
    let opened = open_directory(below, c"..").with_context(cannot)?;
    ensure!(
        identity(opened.as_fd()).with_context(cannot)? == above.identity,
        "what was in {:?} was moved elsewhere while it was removed; what lies there is left alone",
        at::os_name(&above.name)
    );
    Ok(opened)
}

/// Levels that are kept open.
const OPEN_LEVELS: usize = 16;

fn remove_directory(
    parent: BorrowedFd<'_>,
    name: &CStr,
    removed: &mut dyn FnMut(),
) -> anyhow::Result<()> {
    let mut buffer = vec![MaybeUninit::uninit(); BATCH];
    let mut levels = vec![enter(parent, name)?];
    while let Some(level) = levels.last_mut() {
        if let Some(inside) = level.inside.pop() {
            let next = enter(level.fd()?, &inside)?;
            levels.push(next);
            if let Some(far) = levels.len().checked_sub(OPEN_LEVELS + 1) {
                levels[far].fd = None;
            }
            continue;
        }
        // From the start each time: a position in a directory means little once entries
        // before it are gone.
        seek(level.fd()?, SeekFrom::Start(0)).with_context(|| cannot("read", &level.name))?;
        let batch =
            next_batch(level.fd()?, &mut buffer).with_context(|| cannot("read", &level.name))?;
        for entry in &batch {
            match unlink(level.fd()?, &entry.name, AtFlags::empty()) {
                Ok(()) => removed(),
                Err(Errno::ISDIR) => level.inside.push(entry.name.clone()),
                Err(error) => return Err(error).with_context(|| cannot("remove", &entry.name)),
            }
        }
        if batch.is_empty() {
            let Some(done) = levels.pop() else { break };
            let above = match levels.last_mut() {
                Some(above) => {
                    if above.fd.is_none() {
                        above.fd = Some(open_above(done.fd()?, above)?);
                    }
                    above.fd()?
                }
                None => parent,
            };
            drop(done.fd);
            unlink(above, &done.name, AtFlags::REMOVEDIR)
                .with_context(|| cannot("remove", &done.name))?;
            removed();
        }
    }
    Ok(())
}

/// What is mounted on a directory is another's, and is not entered. A subvolume of btrfs is no mount.
fn enter(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<Level> {
    let fd = at::open_beneath(parent, Path::new(at::os_name(name))).map_err(|error| {
        let is_mounted = error.raw_os_error() == Some(Errno::XDEV.raw_os_error());
        let error = anyhow::Error::from(error).context(cannot("open", name));
        if is_mounted { error.context("something is mounted in it; unmount that") } else { error }
    })?;
    let identity = identity(fd.as_fd()).with_context(|| cannot("look at", name))?;
    make_writable(fd.as_fd()).with_context(|| cannot("make writable", name))?;
    unseal(fd.as_fd()).with_context(|| cannot("clear the flags of", name))?;
    Ok(Level { name: name.to_owned(), identity, fd: Some(fd), inside: Vec::new() })
}

/// Nothing can be made in or removed from a subvolume of btrfs that is read-only, and its owner can make
/// it so. Answers whether it was.
pub(crate) fn make_writable(directory: impl AsFd) -> anyhow::Result<bool> {
    let directory = directory.as_fd();
    let kind = btrfs::entry_kind(at::status_of(directory)?.stx_ino);
    let was = kind == btrfs::EntryKind::SubvolumeRoot
        && btrfs::is_btrfs(directory)?
        && btrfs::is_read_only(directory)?;
    if was {
        btrfs::set_read_only(directory, false)?;
    }
    Ok(was)
}

/// unlinkat(2), once more without the entry's seals when those forbid it.
fn unlink(parent: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
    match unlinkat(parent, name, flags) {
        Err(Errno::PERM) => {
            // A sealed directory is looked at as one first. Linux says EISDIR for others, POSIX lets a
            // filesystem say EPERM.
            let as_directory = flags.contains(AtFlags::REMOVEDIR);
            if !as_directory && at::kind(&at::status(parent, name)?) == FileType::Directory {
                return Err(Errno::ISDIR);
            }
            let unsealed = unseal_named(parent, name)?;
            let Some((file, seals)) = unsealed.filter(|(_, seals)| !seals.is_empty()) else {
                return Err(Errno::PERM);
            };
            let unlinked = unlinkat(parent, name, flags);
            // A directory has no other name.
            if as_directory {
                return unlinked;
            }
            // The file may have another name, which keeps its flags whether this one is gone or not.
            let sealed = match at::status_of(file.as_fd()) {
                Ok(status) if status.stx_nlink == 0 => Ok(()),
                Ok(_) | Err(_) => seal(file.as_fd(), seals),
            };
            unlinked.and(sealed)
        }
        result => result,
    }
}

/// Opens a file or directory and clears its seals; `None` for what has no flags.
fn unseal_named(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<(OwnedFd, IFlags)>, Errno> {
    let file = match at::kind(&at::status(parent, name)?) {
        FileType::Directory => open_directory(parent, name)?,
        FileType::RegularFile => open_file(parent, name)?,
        _ => return Ok(None),
    };
    let seals = unseal(file.as_fd())?;
    Ok(Some((file, seals)))
}

/// Renames `name` from one directory to another of the same filesystem, where nothing has
/// the new name, through the seals of the entry itself, which it keeps.
/// Answers whether there was anything to rename.
///
/// # Errors
/// As renameat2(2) with `RENAME_NOREPLACE`.
pub fn rename<N: AsRef<OsStr> + Copy, M: AsRef<OsStr> + Copy>(
    from: (&Dir, N),
    to: (&Dir, M),
) -> Result<bool, Errno> {
    let (name, new) = (at::c_name(from.1.as_ref())?, at::c_name(to.1.as_ref())?);
    rename_named((from.0.as_fd(), &name), (to.0.as_fd(), &new))
}

/// The same with names as the kernel wants them.
pub(super) fn rename_named(
    from: (BorrowedFd<'_>, &CStr),
    to: (BorrowedFd<'_>, &CStr),
) -> Result<bool, Errno> {
    let rename = || rename_to_free(from, to);
    match rename() {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(Errno::PERM) => {
            let unsealed = unseal_named(from.0, from.1)?;
            let Some((moved, seals)) = unsealed else { return Err(Errno::PERM) };
            let renamed = rename();
            // Whether it was or not, it is sealed again.
            seal(moved.as_fd(), seals).and(renamed)?;
            Ok(true)
        }
        // A read-only subvolume of btrfs keeps its directory.
        Err(Errno::ROFS) => {
            let moved = open_directory(from.0, from.1).map_err(|_| Errno::ROFS)?;
            if !btrfs::is_read_only(&moved).map_err(|error| errno(&error))? {
                return Err(Errno::ROFS);
            }
            let set = |read_only| btrfs::set_read_only(&moved, read_only);
            set(false).map_err(|error| errno(&error))?;
            let renamed = rename();
            set(true).map_err(|error| errno(&error)).and(renamed)?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// What is no subvolume of btrfs is on a filesystem that is read-only.
fn errno(error: &btrfs::Error) -> Errno {
    error.errno().unwrap_or(Errno::ROFS)
}

/// Gives `name` in `parent` the name `doomed`, which says that its removal has begun, and answers the
/// name that it has now. A filesystem may be too full even for that: then it goes under its own name,
/// and if it is interrupted, the run that removes it next has to know by itself that it must.
///
/// # Errors
/// As [`rename`], but for `ENOSPC` and `EDQUOT`. What an interrupted run has left under the name
/// `doomed` is removed before.
pub fn doom(parent: &Dir, name: String, doomed: String) -> anyhow::Result<String> {
    remove(parent, &doomed)?;
    match rename((parent, &name), (parent, &doomed)) {
        Ok(_) => Ok(doomed),
        Err(Errno::NOSPC | Errno::DQUOT) => Ok(name),
        Err(error) => Err(error).with_context(|| format!("cannot begin to remove {name:?}")),
    }
}

/// Exchanges two names of one filesystem, through the seals of the entries, which they keep.
/// Atomic; answers whether the filesystem can do that at all.
///
/// # Errors
/// As renameat2(2) with `RENAME_EXCHANGE`.
pub fn exchange<N: AsRef<OsStr> + Copy, M: AsRef<OsStr> + Copy>(
    one: (&Dir, N),
    other: (&Dir, M),
) -> Result<bool, Errno> {
    let (name, other_name) = (at::c_name(one.1.as_ref())?, at::c_name(other.1.as_ref())?);
    let (one, other) = ((one.0.as_fd(), &*name), (other.0.as_fd(), &*other_name));
    let exchange = || match renameat_with(one.0, one.1, other.0, other.1, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        // OpenZFS before 2.2 takes no flags, and not every filesystem takes this one.
        Err(Errno::INVAL | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error),
    };
    match exchange() {
        Err(Errno::PERM) => {
            let first = unseal_named(one.0, one.1)?;
            let seal_again = |unsealed: &Option<(OwnedFd, IFlags)>| match unsealed {
                Some((file, seals)) => seal(file.as_fd(), *seals),
                None => Ok(()),
            };
            let exchanged = unseal_named(other.0, other.1).and_then(|second| {
                let exchanged = exchange();
                // Whether they were or not, they are sealed again.
                seal_again(&second).and(exchanged)
            });
            seal_again(&first).and(exchanged)
        }
        result => result,
    }
}

fn rename_to_free(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr)) -> Result<(), Errno> {
    match renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        // OpenZFS before 2.2 takes no flags. Nobody else is at work here, so looking first is as
        // good.
        Err(Errno::INVAL) => match statat(to.0, to.1, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => renameat(from.0, from.1, to.0, to.1),
            Ok(_) => Err(Errno::EXIST),
            Err(error) => Err(error),
        },
        result => result,
    }
}

fn cannot(what: &str, name: &CStr) -> String {
    format!("cannot {what} {:?}", at::os_name(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    #[test]
    fn what_is_moved_elsewhere_while_it_is_removed_takes_nothing_along_that_lies_there() {
        let here = tempfile::tempdir().unwrap();
        let (trash, elsewhere) = (here.path().join("trash"), here.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("of-somebody-else"), "kept").unwrap();
        // Deeper than the levels that are kept open.
        let mut deep = trash.clone();
        let mut moved = None;
        for level in 0..2 * OPEN_LEVELS {
            deep.push(level.to_string());
            if level == OPEN_LEVELS / 2 {
                moved = Some(deep.clone());
            }
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "removed").unwrap();
        let moved = moved.unwrap();
        let parent = fs::File::open(here.path()).unwrap();
        // Its owner, who has it open, moves it as soon as something is gone.
        let mut owner = || {
            if moved.exists() {
                fs::rename(&moved, elsewhere.join("moved")).unwrap();
            }
        };
        let error = remove_telling(parent.as_fd(), "trash", &mut owner).unwrap_err();
        assert_eq!(
            error.to_string(),
            "what was in \"7\" was moved elsewhere while it was removed; what lies there is left alone"
        );
        assert_eq!(fs::read_to_string(elsewhere.join("of-somebody-else")).unwrap(), "kept");
    }
}
