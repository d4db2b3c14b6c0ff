//! What lies beside the generations, in `.darlings/record`: whose they are, and what the live volume
//! was made from.
//!
//! Neither is believed of a tree itself, since a tree can be copied with everything in it. A
//! subvolume's UUID cannot: a copy, a snapshot and a received one each have their own. So the record
//! names the live subvolume by its UUID, and is about no other one.
//!
//! ```text
//! @darlings/root/
//!     .darlings/      root's alone, and nothing in it is anybody else's
//!         record      this
//!         next        a stage
//! ```

use std::path::PathBuf;

use anyhow::Context as _;
use darlings_btrfs as fs;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::names::{NEXT, names_in, staged_number};
use crate::fs::Dir;
use crate::generations::{Changes, Foreign, Since};
use crate::own::Own;
use crate::own::state::{self, Moment};
use crate::rules::{OWN_DIRECTORY, Rules};
use crate::text::exact_number;

pub(super) const RECORD: &str = "record";

/// The newest format that this version knows, and the one that it writes.
pub(super) const VERSION: u32 = 1;

/// Whose the generations are, and what the live volume was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    /// The system that they belong to, by an id that means nothing else. The manifest of its volume
    /// has it too.
    pub(super) system: String,
    /// Where the live subvolume was, from the top level.
    pub(super) subvolume: PathBuf,
    /// The live subvolume, as the last run left it. A run adds its result before it exchanges the two,
    /// so that one of them is live whatever became of the run.
    pub(super) live: Vec<Live>,
}

/// A subvolume that is live, or will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Live {
    pub(super) uuid: String,
    /// What a reset made it from; nothing is known of any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made: Option<Made>,
}

impl Live {
    /// A result, after it was synced, and before it is live.
    pub(super) fn staged(root: &Dir, blank: Option<Blank>, rules: &Rules) -> anyhow::Result<Self> {
        let info = fs::subvolume_info(root)?;
        let (persisted, excluded) = rules.lists();
        let (time, transaction) = (state::written(root)?, info.generation);
        let made = blank.zip(time);
        let made = made.map(|(blank, time)| Made { blank, time, transaction, persisted, excluded });
        Ok(Self { uuid: uuid_of(root)?, made })
    }
}

/// What a reset made a volume from. Whatever is not persisted was the blank's then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    blank: Blank,
    /// When the reset was complete, by its clock.
    time: Moment,
    /// The last transaction that the reset changed the volume in, before it was live.
    transaction: u64,
    persisted: Vec<PathBuf>,
    excluded: Vec<PathBuf>,
}

/// A blank, as it was before anything was made from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blank {
    uuid: String,
    /// The last transaction that had changed it.
    transaction: u64,
}

impl Blank {
    /// How it is now.
    pub(super) fn look(blank: &Dir) -> anyhow::Result<Option<Self>> {
        let info = fs::subvolume_info(blank)?;
        let transaction = info.generation;
        Ok(info.uuid.map(|uuid| Self { uuid: uuid.to_string(), transaction }))
    }
}

/// A subvolume, as whose it is depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The number in its name, of a generation.
    pub(super) number: u64,
    pub(super) uuid: String,
    pub(super) parent: Option<String>,
    /// The number of the reset that made it; 0 where none did.
    pub(super) made_by: u64,
    /// The system that its manifest names.
    pub(super) system: Option<String>,
}

impl Seen {
    pub(super) fn look(root: &Dir, number: u64) -> anyhow::Result<Self> {
        let info = fs::subvolume_info(root)?;
        // What is damaged says nothing here, and is reported where it matters.
        let made_by = state::generation(root).unwrap_or(0);
        let manifest = state::manifest(root).unwrap_or(None);
        Ok(Self {
            number,
            uuid: uuid_of(root)?,
            parent: info.parent_uuid.map(|uuid| uuid.to_string()),
            made_by,
            system: manifest.and_then(|manifest| manifest.system),
        })
    }

    /// Whether this live volume follows from one of the generations, as those of earlier versions
    /// do, which had no record. `carry` and a restore snapshot the one before, and `darlings=snapshot`
    /// the live one. A rollback snapshots the blank, so there the two have that in common, and the
    /// newest number. A blank made anew is itself a snapshot, of what was live or of the blank before.
    fn follows(&self, kept: &[Self], blank: Option<&Self>) -> bool {
        let of_the_blank = blank.filter(|it| self.parent.as_ref() == Some(&it.uuid));
        let from = [self.parent.as_ref(), of_the_blank.and_then(|it| it.parent.as_ref())];
        let leads_to = |uuid: &String| from.contains(&Some(uuid));
        if kept.iter().any(|it| leads_to(&it.uuid) || it.parent.as_ref() == Some(&self.uuid)) {
            return true;
        }
        let newest = kept.iter().filter(|it| it.made_by < it.number).max_by_key(|it| it.number);
        newest.is_some_and(|it| {
            it.number == self.made_by
                && (it.parent == self.parent
                    || it.parent.as_ref().is_some_and(leads_to)
                    || it.made_by == 0 && of_the_blank.is_some())
        })
    }
}

