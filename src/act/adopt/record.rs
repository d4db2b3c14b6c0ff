//! What an adoption writes down in the volume: see the table in the parent module.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::fs::Dir;
use crate::own::Own;
use crate::tree;

const WORK: &str = "adopt";
const COMPLETE: &str = "complete";
const ADOPTED: &str = "adopted";

/// A path whose copy is complete and waits to be put in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Below the volume's root.
    pub(super) path: PathBuf,
    /// Below the working directory.
    pub(super) slot: PathBuf,
}

impl Pending {
    /// The directory that the slot is in, in the working directory.
    pub(super) fn directory(&self) -> &Path {
        self.slot.parent().unwrap_or(&self.slot)
    }

    /// The name of the file in the working directory that says that its place is being filled, because
    /// something is mounted on that.
    pub(super) fn mark(&self) -> OsString {
        let mut name = OsString::from("filling-");
        name.push(self.directory());
        name
    }
}

/// The paths that were brought over, below the volume's root.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Adopted {
    version: u32,
    paths: BTreeSet<PathBuf>,
}

impl Adopted {
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }
}

/// The working directory; `None` where there is none.
pub(super) fn work(live: &Dir) -> anyhow::Result<Option<Dir>> {
    Own::open(live)?.map_or(Ok(None), |own| own.open_dir_optional(WORK))
}

/// Makes the working directory, where there is none, with a directory for each of these copies.
pub(super) fn make_work(live: &Dir, copies: &[Pending]) -> anyhow::Result<Dir> {
    let work = Own::of(live)?.ensure_dir(WORK)?;
    for it in copies {
        work.make_dir(it.directory())?;
    }
    Ok(work)
}

/// What an interrupted run had copied completely.
pub(super) fn pending(live: &Dir) -> anyhow::Result<Vec<Pending>> {
    let Some(work) = work(live)? else { return Ok(Vec::new()) };
    let Some(text) = work.read_optional(COMPLETE)? else { return Ok(Vec::new()) };
    serde_json::from_slice(&text).with_context(|| {
        "the list of what an interrupted adoption had copied (.darlings/adopt/complete) is damaged; \
         remove .darlings/adopt, and everything that is not in its place yet is copied again"
    })
}

/// Says that all copies are complete, durably.
pub(super) fn write_pending(live: &Dir, pending: &[Pending]) -> anyhow::Result<()> {
    work(live)?.context("BUG: there is no working directory")?.write_json(COMPLETE, &pending)
}

/// Removes from the working directory what nobody waits for: all of it, the list last, where that is
/// everything. What is left of one without the list counts for nothing.
pub(super) fn clear(live: &Dir, waiting: &[Pending]) -> anyhow::Result<()> {
    let Some(work) = work(live)? else { return Ok(()) };
    let mut needed = vec![OsString::from(COMPLETE)];
    for it in waiting {
        needed.extend([it.directory().into(), it.mark()]);
    }
    if !waiting.is_empty() {
        write_pending(live, waiting)?;
    }
    for name in work.names()?.into_iter().filter(|name| !needed.contains(name)) {
        tree::remove(&work, &name).context("cannot tidy up the working directory")?;
    }
    if waiting.is_empty() {
        tree::remove(&*Own::of(live)?, WORK).context("cannot remove the working directory")?;
    }
    Ok(())
}

/// The paths that were brought over before.
pub(super) fn adopted(live: &Dir) -> anyhow::Result<Adopted> {
    let Some(own) = Own::open(live)? else { return Ok(Adopted::default()) };
    let Some(text) = own.read_optional(ADOPTED)? else { return Ok(Adopted::default()) };
    serde_json::from_slice(&text)
        .context("the list of what was brought over (.darlings/adopted) is damaged; remove it")
}

/// Adds to them, durably.
pub(super) fn add(live: &Dir, pending: &[Pending]) -> anyhow::Result<()> {
    let mut all = adopted(live)?;
    all.version = 1;
    all.paths.extend(pending.iter().map(|it| it.path.clone()));
    Own::of(live)?.write_json(ADOPTED, &all)
}
