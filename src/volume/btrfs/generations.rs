//! The generations of a btrfs subvolume: finding, dating and removing them.
//!
//! A removal deletes nested subvolumes first and may be interrupted in between. So it begins with
//! an empty file `removing-7` beside `7`, which goes last: what has one is no generation any more,
//! and the next purge goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use darlings_btrfs as fs;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use tracing::warn;

use super::names::{highest, names_in, ready_for, ready_name};
use super::record::Record;
use super::subvolume::Btrfs;
use crate::cmdline::Asked;
use crate::config;
use crate::fs::dir::{Dir, is};
use crate::generations::{
    Access, CountedBy, Detail, Generation, Other, Seen, Since, Size, Space, Store, removing,
    removing_name,
};
use crate::own::state::{self, Manifest};
use crate::rules::{OWN_DIRECTORY, Rules};
use crate::text::exact_number;
use crate::tree::{self};
use crate::volume::{Options, mounts};

/// How long the cleaner may free nothing before it is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often the cleaner is looked after.
const PAUSE: Duration = Duration::from_millis(100);

/// The generations of a btrfs subvolume.
pub(in crate::volume) struct Generations {
    btrfs: Btrfs,
    /// The directory of the generations, if there is one; with the lock on it, once it is taken.
    home: Option<Dir>,
    /// Whose they are, and what the live volume was made from.
    record: Option<Record>,
    /// Ids of subvolumes that were deleted and may not be cleaned yet.
    deleted: Vec<u64>,
}

/// What is known of one entry of the generations directory.
enum Entry {
    Ours { id: u64, manifest: Option<Manifest> },
    Other { why: String },
}

impl Generations {
    pub(in crate::volume) fn open(
        volume: &config::Volume,
        source: &config::Btrfs,
        access: Access,
    ) -> anyhow::Result<Self> {
        let options = Options {
            dry_run: access == Access::ReadOnly,
            threads: 1,
            asked: Asked::Reset,
            root_subvolid: None,
        };
        let mut btrfs = Btrfs::open(volume, source, options)?;
        match btrfs.home_of_its_own() {
            Ok((home, record)) => Ok(Self { btrfs, home, record, deleted: Vec::new() }),
            Err(error) => {
                crate::volume::OpenVolume::close(&mut btrfs).context(format!("{error:#}"))?;
                Err(error)
            }
        }
    }

    fn path_of(&self, name: &str) -> String {
        self.btrfs.path_of(name)
    }

    fn size(&self, id: u64) -> anyhow::Result<Option<Size>> {
        let usage = fs::subvolume_usage(self.btrfs.top()?, id)?;
        Ok(usage.map(|usage| Size {
            counted_by: match usage.accounting {
                fs::Accounting::Quota => CountedBy::Quota,
                fs::Accounting::SimpleQuota => CountedBy::SimpleQuota,
            },
            referenced_bytes: usage.referenced,
            exclusive_bytes: usage.exclusive,
        }))
    }

    /// btrfs deletes what is mounted without a word, and programs on it go on with a ruin.
    fn refuse_if_mounted(&self, path: &Path) -> anyhow::Result<()> {
        let top = self.btrfs.top.as_ref().context("BUG: used after it was closed")?;
        let device = top.device()?;
        let path = Path::new("/").join(path);
        let mounted = mounts::all()?.into_iter().find(|mount| {
            mount.device == device && !top.is(mount) && mount.root.starts_with(&path)
        });
        match mounted {
            Some(mount) => bail!("it is mounted at {:?}; unmount it", mount.mount_point),
            None => Ok(()),
        }
    }

    fn delete(&mut self, id: u64) -> Result<(), fs::Error> {
        let Some(top) = self.btrfs.top.as_deref() else { return Ok(()) };
        let nested = fs::delete_subvolume_recursive(top, id)?;
        self.deleted.extend(nested.into_iter().map(|nested| nested.id).chain([id]));
        Ok(())
    }
}

impl Btrfs {
    /// The directory of the generations, if there is one and it is this volume's.
    fn home_of_its_own(&self) -> anyhow::Result<(Option<Dir>, Option<Record>)> {
        let Some(home) = self.home()? else { return Ok((None, None)) };
        let record = self.whose(&home, &self.live()?)?.ours()?;
        Ok((Some(home), Some(record)))
    }

    fn path_of(&self, name: &str) -> String {
        self.source.generations.join(name).display().to_string()
    }

