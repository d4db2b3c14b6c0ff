//! Putting a copy in its place.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, fsync, mkdirat, openat, readlinkat,
    statx,
};
use rustix::io::Errno;

use super::in_the_store;
use super::record::{self, Pending};
use crate::restore::{self, Settled, at};
use crate::volume;

/// A directory that is being made, in the working directory.
const ABOVE: &CStr = c"above";

/// Whether what is at a path only stands for what is in the store: an empty directory or file, as
/// something is mounted on, or a link into the store.
pub(super) fn stands_for(
    live: BorrowedFd<'_>,
    path: &Path,
    full: &Path,
    from: BorrowedFd<'_>,
    store: &Path,
) -> anyhow::Result<bool> {
    let (parent, name) = at::open_parent(live, path)?;
    let status = at::status(parent.as_fd(), &name)?;
    Ok(match at::kind(&status) {
        FileType::Directory => {
            let directory = at::open_directory(parent.as_fd(), &name)?;
            at::names(directory.as_fd())?.is_empty()
        }
        FileType::RegularFile => status.stx_size == 0,
        FileType::Symlink => is_link_into(live, path, full, from, store)?,
        _ => false,
    })
}

/// Whether a path is a link to the same path in the store, by whatever name that goes there.
pub(super) fn is_link_into(
    live: BorrowedFd<'_>,
    path: &Path,
    full: &Path,
    from: BorrowedFd<'_>,
    store: &Path,
) -> anyhow::Result<bool> {
    let Some((parent, name)) = at::present(at::open_parent(live, path))? else { return Ok(false) };
    let target = match readlinkat(&parent, &name, Vec::new()) {
        Ok(target) => target,
        // Nothing is there, or no link.
        Err(Errno::NOENT | Errno::INVAL) => return Ok(false),
        Err(error) => return Err(error).context("cannot read the link"),
    };
    let target = full.parent().unwrap_or(full).join(at::os_name(&target));
    if target == store.join(in_the_store(full)) {
        return Ok(true);
    }
    let Some(stored) = at::status_beneath(from, in_the_store(full))? else { return Ok(false) };
    let linked = at::present(statx(CWD, &target, AtFlags::empty(), StatxFlags::BASIC_STATS))
        .with_context(|| format!("cannot look where the link leads, at {target:?}"))?;
    let identity = |it: &Statx| (it.stx_dev_major, it.stx_dev_minor, it.stx_ino);
    Ok(linked.is_some_and(|linked| identity(&linked) == identity(&stored)))
}

/// Removes a link.
pub(super) fn unlink(live: BorrowedFd<'_>, path: &Path) -> anyhow::Result<()> {
    let (parent, name) = at::open_parent(live, path)?;
    let seals = restore::unseal(parent.as_fd())?;
    restore::remove(parent.as_fd(), &name)?;
    Ok(restore::seal(parent.as_fd(), seals)?)
}

/// Whether something of a kind can be given another's content without being replaced.
pub(super) fn can_fill(kind: &str) -> bool {
    [FileType::Directory, FileType::RegularFile].map(at::kind_name).contains(&kind)
}

/// Moves a copy to its place, and makes the directories above it that are missing after the store's.
/// Harmless when it is done already.
pub(super) fn put(
    live: BorrowedFd<'_>,
    store: BorrowedFd<'_>,
    pending: &Pending,
    full: &Path,
) -> anyhow::Result<()> {
    let work = record::work(live)?.context("BUG: there is no working directory")?;
    // In its place already; and then an interrupted run may have begun to tidy up.
    let Some((slot, name)) = at::present(at::open_parent(work.as_fd(), &pending.slot))? else {
        return Ok(());
    };
    if at::present(at::status(slot.as_fd(), &name))?.is_none() {
        return Ok(());
    }
    let made = make_above(work.as_fd(), live, store, &pending.path, full)?;
    let (parent, name) = at::open_parent(live, &pending.path)?;
    let settled = Settled::look(parent.as_fd())?;
    restore::unseal(parent.as_fd())?;
    if volume::is_mount_point(full)? {
        fill((slot.as_fd(), parent.as_fd()), &name, store, full)?;
    } else {
        restore::remove(parent.as_fd(), &name)?;
        restore::rename((slot.as_fd(), &name), (parent.as_fd(), &name))?;
    }
    // A directory that was there before keeps its flags; its times tell that something came.
    restore::seal(parent.as_fd(), settled.seals())?;
    for (directory, settled) in made.iter().rev() {
        settled.settle(directory.as_fd())?;
    }
    Ok(())
}

