//! Putting a copy in its place.

use std::ffi::{CStr, CString};
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
use crate::fs::at;
use crate::keep::survey::State;
use crate::keep::survey::state_at;
use crate::tree::{self, Settled};
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
            at::is_empty(directory.as_fd())?
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
    let seals = tree::unseal(parent.as_fd())?;
    tree::remove_single(parent.as_fd(), &name)?;
    Ok(tree::seal(parent.as_fd(), seals)?)
}

/// Whether something of a kind can be given another's content without being replaced.
pub(super) fn can_fill(kind: &str) -> bool {
    [FileType::Directory, FileType::RegularFile].map(at::kind_name).contains(&kind)
}

/// Whether a copy can be put in its place, or is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It can, or is.
    InPlace,
    /// Something of this kind came there since it was copied, and does not only stand for it.
    InTheWay {
        /// What it is called.
        kind: &'static str,
        /// It is below what is mounted on it.
        hidden: bool,
    },
    /// An interrupted run had filled a mount point with a part of it, and the rest cannot follow.
    HalfThere,
}

/// A copy in the working directory, with its name in its slot.
struct Waiting {
    work: OwnedFd,
    slot: OwnedFd,
    name: CString,
    /// The file that says that its place is being filled.
    mark: CString,
}

impl Waiting {
    /// `None` where it is in its place already; and then an interrupted run may have begun to tidy up.
    fn find(live: BorrowedFd<'_>, pending: &Pending) -> anyhow::Result<Option<Self>> {
        let work = record::work(live)?.context("BUG: there is no working directory")?;
        let slot = at::present(at::open_parent(work.as_fd(), &pending.slot))?;
        let Some((slot, name)) = slot else { return Ok(None) };
        if at::present(at::status(slot.as_fd(), &name))?.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { work, slot, name, mark: pending.mark()? }))
    }

    fn look(
        &self,
        live: BorrowedFd<'_>,
        from: BorrowedFd<'_>,
        store: &Path,
        pending: &Pending,
        full: &Path,
    ) -> anyhow::Result<Put> {
        let path = &pending.path;
        let is_half = at::present(at::status(self.work.as_fd(), &self.mark))?.is_some();
        let is_directory = self.is_directory()?;
        let State::Present { kind } = state_at(live, path)? else {
            // Only of a directory is then a part gone from the slot.
            return Ok(if is_half && is_directory { Put::HalfThere } else { Put::InPlace });
        };
        let hidden = volume::is_mount_point(full)?;
        if is_half && is_directory {
            let Some(there) = at::directory_beneath(live, path)? else { return Ok(Put::HalfThere) };
            let there = at::names(there.as_fd())?;
            let rest = at::open_directory(self.slot.as_fd(), &self.name)?;
            let taken = at::names(rest.as_fd())?.iter().any(|name| there.contains(name));
            return Ok(if taken { Put::HalfThere } else { Put::InPlace });
        }
        let goes_on = is_half && hidden;
        if goes_on || stands_for(live, path, full, from, store)? {
            return Ok(Put::InPlace);
        }
        Ok(Put::InTheWay { kind, hidden })
    }

    fn is_directory(&self) -> anyhow::Result<bool> {
        Ok(at::kind(&at::status(self.slot.as_fd(), &self.name)?) == FileType::Directory)
    }
}

/// Whether [`put`] would put a copy in its place now.
pub(super) fn look(
    live: BorrowedFd<'_>,
    from: BorrowedFd<'_>,
    store: &Path,
    pending: &Pending,
    full: &Path,
) -> anyhow::Result<Put> {
    match Waiting::find(live, pending)? {
        Some(waiting) => waiting.look(live, from, store, pending, full),
        None => Ok(Put::InPlace),
    }
}

