//! What a reset put aside in the live volume's `.darlings`: the trash and the attic.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use tracing::warn;

use crate::fs::at;
use crate::generations::retention::Dated;
use crate::generations::{removing, removing_name};
use crate::keep::attic::ATTIC;
use crate::rules::OWN_DIRECTORY;
use crate::text::exact_number;
use crate::tree::{self};

/// The own directory of a live volume.
pub(super) struct Own {
    directory: OwnedFd,
}

impl Own {
    /// Opens it; `None` for a volume that was never reset, or where somebody else has made it.
    pub(super) fn open(live: BorrowedFd<'_>) -> anyhow::Result<Option<Self>> {
        Ok(crate::own::trusted_own_directory(live)?.map(|directory| Self { directory }))
    }

    /// One purge at a time; the lock goes with the process.
    pub(super) fn lock(&self) -> anyhow::Result<()> {
        flock(&self.directory, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another run is at work in {OWN_DIRECTORY}; wait for it"))
    }

    /// Removes something in it, calling `removed` after each entry that is gone.
    pub(super) fn remove(&self, path: &Path, removed: &mut dyn FnMut()) -> anyhow::Result<()> {
        let (parent, name) = at::open_parent(&self.directory, path)?;
        tree::remove_telling(parent.as_fd(), &name, removed).map(drop)
    }

    /// What resets have put into the attic, with the time that is written down there, else the one
    /// that `times` has for that reset.
    pub(super) fn attic(&self, times: &BTreeMap<u64, u64>) -> anyhow::Result<Vec<Dated>> {
        let Some(attic) = self.open_inside(ATTIC)? else { return Ok(Vec::new()) };
        let mut found: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        for name in self.names(ATTIC)? {
            let Ok(text) = name.to_str() else { continue };
            if let Some(number) = text.strip_suffix(".json").and_then(exact_number) {
                // What says nothing of its age stays, and the rest of the purge goes on.
                let time = time_in(attic.as_fd(), &name).unwrap_or_else(|error| {
                    warn!("{error:#}");
                    None
                });
                found.insert(number, time);
            } else if let Some(number) = exact_number(text) {
                found.entry(number).or_default();
            }
        }
        let dated = found.into_iter().map(|(number, time)| {
            let ended = time.or_else(|| times.get(&number).copied());
            Dated { number, ended }
        });
        Ok(dated.collect())
    }

    /// What is left in the attic of what an earlier purge had begun to remove.
    pub(super) fn begun(&self) -> anyhow::Result<Vec<u64>> {
        let names = self.names(ATTIC)?;
        Ok(names.iter().filter_map(|name| removing(name.to_str().unwrap_or(""))).collect())
    }

    /// Begins to remove what a reset put into the attic, and answers where it is now, below
    /// this directory. It is gone from the attic at once, so that an interruption leaves nothing half
    /// there.
    pub(super) fn doom_attic(&self, number: u64) -> anyhow::Result<PathBuf> {
        let attic = self.open_inside(ATTIC)?.context("the attic is not a directory")?;
        let (name, list) =
            (CString::new(number.to_string())?, CString::new(format!("{number}.json"))?);
        let doomed = CString::new(removing_name(number))?;
        let name = tree::doom(attic.as_fd(), &name, &doomed)?;
        // Without what it lists it means nothing; a run that was interrupted here left it behind.
        tree::remove(attic.as_fd(), &list)?;
        Ok(Path::new(ATTIC).join(at::os_name(name)))
    }

    fn open_inside(&self, name: &str) -> anyhow::Result<Option<OwnedFd>> {
        at::directory_beneath(self.directory.as_fd(), Path::new(name))
            .with_context(|| format!("cannot open {OWN_DIRECTORY}/{name}"))
    }

    /// The names in one of its directories, sorted; none where it is not there.
    fn names(&self, name: &str) -> anyhow::Result<Vec<CString>> {
        let Some(directory) = self.open_inside(name)? else { return Ok(Vec::new()) };
        let mut names = at::names(directory.as_fd())
            .with_context(|| format!("cannot read {OWN_DIRECTORY}/{name}"))?;
        names.sort();
        Ok(names)
    }
}

/// The time in a list of the attic; nothing else in it matters here.
fn time_in(attic: BorrowedFd<'_>, name: &CString) -> anyhow::Result<Option<u64>> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        time: Option<u64>,
    }
    let read = || -> anyhow::Result<Option<u64>> {
        let Some(text) = at::read_optional(attic, name)? else { return Ok(None) };
        Ok(serde_json::from_slice::<List>(&text)?.time)
    };
    read().with_context(|| format!("cannot read {OWN_DIRECTORY}/{ATTIC}/{name:?}"))
}
