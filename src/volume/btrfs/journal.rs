//! What is still to be done once the subvolumes are exchanged, written down before.
//!
//! A nested subvolume can be moved only by changing the directories that it leaves and comes into.
//! So the read-only property of the subvolumes in which those directories lie, and of the one that
//! moves, is cleared, and so are their immutable and append-only flags, and limits of quotas that leave
//! no room for the change are lifted; all of it is set again afterwards. A root that is immutable can
//! be exchanged only without that flag, too. The journal lies in the result, in
//! `.darlings/reset/journal`, and goes when everything in it is done, so that a run after a crash does
//! it again.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use darlings_btrfs as fs;
use rustix::fs::{FileType, IFlags, Statx};
use serde::{Deserialize, Serialize};

use crate::errors;
use crate::fs::{Dir, at};
use crate::own::Own;
use crate::own::state;
use crate::rules::OWN_DIRECTORY;
use crate::tree::{self, Settled};
use crate::volume::LEAST_ROOM;

const DIRECTORY: &str = "reset";
const FILE: &str = "journal";

/// The newest format that this version knows, and the one that it writes.
const VERSION: u32 = 1;

/// Everything that is to be done after the exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Format.
    version: u32,
    /// Sealing flags of the result's root, as `FS_IOC_GETFLAGS` has them.
    root_seals: u32,
    /// Nested subvolumes that move into the result.
    nested: Vec<Nested>,
    /// Limits of quotas that are lifted while they move.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    limits: Vec<Limit>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { version: VERSION, root_seals: 0, nested: Vec::new(), limits: Vec::new() }
    }
}

/// A limit of a quota group, as [`fs::Limit`] has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Limit {
    group: (u64, u64),
    referenced: Option<u64>,
    exclusive: Option<u64>,
}

/// A nested subvolume that moves into the result as a whole; both paths are below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moving {
    /// Where it is in the previous state.
    pub(super) from: PathBuf,
    /// Where it will be in the result.
    pub(super) to: PathBuf,
}

/// A nested subvolume that moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Nested {
    /// Below the volume's root, in bytes: users choose it.
    path: Vec<u8>,
    /// Where it is in the result, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    into: Option<Vec<u8>>,
    read_only: bool,
    /// Its root's immutable and append-only flags, as `FS_IOC_GETFLAGS` has them. The first versions
    /// could not move a subvolume that had any, and did not write them down.
    #[serde(default)]
    flags: Option<u32>,
    /// The directory that it leaves.
    from: Above,
    /// The directory that it comes into.
    to: Above,
}

/// A directory that holds a subvolume, as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Above {
    #[serde(flatten)]
    settled: Settled,
    /// Whether the directory lies in a nested subvolume that is read-only. The first versions could
    /// move nothing out of one, and did not write it down.
    #[serde(default)]
    read_only: Option<bool>,
}

/// The directory that holds a nested subvolume, opened.
struct Holder {
    directory: Dir,
    name: OsString,
    /// The root of the nested subvolume that the directory itself lies in; `None` where it lies in
    /// the volume, whose own read-only property is cleared before the exchange and set after it.
    subvolume: Option<OwnedFd>,
    /// Whether the directory is the volume's root. Its flags forbid that it is exchanged and
    /// renamed, so they are set apart, when that is done.
    is_root: bool,
}

/// The two trees, by their roots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Roots<'a> {
    /// What was live before the exchange.
    pub(super) old: &'a Dir,
    /// The result.
    pub(super) new: &'a Dir,
}

impl Journal {
    /// Looks at everything that moving these subvolumes will change, and checks that each finds its
    /// place.
    pub(super) fn look(
        roots: Roots<'_>,
        root_seals: IFlags,
        moving: &[Moving],
    ) -> anyhow::Result<Self> {
        let look = |it: &Moving| {
            Nested::look(roots, it)
                .with_context(|| format!("cannot look at the nested subvolume {:?}", it.from))
        };
        let nested = moving.iter().map(look).collect::<anyhow::Result<_>>()?;
        let limits = Limit::look(roots.old, moving)?;
        Ok(Self { version: VERSION, root_seals: root_seals.bits(), nested, limits })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root_seals == 0 && self.nested.is_empty()
    }

