//! One subvolume: what is seen of it, and what is planned.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use darlings_btrfs as fs;

use super::asked;
use super::facts::{Facts, moving, outermost};
use super::journal::Journal;
use super::names::{highest, ready_for, ready_name};
use super::plan::{reset, settling};
use super::record::Whose;
use super::work::Work;
use crate::cmdline::Asked;
use crate::config;
use crate::engine::plan::VolumePlan;
use crate::fs::Dir;
use crate::keep::copy_in::Outcome;
use crate::own::Own;
use crate::own::state;
use crate::rules::OWN_DIRECTORY;
use crate::tree;
use crate::volume::mounts::Mount;
use crate::volume::{Looked, OnlyNow, OpenVolume, Options, Standing, bootable};

/// A btrfs subvolume that is reset.
pub(in crate::volume) struct Btrfs {
    pub(super) volume: config::Volume,
    pub(super) source: config::Btrfs,
    pub(super) options: Options,
    /// The top level of the filesystem; taken when it is closed.
    pub(super) top: Option<Mount>,
    pub(super) work: Work,
    pub(super) standing: Standing,
}

/// A subvolume by the directory that holds it.
pub(super) struct Named {
    pub(super) parent: Dir,
    pub(super) name: OsString,
}

impl Btrfs {
    pub(in crate::volume) fn open(
        volume: &config::Volume,
        source: &config::Btrfs,
        options: Options,
    ) -> anyhow::Result<Self> {
        let only_looks = options.dry_run || options.asked == Asked::Off;
        let access = if only_looks { fs::Access::ReadOnly } else { fs::Access::Writable };
        let top = mount(source, access)?;
        Ok(Self {
            volume: volume.clone(),
            source: source.clone(),
            options,
            top: Some(top),
            work: Work::default(),
            standing: Standing::Previous,
        })
    }

    /// Opens the filesystem to write: there is something to complete although nothing is asked for.
    pub(super) fn reopen_to_write(&mut self) -> anyhow::Result<()> {
        self.close()?;
        self.top = Some(mount(&self.source, fs::Access::Writable)?);
        Ok(())
    }

    pub(super) fn top(&self) -> anyhow::Result<&Dir> {
        self.top.as_deref().context("BUG: the volume is used after it was closed")
    }

    /// Opens a subvolume by its path from the top level.
    pub(super) fn open_subvolume(&self, path: &Path) -> anyhow::Result<Option<Dir>> {
        let found = self.top()?.open_dir_optional(path)?;
        let Some(found) = found else { return Ok(None) };
        let status = found.status()?;
        ensure!(
            fs::entry_kind(status.stx_ino) == fs::EntryKind::SubvolumeRoot,
            "{path:?} on {:?} is a directory and no subvolume; give the path of a subvolume",
            self.source.device
        );
        Ok(Some(found))
    }

    pub(super) fn live(&self) -> anyhow::Result<Dir> {
        match self.open_subvolume(&self.source.subvolume)? {
            Some(live) => Ok(live),
            None => bail!(
                "there is no subvolume {:?} on {:?}; {}",
                self.source.subvolume,
                self.source.device,
                self.subvolumes_in_words()?
            ),
        }
    }

    pub(super) fn blank(&self) -> anyhow::Result<Option<Dir>> {
        let Some(path) = &self.source.blank else { return Ok(None) };
        match self.open_subvolume(path)? {
            Some(blank) => Ok(Some(blank)),
            None => bail!(
                "the blank subvolume {path:?} is missing on {:?}; {}. Make one with \
                 `darlings init`, or of the system as it is now with `darlings init --from-live`",
                self.source.device,
                self.subvolumes_in_words()?
            ),
        }
    }

    pub(super) fn subvolumes_in_words(&self) -> anyhow::Result<String> {
        let all = fs::nested_subvolumes(self.top()?)?;
        let own = &self.source.generations;
        let names: Vec<String> = all
            .iter()
            .filter(|subvolume| !subvolume.path.starts_with(own))
            .take(12)
            .map(|subvolume| format!("{:?}", subvolume.path))
            .collect();
        Ok(format!("there are {}", if names.is_empty() { "none".into() } else { names.join(", ") }))
    }

    pub(super) fn named(&self, path: &Path) -> anyhow::Result<Named> {
        let (parent, name) = self.top()?.open_parent(path)?;
        Ok(Named { parent, name })
    }

