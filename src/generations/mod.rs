//! Generations: the previous states that resets have left, and which of them are kept.
//!
//! | module | what it knows |
//! |---|---|
//! | `retention` | which generations go; pure |
//! | `listing` | all generations of a configuration, as a table and as JSON |
//!
//! Where generations lie and how they are removed is the business of each filesystem, which
//! implements [`Store`]: see `volume/*/generations.rs`.

use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::fstatvfs;
use serde::Serialize;

pub mod listing;
pub mod retention;

use retention::Dated;

use crate::cmdline::Which;
use crate::fs::Dir;
use crate::own::Own;
use crate::own::state::{self, Manifest, Moment};
use crate::rules::Rules;

/// The generations of one volume, and what belongs to removing them.
pub trait Store {
    /// Keeps resets and other purges away until it is closed.
    ///
    /// # Errors
    /// Another run is at work.
    fn lock(&mut self) -> anyhow::Result<()>;

    /// What the filesystem itself says of an interrupted reset. The journal in the live volume is
    /// looked for by [`unfinished`].
    fn unfinished(&self) -> anyhow::Result<Option<String>>;

    /// Looks at what is there.
    fn look(&mut self, detail: Detail) -> anyhow::Result<Seen>;

    /// Removes a generation with everything nested in it. What it held becomes free later: see
    /// [`Store::settle`].
    ///
    /// # Errors
    /// What holds it. If some of it is gone, the next look says that its removal was begun.
    fn remove(&mut self, generation: &Generation) -> anyhow::Result<()>;

    /// The root of the live volume.
    ///
    /// # Errors
    /// It is not there.
    fn live(&self) -> anyhow::Result<Dir>;

    /// The root of a generation, to read. The generations of a plain directory hold what a reset
    /// moved aside, so what was persisted is not in them.
    ///
    /// # Errors
    /// It is gone, or cannot be mounted.
    fn tree(&mut self, generation: &Generation) -> anyhow::Result<Dir>;

    /// What a generation's own tree says of the run that made it; `None` where it was never reset.
    fn manifest(&mut self, generation: &Generation) -> anyhow::Result<Option<Manifest>> {
        state::manifest(&self.tree(generation)?)
    }

    /// Whether generations hold what was persisted, too.
    fn holds_persisted(&self) -> bool {
        true
    }

    /// The root of the blank, to read; `None` for an empty one.
    ///
    /// # Errors
    /// It is not there, or cannot be mounted.
    fn blank(&mut self) -> anyhow::Result<Option<Dir>>;

    /// What is known of the reset that made the live volume from this blank; `None` where no reset
    /// did, or that is not sure.
    fn since_reset(&self, _rules: &Rules) -> anyhow::Result<Option<Since>> {
        let time = state::written(&self.live()?)?;
        Ok(time.map(|time| Since { time, changes: None }))
    }

    /// Removes what [`crate::tree::remove`] cannot: volumes nested in the live one, at or below
    /// a path of it.
    ///
    /// # Errors
    /// What holds one.
    fn remove_nested(&mut self, below: &Path) -> anyhow::Result<()>;

    /// What is free now.
    fn space(&self) -> anyhow::Result<Space>;

    /// Waits until what was removed is free, or `enough` bytes are. Calls `waiting` now and then.
    ///
    /// # Errors
    /// Nothing more is freed, and not all is.
    fn settle(&mut self, enough: u64, waiting: &mut dyn FnMut()) -> anyhow::Result<()>;

    /// Closes everything, and with it the lock.
    ///
    /// # Errors
    /// What is still mounted; it goes with the process.
    fn close(&mut self) -> anyhow::Result<()>;
}

/// Closes a store after what was done with it. If both fail, both are told.
///
/// # Errors
/// The result's, and what could not be closed.
pub fn close_after<T>(result: anyhow::Result<T>, store: &mut dyn Store) -> anyhow::Result<T> {
    match (result, store.close()) {
        (result, Ok(())) => result,
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Err(close)) => Err(error.context(format!("and then: {close:#}"))),
    }
}

/// Why nothing may be removed or brought back now: an interrupted reset that the next run completes.
/// `live` is the root of the live volume.
pub fn unfinished(store: &dyn Store, live: &Dir) -> anyhow::Result<Option<String>> {
    if let Some(why) = store.unfinished()? {
        return Ok(Some(why));
    }
    let journal = Path::new("reset/journal");
    let found = match Own::open(live)? {
        Some(own) => own.glance(journal)?,
        None => None,
    };
    Ok(found.map(|_| "its journal is there".to_owned()))
}

/// What to do about a reset that was interrupted, given [`why`](unfinished) that is known.
#[must_use]
pub fn interrupted_in_words(why: &str) -> String {
    format!("a reset was interrupted ({why}); reboot, so that the next one completes it")
}

/// How a [`Store`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only to look.
    ReadOnly,
    /// To remove.
    Writable,
}

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What retention wants to know; sizes and boots may be missing.
    Retention,
    /// Everything.
    All,
}

