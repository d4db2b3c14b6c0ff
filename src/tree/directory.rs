//! Single directories, without what is in them.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{AtFlags, Mode, mkdirat, unlinkat};

use super::attributes::{Created, Handle, Scratch, Source, Unlistable, remove_labels, unseal};
use super::entry::is_stub;
use super::settle::Settled;
use crate::fs::Dir;
use crate::fs::at;

/// Makes the empty directory that stands for a subvolume in one that is otherwise complete: its
/// times and seals stay what they are.
pub(super) fn stand_in(root: impl AsFd, nested: &Path) -> anyhow::Result<()> {
    let make = || -> anyhow::Result<()> {
        let (parent, name) = at::open_parent(root, nested)?;
        let was = Settled::look(parent.as_fd())?;
        unseal(parent.as_fd())?;
        mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
        Ok(was.settle(parent.as_fd())?)
    };
    make().with_context(|| format!("cannot make {nested:?}"))
}

/// Moves what a snapshot has in the place of a subvolume, which cannot be renamed: an ordinary empty
/// directory takes its place. Answers whether it was one.
///
/// # Errors
/// As mkdirat(2) and unlinkat(2), and the attribute that could not be copied.
pub fn move_stub<N: AsRef<OsStr> + Copy, M: AsRef<OsStr> + Copy>(
    from: (&Dir, N),
    to: (&Dir, M),
) -> anyhow::Result<bool> {
    let (name, new) = (at::c_name(from.1.as_ref())?, at::c_name(to.1.as_ref())?);
    move_stub_named((from.0.as_fd(), &name), (to.0.as_fd(), &new))
}

/// The same with names as the kernel wants them.
pub(super) fn move_stub_named(
    from: (BorrowedFd<'_>, &CStr),
    to: (BorrowedFd<'_>, &CStr),
) -> anyhow::Result<bool> {
    if !is_stub(from.0, &at::status(from.0, from.1)?)? {
        return Ok(false);
    }
    let stub = at::open_directory(from.0, from.1)?;
    mkdirat(to.0, to.1, Mode::RWXU)?;
    let made = at::open_directory(to.0, to.1)?;
    let mut scratch = Scratch::default();
    Handle::Open(made.as_fd()).strip(Some(Mode::RWXU), &mut scratch)?;
    copy_attributes(stub.as_fd(), made.as_fd(), &mut scratch)?;
    unlinkat(from.0, from.1, AtFlags::REMOVEDIR)?;
    Ok(true)
}

/// Gives an empty or a foreign directory every attribute of another but its sealing flags.
pub(crate) fn copy_attributes(
    from: impl AsFd,
    to: impl AsFd,
    scratch: &mut Scratch,
) -> anyhow::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let (handle, target) = (Handle::Open(from), Handle::Open(to));
    target.strip(Some(Mode::RWXU), scratch)?;
    let (status, flags) = (at::status_of(from)?, handle.flags()?);
    let source = Source { handle, status: &status, flags, has_xattrs: true };
    source.copy_to(target, Created { mode: Some(Mode::RWXU) }, scratch).map(drop)
}

/// [`copy_attributes`], also of a directory that has more extended attributes than can be listed, as any user
/// can make one: of those, only what decides on access is copied, and the answer is false.
pub(crate) fn copy_listable_attributes(
    from: impl AsFd,
    to: impl AsFd,
    scratch: &mut Scratch,
) -> anyhow::Result<bool> {
    let (from, to) = (from.as_fd(), to.as_fd());
    match copy_attributes(from, to, scratch) {
        Err(error) if error.is::<Unlistable>() => {}
        copied => return copied.map(|()| true),
    }
    let (handle, target) = (Handle::Open(from), Handle::Open(to));
    handle.copy_access_to(target, scratch)?;
    let (status, flags) = (at::status_of(from)?, handle.flags()?);
    let source = Source { handle, status: &status, flags, has_xattrs: false };
    source.copy_to(target, Created { mode: Some(Mode::RWXU) }, scratch).map(|_| false)
}

/// Gives a directory that has attributes of its own every attribute of another instead, but its
/// sealing flags.
pub fn take_attributes(from: impl AsFd, to: impl AsFd) -> anyhow::Result<()> {
    let to = to.as_fd();
    let mut scratch = Scratch::default();
    unseal(to).context("cannot clear its flags")?;
    remove_labels(Handle::Open(to), &mut scratch)?;
    copy_attributes(from, to, &mut scratch)
}
