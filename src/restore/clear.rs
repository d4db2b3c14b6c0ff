//! Removing a subtree, whatever flags its owner set, without following a link out of it.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use rustix::fs::{AtFlags, FileType, IFlags, RenameFlags, SeekFrom, renameat_with, seek, unlinkat};
use rustix::io::Errno;

use super::at::{self, BATCH, next_batch, open_directory, open_file};
use super::attributes::{seal, unseal};

/// Removes `name` in `parent` and everything below it. Answers whether there was anything.
///
/// # Errors
/// What could not be removed and why; what was removed before stays removed.
pub fn remove(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<bool> {
    let status = at::present(at::status(parent, name)).with_context(|| cannot("read", name))?;
    let Some(status) = status else { return Ok(false) };
    if at::kind(&status) != FileType::Directory {
        unlink(parent, name, AtFlags::empty()).with_context(|| cannot("remove", name))?;
        return Ok(true);
    }
    remove_directory(parent, name)?;
    Ok(true)
}

/// A directory that is being emptied.
struct Level {
    name: CString,
    fd: OwnedFd,
    /// Directories in it that are still to be removed.
    inside: Vec<CString>,
}

fn remove_directory(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<()> {
    let mut buffer = vec![MaybeUninit::uninit(); BATCH];
    let mut levels = vec![enter(parent, name)?];
    while let Some(level) = levels.last_mut() {
        if let Some(inside) = level.inside.pop() {
            let next = enter(level.fd.as_fd(), &inside)?;
            levels.push(next);
            continue;
        }
        // From the start each time: a position in a directory means little once entries
        // before it are gone.
        seek(&level.fd, SeekFrom::Start(0)).with_context(|| cannot("read", &level.name))?;
        let batch = next_batch(level.fd.as_fd(), &mut buffer)
            .with_context(|| cannot("read", &level.name))?;
        for entry in &batch {
            match unlink(level.fd.as_fd(), &entry.name, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::ISDIR) => level.inside.push(entry.name.clone()),
                Err(error) => return Err(error).with_context(|| cannot("remove", &entry.name)),
            }
        }
        if batch.is_empty() {
            let Some(done) = levels.pop() else { break };
            drop(done.fd);
            let above = levels.last().map_or(parent, |level| level.fd.as_fd());
            unlink(above, &done.name, AtFlags::REMOVEDIR)
                .with_context(|| cannot("remove", &done.name))?;
        }
    }
    Ok(())
}

fn enter(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<Level> {
    let fd = open_directory(parent, name).with_context(|| cannot("open", name))?;
    unseal(fd.as_fd()).with_context(|| cannot("clear the flags of", name))?;
    Ok(Level { name: name.to_owned(), fd, inside: Vec::new() })
}

/// unlinkat(2), once more without the entry's seals when those forbid it.
fn unlink(parent: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
    match unlinkat(parent, name, flags) {
        Err(Errno::PERM) => {
            let unsealed = unseal_named(parent, name)?;
            let Some((file, seals)) = unsealed.filter(|(_, seals)| !seals.is_empty()) else {
                // Linux says EISDIR for a directory, POSIX lets a filesystem say EPERM.
                let status = at::status(parent, name)?;
                let directory = at::kind(&status) == FileType::Directory;
                return Err(if directory { Errno::ISDIR } else { Errno::PERM });
            };
            unlinkat(parent, name, flags)?;
            // The file may have another name, which keeps its flags.
            if !flags.contains(AtFlags::REMOVEDIR) && at::status_of(file.as_fd())?.stx_nlink > 0 {
                seal(file.as_fd(), seals)?;
            }
            Ok(())
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
pub fn rename(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr)) -> Result<bool, Errno> {
    let rename = || renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE);
    match rename() {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(Errno::PERM) => {
            let unsealed = unseal_named(from.0, from.1)?;
            let Some((moved, seals)) = unsealed else { return Err(Errno::PERM) };
            rename()?;
            seal(moved.as_fd(), seals)?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

fn cannot(what: &str, name: &CStr) -> String {
    format!("cannot {what} {:?}", at::os_name(name))
}
