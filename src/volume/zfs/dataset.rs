//! One dataset: what is seen of it, and what is planned.

use anyhow::{Context as _, bail, ensure};
use darlings_zfs as fs;

use super::mounted::{Mounts, mount, root, unmount};
use super::names::{MARK, blank_name, generation_name, own_number, secured_name, stage_name};
use super::plan::{self, Facts};
use super::step::Step;
use super::{asked, generations};
use crate::cmdline::{Asked, Which};
use crate::config::{self, Strategy};
use crate::engine::plan::{Does, VolumePlan};
use crate::keep::carry::Journal;
use crate::keep::copy_in::Outcome;
use crate::own::state;
use crate::rules::Rules;
use crate::volume::{Looked, OpenVolume, Options, Standing, bootable, ensure_room, mounts};

/// A ZFS dataset that is reset.
pub(in crate::volume) struct Zfs {
    pub(super) library: fs::Zfs,
    pub(super) volume: config::Volume,
    pub(super) source: config::Zfs,
    pub(super) options: Options,
    pub(super) mounted: Mounts,
    pub(super) steps: Vec<Step>,
    /// What is done instead of a `rollback` that cannot copy everything.
    pub(super) instead: Option<VolumePlan<Step>>,
    pub(super) does: Does,
    pub(super) generation: u64,
    pub(super) looked: Looked,
    /// What the reset goes by: the lists of the configuration, or, where it completes a `rollback`,
    /// those that this began with.
    pub(super) rules: Rules,
    /// What a `carry` has still to do.
    pub(super) carrying: Option<Journal>,
    /// The dataset, if it is mounted, is mounted read-only.
    pub(super) mounted_to_look: bool,
    /// The snapshot of the previous state, if this run took one and may go back to it.
    pub(super) kept: Option<String>,
    /// What was free before the stage was made, in bytes.
    pub(super) available_before: u64,
    /// Whether the stage was made by this run and may be removed if it goes no further.
    pub(super) staged: bool,
    pub(super) standing: Standing,
}