/// A previous state that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// The number of the reset that made it end: it is what was live until then.
    pub number: u64,
    /// The subvolume's path from the top level, or the snapshot's full name.
    pub name: String,
    /// When that reset ran, in seconds since 1970, by the clock of the initrd.
    pub ended: Option<u64>,
    /// The boot that it was live in and that it ended, as the kernel names it; of the last one, if
    /// it lived through several without a reset.
    pub boot: Option<String>,
    /// How much it takes, where the filesystem counts that.
    pub size: Option<Size>,
}

impl Generation {
    /// What retention wants to know of it.
    #[must_use]
    pub fn dated(&self) -> Dated {
        Dated { number: self.number, ended: self.ended }
    }
}

/// How much a generation takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Who counts.
    pub counted_by: CountedBy,
    /// What can be reached from it, whoever else has it too; with simple quotas, what was allocated
    /// for it.
    pub referenced_bytes: u64,
    /// What only it has. Removing it, and it alone, gives that back.
    pub exclusive_bytes: u64,
}

/// Who counted a [`Size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedBy {
    /// Quota groups of btrfs.
    Quota,
    /// Simple quotas of btrfs.
    SimpleQuota,
    /// ZFS, always: its properties `referenced` and `used`.
    Zfs,
}

/// Something beside the generations that is not a generation, or no longer is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Other {
    /// As in [`Generation::name`].
    pub name: String,
    /// Why it is left alone.
    pub why: String,
}

/// What is known of the reset that made a live volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// When it was, by the clock of the initrd.
    pub time: Moment,
    /// From when on the filesystem itself knows what changed; `None` where it does not, or other rules
    /// are in force today.
    pub changes: Option<Changes>,
}

/// The last transactions of the filesystem before anything was changed that a reset did not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// In the live volume.
    pub live: u64,
    /// In the blank.
    pub blank: u64,
}

/// The generations are another system's, and what to do about that.
#[derive(Debug)]
pub struct Foreign(pub String);

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Foreign {}

/// What a [`Store`] holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The generations, oldest first.
    pub generations: Vec<Generation>,
    /// Those whose removal was begun and interrupted. They are incomplete and must go.
    pub begun: Vec<Generation>,
    /// What lies there too and is never touched.
    pub others: Vec<Other>,
}

/// The space on the filesystem that holds a volume, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What can still be written.
    pub available: u64,
    /// All of it.
    pub total: u64,
}

impl Space {
    /// What the filesystem of an open file says.
    pub fn on(file: &Dir) -> anyhow::Result<Self> {
        let status = fstatvfs(file).context("cannot read how much is free")?;
        let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
        Ok(Self { available: bytes(status.f_bavail), total: bytes(status.f_blocks) })
    }
}

/// The name of what says that the removal of a generation, or of a part of the attic, has begun.
#[must_use]
pub fn removing_name(number: u64) -> String {
    format!("removing-{number}")
}

/// The number in such a name.
#[must_use]
pub fn removing(name: &str) -> Option<u64> {
    crate::text::exact_number(name.strip_prefix("removing-")?)
}

/// Resolves the requested generation to a number: `previous` is the newest of those that exist.
///
/// # Errors
/// There is no such generation; the message lists those that exist.
pub fn choose(which: Which, mut there: Vec<u64>) -> anyhow::Result<u64> {
    /// So many are named; more would fill the console.
    const NAMED: usize = 20;
    there.sort_unstable();
    let Some((newest, older)) = there.split_last() else {
        bail!("there is no generation yet");
    };
    let number = match which {
        Which::Previous => *newest,
        Which::Number(number) => number,
    };
    if there.contains(&number) {
        return Ok(number);
    }
    let unnamed = there.len().saturating_sub(NAMED);
    let names: Vec<String> = there.iter().skip(unnamed).map(u64::to_string).collect();
    bail!(
        "there is no generation {number}; there {} {}{}",
        if older.is_empty() { "is" } else { "are" },
        names.join(", "),
        if unnamed > 0 { format!(", and {unnamed} older ones") } else { String::new() },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_previous_generation_is_the_newest_and_another_must_be_there() {
        assert_eq!(choose(Which::Previous, vec![4, 12, 7]).unwrap(), 12);
        assert_eq!(choose(Which::Number(4), vec![4, 12, 7]).unwrap(), 4);
        let error = |which, there| choose(which, there).unwrap_err().to_string();
        assert_eq!(
            error(Which::Number(5), vec![12, 7, 4]),
            "there is no generation 5; there are 4, 7, 12"
        );
        assert_eq!(error(Which::Number(5), vec![4]), "there is no generation 5; there is 4");
        let many = error(Which::Number(0), (1..=23).collect());
        assert!(many.starts_with("there is no generation 0; there are 4, 5, "), "{many}");
        assert!(many.ends_with(", 23, and 3 older ones"), "{many}");
        for which in [Which::Previous, Which::Number(5)] {
            assert_eq!(error(which, Vec::new()), "there is no generation yet");
        }
    }
}