    /// The directory of the generations, if it was made before.
    pub(super) fn home(&self) -> anyhow::Result<Option<Dir>> {
        self.top()?.open_dir_optional(&self.source.generations)
    }

    pub(super) fn look(&mut self) -> anyhow::Result<Facts> {
        // Locked before anything else is looked at: another run may just be ending.
        let home = self.home()?;
        if let Some(home) = &home {
            self.lock(home)?;
        }
        let live = self.live()?;
        if home.is_none() {
            self.lock_first(&live)?;
        }
        let counter = state::counter(&live)?;
        let mut facts = Facts {
            live_generation: counter.unwrap_or(0),
            restore: state::restore_of(&live),
            ..Facts::default()
        };
        if let Some(home) = &home {
            match self.whose(home, &live)? {
                // Nothing of it is ours to complete, and nothing else is asked for.
                Whose::Theirs(_) if self.options.asked == Asked::Off => return Ok(facts),
                Whose::Theirs(foreign) => return Err(foreign.into()),
                Whose::Ours(record) => {
                    (facts.generations, facts.taken) = record.ours_in(home, &live)?;
                    self.work.record = Some(record);
                }
            }
        }
        if let (None, Some(number)) =
            (counter, facts.generations.iter().find_map(|it| ready_for(it)))
        {
            bail!(
                "the generation and manifest in {OWN_DIRECTORY} of {:?} are damaged, so that {:?} may be \
                 its previous state, or a result that never became live; nothing was changed: write \
                 {number} into {OWN_DIRECTORY}/generation if {:?} was reset, and a lower number if it \
                 was not",
                self.source.subvolume,
                self.source.generations.join(ready_name(number)),
                self.source.subvolume
            );
        }
        if counter.is_none() {
            facts.live_generation = highest(&facts.generations);
        }
        let interrupted = facts.interrupted().is_some();
        if self.options.asked == Asked::Off && !interrupted {
            return Ok(facts);
        }
        let live_id = fs::subvolume_id(&live)?;
        let previous = if let (Some(number), Some(home)) = (facts.interrupted(), &home) {
            self.look_at_interrupted(&mut facts, &live, home, number)?
        } else {
            self.look_at_nested(&mut facts, &live)?;
            live
        };
        self.check_not_mounted()?;
        self.check_not_mounted_by_id(live_id)?;
        self.check_devices()?;
        self.check_places(home.as_ref(), &facts)?;
        if interrupted {
            // What is left of it needs no blank, and asks nothing of what is kept.
            self.work.hold(home);
            return Ok(facts);
        }
        // Nothing but a reset needs the blank, and a missing one may be why somebody asks for more.
        let blank = if self.options.asked == Asked::Reset { self.blank()? } else { None };
        if let Asked::Restore(which) = self.options.asked {
            let source = self.look_at_source(home.as_ref(), which, &facts)?;
            let tree = self.generation(source.number)?;
            bootable::ensure(&self.volume, self.options.asked, &previous, Some(&tree))?;
            facts.root_is_sealed = !tree::seals_of(&tree)?.is_empty();
            facts.source = Some(source);
            self.work.hold(home);
            return Ok(facts);
        }
        let blank_root = blank.as_ref();
        facts.looked = Looked::at(&self.volume, self.options.asked, &previous, blank_root)?;
        // A subvolume in the attic comes back as a whole or not at all, and nothing comes back into
        // one that moves: it is safe where it is.
        let outermost = outermost(&self.volume, &facts);
        facts.looked.attic.inside.retain(|back| {
            let mut nested = facts.nested.iter();
            !nested.any(|outer| back.from != *outer && back.from.starts_with(outer))
                && !outermost.iter().any(|outer| back.path.starts_with(outer))
        });
        self.check_attic(&facts)?;
        self.check_swap(&previous, &facts)?;
        if self.options.asked == Asked::Reset {
            self.check_room(&previous, blank.as_ref())?;
        }
        let root = blank.as_ref().unwrap_or(&previous);
        facts.root_is_sealed = !tree::seals_of(root)?.is_empty()
            // It gets them back before the reset begins.
            || (blank.is_none() && facts.unsealed().next().is_some());
        if let Some(blank) = &blank {
            facts.blank_is_writable = !fs::is_read_only(blank)?;
        }
        self.work.hold(home);
        Ok(facts)
    }

