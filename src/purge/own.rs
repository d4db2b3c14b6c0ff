//! What a reset put aside in the live volume's `.darlings`: the trash and the attic.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{AtFlags, FlockOperation, flock, unlinkat};
use serde::Deserialize;
use tracing::warn;

use crate::attic::ATTIC;
use crate::carry::TRASH;
use crate::generations::exact_number;
use crate::generations::retention::Dated;
use crate::restore::{self, at};
use crate::rules::OWN_DIRECTORY;

/// The own directory of a live volume.
pub(super) struct Own {
    directory: OwnedFd,
}

impl Own {
    /// Opens it; `None` for a volume that was never reset, or where somebody else has made it.
    pub(super) fn open(live: BorrowedFd<'_>) -> anyhow::Result<Option<Self>> {
        Ok(restore::trusted_own_directory(live)?.map(|directory| Self { directory }))
    }

    /// One purge at a time; the lock goes with the process.
    pub(super) fn lock(&self) -> anyhow::Result<()> {
        flock(&self.directory, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another run is at work in {OWN_DIRECTORY}; wait for it"))
    }

    /// The path of something in the trash below the volume's root.
    pub(super) fn trash_path(name: &CString) -> PathBuf {
        Path::new(OWN_DIRECTORY).join(TRASH).join(at::os_name(name))
    }

    /// Removes something in the trash, calling `removed` after each entry of it.
    pub(super) fn remove_trash(
        &self,
        name: &CString,
        removed: &mut dyn FnMut(),
    ) -> anyhow::Result<()> {
        let Some(trash) = self.open_inside(TRASH)? else { return Ok(()) };
        restore::remove_telling(trash.as_fd(), name, removed).map(drop)
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

    /// Moves what a reset put into the attic to the trash, and answers its name there. It is gone
    /// from the attic at once, so that an interruption leaves nothing half there.
    pub(super) fn discard_attic(&self, number: u64) -> anyhow::Result<CString> {
        let c_name = |text: String| at::c_name(text.as_ref()).context("BUG: a name with a NUL");
        let (name, list) = (c_name(number.to_string())?, c_name(format!("{number}.json"))?);
        let in_trash = c_name(format!("attic-{number}"))?;
        at::ensure_directory(&self.directory, TRASH).context("cannot make the trash")?;
        let trash = self.open_inside(TRASH)?.context("the trash is no directory")?;
        let attic = self.open_inside(ATTIC)?.context("the attic is no directory")?;
        restore::rename((attic.as_fd(), &name), (trash.as_fd(), &in_trash))
            .context("cannot move it to the trash")?;
        // Without what it lists it means nothing; a run that was interrupted here left it behind.
        at::present(unlinkat(&attic, &list, AtFlags::empty()))
            .with_context(|| format!("cannot remove {list:?}"))?;
        Ok(in_trash)
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
