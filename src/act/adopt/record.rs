//! What an adoption writes down in the volume: see the table in the parent module.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, Mode, flock, mkdirat};
use serde::{Deserialize, Serialize};

use crate::own::own_directory;
use crate::own::trusted_own_directory;
use crate::tree::{self};

use crate::fs::at;
use crate::rules::OWN_DIRECTORY;

const WORK: &CStr = c"adopt";
const COMPLETE: &CStr = c"complete";
const ADOPTED: &CStr = c"adopted";

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
    pub(super) fn mark(&self) -> io::Result<CString> {
        let mut name = OsString::from("filling-");
        name.push(self.directory());
        at::c_name(&name)
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

/// Keeps purges, recoveries and other adoptions away until it is closed.
pub(super) fn lock(live: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    let own = crate::own::ensure_own_directory(live)?;
    flock(&own, FlockOperation::NonBlockingLockExclusive).with_context(|| {
        format!("another run is at work in {OWN_DIRECTORY}, a purge perhaps; wait for it")
    })?;
    Ok(own)
}

/// The working directory; `None` where there is none.
pub(super) fn work(live: BorrowedFd<'_>) -> anyhow::Result<Option<OwnedFd>> {
    let Some(own) = trusted_own_directory(live)? else { return Ok(None) };
    at::directory_beneath(own.as_fd(), Path::new(at::os_name(WORK)))
        .context("cannot open the working directory")
}

/// Makes the working directory, where there is none, with a directory for each of these copies.
pub(super) fn make_work(live: BorrowedFd<'_>, copies: &[Pending]) -> anyhow::Result<OwnedFd> {
    let make = || -> anyhow::Result<OwnedFd> {
        let own = own_directory(live)?;
        at::ensure_directory(&own, at::os_name(WORK))?;
        let work = at::open_directory(own.as_fd(), WORK)?;
        for it in copies {
            mkdirat(&work, it.directory(), Mode::RWXU)?;
        }
        Ok(work)
    };
    make().context("cannot make the working directory")
}

/// What an interrupted run had copied completely.
pub(super) fn pending(live: BorrowedFd<'_>) -> anyhow::Result<Vec<Pending>> {
    let Some(work) = work(live)? else { return Ok(Vec::new()) };
    let text = read(work.as_fd(), COMPLETE)?;
    let Some(text) = text else { return Ok(Vec::new()) };
    serde_json::from_slice(&text).with_context(|| {
        "the list of what an interrupted adoption had copied (.darlings/adopt/complete) is damaged; \
         remove .darlings/adopt, and everything that is not in its place yet is copied again"
    })
}

/// Says that all copies are complete, durably.
pub(super) fn write_pending(live: BorrowedFd<'_>, pending: &[Pending]) -> anyhow::Result<()> {
    let work = work(live)?.context("BUG: there is no working directory")?;
    write(&work, COMPLETE, &pending)
}

/// Removes from the working directory what nobody waits for: all of it, the list last, where that is
/// everything. What is left of one without the list counts for nothing.
pub(super) fn clear(live: BorrowedFd<'_>, waiting: &[Pending]) -> anyhow::Result<()> {
    let Some(work) = work(live)? else { return Ok(()) };
    let clear = || -> anyhow::Result<()> {
        let mut needed = vec![COMPLETE.to_owned()];
        for it in waiting {
            needed.extend([at::c_name(it.directory().as_os_str())?, it.mark()?]);
        }
        if !waiting.is_empty() {
            write_pending(live, waiting)?;
        }
        for name in at::names(work.as_fd())? {
            if !needed.contains(&name) {
                tree::remove(work.as_fd(), &name)?;
            }
        }
        if waiting.is_empty() {
            tree::remove(own_directory(live)?.as_fd(), WORK)?;
        }
        Ok(())
    };
    clear().context("cannot tidy up the working directory")
}

/// The paths that were brought over before.
pub(super) fn adopted(live: BorrowedFd<'_>) -> anyhow::Result<Adopted> {
    let Some(own) = trusted_own_directory(live)? else { return Ok(Adopted::default()) };
    let Some(text) = read(own.as_fd(), ADOPTED)? else { return Ok(Adopted::default()) };
    serde_json::from_slice(&text)
        .context("the list of what was brought over (.darlings/adopted) is damaged; remove it")
}

/// Adds to them, durably.
pub(super) fn add(live: BorrowedFd<'_>, pending: &[Pending]) -> anyhow::Result<()> {
    let mut all = adopted(live)?;
    all.version = 1;
    all.paths.extend(pending.iter().map(|it| it.path.clone()));
    write(&own_directory(live)?, ADOPTED, &all)
}

fn read(directory: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<Option<Vec<u8>>> {
    at::read_optional(directory, name)
        .with_context(|| format!("cannot read {}", name.to_string_lossy()))
}

fn write(directory: &OwnedFd, name: &CStr, list: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(list).context("BUG: the list is not JSON")?;
    at::write_durably(directory, name, &text)
        .with_context(|| format!("cannot write {}", name.to_string_lossy()))
}
