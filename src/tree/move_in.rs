//! Copying what lies in another tree altogether, by the same walk as a restoration: for moving in
//! from somebody else's store.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use rustix::fs::ftruncate;

use super::attributes::{Handle, SEALING, Scratch};
use super::attributes::{seal, unseal};
use super::copy::{Copied, Restored, job};
use super::data::{BytesByRung, Ladder};
use super::directory::take_attributes;
use super::flags::seal_file;
use super::links::Links;
use super::walk::Walk;
use crate::fs::{Dir, at};

/// What was copied by [`move_in`].
#[derive(Debug)]
pub struct MovedIn {
    /// For each copy, in their order.
    pub copies: Vec<Restored>,
    /// Bytes of regular files by the way they came.
    pub bytes: BytesByRung,
    /// Subvolumes and mounts in the source, by their place below the target. They are left out.
    pub nested: Vec<PathBuf>,
}

/// Copies each of `copies` with everything that it has from below `source` to below `target`, where
/// the directories for them are and nothing else is. Hard links among them stay.
///
/// The process must have no umask: see [`crate::fs::process::prepare`].
///
/// # Errors
/// What failed and on which path. The copies are then useless.
pub fn move_in(
    source: &Dir,
    target: &Dir,
    copies: &[Copied],
    threads: usize,
) -> anyhow::Result<MovedIn> {
    let (ladder, links) = (Ladder::default(), Links::default());
    let mut scratch = Scratch::default();
    let jobs: Vec<_> = copies
        .iter()
        .map(|copied| (&copied.from, job(copied.to.clone(), copied.rules.as_ref())))
        .collect();
    let walk = Walk::new(target.as_fd(), &ladder, &links);
    for (from, job) in &jobs {
        let mut start = |from: &Path| -> anyhow::Result<()> {
            walk.add_at(job, (source, from), target, &mut scratch)
        };
        start(from).with_context(|| format!("cannot copy {from:?}"))?;
    }
    let nested = walk.run(threads).context("cannot copy")?;
    links.seal_all(|path, seals| seal_file(target, path, seals))?;
    let copies = jobs
        .iter()
        .map(|(from, job)| Restored {
            path: (*from).clone(),
            entries: Some(job.entries.load(Ordering::Relaxed)),
            bytes: Some(job.bytes.load(Ordering::Relaxed)),
        })
        .collect();
    Ok(MovedIn { copies, bytes: ladder.bytes(), nested })
}

/// Gives a regular file that must stay the file that it is the content and every attribute of another.
/// `to` is open to write. Harmless when an interrupted run has done some of it.
///
/// # Errors
/// What could not be copied, in words.
pub fn fill_file(from: impl AsFd, to: impl AsFd) -> anyhow::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let status = at::status_of(from).context("cannot read its attributes")?;
    let flags = Handle::Open(from).flags().context("cannot read its flags")?;
    unseal(to).context("cannot clear its flags")?;
    ftruncate(to, 0).context("cannot empty it")?;
    // Some can be set only while a file is empty.
    Handle::Open(to).set_flags(flags.difference(SEALING)).context("cannot set its flags")?;
    Ladder::default().copy(from, to, status.stx_size)?;
    take_attributes(from, to)?;
    seal(to, flags & SEALING).context("cannot seal it")
}
