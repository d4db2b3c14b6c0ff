//! The steps of a reset on ZFS, and undoing them.

use anyhow::{Context as _, ensure};
use darlings_zfs as fs;
use rustix::io::Errno;

use super::dataset::Zfs;
use super::mounted::{mount, root, unmount};
use super::names::{MARK, blank_name, pool_of, stage_name};
use super::step::Step;
use crate::engine::plan::{Does, VolumePlan};
use crate::fs::Dir;
use crate::keep::copy_in::Outcome;
use crate::keep::copy_in::copy_in;
use crate::keep::trees::Trees;
use crate::own::state::{self, Manifest};
use crate::text::bytes_in_words;
use crate::tree::{Unlistable, seal};
use crate::volume::{Looked, Standing};

/// What to do when a restoration finds no room.
const NO_ROOM: &str = "the pool or a quota is full: destroy snapshots that are not needed, remove \
                       files, or raise the quota";

/// Space that must be left beside what the restoration needs, in bytes: metadata of the pool
/// itself.
const HEADROOM: u64 = 4 << 20;

/// Says what to do, where there is no room.
pub(super) fn with_remedy(error: anyhow::Error) -> anyhow::Error {
    let full = |cause: &(dyn std::error::Error + 'static)| {
        let errno = match cause.downcast_ref::<std::io::Error>() {
            Some(error) => error.raw_os_error().map(Errno::from_raw_os_error),
            None => cause.downcast_ref().copied(),
        };
        matches!(errno, Some(Errno::NOSPC | Errno::DQUOT))
    };
    if error.chain().any(full) { error.context(NO_ROOM) } else { error }
}

impl Zfs {
    pub(super) fn do_step(&mut self, step: &Step) -> anyhow::Result<Option<Outcome>> {
        match step {
            Step::Snapshot { name } => self.keep_previous(name)?,
            Step::Lay { .. } => return self.lay().map(Some),
            Step::Carry | Step::Replace => self.carry()?,
            Step::Record if self.carrying.is_some() => self.record_carry()?,
            Step::Complete { .. } if self.carrying.is_some() => self.complete_carry()?,
            Step::Tidy => self.tidy()?,
            Step::DestroyGeneration { name } => self.library.destroy(name)?,
            Step::Count { number } => self.count(*number)?,
            Step::Complete { .. } if self.does == Does::Snapshot => self.complete_snapshot()?,
            Step::Discard { .. } => self.destroy_stage()?,
            Step::Stage { .. } => self.stage()?,
            Step::CopyIntoStage => {
                let (from, into) =
                    (root(self.mounted.dataset.as_ref())?, root(self.mounted.stage.as_ref())?);
                return self.restore(from, into, &self.looked).map(Some);
            }
            Step::Secure { name } => self.secure(name)?,
            Step::RollBack { destroys, .. } => self.roll_back(destroys)?,
            Step::CopyIntoLive => {
                let (from, into) =
                    (root(self.mounted.stage.as_ref())?, root(self.mounted.dataset.as_ref())?);
                let outcome = self.restore(from, into, &self.looked.in_place())?;
                seal(into, outcome.root_seals).context("cannot set the flags of the root")?;
                return Ok(Some(outcome));
            }
            Step::Record => {
                let manifest = Manifest::new(self.generation, &self.rules)?;
                state::write(root(self.mounted.dataset.as_ref())?, &manifest)?;
            }
            Step::Complete { .. } => self.complete()?,
            Step::DestroyStage { .. } => {
                unmount(&mut self.mounted.stage)?;
                self.destroy_stage()?;
            }
        }
        Ok(None)
    }

    fn stage(&mut self) -> anyhow::Result<()> {
        self.available_before = self.library.available(&self.source.dataset)?;
        let stage = stage_name(&self.source);
        let properties = fs::Properties::new()
            .canmount(fs::Canmount::Off)
            .mountpoint("none")
            .user("darlings:stage", &self.generation.to_string());
        let blank = blank_name(&self.source).context("BUG: a rollback without a blank")?;
        self.library.clone(&blank, &stage, &properties)?;
        self.staged = true;
        self.mounted.stage = mount(&stage, "stage", fs::Access::ReadWrite)?;
        Ok(())
    }

    fn restore(
        &self,
        previous: &Dir,
        target: &Dir,
        Looked { paths, attic, .. }: &Looked,
    ) -> anyhow::Result<Outcome> {
        let trees = Trees { previous, blank: Some(root(self.mounted.blank.as_ref())?), target };
        let (number, threads) = (self.generation, self.options.threads);
        let restored = copy_in(&trees, &self.rules, paths, attic, number, threads);
        restored.map_err(with_remedy)
    }