    /// The numbers of the generations that there are, of these names in their directory.
    pub(super) fn numbers(
        &self,
        home: &Dir,
        names: &[String],
        last_reset: u64,
    ) -> anyhow::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for number in names.iter().filter_map(|name| exact_number(name)) {
            let begun = names.contains(&removing_name(number));
            if !begun && matches!(self.examine(home, number, last_reset)?, Entry::Ours { .. }) {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }

    /// Whose the entry with that number for a name is. Everything must fit, since what is not ours
    /// is never removed.
    fn examine(&self, home: &Dir, number: u64, last_reset: u64) -> anyhow::Result<Entry> {
        let other = |why: &str| Ok(Entry::Other { why: why.to_owned() });
        if self.source.blank == Some(self.source.generations.join(number.to_string())) {
            return other(
                "it is the blank, so it is never removed or restored; every reset brings back what \
                 had accumulated in it",
            );
        }
        let name = number.to_string();
        let opened = match home.open_dir(&name) {
            Err(error) if is(&error, Errno::NOTDIR) || is(&error, Errno::LOOP) => {
                return other("it is no subvolume");
            }
            // Listing takes no lock, and a purge may be at work.
            Err(error) if is(&error, Errno::NOENT) => {
                return other("it went away while it was looked at");
            }
            opened => opened?,
        };
        let status = opened.status()?;
        if fs::entry_kind(status.stx_ino) != fs::EntryKind::SubvolumeRoot {
            return other("it is no subvolume");
        }
        if number > last_reset {
            return Ok(Entry::Other {
                why: format!("no reset had this number: the last one had {last_reset}"),
            });
        }
        if !fs::is_read_only(&opened)? {
            return other("it can be written to, which no generation can");
        }
        let made_by = match state::counter(&opened) {
            Ok(Some(made_by)) => made_by,
            Ok(None) => return other("its number and its manifest are damaged"),
            Err(error) => return Ok(Entry::Other { why: format!("{error:#}") }),
        };
        if made_by >= number {
            return Ok(Entry::Other {
                why: format!("its content is that of reset {made_by}, which did not precede it"),
            });
        }
        let manifest = state::manifest(&opened).unwrap_or_else(|error| {
            warn!("{}: {error:#}", self.path_of(&number.to_string()));
            None
        });
        Ok(Entry::Ours { id: fs::subvolume_id(&opened)?, manifest })
    }
}

impl Store for Generations {
    fn lock(&mut self) -> anyhow::Result<()> {
        self.home.as_ref().map_or(Ok(()), |home| self.btrfs.lock(home))
    }

    fn unfinished(&self) -> anyhow::Result<Option<String>> {
        let Some(home) = &self.home else { return Ok(None) };
        let Some(record) = &self.record else { return Ok(None) };
        let live = self.btrfs.live()?;
        let (names, _) = record.ours_in(home, &live)?;
        let waits = match state::counter(&live)? {
            Some(number) => names.into_iter().find(|name| *name == ready_name(number)),
            // One or the other is.
            None => names.into_iter().find(|name| ready_for(name).is_some()),
        };
        Ok(waits.map(|ready| format!("{} is the previous state of a reset", self.path_of(&ready))))
    }

    fn look(&mut self, detail: Detail) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let Some(home) = &self.home else { return Ok(seen) };
        let live = self.btrfs.live()?;
        let names = names_in(home)?;
        let last_reset = state::counter(&live)?.unwrap_or_else(|| highest(&names));
        let begun: BTreeSet<u64> = names.iter().filter_map(|name| removing(name)).collect();
        // A manifest says when the reset was that made its tree, and so when the one before ended.
        let mut times = BTreeMap::new();
        let mut note = |manifest: &Manifest| {
            if let Some(time) = manifest.time {
                times.entry(manifest.generation).or_insert(time);
            }
        };
        state::manifest_or_warn(&live).iter().for_each(&mut note);
        for &number in &begun {
            let name = self.path_of(&number.to_string());
            seen.begun.push(Generation { number, name, ended: None, boot: None, size: None });
        }
        for name in names.iter().filter(|name| *name != OWN_DIRECTORY) {
            let number = exact_number(name);
            if number.or_else(|| removing(name)).is_some_and(|number| begun.contains(&number)) {
                continue;
            }
            let entry = match number {
                Some(number) => self.btrfs.examine(home, number, last_reset)?,
                None => Entry::Other { why: "its name is not the number of a reset".to_owned() },
            };
            let path = self.path_of(name);
            match (number, entry) {
                (Some(number), Entry::Ours { id, manifest }) => {
                    manifest.iter().for_each(&mut note);
                    let size = if detail == Detail::All { self.size(id)? } else { None };
                    let boot = manifest.and_then(|manifest| manifest.boot);
                    let ended = None;
                    seen.generations.push(Generation { number, name: path, ended, boot, size });
                }
                (_, Entry::Other { why }) => seen.others.push(Other { name: path, why }),
                (None, Entry::Ours { .. }) => bail!("BUG: {name:?} is ours and has no number"),
            }
        }
        seen.generations.sort_by_key(|generation| generation.number);
        for generation in &mut seen.generations {
            generation.ended = times.get(&generation.number).copied();
        }
        Ok(seen)
    }

