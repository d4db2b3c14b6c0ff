//! Putting a copy in its place.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, fsync, openat, statx};
use rustix::io::Errno;

use super::record::{self, Pending};
use crate::fs::at::{self, Kind};
use crate::fs::dir::{Dir, is};
use crate::keep::survey::{State, state_at};
use crate::tree::{self, Settled};
use crate::volume;

/// A directory that is being made, in the working directory.
const ABOVE: &str = "above";

/// Whether what is at a path only stands for what is in the store: an empty directory or file, as
/// something is mounted on, or a link into the store.
pub(super) fn stands_for(
    live: &Dir,
    path: &Path,
    full: &Path,
    from: &Dir,
    store: &Path,
) -> anyhow::Result<bool> {
    let (parent, name) = live.open_parent(path)?;
    let status = parent.status_at(&name)?;
    Ok(match at::kind(&status) {
        FileType::Directory => parent.open_or_mounted(&name)?.is_empty()?,
        FileType::RegularFile => status.stx_size == 0,
        FileType::Symlink => is_link_into(live, path, full, from, store)?,
        _ => false,
    })
}

/// Whether a path is a link to the same path in the store, by whatever name that goes there.
pub(super) fn is_link_into(
    live: &Dir,
    path: &Path,
    full: &Path,
    from: &Dir,
    store: &Path,
) -> anyhow::Result<bool> {
    let Some((parent, name)) = live.open_parent_optional(path)? else { return Ok(false) };
    let target = match parent.read_link(&name) {
        Ok(target) => target,
        // Nothing is there, or no link.
        Err(error) if is(&error, Errno::NOENT) || is(&error, Errno::INVAL) => return Ok(false),
        Err(error) => return Err(error),
    };
    let target = full.parent().unwrap_or(full).join(target);
    if target == store.join(in_the_store(full)) {
        return Ok(true);
    }
    let Some(stored) = from.glance(in_the_store(full))? else { return Ok(false) };
    let linked = at::present(statx(CWD, &target, AtFlags::empty(), StatxFlags::BASIC_STATS))
        .with_context(|| format!("cannot look where the link leads, at {target:?}"))?;
    let identity = |it: &Statx| (it.stx_dev_major, it.stx_dev_minor, it.stx_ino);
    Ok(linked.is_some_and(|linked| identity(&linked) == identity(&stored)))
}

/// Removes a link.
pub(super) fn unlink(live: &Dir, path: &Path) -> anyhow::Result<()> {
    let (parent, name) = live.open_parent(path)?;
    let seals = tree::unseal(&parent)?;
    tree::remove_single(&parent, &name)?;
    Ok(tree::seal(&parent, seals)?)
}

/// Whether something of a kind can be given another's content without being replaced.
pub(super) fn can_fill(kind: Kind) -> bool {
    matches!(kind, Kind::Directory | Kind::File)
}

/// Whether a copy can be put in its place, or is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It can, or is.
    InPlace,
    /// Something of this kind came there since it was copied, and does not only stand for it.
    InTheWay {
        /// What it is.
        kind: Kind,
        /// It is below what is mounted on it.
        hidden: bool,
    },
    /// An interrupted run had filled a mount point with a part of it, and the rest cannot follow.
    HalfThere,
}

/// A copy in the working directory, with its name in its slot.
struct Waiting {
    work: Dir,
    slot: Dir,
    name: OsString,
    /// The file that says that its place is being filled.
    mark: OsString,
}

impl Waiting {
    /// `None` where it is in its place already; and then an interrupted run may have begun to tidy up.
    fn find(live: &Dir, pending: &Pending) -> anyhow::Result<Option<Self>> {
        let work = record::work(live)?.context("BUG: there is no working directory")?;
        let Some((slot, name)) = work.open_parent_optional(&pending.slot)? else { return Ok(None) };
        if !slot.holds(&name)? {
            return Ok(None);
        }
        Ok(Some(Self { work, slot, name, mark: pending.mark() }))
    }

    fn look(
        &self,
        live: &Dir,
        from: &Dir,
        store: &Path,
        pending: &Pending,
        full: &Path,
    ) -> anyhow::Result<Put> {
        let path = &pending.path;
        let is_half = self.work.holds(&self.mark)?;
        let is_directory = self.is_directory()?;
        let State::Present { kind } = state_at(live, path)? else {
            // Only of a directory is then a part gone from the slot.
            return Ok(if is_half && is_directory { Put::HalfThere } else { Put::InPlace });
        };
        let hidden = volume::is_mount_point(full)?;
        if is_half && is_directory {
            let Some(there) = live.open_dir_optional(path)? else { return Ok(Put::HalfThere) };
            let there = there.names()?;
            let rest = self.slot.open_dir(&self.name)?.names()?;
            let taken = rest.iter().any(|name| there.contains(name));
            return Ok(if taken { Put::HalfThere } else { Put::InPlace });
        }
        let goes_on = is_half && hidden;
        if goes_on || stands_for(live, path, full, from, store)? {
            return Ok(Put::InPlace);
        }
        Ok(Put::InTheWay { kind, hidden })
    }

    fn is_directory(&self) -> anyhow::Result<bool> {
        Ok(at::kind(&self.slot.status_at(&self.name)?) == FileType::Directory)
    }
}

