//! The steps of a reset on ZFS, and undoing them.

use anyhow::{Context as _, bail, ensure};
use darlings_zfs as fs;

use super::{MARK, Zfs, mount, root, stage_name, unmount};
use crate::plan::{Step, Tree};
use crate::report::bytes_in_words;
use crate::restore::{Outcome, Trees, restore, seal};
use crate::state::{self, Manifest};
use crate::volume::Standing;

/// Space that must be left beside what the restoration needs, in bytes: metadata of the pool
/// itself.
const HEADROOM: u64 = 4 << 20;

impl Zfs {
    pub(super) fn do_step(&mut self, step: &Step) -> anyhow::Result<Option<Outcome>> {
        match step {
            Step::Discard { .. } => self.destroy_stage()?,
            Step::Stage { .. } => self.stage()?,
            Step::Restore { from: Tree::Previous, into: Tree::Staged } => {
                let (from, into) =
                    (root(self.mounted.dataset.as_ref())?, root(self.mounted.stage.as_ref())?);
                return self.restore(from, into).map(Some);
            }
            Step::Secure { name } => self.secure(name)?,
            Step::RollBack { destroys, .. } => self.roll_back(destroys)?,
            Step::Restore { from: Tree::Staged, into: Tree::Live } => {
                let (from, into) =
                    (root(self.mounted.stage.as_ref())?, root(self.mounted.dataset.as_ref())?);
                let outcome = self.restore(from, into)?;
                seal(into, outcome.root_seals).context("cannot set the flags of the root")?;
                return Ok(Some(outcome));
            }
            Step::Record { into: Tree::Live } => {
                let manifest = Manifest::new(self.generation, &self.volume.rules);
                state::write(root(self.mounted.dataset.as_ref())?, &manifest)?;
            }
            Step::Complete { .. } => self.complete()?,
            Step::DestroyStage { .. } => {
                unmount(&mut self.mounted.stage)?;
                self.destroy_stage()?;
            }
            Step::Restore { .. }
            | Step::Record { .. }
            | Step::Exchange { .. }
            | Step::MoveNested { .. }
            | Step::Settle
            | Step::SetDefault
            | Step::KeepGeneration { .. } => bail!("BUG: a step of btrfs on ZFS: {step}"),
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
        self.library.clone(&super::blank_name(&self.source), &stage, &properties)?;
        self.staged = true;
        self.mounted.stage = mount(&stage, "stage", fs::Access::ReadWrite)?;
        Ok(())
    }

    fn restore(
        &self,
        previous: std::os::fd::BorrowedFd<'_>,
        target: std::os::fd::BorrowedFd<'_>,
    ) -> anyhow::Result<Outcome> {
        let trees = Trees { previous, blank: Some(root(self.mounted.blank.as_ref())?), target };
        restore(&trees, &self.volume.rules, &self.paths, self.options.threads)
    }

    /// The point of no loss: everything persisted is in a snapshot of its own.
    fn secure(&mut self, name: &str) -> anyhow::Result<()> {
        unmount(&mut self.mounted.stage)?;
        self.library.snapshot(&[name], &fs::Properties::new())?;
        // What the stage took is what filling the dataset will take again. The previous state
        // gives its own back, but ZFS frees in the background.
        let available = self.library.available(&self.source.dataset)?;
        let took = self.available_before.saturating_sub(available);
        ensure!(
            available >= took.saturating_add(HEADROOM),
            "{} has {} left and filling it again may take {}; free some space",
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
            blank: &config.blank,
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
        let pool = self.source.dataset.split('/').next().unwrap_or_default();
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

    pub(super) fn undo_prepared(&mut self) -> anyhow::Result<()> {
        unmount(&mut self.mounted.stage)?;
        if !self.staged || self.standing != Standing::Previous {
            return Ok(());
        }
        self.destroy_stage().with_context(|| {
            format!("cannot destroy {}; the next run does", stage_name(&self.source))
        })
    }
}
