//! The trash in a volume's `.darlings`: what waits to be removed in the running system.
//!
//! ```text
//! .darlings/trash/7                   what reset 7 moved aside: the next purge removes it
//! .darlings/trash/replaced-1          what a recovery replaced
//! .darlings/trash/replaced-1.json     what that was, and when
//! ```
//!
//! No generation need hold what was replaced, so it is kept as long as a generation would be.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::Keep;
use crate::fs::Dir;
use crate::generations::retention::{self, Dated, Expired, Reason};
use crate::keep::carry::TRASH;
use crate::own::Own;
use crate::own::state;
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
    pub fn new(root: &Dir, path: &Path) -> anyhow::Result<Self> {
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
    pub doomed: Vec<OsString>,
    /// What recoveries have replaced, by the number in its name.
    pub replaced: Vec<(u64, Replaced)>,
}

/// The trash of the tree at `root`; `None` where there is none.
pub fn open(root: &Dir) -> anyhow::Result<Option<Dir>> {
    Own::open(root)?.map_or(Ok(None), |own| own.open_dir_optional(TRASH))
}

/// Looks into the trash of the tree at `root`.
pub fn look(root: &Dir) -> anyhow::Result<Contents> {
    let mut contents = Contents::default();
    let Some(trash) = open(root)? else { return Ok(contents) };
    for name in trash.names()? {
        let text = name.to_str().unwrap_or("");
        let (text, is_record) = match text.strip_suffix(".json") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let number = text.strip_prefix("replaced-").and_then(exact_number);
        let other = match (number, is_record) {
            (Some(number), true) => replaced_name(number),
            (Some(number), false) => record_name(number),
            (None, _) => {
                contents.doomed.push(name);
                continue;
            }
        };
        // What has no record was replaced by an earlier version, or is being removed.
        if !trash.holds(&other)? {
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

fn read(trash: &Dir, number: u64) -> anyhow::Result<Replaced> {
    let what = format!("{}.json", shown(number));
    let text = trash.read_optional(record_name(number))?;
    parse(&text.with_context(|| format!("{what} went away"))?, &what)
}

/// Reads the record of something that is replaced, which lies at `what`.
pub fn parse<T: serde::de::DeserializeOwned>(text: &[u8], what: &str) -> anyhow::Result<T> {
    state::parse(text, VERSION, what, || format!("{what} is damaged"))
}

/// The name in the trash of what was replaced.
pub(crate) fn replaced_name(number: u64) -> String {
    format!("replaced-{number}")
}

fn record_name(number: u64) -> String {
    format!("replaced-{number}.json")
}

/// Its path below the volume's root, for a person.
#[must_use]
pub fn shown(number: u64) -> String {
    format!("{OWN_DIRECTORY}/{TRASH}/replaced-{number}")
}

/// Moves something that was replaced to the trash of the volume at `root`, and answers its number
/// there. It is at one of the two places at every moment; after a failure it stays where it was.
pub fn keep(root: &Dir, from: (&Dir, &OsStr), replaced: &Replaced) -> anyhow::Result<u64> {
    let trash = Own::ensure(root)?.directory(TRASH)?;
    let mut number = 1;
    while trash.holds(replaced_name(number))? || trash.holds(record_name(number))? {
        number += 1;
    }
    let record = record_name(number);
    // Without its record the next purge would remove it.
    trash.write_json(&record, replaced)?;
    let moved = match tree::rename(from, (&trash, &replaced_name(number))) {
        Ok(true) => return Ok(number),
        Ok(false) => anyhow!("it is gone"),
        Err(error) => error.into(),
    };
    Err(match trash.remove_file(&record) {
        Ok(_) => moved,
        Err(left) => moved.context(format!("and {record:?} is left over: {left:#}")),
    })
}

/// Makes what was replaced something that the next purge removes, if this one is interrupted.
pub fn doom(root: &Dir, number: u64) -> anyhow::Result<()> {
    open(root)?.context("the trash is gone")?.remove_file(record_name(number)).map(drop)
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
