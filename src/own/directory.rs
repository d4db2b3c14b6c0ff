//! The tool's own directory in a volume's root, and the directories in it. Only root can damage them, and no
//! damage is worth a boot without a reset: flags that forbid a change are cleared, and what has the name
//! of a directory and is none gets another name.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{Mode, mkdirat};

use crate::fs::at;
use crate::rules::OWN_DIRECTORY;
use crate::tree::{Handle, Scratch, is_stub, make_writable, remove_single, rename, unseal};

/// Opens the tool's own directory to write into it, made if there is none, and sees that it is root's alone.
/// One that belongs to a user, or is not a directory, gets another name: whoever could make it must not say
/// what a reset does.
///
/// # Errors
/// What could not be made or set.
pub fn ensure_own_directory(root: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    let name = at::c_name(OWN_DIRECTORY.as_ref())?;
    let ensure = || -> anyhow::Result<OwnedFd> {
        let own = match trusted_own_directory(root)? {
            Some(own) => own,
            None => make_anew(root, &name)?,
        };
        make_writable(own.as_fd())?;
        Handle::Open(own.as_fd()).strip(Some(Mode::RWXU), &mut Scratch::default())?;
        Ok(own)
    };
    ensure().with_context(|| format!("cannot make {OWN_DIRECTORY}"))
}

/// Opens the directory `name` in the tool's own one to write into it, made if there is none. Anything else
/// that has the name gets another one.
///
/// # Errors
/// What could not be made or set.
pub fn ensure_directory(own: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<OwnedFd> {
    let ensure = || -> anyhow::Result<OwnedFd> {
        let directory = match present(own, name)? {
            Some(directory) => directory,
            None => make_anew(own, name)?,
        };
        make_writable(directory.as_fd())?;
        unseal(directory.as_fd())?;
        Ok(directory)
    };
    ensure().with_context(|| format!("cannot make {:?} in {OWN_DIRECTORY}", at::os_name(name)))
}

/// A directory of the tool's own. Not what stands, in a snapshot, for a subvolume that a user made: it is
/// root's whoever that was, and nothing can be made in it.
fn present(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<Option<OwnedFd>> {
    let found = at::directory_beneath(parent, Path::new(at::os_name(name)))?;
    let Some(found) = found else { return Ok(None) };
    let is_stub = is_stub(parent, &at::status_of(found.as_fd())?)?;
    Ok((!is_stub).then_some(found))
}

/// Makes a directory in place of whatever has its name.
fn make_anew(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<OwnedFd> {
    if let Some(status) = at::present(at::status(parent, name))?
        && is_stub(parent, &status)?
    {
        // It has no other name to get: the kernel takes it for full. The subvolume is where it was.
        remove_single(parent, name)?;
    }
    let other = at::free_name(parent, name, |_| false)?;
    rename((parent, name), (parent, &other))?;
    mkdirat(parent, name, Mode::RWXU)?;
    Ok(at::open_directory(parent, name)?)
}

/// Opens the tool's own directory in a volume's root to believe what it says; `None` where there
/// is none that is root's.
///
/// # Errors
/// As openat2(2) and statx(2).
pub fn trusted_own_directory(root: BorrowedFd<'_>) -> anyhow::Result<Option<OwnedFd>> {
    let look = || -> anyhow::Result<Option<OwnedFd>> {
        let Some(own) = present(root, &at::c_name(OWN_DIRECTORY.as_ref())?)? else {
            return Ok(None);
        };
        Ok((at::status_of(own.as_fd())?.stx_uid == 0).then_some(own))
    };
    look().with_context(|| format!("cannot open {OWN_DIRECTORY}"))
}

/// Opens the tool's own directory in a volume's root.
///
/// # Errors
/// As openat2(2).
pub fn own_directory(root: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    at::open_beneath(root, Path::new(OWN_DIRECTORY))
        .with_context(|| format!("cannot open {OWN_DIRECTORY}"))
}