    /// Looks at what a run that was interrupted after the exchange has left, and opens the previous
    /// state. Whether the live subvolume may be used is known before anything else can be wrong.
    pub(super) fn look_at_interrupted(
        &mut self,
        facts: &mut Facts,
        live: &Dir,
        home: &Dir,
        number: u64,
    ) -> anyhow::Result<Dir> {
        self.standing = Standing::Unfinished;
        facts.journal = Journal::read(live)?;
        let name = ready_name(number);
        let previous = home.open_dir(&name)?;
        self.look_at_nested(facts, &previous)?;
        if settling(facts, &moving(&self.volume, facts)).is_empty() {
            // Nothing is left but to give the previous state its name.
            self.standing = Standing::Reset;
        }
        Ok(previous)
    }

    pub(super) fn look_at_nested(&self, facts: &mut Facts, previous: &Dir) -> anyhow::Result<()> {
        let nested = fs::nested_subvolumes(previous)?;
        facts.nested = nested.into_iter().map(|nested| nested.path).collect();
        if Own::open(previous)?.is_none() {
            // There is no attic then, only something of somebody's that is called so: erased.
            facts.nested.retain(|path| !path.starts_with(OWN_DIRECTORY));
        }
        facts.is_default = fs::default_subvolume(self.top()?)? == fs::subvolume_id(previous)?;
        Ok(())
    }

    /// One run at a time; the lock goes with the process.
    pub(super) fn lock(&self, home: &Dir) -> anyhow::Result<()> {
        if self.options.passes_over(OnlyNow::Locked) {
            return Ok(());
        }
        ensure!(
            home.try_lock()?,
            "another run is at work in {:?}; wait for it",
            self.source.generations
        );
        Ok(())
    }

    /// The same for the first run, which finds no generations directory to lock: it locks what is live.
    pub(super) fn lock_first(&mut self, live: &Dir) -> anyhow::Result<()> {
        if self.options.passes_over(OnlyNow::Locked) || self.options.asked == Asked::Off {
            return Ok(());
        }
        let wait = "another run is at work";
        let subvolume = &self.source.subvolume;
        // One more descriptor of the same opening: a lock is the opening's.
        let locked = live.try_clone()?;
        ensure!(locked.try_lock()?, "{wait} in {subvolume:?}; wait for it");
        // One that has made the directory, and perhaps come to its end, since it was looked for.
        ensure!(self.home()?.is_none(), "{wait} in {subvolume:?}, or was just now; run it again");
        self.work.hold_first(locked);
        Ok(())
    }
}

fn mount(source: &config::Btrfs, access: fs::Access) -> anyhow::Result<Mount> {
    Mount::new("btrfs", |target| fs::mount_top_level(&source.device, target, access))
        .with_context(|| format!("cannot open the btrfs filesystem on {:?}", source.device))
}

impl OpenVolume for Btrfs {
    fn plan(&mut self) -> anyhow::Result<VolumePlan> {
        let mut facts = self.look()?;
        if facts.interrupted().is_some()
            && self.options.asked == Asked::Off
            && !self.options.dry_run
        {
            self.reopen_to_write()?;
            facts = self.look()?;
        }
        let (volume, source) = (&self.volume, &self.source);
        let plan = match (facts.interrupted(), self.options.asked, &facts.source) {
            (None, Asked::Off, _) => asked::nothing(volume, source, &facts),
            (None, Asked::Snapshot, _) => asked::snapshot(volume, source, &facts),
            (None, Asked::Restore(_), Some(of)) => asked::restore(volume, source, &facts, of),
            _ => reset(volume, source, &facts),
        };
        self.work.begin(&plan, moving(&self.volume, &facts), facts);
        let (plan, steps) = plan.described()?;
        self.work.steps = steps;
        Ok(plan)
    }

    fn execute(&mut self, step: usize) -> anyhow::Result<Option<Outcome>> {
        self.do_step(step)
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        self.undo_prepared()
    }

    fn standing(&self) -> Standing {
        self.standing
    }

    fn close(&mut self) -> anyhow::Result<()> {
        self.work.release();
        match self.top.take() {
            Some(top) => top.close(fs::unmount),
            None => Ok(()),
        }
    }
}