    /// The nested subvolumes that move.
    pub(super) fn moving(&self) -> impl Iterator<Item = Moving> {
        self.nested.iter().map(|nested| Moving { from: nested.path(), to: nested.into() })
    }

    /// Writes it into the tree at `root`. Nothing is written when there is nothing to do.
    pub(super) fn write(&self, root: &Dir) -> anyhow::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let text = serde_json::to_vec(self).context("cannot write the journal")?;
        Own::of(root)?.ensure_dir(DIRECTORY)?.write_durably(FILE, &text)
    }

    /// Adds what the first versions did not write down of the subvolumes that still wait in the
    /// previous state, and writes that down before any of them is changed.
    pub(super) fn complete(&mut self, roots: Roots<'_>, waiting: &[Moving]) -> anyhow::Result<()> {
        let mut added = false;
        for nested in self.nested.iter_mut().filter(|nested| nested.flags.is_none()) {
            let (from, to) = (nested.path(), Nested::into(nested));
            if waiting.iter().any(|it| it.from == from) {
                let opened = Holder::open(roots.old, &from)?;
                nested.flags = Some(tree::seals_of(opened.subvolume()?)?.bits());
                nested.from.read_only = Some(opened.is_read_only()?);
                nested.to.read_only = Some(match roots.new.open_dir_optional(above(&to))? {
                    Some(_) => Holder::open(roots.new, &to)?.is_read_only()?,
                    None => false,
                });
                added = true;
            }
        }
        if added { self.write(roots.new) } else { Ok(()) }
    }

    /// Reads what an interrupted run left in the tree at `root`.
    pub(super) fn read(root: &Dir) -> anyhow::Result<Self> {
        let directory = root.open_dir_optional(Path::new(OWN_DIRECTORY).join(DIRECTORY))?;
        let Some(directory) = directory else { return Ok(Self::default()) };
        let Some(text) = directory.read_optional(FILE)? else { return Ok(Self::default()) };
        let what = format!("{OWN_DIRECTORY}/reset/journal");
        state::parse(&text, VERSION, &what, || {
            format!(
                "{what} of the live subvolume is damaged: nested subvolumes that belong into it may \
                 still be in the previous state, beside it in the generations directory; move them \
                 by hand and remove the file"
            )
        })
    }

    /// Forgets a subvolume that stays where it is in the previous state, and gives it there what
    /// trying to move it has taken away.
    pub(super) fn leave(&mut self, old: &Dir, path: &Path) -> anyhow::Result<()> {
        let (left, nested) = self.nested.drain(..).partition(|nested| nested.path() == path);
        self.nested = nested;
        Self { nested: left, ..Self::default() }.settle_undone(old)
    }

    /// Lifts the limits that leave no room for the moves. `top` is the filesystem's top level, to which
    /// changes of the quotas count.
    pub(super) fn lift_limits(&self, top: &Dir) -> anyhow::Result<()> {
        let lift = |limit: &Limit| Ok(limit.of_group().lift(top)?);
        self.limits.iter().try_for_each(lift)
    }

    /// Sets them again. Goes on whatever fails, and reports it all.
    pub(super) fn set_limits(&self, top: &Dir) -> anyhow::Result<()> {
        errors::all(self.limits.iter().map(|limit| Ok(limit.of_group().set(top)?)))
    }

    /// Sets what the moves have changed in both trees. Goes on whatever fails, and reports it all.
    pub(super) fn settle(&self, roots: Roots<'_>) -> anyhow::Result<()> {
        let moved = |nested: &Nested| nested.settle(roots.new, &nested.into());
        let new = settle_all(roots.new, self.nested.iter().map(|it| (it.into(), &it.to)));
        let old = settle_all(roots.old, self.nested.iter().map(|it| (it.path(), &it.from)));
        errors::all(self.nested.iter().map(moved).chain([new, old]))
    }

    /// Sets what the moves have changed in the tree that they were undone into, likewise.
    pub(super) fn settle_undone(&self, old: &Dir) -> anyhow::Result<()> {
        let back = |nested: &Nested| nested.settle(old, &nested.path());
        let above = settle_all(old, self.nested.iter().map(|it| (it.path(), &it.from)));
        errors::all(self.nested.iter().map(back).chain([above]))
    }

    /// Removes the journal from the result, whose root then gets its flags.
    pub(super) fn finish(&self, new: &Dir) -> anyhow::Result<()> {
        tree::remove(&*Own::of(new)?, DIRECTORY).context("cannot remove the journal")?;
        let seals = IFlags::from_bits_retain(self.root_seals);
        tree::seal(new, seals).context("cannot set the flags of the root")
    }
}