/// Whether [`put`] would put a copy in its place now.
pub(super) fn look(
    live: &Dir,
    from: &Dir,
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
    live: &Dir,
    from: &Dir,
    store: &Path,
    pending: &Pending,
    full: &Path,
) -> anyhow::Result<Put> {
    let Some(waiting) = Waiting::find(live, pending)? else { return Ok(Put::InPlace) };
    let found = waiting.look(live, from, store, pending, full)?;
    if found != Put::InPlace {
        return Ok(found);
    }
    let made = make_above(&waiting.work, live, from, &pending.path, full)?;
    let (parent, name) = live.open_parent(&pending.path)?;
    let settled = Settled::look(&parent)?;
    tree::unseal(&parent)?;
    let is_half = waiting.work.holds(&waiting.mark)?;
    let put = if volume::is_mount_point(full)? || (is_half && waiting.is_directory()?) {
        // What is half filled is told from what has content of its own by this.
        waiting.work.write_durably(&waiting.mark, b"")?;
        fill((&waiting.slot, &parent), &name, from, full)?;
        Put::InPlace
    } else {
        replace((&waiting.slot, &parent), &name)?
    };
    // A directory that was there before keeps its flags; its times tell that something came.
    tree::seal(&parent, settled.seals())?;
    for (directory, settled) in made.iter().rev() {
        settled.settle(directory)?;
    }
    Ok(put)
}

/// Gives the copy in `slot` its name in `parent`, where at most something is that only stands for it.
fn replace((slot, parent): (&Dir, &Dir), name: &OsStr) -> anyhow::Result<Put> {
    match tree::remove_single(parent, name) {
        Ok(()) | Err(Errno::NOENT) => {}
        // Something came into it meanwhile.
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            return Ok(Put::InTheWay { kind: Kind::Directory, hidden: false });
        }
        Err(error) => return Err(error).context("cannot remove what stands for it"),
    }
    match tree::rename((slot, name), (parent, name)) {
        Ok(_) => Ok(Put::InPlace),
        // Something came into being meanwhile.
        Err(Errno::EXIST) => {
            let kind = at::kind(&parent.status_at(name)?).into();
            Ok(Put::InTheWay { kind, hidden: false })
        }
        Err(error) => Err(error).context("cannot give it its name"),
    }
}

/// What something is mounted on cannot be replaced, and is filled instead, from the copy in `slot`.
fn fill(
    (slot, parent): (&Dir, &Dir),
    name: &OsStr,
    store: &Dir,
    full: &Path,
) -> anyhow::Result<()> {
    if at::kind(&slot.status_at(name)?) == FileType::Directory {
        let model = store.open_dir_optional(in_the_store(full))?;
        let model = model.with_context(|| format!("{full:?} is in the store no more"))?;
        fill_directory(slot, parent, name, &Settled::look(&model)?)?;
    } else {
        let from = slot.open_file(name)?;
        let to = parent.open_file(name)?;
        tree::unseal(&to)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(parent, name, flags, Mode::empty())
            .context("cannot open the mount point to write")?;
        tree::fill_file(&from, &to)?;
        // The copy is what a run goes by that comes after an interruption.
        fsync(&to).context("cannot make it durable")?;
    }
    tree::remove(slot, name).map(drop)
}

fn fill_directory(slot: &Dir, parent: &Dir, name: &OsStr, settled: &Settled) -> anyhow::Result<()> {
    let from = slot.open_dir(name)?;
    let to = parent.open_or_mounted(name)?;
    tree::unseal(&from)?;
    tree::take_attributes(&from, &to)?;
    for entry in from.names()? {
        tree::rename((&from, &entry), (&to, &entry))
            .with_context(|| format!("cannot move {:?}", &entry))?;
    }
    Ok(settled.settle(to)?)
}

/// Makes the directories above a path that are missing, with the attributes of the store's. Gives
/// them with the times that they are to have in the end, the outermost first.
fn make_above(
    work: &Dir,
    live: &Dir,
    store: &Dir,
    path: &Path,
    full: &Path,
) -> anyhow::Result<Vec<(Dir, Settled)>> {
    let mut made = Vec::new();
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let mount_point: PathBuf = full.ancestors().nth(path.iter().count()).unwrap_or(full).to_owned();
    for directory in above {
        if live.open_dir_optional(directory)?.is_some() {
            continue;
        }
        let model = mount_point.join(directory);
        let Some(model) = store.open_dir_optional(in_the_store(&model))? else {
            bail!("{model:?} is in the store no more");
        };
        let new = make_like(work, &model).with_context(|| format!("cannot make {directory:?}"))?;
        let (parent, name) = live.open_parent(directory)?;
        let settled = Settled::look(&parent)?;
        tree::unseal(&parent)?;
        tree::rename((work, ABOVE), (&parent, &name))
            .with_context(|| format!("cannot put {directory:?} in its place"))?;
        tree::seal(&parent, settled.seals())?;
        made.push((new, Settled::look(&model)?));
    }
    Ok(made)
}

/// Makes an empty directory with the attributes of another, in the working directory: what has its
/// name has its attributes, whenever the run is interrupted.
fn make_like(work: &Dir, model: &Dir) -> anyhow::Result<Dir> {
    tree::remove(work, ABOVE)?;
    let new = work.make_dir(ABOVE)?;
    tree::take_attributes(model, &new)?;
    Ok(new)
}

/// Where the path of a running system is in the store, below it.
pub(super) fn in_the_store(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
