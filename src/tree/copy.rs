//! Copying several subtrees at once, by the same walk.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use serde::Serialize;

use super::attributes::Scratch;
use super::data::Ladder;
use super::directory::stand_in;
use super::links::Links;
use super::walk::{Job, Walk};
use crate::fs::Dir;
use crate::rules::Node;

/// One persisted path that was brought over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Below the volume's root.
    #[serde(serialize_with = "crate::text::shown_path")]
    pub path: PathBuf,
    /// Entries at and below it; `None` when it was moved, and nobody looked what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Bytes of its regular files, holes included; `None` in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Something of the previous state that cannot be moved and is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Below the root of the previous state.
    pub from: PathBuf,
    /// Below the target; the last component is the same.
    pub to: PathBuf,
    /// What is left out.
    pub rules: Option<Node>,
}

pub(crate) fn job(path: PathBuf, rules: Option<&Node>) -> Job<'_> {
    Job { path, rules, aside: None, entries: AtomicU64::new(0), bytes: AtomicU64::new(0) }
}

pub(crate) fn run(
    jobs: &[(&Path, &Job<'_>)],
    source: &Dir,
    target: &Dir,
    (ladder, links): (&Ladder, &Links),
    threads: usize,
    scratch: &mut Scratch,
) -> anyhow::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let walk = Walk::new(target.as_fd(), ladder, links);
    for (from, job) in jobs {
        walk.add_at(job, (source, from), target, scratch).with_context(|| format!("{from:?}"))?;
    }
    // Subvolumes nested in it are not part of it; a snapshot has an empty directory for each.
    for nested in walk.run(threads)? {
        stand_in(target, &nested)?;
    }
    Ok(())
}