impl Limit {
    /// The limits that leave less than a reset needs of what is written where these subvolumes lie in the
    /// tree at `root`, and in their own roots.
    fn look(root: &Dir, moving: &[Moving]) -> anyhow::Result<Vec<Self>> {
        let mut ids = BTreeSet::new();
        for Moving { from, .. } in moving {
            let holder = Holder::open(root, from)?;
            ids.insert(fs::subvolume_id(&holder.directory)?);
            ids.insert(fs::subvolume_id(holder.subvolume()?)?);
        }
        let mut limits = BTreeSet::new();
        for id in ids {
            limits.extend(fs::subvolume_limits(root, id)?);
        }
        let tight = limits.into_iter().filter(|limit| limit.left < LEAST_ROOM);
        let of =
            |fs::Limit { group, referenced, exclusive, .. }| Self { group, referenced, exclusive };
        Ok(tight.map(of).collect())
    }

    fn of_group(&self) -> fs::Limit {
        let Self { group, referenced, exclusive } = *self;
        fs::Limit { left: 0, group, referenced, exclusive }
    }
}

impl Nested {
    fn look(roots: Roots<'_>, it: &Moving) -> anyhow::Result<Self> {
        let bytes = |path: &Path| path.as_os_str().to_owned().into_vec();
        let (from, to) = (Holder::open(roots.old, &it.from)?, Holder::open(roots.new, &it.to)?);
        let subvolume = from.subvolume()?;
        ensure!(has_place(roots.new, &it.to)?, "BUG: there is no place for it at {:?}", it.to);
        Ok(Self {
            path: bytes(&it.from),
            into: (it.to != it.from).then(|| bytes(&it.to)),
            read_only: fs::is_read_only(&subvolume)?,
            flags: Some(tree::seals_of(&subvolume)?.bits()),
            from: from.look()?,
            to: to.look()?,
        })
    }

    fn path(&self) -> PathBuf {
        OsString::from_vec(self.path.clone()).into()
    }

    fn into(&self) -> PathBuf {
        self.into.clone().map_or_else(|| self.path(), |into| OsString::from_vec(into).into())
    }

    /// Gives the subvolume, which is at `path` now, its own flags and its read-only property.
    fn settle(&self, root: &Dir, path: &Path) -> anyhow::Result<()> {
        let settle = || -> anyhow::Result<()> {
            let subvolume = root.open_dir(path)?;
            let flags = IFlags::from_bits_retain(self.flags.unwrap_or(0));
            if !flags.difference(tree::seals_of(&subvolume)?).is_empty() {
                fs::set_read_only(&subvolume, false)?;
                tree::seal(&subvolume, flags)?;
            }
            Ok(fs::set_read_only(&subvolume, self.read_only)?)
        };
        settle().with_context(|| format!("cannot set the flags of the nested subvolume {path:?}"))
    }
}

