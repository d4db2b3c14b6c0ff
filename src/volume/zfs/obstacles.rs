//! What forbids a reset, looked for before anything is done: in a running system `darlings check` finds
//! it by the same calls.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use darlings_zfs as fs;

use super::dataset::Zfs;
use super::mounted::{mount, root, unmount};
use super::names::{MARK, generation_name};
use super::plan::Facts;
use super::step::Step;
use crate::config;
use crate::engine::plan::{Planned, VolumePlan};
use crate::volume::{LEAST_ROOM, Looked, OnlyNow, mounts, zfs_clones_no_blocks};

impl Zfs {
    /// Where somebody else has the dataset mounted.
    pub(super) fn in_use(&self) -> anyhow::Result<Option<PathBuf>> {
        let is_it =
            |mount: &mounts::Mounted| mount.kind == "zfs" && mount.source == self.source.dataset;
        Ok(mounts::all()?.into_iter().find(is_it).map(|mount| mount.mount_point))
    }

    pub(super) fn check_not_in_use(&self, mounted_at: Option<&Path>) -> anyhow::Result<()> {
        match mounted_at {
            Some(mount_point) if !self.options.passes_over(OnlyNow::Mounted) => bail!(
                "the dataset {} is mounted at {mount_point:?}; a volume is reset before it is \
                 mounted: unmount it, or reboot",
                self.source.dataset,
            ),
            _ => Ok(()),
        }
    }

    /// What stands in the way of the rollback is found before anything is done: a clone of a
    /// newer snapshot, a hold, a mount that our list does not show. Ours would be one of those.
    pub(super) fn check_rollback(&mut self, facts: &Facts) -> anyhow::Result<()> {
        let config::Zfs { dataset, blank, .. } = &self.source;
        let blank = blank.as_deref().context("BUG: a rollback without a blank")?;
        let refquota = self.library.number(dataset, "refquota")?;
        let name = format!("{dataset}@{blank}");
        ensure!(
            refquota == 0 || self.library.number(&name, "referenced")? <= refquota,
            "{name} takes more than the refquota of {dataset} allows: raise it (`zfs set refquota=none \
             {dataset}`)"
        );
        let rollback = fs::Rollback {
            dataset,
            blank,
            destroy_first: &facts.newer,
            property: MARK,
            value: "0",
        };
        if self.options.passes_over(OnlyNow::Mounted) {
            // Said last.
            let in_use = |error: &fs::Error| {
                matches!(error, fs::Error::RollbackRefused { reason: fs::Refusal::Busy, .. })
            };
            return match self.library.check_rollback(&rollback) {
                Err(error) if !in_use(&error) => Err(error.into()),
                _ => Ok(()),
            };
        }
        let was_mounted = self.mounted.dataset.is_some();
        unmount(&mut self.mounted.dataset)?;
        self.library.check_rollback(&rollback)?;
        if was_mounted {
            self.mounted.dataset = mount(dataset, "previous", fs::Access::ReadOnly)?;
        }
        Ok(())
    }

    /// Checks that the dataset can be written to: the stage inherits it. A running system may have it
    /// mounted in another way, which hides what the property is.
    pub(super) fn check_writable(&self) -> anyhow::Result<()> {
        let dataset = &self.source.dataset;
        let Some(readonly) = self.library.property(dataset, "readonly")? else { return Ok(()) };
        let is_on = readonly.value.as_text() == Some("on");
        let from = match &readonly.source {
            fs::Source::Inherited(above) => format!(" (inherited from {above})"),
            _ => String::new(),
        };
        ensure!(
            is_on == (readonly.source == fs::Source::Temporary),
            "{dataset} has readonly=on{from}, and a reset writes to it: run `zfs set readonly=off {dataset}`"
        );
        Ok(())
    }

    /// Asks ZFS whether there is room for a snapshot of the dataset. A rollback needs the same room, but ZFS
    /// cannot be asked about a rollback while the dataset is mounted.
    pub(super) fn check_refreservation(&self, plan: &VolumePlan<Step>) -> anyhow::Result<()> {
        let begins =
            |it: &Planned<Step>| matches!(it.step, Step::Snapshot { .. } | Step::RollBack { .. });
        if plan.resumes || !plan.steps.iter().any(begins) {
            return Ok(());
        }
        let dataset = &self.source.dataset;
        let snapshot = generation_name(&self.source, plan.generation);
        match self.library.check_snapshot(&snapshot) {
            Err(error @ fs::Error::NoSpace { .. }) => Err(error).with_context(|| {
                format!(
                    "the refreservation of {dataset} needs as much free space as the dataset takes: free \
                     some, or lower it (`zfs set refreservation=none {dataset}`)"
                )
            }),
            looked => Ok(looked?),
        }
    }

    /// Whether a quota limits what the dataset takes, for which cloned blocks count.
    fn has_quota(&self) -> anyhow::Result<bool> {
        let dataset = &self.source.dataset;
        if self.library.number(dataset, "refquota")? > 0 {
            return Ok(true);
        }
        for above in Path::new(dataset).ancestors().filter_map(Path::to_str) {
            if !above.is_empty() && self.library.number(above, "quota")? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Estimates whether what a reset copies has room. Most pools have room for the whole once more, which
    /// is soon known.
    pub(super) fn check_fits(
        &self,
        plan: &VolumePlan<Step>,
        looked: &Looked,
    ) -> anyhow::Result<()> {
        if !self.options.dry_run {
            return Ok(());
        }
        let dataset = &self.source.dataset;
        let free = self.library.available(dataset)?;
        let fits = |name: &str, copies: u64| -> anyhow::Result<bool> {
            let whole = self.library.number(name, "referenced")?.saturating_mul(copies);
            Ok(whole.saturating_add(LEAST_ROOM) <= free)
        };
        let clones = || -> anyhow::Result<bool> {
            Ok(!self.has_quota()? && zfs_clones_no_blocks(&self.source)?.is_none())
        };
        for planned in &plan.steps {
            match &planned.step {
                Step::Lay { blank: Some(name) } if !fits(name, 1)? => {
                    let live = root(self.mounted.dataset.as_ref())?;
                    let blank = self.mounted.blank.as_deref();
                    looked.ensure_fits(&self.rules, live, blank, clones()?)?;
                }
                Step::CopyIntoStage if !fits(dataset, 2)? => {
                    let previous = root(self.mounted.dataset.as_ref())?;
                    looked.ensure_kept_fits(&self.rules, previous, clones()?, free)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
