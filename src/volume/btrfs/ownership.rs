//! Whose the generations are: found out before anything in their directory is believed, and written down.

use std::path::PathBuf;

use anyhow::Context as _;
use darlings_btrfs as fs;

use super::record::{Live, RECORD, Record, Seen, VERSION, Whose, kept_in, uuid_of};
use super::subvolume::Btrfs;
use crate::fs::Dir;
use crate::generations::Foreign;
use crate::names::shown;

impl Btrfs {
    /// Finds out whose the generations in `home` are. Changes nothing.
    pub(super) fn whose(&self, home: &Dir, live: &Dir) -> anyhow::Result<Whose> {
        let record = Record::read(home)?;
        let seen = Seen::look(live, 0)?;
        let other = match &record {
            Some(record) if record.subvolume != self.source.subvolume => {
                self.elsewhere(record, &seen)?
            }
            _ => None,
        };
        let (kept, blank) = match &record {
            Some(record) if record.names(&seen.uuid) => (Vec::new(), None),
            _ => (kept_in(home)?, self.seen_blank()?),
        };
        if other.is_none() && Record::is_of(record.as_ref(), &seen, &kept, blank.as_ref()) {
            return Ok(Whose::Ours(record.map_or_else(|| Self::claim(seen), Ok)?));
        }
        let ours = shown(&self.source.subvolume);
        let theirs = if let Some(record) = record {
            let at = other.unwrap_or(record.subvolume);
            format!("belongs to another system, whose subvolume is {}", shown(&at))
        } else {
            let numbers: Vec<String> = kept.iter().map(|it| it.number.to_string()).collect();
            format!("holds generations that did not come from {ours}: {}", numbers.join(", "))
        };
        Ok(Whose::Theirs(Foreign(format!(
            "{} {theirs}; nothing in it is read, removed or restored for {ours}, and nothing is reset. \
             Write generations = {:?} into its `btrfs`; or, if the other system is gone, give them to \
             {ours}: darlings init --take-over",
            shown(&self.source.generations),
            self.free_place()?
        ))))
    }

    fn seen_blank(&self) -> anyhow::Result<Option<Seen>> {
        let Some(path) = self.source.blank.as_deref() else { return Ok(None) };
        self.open_subvolume(path)?.map(|blank| Seen::look(&blank, 0)).transpose()
    }

    /// The record of a directory that nobody has claimed yet.
    fn claim(live: Seen) -> anyhow::Result<Record> {
        /// Where the kernel gives away ids (`random(4)`).
        const RANDOM: &str = "/proc/sys/kernel/random/uuid";
        let system = match live.system {
            Some(system) => system,
            None => std::fs::read_to_string(RANDOM)
                .with_context(|| format!("cannot read {RANDOM}"))?
                .trim_end()
                .to_owned(),
        };
        Ok(Record { version: VERSION, system, ..Record::default() })
    }

    /// Where what was live when the last run ended is, if it is not this volume. If the configuration
    /// named another path then, one of the two is a copy, and a system of its own. If it named the same,
    /// the volume was replaced, and what was there moved away.
    fn elsewhere(&self, record: &Record, live: &Seen) -> anyhow::Result<Option<PathBuf>> {
        for other in record.live.iter().filter(|it| it.uuid != live.uuid) {
            let Ok(uuid) = other.uuid.parse() else { continue };
            let Some(id) = fs::subvolume_with_uuid(self.top()?, uuid)? else { continue };
            let path = match fs::subvolume_path(self.top()?, id) {
                // It was deleted a moment ago.
                Err(error) if error.kind() == fs::ErrorKind::NotFound => continue,
                path => path?,
            };
            if !path.starts_with(&self.source.generations) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Where this volume's generations can be, if theirs is taken.
    fn free_place(&self) -> anyhow::Result<PathBuf> {
        let mut number = 2;
        loop {
            let mut name = self.source.generations.clone().into_os_string();
            name.push(format!("-{number}"));
            if self.top()?.glance(&name)?.is_none() {
                return Ok(name.into());
            }
            number += 1;
        }
    }

    /// The id of the system whose volume this is.
    pub(super) fn system(&mut self) -> anyhow::Result<String> {
        Ok(self.record_now()?.system.clone())
    }

    fn record_now(&mut self) -> anyhow::Result<&mut Record> {
        if self.work.record.is_none() {
            // There was no directory for the generations.
            self.work.record = Some(Self::claim(Seen::look(&self.live()?, 0)?)?);
        }
        self.work.record.as_mut().context("BUG: the record was just made")
    }

    /// Writes down, durably, what is live, and what will be `next`, if that is given. What is known of
    /// anything else is forgotten.
    pub(super) fn write_record(&mut self, next: Option<Live>) -> anyhow::Result<()> {
        let (uuid, subvolume) = (uuid_of(&self.live()?)?, self.source.subvolume.clone());
        let own = self.own_home()?;
        let record = self.record_now()?;
        record.live.retain(|it| it.uuid == uuid);
        if record.live.is_empty() {
            record.live.push(Live { uuid, made: None });
        }
        record.live.extend(next);
        record.subvolume = subvolume;
        own.write_json(RECORD, record)
    }

    /// Writes it where it does not name what is live: the run that made that was an earlier version's.
    pub(super) fn ensure_recorded(&mut self) -> anyhow::Result<()> {
        let uuid = uuid_of(&self.live()?)?;
        if self.record_now()?.names(&uuid) { Ok(()) } else { self.write_record(None) }
    }

    /// Removes the record from `own`, when nothing is left that it is about.
    pub(super) fn forget_record(own: &Dir) -> anyhow::Result<()> {
        own.remove_file(RECORD).map(drop)
    }
}
