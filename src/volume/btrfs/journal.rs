//! What is still to be done once the subvolumes are exchanged, written down before.
//!
//! A nested subvolume can be moved only by changing the directories that it leaves and comes
//! into, taking its read-only flag away and setting it again; and a root that is immutable can be
//! exchanged only without that flag. The journal lies in the result, in `.darlings/reset/journal`,
//! and goes when everything in it is done, so that a run after a crash does it again.

use std::ffi::{CStr, OsString};
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use darlings_btrfs as fs;
use rustix::fs::{IFlags, Mode, OFlags, mkdirat, openat};
use serde::{Deserialize, Serialize};

use super::plan::Moving;
use crate::restore::{self, Settled, at, own_directory};
use crate::rules::OWN_DIRECTORY;
use crate::state;

const DIRECTORY: &CStr = c"reset";
const FILE: &CStr = c"journal";

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
}

impl Default for Journal {
    fn default() -> Self {
        Self { version: VERSION, root_seals: 0, nested: Vec::new() }
    }
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
    /// The directory that it leaves.
    from: Settled,
    /// The directory that it comes into.
    to: Settled,
}

/// The two trees, by their roots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Roots<'a> {
    /// What was live before the exchange.
    pub(super) old: BorrowedFd<'a>,
    /// The result.
    pub(super) new: BorrowedFd<'a>,
}

impl Journal {
    /// Looks at everything that moving these subvolumes will change.
    pub(super) fn look(
        roots: Roots<'_>,
        root_seals: IFlags,
        moving: &[Moving],
    ) -> anyhow::Result<Self> {
        let nested = moving
            .iter()
            .map(|it| {
                let bytes = |path: &Path| path.as_os_str().to_owned().into_vec();
                let (from, name) = at::open_parent(roots.old, &it.from)?;
                let (to, _) = at::open_parent(roots.new, &it.to)?;
                let subvolume = at::open_directory(from.as_fd(), &name)?;
                Ok(Nested {
                    path: bytes(&it.from),
                    into: (it.to != it.from).then(|| bytes(&it.to)),
                    read_only: fs::is_read_only(&subvolume)?,
                    from: look_above(&from, &it.from)?,
                    to: look_above(&to, &it.to)?,
                })
            })
            .collect::<anyhow::Result<_>>()
            .context("cannot look at the nested subvolumes that move")?;
        Ok(Self { version: VERSION, root_seals: root_seals.bits(), nested })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root_seals == 0 && self.nested.is_empty()
    }

    /// The nested subvolumes that move.
    pub(super) fn moving(&self) -> impl Iterator<Item = Moving> {
        self.nested.iter().map(|nested| Moving { from: nested.path(), to: nested.into() })
    }