/// What something is mounted on cannot be replaced, and is filled instead, from the copy in `slot`.
fn fill(
    (slot, parent): (BorrowedFd<'_>, BorrowedFd<'_>),
    name: &CStr,
    store: BorrowedFd<'_>,
    full: &Path,
) -> anyhow::Result<()> {
    if at::kind(&at::status(slot, name)?) == FileType::Directory {
        let model = at::directory_beneath(store, in_the_store(full))?;
        let model = model.with_context(|| format!("{full:?} is in the store no more"))?;
        fill_directory(slot, parent, name, &Settled::look(model.as_fd())?)?;
    } else {
        let from = at::open_file(slot, name).context("cannot open the copy")?;
        let to = at::open_file(parent, name).context("cannot open the mount point")?;
        restore::unseal(to.as_fd())?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(parent, name, flags, Mode::empty())
            .context("cannot open the mount point to write")?;
        restore::fill_file(from.as_fd(), to.as_fd())?;
        // The copy is what a run goes by that comes after an interruption.
        fsync(&to).context("cannot make it durable")?;
    }
    restore::remove(slot, name).map(drop)
}

fn fill_directory(
    slot: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &CStr,
    settled: &Settled,
) -> anyhow::Result<()> {
    let from = at::open_directory(slot, name).context("cannot open the copy")?;
    let to = at::open_directory(parent, name).context("cannot open the mount point")?;
    restore::unseal(from.as_fd())?;
    restore::take_attributes(from.as_fd(), to.as_fd())?;
    for entry in at::names(from.as_fd())? {
        restore::rename((from.as_fd(), &entry), (to.as_fd(), &entry))
            .with_context(|| format!("cannot move {:?}", at::os_name(&entry)))?;
    }
    Ok(settled.settle(to.as_fd())?)
}

/// Makes the directories above a path that are missing, with the attributes of the store's. Gives
/// them with the times that they are to have in the end, the outermost first.
fn make_above(
    work: BorrowedFd<'_>,
    live: BorrowedFd<'_>,
    store: BorrowedFd<'_>,
    path: &Path,
    full: &Path,
) -> anyhow::Result<Vec<(OwnedFd, Settled)>> {
    let mut made = Vec::new();
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let mount_point: PathBuf = full.ancestors().nth(path.iter().count()).unwrap_or(full).to_owned();
    for directory in above {
        if at::directory_beneath(live, directory)?.is_some() {
            continue;
        }
        let model = mount_point.join(directory);
        let Some(model) = at::directory_beneath(store, in_the_store(&model))? else {
            bail!("{model:?} is in the store no more");
        };
        let new =
            make_like(work, model.as_fd()).with_context(|| format!("cannot make {directory:?}"))?;
        let (parent, name) = at::open_parent(live, directory)?;
        let settled = Settled::look(parent.as_fd())?;
        restore::unseal(parent.as_fd())?;
        restore::rename((work, ABOVE), (parent.as_fd(), &name))
            .with_context(|| format!("cannot put {directory:?} in its place"))?;
        restore::seal(parent.as_fd(), settled.seals())?;
        made.push((new, Settled::look(model.as_fd())?));
    }
    Ok(made)
}

/// Makes an empty directory with the attributes of another, in the working directory: what has its
/// name has its attributes, whenever the run is interrupted.
fn make_like(work: BorrowedFd<'_>, model: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    restore::remove(work, ABOVE)?;
    mkdirat(work, ABOVE, Mode::RWXU)?;
    let new = at::open_directory(work, ABOVE)?;
    restore::take_attributes(model, new.as_fd())?;
    Ok(new)
}
