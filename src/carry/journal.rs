//! What a `carry` does, written down before it begins, so that a run after a crash can go on.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{AtFlags, renameat, syncfs, unlinkat};
use serde::{Deserialize, Serialize};

use super::layout::{Move, WORK};
use crate::restore::{Settled, at, trusted_own_directory};
use crate::state::{self, Manifest};

/// The newest format that this version knows, and the one that it writes.
pub(super) const VERSION: u32 = 1;

/// Everything that is to be done once the new content is laid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Format.
    pub version: u32,
    /// What the result says of itself: an interrupted reset is completed as it was begun,
    /// whatever is declared by then.
    pub manifest: Manifest,
    /// Renames, in this order, before the root's content is exchanged.
    pub moves: Vec<Move>,
    /// Names of the new content of the root.
    pub top: Vec<Name>,
    /// Directories of the result whose times and seals are set when all is moved.
    pub settle: Vec<Settle>,
    /// Sealing flags of things that are moved: they are cleared for it and set again.
    pub seals: Vec<Sealed>,
    /// The root's times and seals.
    pub root: Settled,
    /// Directories of the previous state whose times and seals are set if all is undone.
    pub undo: Vec<Settle>,
    /// Sealing flags of the previous state, likewise.
    pub undo_seals: Vec<Sealed>,
}

/// A name in the root, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name(#[serde(with = "bytes")] pub PathBuf);

/// A directory and what is to be set on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// Below the volume's root.
    #[serde(with = "bytes")]
    pub path: PathBuf,
    /// Its times and seals.
    pub to: Settled,
}

/// A file or directory that was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Below the volume's root.
    #[serde(with = "bytes")]
    pub path: PathBuf,
    /// As `FS_IOC_GETFLAGS` has them.
    pub seals: u32,
}

/// Paths as the bytes that they are: users choose them. As text where they are text.
pub(super) mod bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(in crate::carry) fn serialize<S: Serializer>(
        path: &Path,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => path.as_os_str().as_bytes().serialize(serializer),
        }
    }

    pub(in crate::carry) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        Ok(match Either::deserialize(deserializer)? {
            Either::Text(text) => text.into(),
            Either::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

/// While things are moved.
const FILE: &CStr = c"journal";

/// Its name once the result is complete: somebody may use the volume from then on, so nothing
/// of it is moved any more.
const COMPLETE: &CStr = c"complete";

/// How far the run came that left a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Something is still to be moved or set.
    Moving,
    /// The result is complete, and what lies beside it is still to be tidied up.
    Complete,
}

impl Journal {
    /// Number of the reset.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.manifest.generation
    }

    /// Writes it into [`WORK`] below `root`, durably.
    ///
    /// # Errors
    /// As writing and renaming a file.
    pub fn write(&self, root: BorrowedFd<'_>) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            let work = at::open_beneath(root, Path::new(WORK))?;
            Ok(at::write_durably(&work, FILE, &serde_json::to_vec(self)?)?)
        };
        write().context("cannot write the journal")
    }

    /// Notes, durably, that the result is complete.
    ///
    /// # Errors
    /// As renameat(2) and syncfs(2).
    pub fn complete(root: BorrowedFd<'_>) -> anyhow::Result<()> {
        let complete = || -> anyhow::Result<()> {
            let work = at::open_beneath(root, Path::new(WORK))?;
            renameat(&work, FILE, &work, COMPLETE)?;
            Ok(syncfs(root)?)
        };
        complete().context("cannot note that the result is complete")
    }

    /// Takes back that the result is complete, durably, before it is undone.
    ///
    /// # Errors
    /// As renameat(2) and syncfs(2).
    pub fn incomplete(root: BorrowedFd<'_>) -> anyhow::Result<()> {
        let take_back = || -> anyhow::Result<()> {
            let work = at::open_beneath(root, Path::new(WORK))?;
            if at::present(renameat(&work, COMPLETE, &work, FILE))?.is_some() {
                syncfs(root)?;
            }
            Ok(())
        };
        take_back().context("cannot take back that the result is complete")
    }

    /// Takes away, durably, what says that anything is to be done.
    ///
    /// # Errors
    /// As unlinkat(2) and syncfs(2).
    pub fn remove(root: BorrowedFd<'_>) -> anyhow::Result<()> {
        let remove = || -> anyhow::Result<()> {
            let work = at::open_beneath(root, Path::new(WORK))?;
            if at::present(unlinkat(&work, FILE, AtFlags::empty()))?.is_some() {
                syncfs(root)?;
            }
            Ok(())
        };
        remove().context("cannot remove the journal")
    }

    /// Reads the text of one, which lies at `what`.
    ///
    /// # Errors
    /// It is damaged, or a newer version wrote it.
    pub fn parse(text: &[u8], what: &str) -> anyhow::Result<Self> {
        state::parse(text, VERSION, what, || {
            format!(
                "{what} is damaged: the reset that wrote it was interrupted, and its volume must \
                 not be used before it is completed; the previous state is complete in the newest \
                 generation, or in {WORK}"
            )
        })
    }

    /// Reads what an interrupted run left.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(root: BorrowedFd<'_>) -> anyhow::Result<Option<(Self, Stage)>> {
        let Some(own) = trusted_own_directory(root)? else { return Ok(None) };
        let work = at::directory_beneath(own.as_fd(), Path::new("reset"))
            .with_context(|| format!("cannot open {WORK}"))?;
        let Some(work) = work else { return Ok(None) };
        for (name, stage) in [(FILE, Stage::Moving), (COMPLETE, Stage::Complete)] {
            let text = at::read_optional(&work, name)
                .with_context(|| format!("cannot read {WORK}/{name:?}"))?;
            let Some(text) = text else { continue };
            let what = format!("{WORK}/{}", name.to_string_lossy());
            return Ok(Some((Self::parse(&text, &what)?, stage)));
        }
        Ok(None)
    }
}

/// Whether a name in [`WORK`] is that of a journal, which goes last.
pub(super) fn is_journal(name: &CStr) -> bool {
    [FILE, COMPLETE].contains(&name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_journal_of_a_newer_version_is_refused_whatever_else_is_in_it() {
        let error = Journal::parse(br#"{"version":7,"moves":"none"}"#, "the journal").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "the journal has format 7, which a newer darlings has written, and this one knows none \
             above 1: put the newer one into the initrd, or boot the one that has it"
        );
    }
}