/// Gives the directories above these paths what they had. A subvolume that holds several of them
/// becomes read-only again last.
fn settle_all<'a>(
    root: &Dir,
    places: impl Iterator<Item = (PathBuf, &'a Above)> + Clone,
) -> anyhow::Result<()> {
    let cannot = |path: &Path| format!("cannot set the attributes of the directory of {path:?}");
    let settle = |(path, was): (PathBuf, &Above)| -> anyhow::Result<()> {
        let holder = Holder::open(root, &path).with_context(|| cannot(&path))?;
        holder.make_writable().with_context(|| cannot(&path))?;
        was.settled.settle(&holder.directory).with_context(|| cannot(&path))
    };
    let close = |(path, was): (PathBuf, &Above)| -> anyhow::Result<()> {
        match Holder::open(root, &path).with_context(|| cannot(&path))?.subvolume {
            Some(holder) if was.read_only == Some(true) => fs::set_read_only(&holder, true)
                .with_context(|| format!("cannot make what holds {path:?} read-only again")),
            Some(_) | None => Ok(()),
        }
    };
    errors::all(places.clone().map(settle).chain(places.map(close)))
}

fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Holder {
    fn open(root: &Dir, path: &Path) -> anyhow::Result<Self> {
        let (directory, name) = root.open_parent(path)?;
        let (volume, id) = (fs::subvolume_id(root)?, fs::subvolume_id(&directory)?);
        let subvolume = if id == volume { None } else { Some(fs::open_subvolume(root, id)?) };
        Ok(Self { directory, name, subvolume, is_root: above(path).as_os_str().is_empty() })
    }

    fn is_read_only(&self) -> anyhow::Result<bool> {
        Ok(self.subvolume.as_ref().map(fs::is_read_only).transpose()?.unwrap_or(false))
    }

    fn look(&self) -> anyhow::Result<Above> {
        let settled = Settled::look(&self.directory)?;
        Ok(Above {
            settled: if self.is_root { settled.unsealed() } else { settled },
            read_only: Some(self.is_read_only()?),
        })
    }

    /// The subvolume that it holds.
    fn subvolume(&self) -> anyhow::Result<Dir> {
        self.directory.open_dir(&self.name)
    }

    fn make_writable(&self) -> anyhow::Result<()> {
        if let Some(holder) = &self.subvolume {
            fs::set_read_only(holder, false)?;
        }
        tree::unseal(&self.directory)?;
        Ok(())
    }
}

/// Moves a subvolume from one tree to another, and takes away whatever forbids that: see
/// [`Journal::settle`].
/// An empty directory in its place is replaced; the kernel refuses to replace any other.
pub(super) fn move_subvolume(
    (from, from_path): (&Dir, &Path),
    (to, to_path): (&Dir, &Path),
) -> anyhow::Result<()> {
    let (from, to) = (Holder::open(from, from_path)?, Holder::open(to, to_path)?);
    let subvolume = from.subvolume()?;
    from.make_writable()?;
    to.make_writable()?;
    fs::set_read_only(&subvolume, false)?;
    tree::unseal(&subvolume)?;
    let names = (&from.name, &to.name);
    Ok(fs::rename(&from.directory, names.0, &to.directory, names.1)?)
}

/// Whether a subvolume can be moved to `path` below `root`: nothing is there, or an empty directory,
/// which may be the stub of a subvolume. Nothing can be moved into a stub.
pub(super) fn has_place(root: &Dir, path: &Path) -> anyhow::Result<bool> {
    let Some((above, name)) = root.open_parent_optional(path)? else { return Ok(false) };
    let is = |status: &Statx, kind| fs::entry_kind(status.stx_ino) == kind;
    if is(&above.status()?, fs::EntryKind::Stub) {
        return Ok(false);
    }
    let Some(status) = above.status_optional(&name)? else { return Ok(true) };
    if at::kind(&status) != FileType::Directory {
        return Ok(false);
    }
    if is(&status, fs::EntryKind::SubvolumeRoot) {
        return Ok(false);
    }
    above.open_dir(&name)?.is_empty()
}