impl Record {
    pub(super) fn read(home: &Dir) -> anyhow::Result<Option<Self>> {
        let Some(own) = Own::open(home)? else { return Ok(None) };
        let Some(text) = own.read_optional(RECORD)? else {
            return Ok(None);
        };
        let what = format!("{OWN_DIRECTORY}/record");
        match state::parse(&text, VERSION, &what, || format!("{what} is damaged")) {
            Ok(record) => Ok(Some(record)),
            // It is made anew from what the generations say.
            Err(error) if error.is::<serde_json::Error>() => {
                warn!("in the generations directory, {error:#}: nothing of it is believed");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a thing with the name of something staged was left by one of our runs, which the record
    /// then names. `ready-N` of an earlier version is told from somebody's own by what it holds: a
    /// stage is made by reset N, and the previous state was there before.
    pub(super) fn left(&self, home: &Dir, name: &str, live: &Dir) -> anyhow::Result<bool> {
        let Some(number) = staged_number(name) else { return Ok(false) };
        let Some(root) = subvolume_in(home, name)? else { return Ok(false) };
        let (live, seen) = (Seen::look(live, 0)?, Seen::look(&root, number)?);
        if self.names(&live.uuid) || !name.starts_with("ready-") {
            return Ok(self.names(&seen.uuid));
        }
        let (made_by, was) = (seen.made_by, live.made_by);
        Ok(if number == was { made_by < number } else { made_by == number })
    }

    /// The names below the generations directory, but what is somebody else's and looks like a stage;
    /// and the highest number that the name of such a thing has.
    pub(super) fn ours_in(&self, home: &Dir, live: &Dir) -> anyhow::Result<(Vec<String>, u64)> {
        let (mut ours, mut taken) = (names_in(home)?, 0);
        let staged = |name: &mut String| staged_number(name).is_some();
        for name in ours.extract_if(.., staged).collect::<Vec<_>>() {
            if self.left(home, &name, live)? {
                ours.push(name);
            } else {
                taken = taken.max(staged_number(&name).unwrap_or(0));
            }
        }
        if home.glance(NEXT)?.is_some() {
            ours.push(NEXT.to_owned());
        }
        Ok((ours, taken))
    }

    pub(super) fn names(&self, uuid: &str) -> bool {
        self.live.iter().any(|live| live.uuid == uuid)
    }

    /// Whether what lies in the directory is this volume's, as far as that shows in it.
    pub(super) fn is_of(
        this: Option<&Self>,
        live: &Seen,
        kept: &[Seen],
        blank: Option<&Seen>,
    ) -> bool {
        match (this, &live.system) {
            (Some(record), _) if record.names(&live.uuid) => true,
            // Nothing is there that could be another system's.
            _ if kept.is_empty() => true,
            (Some(record), Some(system)) => record.system == *system,
            (None, Some(system)) if kept.iter().any(|it| it.system.is_some()) => {
                kept.iter().any(|it| it.system.as_ref() == Some(system))
            }
            // An earlier version has no id, nor has what was live before the first reset.
            (Some(record), None) if live.parent.as_ref().is_some_and(|it| record.names(it)) => true,
            _ => live.follows(kept, blank),
        }
    }

    /// What is known of the reset that made the live volume from the blank, if this is about the two.
    pub(super) fn since(
        &self,
        live: &Dir,
        blank: &Dir,
        rules: &Rules,
    ) -> anyhow::Result<Option<Since>> {
        let uuid = uuid_of(live)?;
        let made = self.live.iter().find(|it| it.uuid == uuid).and_then(|it| it.made.as_ref());
        let Some(made) = made else { return Ok(None) };
        if fs::subvolume_info(live)?.received_uuid.is_some() || uuid_of(blank)? != made.blank.uuid {
            return Ok(None);
        }
        let (persisted, excluded) = rules.lists();
        // What was persisted then and is not now was never the blank's.
        let same = (persisted, excluded) == (made.persisted.clone(), made.excluded.clone());
        let changes = Changes { live: made.transaction, blank: made.blank.transaction };
        Ok(Some(Since { time: made.time, changes: same.then_some(changes) }))
    }
}

/// Whose the generations are.
pub(super) enum Whose {
    /// This volume's, as this says; or nobody's yet.
    Ours(Record),
    /// Somebody else's.
    Theirs(Foreign),
}

impl Whose {
    pub(super) fn ours(self) -> anyhow::Result<Record> {
        match self {
            Self::Ours(record) => Ok(record),
            Self::Theirs(foreign) => Err(foreign.into()),
        }
    }
}

/// The generations and the previous states that lie in `home`, whoever's.
pub(super) fn kept_in(home: &Dir) -> anyhow::Result<Vec<Seen>> {
    let numbered = |name: &String| exact_number(name.strip_prefix("ready-").unwrap_or(name));
    let mut kept = Vec::new();
    for name in names_in(home)? {
        let Some(number) = numbered(&name) else { continue };
        if let Some(root) = subvolume_in(home, &name)? {
            kept.push(Seen::look(&root, number)?);
        }
    }
    Ok(kept)
}

/// The subvolume with this name; `None` for anything else.
fn subvolume_in(home: &Dir, name: &str) -> anyhow::Result<Option<Dir>> {
    let Some(opened) = home.open_dir_optional(name)? else { return Ok(None) };
    let status = opened.status()?;
    Ok((fs::entry_kind(status.stx_ino) == fs::EntryKind::SubvolumeRoot).then_some(opened))
}

pub(super) fn uuid_of(root: &Dir) -> anyhow::Result<String> {
    let uuid = fs::subvolume_info(root)?.uuid.context("a subvolume has no UUID")?;
    Ok(uuid.to_string())
}
