//! What a `carry` does, written down before it begins, so that a run after a crash can go on.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::layout::{ASIDE, Move, WORK};
use super::moves;
use crate::fs::Dir;
use crate::own::Own;
use crate::own::state::{self, Manifest};
use crate::rules::OWN_DIRECTORY;
use crate::tree::Settled;

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

    pub(in crate::keep::carry) fn serialize<S: Serializer>(
        path: &Path,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => path.as_os_str().as_bytes().serialize(serializer),
        }
    }

    pub(in crate::keep::carry) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        Ok(match Either::deserialize(deserializer)? {
            Either::Text(text) => text.into(),
            Either::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

/// While things are moved. The journal is written twice: without one nothing could be completed.
const MOVING: [&str; 2] = ["journal", "journal.copy"];

/// Their names once the result is complete: somebody may use the volume from then on, so nothing
/// of it is moved any more.
const COMPLETE: [&str; 2] = ["complete", "complete.copy"];

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

    /// Writes both copies into [`WORK`] below `root`, durably.
    pub fn write(&self, root: &Dir) -> anyhow::Result<()> {
        let work = root.open_dir(WORK)?;
        let text = serde_json::to_vec(self).context("cannot write the journal")?;
        MOVING.iter().try_for_each(|name| work.write_durably(name, &text))
    }

    /// Notes, durably, that the result is complete.
    pub fn complete(root: &Dir) -> anyhow::Result<()> {
        rename_both(root, MOVING, COMPLETE).context("cannot note that the result is complete")
    }

    /// Takes back that the result is complete, durably, before it is undone.
    pub fn incomplete(root: &Dir) -> anyhow::Result<()> {
        rename_both(root, COMPLETE, MOVING).context("cannot take back that the result is complete")
    }

    /// Takes away, durably, what says that anything is to be done: nothing is moved, or all of it is
    /// moved back.
    pub fn remove(root: &Dir) -> anyhow::Result<()> {
        let Some(work) = root.open_dir_optional(WORK)? else { return Ok(()) };
        // First: beside no journal it would say that one is lost.
        moves::forget_progress(&work)?;
        let mut removed = false;
        for name in MOVING {
            removed |= work.remove_file(name)?;
        }
        if removed { root.sync_filesystem() } else { Ok(()) }
    }

    /// Reads the text of one, which lies at `what`.
    pub fn parse(text: &[u8], what: &str) -> anyhow::Result<Self> {
        state::parse(text, VERSION, what, || half_moved(&format!("{what} is damaged")))
    }

    /// Reads what an interrupted run left: the first copy that can be read.
    ///
    /// # Errors
    /// Neither copy can be read, or both are gone although something was moved.
    pub fn read(root: &Dir) -> anyhow::Result<Option<(Self, Stage)>> {
        let Some(own) = Own::open(root)? else { return Ok(None) };
        let Some(work) = own.open_dir_optional("reset")? else { return Ok(None) };
        let (mut reached, mut wrong) = (None, None);
        // One that is called complete was renamed when all was moved, whatever the other is called.
        let complete = COMPLETE.map(|name| (name, Stage::Complete));
        for (name, stage) in complete.into_iter().chain(MOVING.map(|name| (name, Stage::Moving))) {
            let what = format!("{WORK}/{name}");
            let text = work.read_optional(name);
            match text.and_then(|it| it.map(|text| Self::parse(&text, &what)).transpose()) {
                Ok(None) => {}
                Ok(Some(journal)) => {
                    if wrong.is_some() {
                        warn!("{what} is read in place of its copy, which cannot be read");
                    }
                    return Ok(Some((journal, reached.unwrap_or(stage))));
                }
                Err(error) => {
                    reached = reached.or(Some(stage));
                    wrong = wrong.or(Some(error));
                }
            }
        }
        match wrong {
            Some(error) => Err(error),
            None if moves::has_begun(&work)? => {
                let [name, copy] = MOVING;
                bail!(half_moved(&format!("{WORK}/{name} and {WORK}/{copy} are gone")))
            }
            None => Ok(None),
        }
    }
}

/// What to do about a volume that nothing can complete.
fn half_moved(why: &str) -> String {
    format!(
        "{why}: the reset that wrote the journal was interrupted while it moved things, and cannot be \
         completed; nothing of it was removed. What is kept is in its place, in {WORK}/attic or in a \
         numbered directory there ({WORK}/0/etc is /etc), and the rest in {WORK}/{ASIDE}. Move what you \
         need to its place, move {WORK} itself out of {OWN_DIRECTORY}, and reset again"
    )
}

fn rename_both(root: &Dir, from: [&str; 2], to: [&str; 2]) -> anyhow::Result<()> {
    let work = root.open_dir(WORK)?;
    let mut renamed = false;
    for (from, to) in from.into_iter().zip(to) {
        renamed |= work.rename(from, to)?;
    }
    if renamed { root.sync_filesystem() } else { Ok(()) }
}

/// Whether a name in [`WORK`] is that of a journal, which goes last.
pub(super) fn is_journal(name: &OsStr) -> bool {
    MOVING.iter().chain(&COMPLETE).any(|journal| name == *journal)
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
