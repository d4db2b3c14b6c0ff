//! Swap files among what is kept: one whose extents a generation shares cannot be activated
//! (`btrfs(5)`, "Swapfile support").
//!
//! To look at every persisted file would cost more than a reset does, so this looks where swap files
//! are: at the persisted paths themselves and at what lies right in them.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FileType, IFlags, ioctl_getflags};

use crate::keep::survey::State;
use crate::keep::survey::Surveyed;
use crate::tree::is_swap_area;

use crate::fs::Dir;
use crate::fs::at::{self, Kind};
use crate::rules::{Rules, Verdict};

/// Entries that are looked at, all persisted paths together: looking must not cost what `carry`
/// saves.
const MOST: usize = 1024;

/// The smallest swap area that mkswap(8) makes, in bytes: ten pages.
const SMALLEST: u64 = 10 * 4096;

/// The first swap file found at or right below a persisted path. One that `moves` with its subvolume is
/// no problem.
pub(super) fn find(
    previous: &Dir,
    rules: &Rules,
    surveyed: &[Surveyed],
    moves: &dyn Fn(&Path) -> bool,
) -> anyhow::Result<Option<PathBuf>> {
    let mut left = MOST;
    for declared in surveyed {
        let State::Present { kind } = declared.state else { continue };
        if moves(declared.source()) {
            continue;
        }
        let found = match kind {
            Kind::File => is_swap_file(previous, declared.source())?.then(|| declared.path.clone()),
            Kind::Directory => find_in(previous, rules, declared, &mut left)?,
            _ => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn find_in(
    previous: &Dir,
    rules: &Rules,
    declared: &Surveyed,
    left: &mut usize,
) -> anyhow::Result<Option<PathBuf>> {
    let path = &declared.path;
    let cannot = || format!("cannot look for swap files in {path:?}");
    let directory = previous.open_dir(declared.source())?;
    let mut buffer = vec![MaybeUninit::uninit(); at::BATCH];
    let batch = at::next_batch(directory.as_fd(), &mut buffer).with_context(cannot)?;
    for entry in batch.iter().filter(|entry| entry.kind == FileType::RegularFile) {
        let Some(fewer) = left.checked_sub(1) else { return Ok(None) };
        *left = fewer;
        let name = at::os_name(&entry.name);
        let file = path.join(name);
        if rules.verdict(&file) == Verdict::Persisted
            && is_swap_file_in(&directory, name).with_context(cannot)?
        {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn is_swap_file(root: &Dir, path: &Path) -> anyhow::Result<bool> {
    let look = || -> anyhow::Result<bool> {
        let (parent, name) = root.open_parent(path)?;
        is_swap_file_in(&parent, &name)
    };
    look().with_context(|| format!("cannot look whether {path:?} is a swap file"))
}

fn is_swap_file_in(parent: &Dir, name: &OsStr) -> anyhow::Result<bool> {
    // A user's file is none, whatever is in it: nobody could stop all resets with one.
    let status = parent.status_at(name)?;
    if status.stx_uid != 0 || status.stx_size < SMALLEST {
        return Ok(false);
    }
    // btrfs activates no swap file that lacks this flag.
    let file = parent.open_file(name)?;
    Ok(ioctl_getflags(&file)?.contains(IFlags::NOCOW) && is_swap_area(file.as_fd())?)
}
