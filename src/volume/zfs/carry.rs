//! `carry` on ZFS: the previous state is kept in a snapshot, then things are moved in the dataset
//! itself.
//!
//! Until the journal is written nothing was moved; from then on an interrupted run is completed by
//! the next one. A failure in the run itself is undone by a rollback to the snapshot, which
//! destroys nothing, since no snapshot is newer.

use anyhow::Context as _;
use darlings_zfs as fs;
use tracing::warn;

use super::dataset::Zfs;
use super::execute::with_remedy;
use super::mounted::{mount, root, unmount};
use super::names::pool_of;
use crate::engine::plan::Does;
use crate::keep::carry::{self, Journal};
use crate::keep::copy_in::Outcome;
use crate::own::state::{self, Manifest};
use crate::rules::Rules;
use crate::volume::Standing;

/// The user property that the rollback of a failed `carry` sets, beside what it does. Its value is
/// the number of the reset; nothing reads it.
const UNDONE: &str = "darlings:undone";

impl Zfs {
    /// Keeps the previous state as a snapshot. What the intent log held was replayed when the
    /// dataset was mounted to be looked at.
    pub(super) fn keep_previous(&mut self, name: &str) -> anyhow::Result<()> {
        // First, since ZFS refuses this and the reading before, one or the other, where it is
        // mounted in somebody else's namespace; undoing by a rollback would be refused then too.
        self.mount_to_write()?;
        let number = self.generation.to_string();
        self.library
            .snapshot(&[name], &fs::Properties::new().user("darlings:generation", &number))?;
        self.kept = Some(name.to_owned());
        Ok(())
    }

    pub(super) fn lay(&mut self) -> anyhow::Result<Outcome> {
        let live = root(self.mounted.dataset.as_ref())?;
        let blank = self.mounted.blank.as_deref();
        let roots = carry::Roots { previous: live, blank, root: live, undoable: false };
        let seen = self.looked.seen(&[]);
        // All of a generation is restored, and nothing of what is live stays.
        let nothing = Rules::default();
        let rules = match self.does {
            Does::Restore(_) => &nothing,
            Does::Reset | Does::Snapshot | Does::Nothing => &self.rules,
        };
        let threads = self.options.threads;
        let mut prepared =
            carry::prepare(roots, rules, seen, self.generation, threads).map_err(with_remedy)?;
        if let Does::Restore(of) = self.does {
            let generation = blank.context("BUG: the generation is not mounted")?;
            let before = state::manifest(generation).unwrap_or_else(|error| {
                warn!("generation {of}: {error:#}");
                None
            });
            prepared.journal.manifest =
                Manifest::of_restored(self.generation, of, before, &self.volume.rules)?;
        }
        // Everything that is laid must be durable before anything is moved: in the pool itself, not in
        // the intent log, which would have to be replayed first.
        let pool = pool_of(&self.source.dataset);
        self.library.sync_pool(pool)?;
        prepared.journal.write(live)?;
        self.library.sync_pool(pool)?;
        let outcome = Outcome::of_moved(&self.looked.paths, prepared.bytes);
        self.carrying = Some(prepared.journal);
        Ok(outcome)
    }

    /// Writes the number of the generation that was just taken into the dataset.
    pub(super) fn count(&mut self, number: u64) -> anyhow::Result<()> {
        self.mount_to_write()?;
        let live = root(self.mounted.dataset.as_ref())?;
        state::count(live, number, &self.volume.rules)?;
        live.sync_filesystem().context("cannot make the number durable")
    }

    /// From here the snapshot is a generation, and a failure elsewhere does not take it back.
    pub(super) fn complete_snapshot(&mut self) -> anyhow::Result<()> {
        unmount(&mut self.mounted.dataset)?;
        let pool = pool_of(&self.source.dataset);
        self.library.sync_pool(pool)?;
        self.kept = None;
        Ok(())
    }

    fn mount_to_write(&mut self) -> anyhow::Result<()> {
        unmount(&mut self.mounted.dataset)?;
        self.mounted.dataset = mount(&self.source.dataset, "live", fs::Access::ReadWrite)?;
        self.mounted_to_look = false;
        Ok(())
    }

    pub(super) fn carry(&mut self) -> anyhow::Result<()> {
        if self.mounted_to_look {
            // It completes a run that was interrupted, whose dataset was only looked at so far.
            self.mount_to_write()?;
        }
        self.standing = Standing::Unfinished;
        let live = root(self.mounted.dataset.as_ref())?;
        let journal = self.carrying.as_ref().context("BUG: nothing was laid")?;
        // Only a run that took the snapshot itself has begun.
        let run = if self.kept.is_some() { carry::Run::First } else { carry::Run::Resumed };
        let result = carry::forward(live, journal, run);
        self.or_undo(result)
    }

    pub(super) fn record_carry(&mut self) -> anyhow::Result<()> {
        let journal = self.carrying.as_ref().context("BUG: nothing was laid")?;
        let result = root(self.mounted.dataset.as_ref())
            .and_then(|live| state::write(live, &journal.manifest));
        self.or_undo(result)
    }

    /// After a failure goes back to the snapshot; not so in a run that completes an interrupted
    /// one, since somebody may have used the machine in between.
    pub(super) fn or_undo(&mut self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let Err(error) = result else { return Ok(()) };
        if self.kept.is_none() {
            return Err(error);
        }
        match self.undo_carry() {
            Ok(()) => Err(error.context("the dataset was rolled back to its previous state")),
            Err(undo) => Err(error.context(format!("undoing it failed too: {undo:#}"))),
        }
    }

    pub(super) fn complete_carry(&mut self) -> anyhow::Result<()> {
        let result = root(self.mounted.dataset.as_ref()).and_then(|live| {
            live.sync_filesystem().context("cannot make the result durable")?;
            Journal::complete(live)
        });
        self.or_undo(result)?;
        self.standing = Standing::Reset;
        self.kept = None;
        Ok(())
    }

    pub(super) fn tidy(&mut self) -> anyhow::Result<()> {
        if self.mounted_to_look {
            // It tidies up after a run that was interrupted there.
            self.mount_to_write()?;
        }
        let live = root(self.mounted.dataset.as_ref())?;
        let journal = self.carrying.as_ref().context("BUG: nothing was laid")?;
        carry::finish(live, journal, carry::Aside::Trash)?;
        self.carrying = None;
        unmount(&mut self.mounted.dataset)?;
        let pool = pool_of(&self.source.dataset);
        Ok(self.library.sync_pool(pool)?)
    }

    /// Rolls the dataset back to the snapshot that this run took, and removes that.
    pub(super) fn undo_carry(&mut self) -> anyhow::Result<()> {
        let Some(kept) = self.kept.clone() else { return Ok(()) };
        unmount(&mut self.mounted.dataset)?;
        let dataset = &self.source.dataset;
        let name = kept.split_once('@').context("BUG: a snapshot without a name")?.1;
        let undo = || -> anyhow::Result<()> {
            self.library.rollback_and_mark(&fs::Rollback {
                dataset,
                blank: name,
                destroy_first: &[],
                property: UNDONE,
                value: &self.generation.to_string(),
            })?;
            Ok(self.library.clear_user_property(dataset, UNDONE)?)
        };
        undo().with_context(|| format!("cannot roll {dataset} back to {kept}"))?;
        self.standing = Standing::Previous;
        self.kept = None;
        self.carrying = None;
        self.library
            .destroy(&kept)
            .with_context(|| format!("cannot destroy {kept}, which holds the same as {dataset}"))
    }
}
