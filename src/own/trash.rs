//! The trash in a volume's `.darlings`: what waits to be removed in the running system.
//!
//! ```text
//! .darlings/trash/7                   what reset 7 moved aside: the next purge removes it
//! .darlings/trash/replaced-1          what a recovery replaced
//! .darlings/trash/replaced-1.json     what that was, and when
//! ```
//!
//! No generation need hold what was replaced, so it is kept as long as a generation would be.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rustix::fs::{AtFlags, unlinkat};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::Keep;
use crate::fs::at;
use crate::generations::retention::{self, Dated, Expired, Reason};
use crate::keep::carry::TRASH;
use crate::own::state;
use crate::own::trusted_own_directory;
use crate::rules::OWN_DIRECTORY;
use crate::text::exact_number;
use crate::tree;

/// The newest format of [`Replaced`] that this version knows.
const VERSION: u32 = 1;

/// What a recovery replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    version: u32,
    /// The bytes of its path below the volume's root.
    path: Vec<u8>,
    /// When, in seconds since 1970.
    pub time: Option<u64>,
    /// The number of the reset that had made the tree which it was in.
    pub generation: u64,
}

impl Replaced {
    /// What is replaced now at `path`, below the root of the live volume.
    ///
    /// # Errors
    /// As [`state::generation`].
    pub fn new(root: BorrowedFd<'_>, path: &Path) -> anyhow::Result<Self> {
        let path = path.as_os_str().to_owned().into_vec();
        let generation = state::generation(root)?;
        Ok(Self { version: VERSION, path, time: state::now(), generation })
    }

    /// Its path below the volume's root.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.path.clone()))
    }
}

/// What is in the trash.
#[derive(Debug, Default)]
pub struct Contents {
    /// What the next purge removes, by name, sorted.
    pub doomed: Vec<CString>,
    /// What recoveries have replaced, by the number in its name.
    pub replaced: Vec<(u64, Replaced)>,
}

/// The trash of the tree at `root`; `None` where there is none.
///
/// # Errors
/// It cannot be opened.
pub fn open(root: BorrowedFd<'_>) -> anyhow::Result<Option<OwnedFd>> {
    let Some(own) = trusted_own_directory(root)? else { return Ok(None) };
    at::directory_beneath(own.as_fd(), Path::new(TRASH))
        .with_context(|| format!("cannot open {OWN_DIRECTORY}/{TRASH}"))
}

/// Looks into the trash of the tree at `root`.
///
/// # Errors
/// It cannot be read.
pub fn look(root: BorrowedFd<'_>) -> anyhow::Result<Contents> {
    let mut contents = Contents::default();
    let Some(trash) = open(root)? else { return Ok(contents) };
    let names =
        at::names(trash.as_fd()).with_context(|| format!("cannot read {OWN_DIRECTORY}/{TRASH}"))?;
    for name in names {
        let text = name.to_str().unwrap_or("");
        let (text, is_record) = match text.strip_suffix(".json") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let number = text.strip_prefix("replaced-").and_then(exact_number);
        let other = match (number, is_record) {
            (Some(number), true) => replaced_name(number)?,
            (Some(number), false) => record_name(number)?,
            (None, _) => {
                contents.doomed.push(name);
                continue;
            }
        };
        // What has no record was replaced by an earlier version, or is being removed.
        if at::present(at::status(trash.as_fd(), &other))?.is_none() {
            contents.doomed.push(name);
        } else if let (Some(number), false) = (number, is_record) {
            match read(&trash, number) {
                Ok(replaced) => contents.replaced.push((number, replaced)),
                Err(error) => warn!("{error:#}; what it says is left alone"),
            }
        }
    }
    contents.doomed.sort();
    contents.replaced.sort_by_key(|(number, _)| *number);
    Ok(contents)
}

fn read(trash: &OwnedFd, number: u64) -> anyhow::Result<Replaced> {
    let name = record_name(number)?;
    let what = format!("{OWN_DIRECTORY}/{TRASH}/{}", name.to_string_lossy());
    let text = at::read_optional(trash, &name).with_context(|| format!("cannot read {what}"))?;
    parse(&text.with_context(|| format!("{what} went away"))?, &what)
}