    fn remove(&mut self, generation: &Generation) -> anyhow::Result<()> {
        let number = generation.number;
        let home = self.home.as_ref().context("BUG: there is no generation")?;
        let (name, intent) = (number.to_string(), removing_name(number));
        let opened = home.open_dir_optional(&name)?;
        let id = match opened {
            Some(opened) => {
                let status = opened.status()?;
                let kind = fs::entry_kind(status.stx_ino);
                ensure!(kind == fs::EntryKind::SubvolumeRoot, "it is no subvolume");
                Some(fs::subvolume_id(&opened)?)
            }
            None => None,
        };
        self.refuse_if_mounted(Path::new(&generation.name))?;
        // Whatever has that name says so. Where there is no room for it, deleting still works, since btrfs
        // has a reserve for that. An interruption then leaves a generation that lacks nested subvolumes,
        // with its own content, and the next purge that wants it gone goes on.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(home, &*intent, flags, Mode::RUSR | Mode::WUSR) {
            Ok(_) | Err(Errno::EXIST | Errno::NOSPC | Errno::DQUOT) => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot write down that it is being removed, in {intent:?}")
                });
            }
        }
        let result = id.map_or(Ok(()), |id| self.delete(id));
        let untouched = match &result {
            Ok(()) => true,
            // It is looked for before anything is deleted.
            Err(error) => error.kind() == fs::ErrorKind::IsDefault,
        };
        if untouched {
            let home = self.home.as_ref().context("BUG: the generations went away")?;
            tree::remove(home, &intent)?;
        }
        Ok(result?)
    }

    fn live(&self) -> anyhow::Result<Dir> {
        self.btrfs.live()
    }

    fn tree(&mut self, generation: &Generation) -> anyhow::Result<Dir> {
        let tree = self.btrfs.open_subvolume(Path::new(&generation.name))?;
        tree.with_context(|| format!("the generation {} is gone", generation.name))
    }

    fn blank(&mut self) -> anyhow::Result<Option<Dir>> {
        self.btrfs.blank()
    }

    fn since_reset(&self, rules: &Rules) -> anyhow::Result<Option<Since>> {
        match (&self.record, self.btrfs.blank()?) {
            (Some(record), Some(blank)) => record.since(&self.btrfs.live()?, &blank, rules),
            _ => Ok(None),
        }
    }

    fn remove_nested(&mut self, below: &Path) -> anyhow::Result<()> {
        let live = self.btrfs.live()?;
        let mut outermost: Vec<fs::Nested> = Vec::new();
        for nested in fs::nested_subvolumes(&live)? {
            let inside = outermost.iter().any(|outer| nested.path.starts_with(&outer.path));
            if nested.path.starts_with(below) && !inside {
                outermost.push(nested);
            }
        }
        for nested in outermost {
            let path = &nested.path;
            let remove = |this: &mut Self| -> anyhow::Result<()> {
                this.refuse_if_mounted(&this.btrfs.source.subvolume.join(path))?;
                let (parent, _) = live.open_parent(path)?;
                tree::unseal(&parent)?;
                Ok(this.delete(nested.id)?)
            };
            remove(self).with_context(|| format!("cannot remove the subvolume {path:?}"))?;
        }
        Ok(())
    }

    fn space(&self) -> anyhow::Result<Space> {
        Space::on(self.btrfs.top()?)
    }

    fn settle(&mut self, enough: u64, waiting: &mut dyn FnMut()) -> anyhow::Result<()> {
        let mut last = (self.deleted.len(), self.space()?.available, Instant::now());
        while !self.deleted.is_empty() {
            let top = self.btrfs.top()?;
            // Each time: the cleaner goes back to sleep when it is disturbed.
            fs::wake_cleaner(top)?;
            let mut left = Vec::new();
            for &id in &self.deleted {
                if !fs::is_cleaned(top, id)? {
                    left.push(id);
                }
            }
            // What is free is told only once it is committed.
            fs::sync(top)?;
            self.deleted = left;
            let available = self.space()?.available;
            if available >= enough {
                return Ok(());
            }
            if (self.deleted.len(), available) != (last.0, last.1) {
                last = (self.deleted.len(), available, Instant::now());
            }
            ensure!(
                last.2.elapsed() < PATIENCE,
                "the kernel has freed nothing for {} s, and {} deleted subvolumes still hold space; \
                 run it again later",
                PATIENCE.as_secs(),
                self.deleted.len()
            );
            if !self.deleted.is_empty() {
                waiting();
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn close(&mut self) -> anyhow::Result<()> {
        self.home = None;
        crate::volume::OpenVolume::close(&mut self.btrfs)
    }
}
