//! The inode flags that forbid every change: immutable and append-only (`chattr(1)`).

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{IFlags, Statx, StatxAttributes};
use rustix::io::Errno;

use super::attributes::{Handle, SEALING, seal};
use crate::fs::at;

/// Sets flags that forbid every change on a file below an open directory.
pub(crate) fn seal_file(root: impl AsFd, path: &Path, seals: IFlags) -> anyhow::Result<()> {
    let seal_it = || -> anyhow::Result<()> {
        let (parent, name) = at::open_parent(&root, path)?;
        Ok(seal(at::open_file(parent.as_fd(), &name)?.as_fd(), seals)?)
    };
    seal_it().with_context(|| format!("cannot set the flags of {path:?}"))
}

/// The flags of an open file or directory that forbid every change to it.
pub fn seals_of(file: impl AsFd) -> Result<IFlags, Errno> {
    Handle::Open(file.as_fd()).flags().map(|flags| flags & SEALING)
}

/// The flags that forbid every change to an entry, by what statx(2) said of it; `None` where the
/// filesystem does not say.
#[must_use]
pub fn seals_in(status: &Statx) -> Option<IFlags> {
    let of = [
        (StatxAttributes::IMMUTABLE, IFlags::IMMUTABLE),
        (StatxAttributes::APPEND, IFlags::APPEND),
    ];
    let told = of.iter().all(|(attribute, _)| status.stx_attributes_mask.contains(*attribute));
    let set = of.iter().filter(|(attribute, _)| status.stx_attributes.contains(*attribute));
    told.then(|| set.map(|(_, flag)| *flag).collect())
}