/// Reads the record of something that is replaced, which lies at `what`.
///
/// # Errors
/// It is damaged, or a newer version wrote it.
pub fn parse<T: serde::de::DeserializeOwned>(text: &[u8], what: &str) -> anyhow::Result<T> {
    state::parse(text, VERSION, what, || format!("{what} is damaged"))
}

/// The name in the trash of what was replaced.
pub fn replaced_name(number: u64) -> anyhow::Result<CString> {
    Ok(CString::new(format!("replaced-{number}"))?)
}

fn record_name(number: u64) -> anyhow::Result<CString> {
    Ok(CString::new(format!("replaced-{number}.json"))?)
}

/// Its path below the volume's root, for a person.
#[must_use]
pub fn shown(number: u64) -> String {
    format!("{OWN_DIRECTORY}/{TRASH}/replaced-{number}")
}

/// Moves something that was replaced to the trash of the volume at `root`, and answers its number
/// there. It is at one of the two places at every moment.
///
/// # Errors
/// It stays where it was.
pub fn keep(
    root: BorrowedFd<'_>,
    from: (BorrowedFd<'_>, &CStr),
    replaced: &Replaced,
) -> anyhow::Result<u64> {
    let own = crate::own::ensure_own_directory(root)?;
    let trash = crate::own::ensure_directory(own.as_fd(), &at::c_name(TRASH.as_ref())?)?;
    let mut number = 1;
    let is = |name: CString| at::present(at::status(trash.as_fd(), &name));
    while is(replaced_name(number)?)?.is_some() || is(record_name(number)?)?.is_some() {
        number += 1;
    }
    let (name, record) = (replaced_name(number)?, record_name(number)?);
    // Without its record the next purge would remove it.
    at::write_durably(&trash, &*record, &serde_json::to_vec_pretty(replaced)?)
        .with_context(|| format!("cannot write {record:?} into {OWN_DIRECTORY}/{TRASH}"))?;
    let moved = match tree::rename(from, (trash.as_fd(), &name)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(anyhow!("it is gone")),
        Err(error) => Err(error.into()),
    };
    match moved {
        Ok(()) => Ok(number),
        Err(error) => match unlinkat(&trash, &record, AtFlags::empty()) {
            Ok(()) => Err(error),
            Err(left) => Err(error.context(format!("and {record:?} is left over: {left}"))),
        },
    }
}

/// Makes what was replaced something that the next purge removes, if this one is interrupted.
///
/// # Errors
/// As unlinkat(2).
pub fn doom(root: BorrowedFd<'_>, number: u64) -> anyhow::Result<()> {
    let trash = open(root)?.context("the trash is gone")?;
    unlinkat(&trash, &record_name(number)?, AtFlags::empty())
        .with_context(|| format!("cannot remove {}.json", shown(number)))
}

/// What `keep` no longer keeps of what was replaced, oldest first; `generations` are those that are
/// left. It goes when the generation that was made of its tree would. Pure.
#[must_use]
pub fn expired(
    replaced: &[(u64, Replaced)],
    generations: &[Dated],
    keep: Keep,
    now: Option<u64>,
) -> Vec<Expired> {
    let dated: Vec<_> =
        replaced.iter().map(|(number, it)| Dated { number: *number, ended: it.time }).collect();
    let old = keep.days.map_or_else(Vec::new, |days| retention::older_than(&dated, days, now));
    let expired = |(number, it): &(u64, Replaced)| {
        // The next one is, or was, the tree that it was in.
        let newer = generations.iter().filter(|other| other.number > it.generation + 1).count();
        let limit = keep.generations.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let reason = match () {
            () if limit.is_some_and(|limit| newer >= limit.max(1)) => Reason::TooMany,
            () if old.contains(number) => Reason::TooOld,
            () => return None,
        };
        Some(Expired { number: *number, reason })
    };
    replaced.iter().filter_map(expired).collect()
}