    /// The point of no loss: everything persisted is in a snapshot of its own.
    fn secure(&mut self, name: &str) -> anyhow::Result<()> {
        // A run that completes this one goes by the lists in it, whatever is declared by then.
        let manifest = Manifest::new(self.generation, &self.rules)?;
        state::write(root(self.mounted.stage.as_ref())?, &manifest).map_err(with_remedy)?;
        unmount(&mut self.mounted.stage)?;
        self.library.snapshot(&[name], &fs::Properties::new())?;
        // What the stage took is what filling the dataset will take again. The previous state
        // gives its own back, but ZFS frees in the background.
        let available = self.library.available(&self.source.dataset)?;
        let took = self.available_before.saturating_sub(available);
        ensure!(
            available >= took.saturating_add(HEADROOM),
            "{} has {} left and filling it again may take {}: destroy snapshots that are not needed, \
             remove files, or raise the quota",
            self.source.dataset,
            bytes_in_words(available),
            bytes_in_words(took.saturating_add(HEADROOM)),
        );
        self.mounted.stage = mount(&stage_name(&self.source), "stage", fs::Access::ReadOnly)?;
        Ok(())
    }

    fn roll_back(&mut self, destroys: &[String]) -> anyhow::Result<()> {
        let config = &self.source;
        unmount(&mut self.mounted.dataset)?;
        let number = self.generation.to_string();
        let result = self.library.rollback_and_mark(&fs::Rollback {
            dataset: &config.dataset,
            blank: config.blank.as_deref().context("BUG: a rollback without a blank")?,
            destroy_first: destroys,
            property: MARK,
            value: &number,
        });
        // Whatever was said: the mark is what counts, since it is what the next run will see.
        let rolled_back = self.rolled_back().context("cannot read back whether it was rolled back");
        match (result, rolled_back) {
            (Ok(_), _) => self.standing = Standing::Unfinished,
            (Err(error), Ok(None)) => return Err(error.into()),
            (Err(error), rolled_back) => {
                self.standing = Standing::Unfinished;
                let error = anyhow::Error::from(error);
                return Err(match rolled_back {
                    Err(unknown) => error.context(format!("{unknown:#}")),
                    Ok(_) => error,
                });
            }
        }
        self.mounted.dataset = mount(&self.source.dataset, "live", fs::Access::ReadWrite)?;
        Ok(())
    }

    fn complete(&mut self) -> anyhow::Result<()> {
        unmount(&mut self.mounted.dataset)?;
        let pool = pool_of(&self.source.dataset);
        self.library.sync_pool(pool)?;
        self.library.clear_user_property(&self.source.dataset, MARK)?;
        self.standing = Standing::Reset;
        Ok(())
    }

    /// Destroys the stage with its snapshots, if it is there.
    fn destroy_stage(&mut self) -> anyhow::Result<()> {
        let stage = stage_name(&self.source);
        if !self.library.exists(&stage)? {
            return Ok(());
        }
        for snapshot in self.library.snapshots(&stage)? {
            self.library.destroy(&format!("{stage}@{}", snapshot.name))?;
        }
        self.library.destroy(&stage)?;
        self.staged = false;
        Ok(())
    }

    /// Where something persisted cannot be copied, removes the stage and plans to move everything instead.
    pub(super) fn carry_instead(
        &mut self,
        error: &anyhow::Error,
    ) -> anyhow::Result<Option<VolumePlan>> {
        let Some(mut plan) = self.instead.take_if(|_| error.is::<Unlistable>()) else {
            return Ok(None);
        };
        self.undo_prepared()?;
        plan.warnings.push(format!(
            "this reset moves the persisted paths, as strategy = \"carry\" does, and none is lost: one of \
             them cannot be copied: {error:#}"
        ));
        let (plan, steps) = plan.described()?;
        self.steps = steps;
        Ok(Some(plan))
    }

    pub(super) fn undo_prepared(&mut self) -> anyhow::Result<()> {
        self.undo_carry()?;
        unmount(&mut self.mounted.stage)?;
        if !self.staged || self.standing != Standing::Previous {
            return Ok(());
        }
        self.destroy_stage().with_context(|| {
            format!("cannot destroy {}; the next run does", stage_name(&self.source))
        })
    }
}