/// Moves a copy to its place, and makes the directories above it that are missing after the store's.
/// Harmless when it is done already.
///
/// The system runs, and a copy may have waited for days. So nothing is removed with what is in it: what
/// gives way is an empty directory, an empty file, or a link into the store.
pub(super) fn put(
    live: BorrowedFd<'_>,
    from: BorrowedFd<'_>,
    store: &Path,
    pending: &Pending,
    full: &Path,
) -> anyhow::Result<Put> {
    let Some(waiting) = Waiting::find(live, pending)? else { return Ok(Put::InPlace) };
    let found = waiting.look(live, from, store, pending, full)?;
    if found != Put::InPlace {
        return Ok(found);
    }
    let made = make_above(waiting.work.as_fd(), live, from, &pending.path, full)?;
    let (parent, name) = at::open_parent(live, &pending.path)?;
    let settled = Settled::look(parent.as_fd())?;
    tree::unseal(parent.as_fd())?;
    let is_half = at::present(at::status(waiting.work.as_fd(), &waiting.mark))?.is_some();
    let put = if volume::is_mount_point(full)? || (is_half && waiting.is_directory()?) {
        // What is half filled is told from what has a content of its own by this.
        at::write_durably(&waiting.work, waiting.mark.as_c_str(), b"")
            .context("cannot mark the copy")?;
        fill((waiting.slot.as_fd(), parent.as_fd()), &name, from, full)?;
        Put::InPlace
    } else {
        replace((waiting.slot.as_fd(), parent.as_fd()), &name)?
    };
    // A directory that was there before keeps its flags; its times tell that something came.
    tree::seal(parent.as_fd(), settled.seals())?;
    for (directory, settled) in made.iter().rev() {
        settled.settle(directory.as_fd())?;
    }
    Ok(put)
}

/// Gives the copy in `slot` its name in `parent`, where at most something is that only stands for it.
fn replace((slot, parent): (BorrowedFd<'_>, BorrowedFd<'_>), name: &CStr) -> anyhow::Result<Put> {
    match tree::remove_single(parent, name) {
        Ok(()) | Err(Errno::NOENT) => {}
        // Something came into it meanwhile.
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            let kind = at::kind_name(FileType::Directory);
            return Ok(Put::InTheWay { kind, hidden: false });
        }
        Err(error) => return Err(error).context("cannot remove what stands for it"),
    }
    match tree::rename((slot, name), (parent, name)) {
        Ok(_) => Ok(Put::InPlace),
        // Something came into being meanwhile.
        Err(Errno::EXIST) => {
            let kind = at::kind_name(at::kind(&at::status(parent, name)?));
            Ok(Put::InTheWay { kind, hidden: false })
        }
        Err(error) => Err(error).context("cannot give it its name"),
    }
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
        tree::unseal(to.as_fd())?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(parent, name, flags, Mode::empty())
            .context("cannot open the mount point to write")?;
        tree::fill_file(from.as_fd(), to.as_fd())?;
        // The copy is what a run goes by that comes after an interruption.
        fsync(&to).context("cannot make it durable")?;
    }
    tree::remove(slot, name).map(drop)
}

fn fill_directory(
    slot: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &CStr,
    settled: &Settled,
) -> anyhow::Result<()> {
    let from = at::open_directory(slot, name).context("cannot open the copy")?;
    let to = at::open_directory(parent, name).context("cannot open the mount point")?;
    tree::unseal(from.as_fd())?;
    tree::take_attributes(from.as_fd(), to.as_fd())?;
    for entry in at::names(from.as_fd())? {
        tree::rename((from.as_fd(), &entry), (to.as_fd(), &entry))
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
        tree::unseal(parent.as_fd())?;
        tree::rename((work, ABOVE), (parent.as_fd(), &name))
            .with_context(|| format!("cannot put {directory:?} in its place"))?;
        tree::seal(parent.as_fd(), settled.seals())?;
        made.push((new, Settled::look(model.as_fd())?));
    }
    Ok(made)
}

/// Makes an empty directory with the attributes of another, in the working directory: what has its
/// name has its attributes, whenever the run is interrupted.
fn make_like(work: BorrowedFd<'_>, model: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    tree::remove(work, ABOVE)?;
    mkdirat(work, ABOVE, Mode::RWXU)?;
    let new = at::open_directory(work, ABOVE)?;
    tree::take_attributes(model, new.as_fd())?;
    Ok(new)
}