impl Zfs {
    pub(in crate::volume) fn open(
        volume: &config::Volume,
        source: &config::Zfs,
        options: Options,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            library: fs::Zfs::open()?,
            volume: volume.clone(),
            rules: volume.rules.clone(),
            source: source.clone(),
            options,
            mounted: Mounts::default(),
            steps: Vec::new(),
            instead: None,
            does: Does::default(),
            generation: 0,
            looked: Looked::default(),
            carrying: None,
            mounted_to_look: true,
            kept: None,
            available_before: 0,
            staged: false,
            standing: Standing::Previous,
        })
    }

    pub(super) fn look(&mut self) -> anyhow::Result<Facts> {
        self.check_there()?;
        // Before anything of ours is mounted.
        let mounted_at = self.in_use()?;
        // What must not be booted comes first: that counts, whatever else is wrong.
        let mut facts = self.look_for_unfinished()?;
        self.check_not_in_use(mounted_at.as_deref())?;
        if facts.interrupted() || self.options.asked != Asked::Off {
            self.check_writable()?;
        }
        if facts.journal.is_some() {
            // What it has still to move is laid already: the blank, or the generation that is
            // restored, is not needed any more and may be gone.
            return Ok(facts);
        }
        let snapshots = self.library.snapshots(&self.source.dataset)?;
        let ours = snapshots.iter().filter_map(|it| own_number(&format!("@{}", it.name)));
        facts.highest = ours.max().unwrap_or(0);
        // Nothing but a reset needs the blank, and a missing one may be why somebody asks for more.
        let resets = self.options.asked == Asked::Reset || facts.rolled_back.is_some();
        if resets {
            self.check_blank(blank_name(&self.source).as_deref())?;
            facts.newer = self.newer_than_blank()?;
            facts.newer_generations =
                generations::numbers(&self.library, &self.source.dataset, &snapshots)?
                    .into_iter()
                    .map(|number| generation_name(&self.source, number))
                    .collect();
        }
        if facts.rolled_back.is_none()
            && let Asked::Restore(which) = self.options.asked
        {
            facts.source = Some(self.choose(which, &snapshots)?);
        }
        let blank = match facts.source {
            Some(number) => Some(generation_name(&self.source, number)),
            None if resets => blank_name(&self.source),
            None => None,
        };
        if let Some(blank) = &blank {
            self.check_blank(Some(blank))?;
            self.mounted.blank = mount(blank, "blank", fs::Access::ReadOnly)?;
        }
        let blank = self.mounted.blank.as_deref();
        if !resets {
            if facts.source.is_some() {
                let previous = root(self.mounted.dataset.as_ref())?;
                bootable::ensure(&self.volume, self.options.asked, previous, blank)?;
            }
            return Ok(facts);
        }
        facts.looked = if facts.rolled_back.is_some() {
            Looked::in_place_at(&self.rules, root(self.mounted.stage.as_ref())?, blank)?
        } else {
            ensure_room(self.library.available(&self.source.dataset)?)?;
            let previous = root(self.mounted.dataset.as_ref())?;
            Looked::at(&self.volume, self.options.asked, previous, blank)?
        };
        Ok(facts)
    }

    /// Looks for what an interrupted run left, and mounts the tree that has the persisted paths.
    pub(super) fn look_for_unfinished(&mut self) -> anyhow::Result<Facts> {
        let dataset = &self.source.dataset;
        let mut facts = Facts {
            rolled_back: self.rolled_back()?,
            has_stage: self.library.exists(&stage_name(&self.source))?,
            ..Facts::default()
        };
        if let Some(number) = facts.rolled_back {
            self.standing = Standing::Unfinished;
            let secured = secured_name(&self.source, number);
            if !self.library.exists(&secured)? {
                self.standing = Standing::Stranded;
                bail!(
                    "{dataset} was rolled back by reset {number} and {secured}, which holds the \
                     persisted paths, is missing; find its content (a backup, `zpool history`), \
                     restore it, and run `zfs inherit {MARK} {dataset}`"
                );
            }
            self.mounted.stage = mount(&stage_name(&self.source), "stage", fs::Access::ReadOnly)?;
            self.go_on_as_begun()?;
            return Ok(facts);
        }
        // Somebody may have it mounted, and ZFS does not mount it read-only beside that.
        self.mounted.dataset = Some(generations::live(dataset, fs::Access::ReadOnly)?);
        let live = root(self.mounted.dataset.as_ref())?;
        let journal = Journal::read(live).map_err(|error| {
            // The darlings that wrote it completes the reset, and nothing is lost.
            if error.is::<state::Newer>() {
                return error;
            }
            error.context(format!(
                "`zfs rollback {dataset}@darlings-N`, with the highest N that there is, brings back the \
                 complete previous state"
            ))
        });
        self.standing = Standing::of(&journal);
        facts.journal = journal?;
        facts.live_generation = state::generation(live)?;
        facts.restore = match &facts.journal {
            Some((journal, _)) => journal.manifest.restore(),
            None => state::restore_of(live),
        };
        Ok(facts)
    }

    /// A `rollback` is completed with the lists and the blank that it began with, whatever the
    /// configuration says by now: the stage is the only place that has what the lists keep, and it is
    /// destroyed in the end.
    pub(super) fn go_on_as_begun(&mut self) -> anyhow::Result<()> {
        let stage = stage_name(&self.source);
        let manifest = state::manifest(root(self.mounted.stage.as_ref())?)
            .with_context(|| format!("what the interrupted reset keeps, in {stage}"))?;
        // The first versions wrote none there.
        if let Some(manifest) = manifest {
            self.rules = Rules::from_lists(&manifest.persisted, &manifest.excluded);
            self.rules.set_configuration(manifest.configuration);
        }
        let origin = self.library.property(&stage, "origin")?.map(|property| property.value);
        if let Some((dataset, blank)) =
            origin.as_ref().and_then(fs::Value::as_text).and_then(|origin| origin.split_once('@'))
            && dataset == self.source.dataset
        {
            self.source.blank = Some(blank.to_owned());
        }
        Ok(())
    }

    pub(super) fn check_there(&self) -> anyhow::Result<()> {
        let dataset = &self.source.dataset;
        let (pool, rest) = dataset.split_once('/').context("BUG: a dataset without a pool")?;
        match fs::pool_state(pool)? {
            None => bail!(
                "the pool {pool:?} is not imported; {}",
                self.where_else(rest).context("and the other pools cannot be looked at")?
            ),
            Some(fs::PoolState::Suspended) => bail!(
                "the pool {pool:?} is suspended after I/O errors; nothing can be written: mend the \
                 device and run `zpool clear {pool}`"
            ),
            // A read-only pool says so here: it runs no channel program, and calls itself online.
            Some(_) => self.library.check_pool(pool)?,
        }
        ensure!(
            self.library.exists(dataset)?,
            "there is no dataset {dataset}; {}",
            self.where_else(rest)?
        );
        Ok(())
    }

    /// Whether what a run takes content from is there.
    pub(super) fn check_blank(&self, blank: Option<&str>) -> anyhow::Result<()> {
        let Some(blank) = blank else { return Ok(()) };
        ensure!(
            self.library.exists(blank)?,
            "the {} {blank} is missing; {}",
            if own_number(blank).is_some() { "generation" } else { "blank snapshot" },
            self.snapshots_in_words()?
        );
        Ok(())
    }

    /// The generation that is asked for.
    pub(super) fn choose(&self, which: Which, snapshots: &[fs::Snapshot]) -> anyhow::Result<u64> {
        let there = generations::numbers(&self.library, &self.source.dataset, snapshots)?;
        let none = there.is_empty() && self.volume.strategy == Strategy::Rollback;
        crate::generations::choose(which, there).map_err(|error| {
            if none {
                error.context("strategy = \"rollback\" keeps no generation on ZFS")
            } else {
                error
            }
        })
    }

    /// Where a dataset of the same name is, in another pool.
    pub(super) fn where_else(&self, rest: &str) -> anyhow::Result<String> {
        let pools = fs::imported_pools()?;
        for pool in &pools {
            let name = format!("{pool}/{rest}");
            if self.library.exists(&name)? {
                return Ok(format!("there is {name}: correct the configuration"));
            }
        }
        Ok(match pools.as_slice() {
            [] => "no pool is imported: import it first".to_owned(),
            pools => format!(
                "imported are: {}; correct the name, or import the pool that has it",
                pools.join(", ")
            ),
        })
    }

    pub(super) fn snapshots_in_words(&self) -> anyhow::Result<String> {
        let snapshots = self.library.snapshots(&self.source.dataset)?;
        let names: Vec<String> =
            snapshots.into_iter().take(12).map(|snapshot| snapshot.name).collect();
        Ok(if names.is_empty() {
            "the dataset has no snapshots: take one of an empty root, or name another dataset"
                .to_owned()
        } else {
            format!("its snapshots are {}: name one of them", names.join(", "))
        })
    }

    pub(super) fn rolled_back(&self) -> anyhow::Result<Option<u64>> {
        let dataset = &self.source.dataset;
        match self.library.property(dataset, MARK)? {
            // Children inherit user properties; the mark counts where it was set.
            Some(fs::Property { value: fs::Value::Text(text), source: fs::Source::Local }) => {
                let number = text.parse().with_context(|| {
                    format!("the property {MARK} of {dataset} is {text:?} and no number")
                })?;
                Ok(Some(number))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn newer_than_blank(&self) -> anyhow::Result<Vec<String>> {
        let config::Zfs { dataset, blank, .. } = &self.source;
        let Some(blank) = blank else { return Ok(Vec::new()) };
        let snapshots = self.library.snapshots(dataset)?;
        let blank_txg = snapshots
            .iter()
            .find(|snapshot| snapshot.name == *blank)
            .context("the blank snapshot went away while it was looked for")?
            .createtxg;
        let newer = snapshots
            .iter()
            .filter(|snapshot| snapshot.createtxg >= blank_txg && snapshot.name != *blank)
            .map(|snapshot| format!("{dataset}@{}", snapshot.name));
        let bookmarks = self.library.bookmarks(dataset)?;
        let newer_bookmarks = bookmarks
            .iter()
            .filter(|bookmark| bookmark.createtxg > blank_txg)
            .map(|bookmark| format!("{dataset}#{}", bookmark.name));
        Ok(newer.chain(newer_bookmarks).collect())
    }
}

impl OpenVolume for Zfs {
    fn plan(&mut self) -> anyhow::Result<VolumePlan> {
        let facts = self.look()?;
        // What was begun is completed as it was begun, whatever the configuration says now.
        let interrupted = facts.interrupted();
        let carries = facts.rolled_back.is_none()
            && (facts.journal.is_some() || self.volume.strategy == Strategy::Carry);
        let rolls_back = !carries && (interrupted || self.options.asked == Asked::Reset);
        let (volume, source) = (&self.volume, &self.source);
        let plan = match (self.options.asked, facts.source) {
            (Asked::Off, _) if !interrupted => asked::nothing(volume, source, &facts),
            (Asked::Snapshot, _) if !interrupted => asked::snapshot(volume, source, &facts),
            (Asked::Restore(_), Some(of)) => asked::restore(volume, source, &facts, of),
            _ if carries => plan::carry(volume, source, &facts),
            _ => plan::rollback(volume, source, &facts)?,
        };
        let begins = rolls_back && !interrupted;
        self.instead = begins.then(|| plan::instead_of_rollback(volume, source, &facts));
        self.check_refreservation(&plan)?;
        if rolls_back {
            self.check_rollback(&facts)?;
        }
        self.check_fits(&plan, &facts.looked)?;
        self.does = plan.does;
        self.generation = plan.generation;
        self.looked = facts.looked;
        self.carrying = facts.journal.map(|(journal, _)| journal);
        let (plan, steps) = plan.described()?;
        self.steps = steps;
        Ok(plan)
    }

    fn execute(&mut self, step: usize) -> anyhow::Result<Option<Outcome>> {
        let step = self.steps.get(step).context("BUG: a step that was not planned")?.clone();
        self.do_step(&step)
    }

    fn plan_instead(&mut self, error: &anyhow::Error) -> anyhow::Result<Option<VolumePlan>> {
        self.carry_instead(error)
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        self.undo_prepared()
    }

    fn standing(&self) -> Standing {
        self.standing
    }

    fn close(&mut self) -> anyhow::Result<()> {
        let Mounts { dataset, blank, stage } = &mut self.mounted;
        mounts::all_done([unmount(dataset), unmount(stage), unmount(blank)])
    }
}
