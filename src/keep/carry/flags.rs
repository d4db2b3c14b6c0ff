//! Setting the times and flags that moves have changed.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{FileType, IFlags};

use super::journal::{Sealed, Settle};
use super::moves::Run;
use crate::fs::{Dir, at};
use crate::tree;

/// Opens a regular file or a directory; `None` for what has no flags, and for nothing.
pub(super) fn open_sealable(root: &Dir, path: &Path) -> anyhow::Result<Option<OwnedFd>> {
    let Some((parent, name)) = root.open_parent_optional(path)? else { return Ok(None) };
    let status = parent.status_optional(&name)?;
    Ok(match status.map(|status| at::kind(&status)) {
        Some(FileType::Directory) => Some(parent.open_dir(&name)?.into()),
        Some(FileType::RegularFile) => Some(parent.open_file(&name)?),
        _ => None,
    })
}

pub(super) fn seal_all(root: &Dir, all: &[Sealed]) -> anyhow::Result<()> {
    for Sealed { path, seals } in all {
        let seal = || -> anyhow::Result<()> {
            let Some(file) = open_sealable(root, path)? else { return Ok(()) };
            Ok(tree::seal(file, IFlags::from_bits_retain(*seals))?)
        };
        seal().with_context(|| format!("cannot set the flags of {path:?}"))?;
    }
    Ok(())
}

pub(super) fn settle_all(root: &Dir, all: &[Settle], run: Run) -> anyhow::Result<()> {
    for Settle { path, to } in all {
        let directory = match run {
            Run::First => root.open_dir(path)?,
            Run::Resumed => match root.open_dir_optional(path)? {
                Some(directory) => directory,
                // Somebody has removed it in between, and there is nothing to set.
                None => continue,
            },
        };
        to.settle(directory)
            .with_context(|| format!("cannot set the times and flags of {path:?}"))?;
    }
    Ok(())
}