    /// Writes it into the tree at `root`. Nothing is written when there is nothing to do.
    pub(super) fn write(&self, root: BorrowedFd<'_>) -> anyhow::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let write = || -> anyhow::Result<()> {
            let own = own_directory(root)?;
            mkdirat(&own, DIRECTORY, Mode::RWXU)?;
            let directory = at::open_directory(own.as_fd(), DIRECTORY)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(&directory, FILE, flags, Mode::RUSR | Mode::WUSR)?;
            Ok(std::fs::File::from(file).write_all(&serde_json::to_vec(self)?)?)
        };
        write().context("cannot write the journal")
    }

    /// Reads what an interrupted run left in the tree at `root`.
    pub(super) fn read(root: BorrowedFd<'_>) -> anyhow::Result<Self> {
        let directory = Path::new(OWN_DIRECTORY).join("reset");
        let directory =
            at::directory_beneath(root, &directory).context("cannot open the journal")?;
        let Some(directory) = directory else { return Ok(Self::default()) };
        let file = at::present(at::open_file(directory.as_fd(), FILE))
            .context("cannot open the journal")?;
        let Some(file) = file else { return Ok(Self::default()) };
        let text = std::io::read_to_string(std::fs::File::from(file))
            .context("cannot read the journal")?;
        let what = format!("{OWN_DIRECTORY}/reset/journal");
        state::parse(&text, VERSION, &what, || {
            format!(
                "{what} of the live subvolume is damaged: nested subvolumes that belong into it may \
                 still be in the previous state, beside it in the generations directory; move them \
                 by hand and remove the file"
            )
        })
    }

    /// Sets what the moves have changed in both trees, and removes the journal from the result.
    pub(super) fn settle(&self, roots: Roots<'_>) -> anyhow::Result<()> {
        self.settle_moved(roots.new)?;
        for nested in &self.nested {
            settle_above(roots.old, &nested.path(), &nested.from)?;
        }
        restore::remove(own_directory(roots.new)?.as_fd(), DIRECTORY)
            .context("cannot remove the journal")?;
        let seals = IFlags::from_bits_retain(self.root_seals);
        restore::seal(roots.new, seals).context("cannot set the flags of the root")
    }

    fn settle_moved(&self, new: BorrowedFd<'_>) -> anyhow::Result<()> {
        for nested in &self.nested {
            nested.settle_flag(new, &nested.into())?;
            settle_above(new, &nested.into(), &nested.to)?;
        }
        Ok(())
    }

    /// Sets what the moves have changed in the tree that they were undone into.
    pub(super) fn settle_undone(&self, old: BorrowedFd<'_>) -> anyhow::Result<()> {
        for nested in &self.nested {
            nested.settle_flag(old, &nested.path())?;
            settle_above(old, &nested.path(), &nested.from)?;
        }
        Ok(())
    }
}

impl Nested {
    fn path(&self) -> PathBuf {
        OsString::from_vec(self.path.clone()).into()
    }

    fn into(&self) -> PathBuf {
        self.into.clone().map_or_else(|| self.path(), |into| OsString::from_vec(into).into())
    }

    fn settle_flag(&self, root: BorrowedFd<'_>, path: &Path) -> anyhow::Result<()> {
        let subvolume =
            at::open_beneath(root, path).with_context(|| format!("cannot open {path:?}"))?;
        if fs::is_read_only(&subvolume)? != self.read_only {
            fs::set_read_only(&subvolume, self.read_only)?;
        }
        Ok(())
    }
}

/// Gives the directory that holds the subvolume at `path` what it had.
fn settle_above(root: BorrowedFd<'_>, path: &Path, as_it_was: &Settled) -> anyhow::Result<()> {
    let settle = || -> anyhow::Result<()> {
        let (directory, _) = at::open_parent(root, path)?;
        Ok(as_it_was.settle(directory.as_fd())?)
    };
    settle().with_context(|| format!("cannot set the attributes of the directory of {path:?}"))
}

/// Looks at the directory that holds the subvolume at `path`. The seals of a volume's root are
/// left out: they forbid that it is exchanged and renamed, so they are set apart, when that is done.
fn look_above(directory: &OwnedFd, path: &Path) -> anyhow::Result<Settled> {
    let settled = Settled::look(directory.as_fd())?;
    Ok(if path.components().count() == 1 { settled.unsealed() } else { settled })
}

/// Moves a subvolume from one tree to another, without its read-only flag and unsealing the
/// directories: see [`Journal::settle`].
/// An empty directory in its place is replaced; the kernel refuses to replace any other.
pub(super) fn move_subvolume(
    (from, from_path): (BorrowedFd<'_>, &Path),
    (to, to_path): (BorrowedFd<'_>, &Path),
) -> anyhow::Result<()> {
    let (from_parent, name) = at::open_parent(from, from_path)?;
    let (to_parent, to_name) = at::open_parent(to, to_path)?;
    let subvolume = at::open_directory(from_parent.as_fd(), &name)?;
    restore::unseal(from_parent.as_fd())?;
    restore::unseal(to_parent.as_fd())?;
    // A read-only subvolume cannot be given another directory.
    if fs::is_read_only(&subvolume)? {
        fs::set_read_only(&subvolume, false)?;
    }
    Ok(fs::rename(&from_parent, at::os_name(&name), &to_parent, at::os_name(&to_name))?)
}
