//! What the kernel command line can ask for instead of a reset, on btrfs: looking and doing. The
//! exchange and all that follows it are those of a reset.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use darlings_btrfs as fs;
use rustix::fs::IFlags;
use tracing::warn;

use super::facts::{Facts, Source, outermost};
use super::journal::{Journal, Roots, has_place};
use super::names::{NEXT, snapshot_name};
use super::record::Live;
use super::subvolume::{Btrfs, Named};
use super::swap;
use crate::cmdline::Which;
use crate::engine::plan::Does;
use crate::errors;
use crate::fs::Dir;
use crate::generations;
use crate::own::Own;
use crate::own::state::{self, Manifest};
use crate::tree::{self, Settled};

impl Btrfs {
    /// Looks at the generation that is asked for.
    pub(super) fn look_at_source(
        &self,
        home: Option<&Dir>,
        which: Which,
        facts: &Facts,
    ) -> anyhow::Result<Source> {
        let there = match home {
            Some(home) => self.numbers(home, &facts.generations, facts.live_generation)?,
            None => Vec::new(),
        };
        let number = generations::choose(which, there)?;
        let tree = self.generation(number)?;
        let nested: Vec<PathBuf> =
            fs::nested_subvolumes(&tree)?.into_iter().map(|nested| nested.path).collect();
        let mut fitting = Vec::new();
        for path in outermost(&self.volume, facts) {
            let inside = nested.iter().any(|outer| path != *outer && path.starts_with(outer));
            // Where the generation has a subvolume, its copy has a stub.
            let fits = !inside
                && (nested.contains(&path)
                    || has_place(&tree, &path).with_context(|| {
                        format!("cannot look at {path:?} in generation {number}")
                    })?);
            if fits {
                fitting.push(path);
            }
        }
        let paths = crate::keep::survey::survey(&self.volume.rules, &tree, None)?;
        let swap = swap::find(&tree, &self.volume.rules, &paths, &|_| false)?;
        Ok(Source { number, nested, fitting, swap })
    }

    pub(super) fn generation(&self, number: u64) -> anyhow::Result<Dir> {
        let path = self.source.generations.join(number.to_string());
        self.open_subvolume(&path)?
            .with_context(|| format!("the generation {path:?} went away while it was looked at"))
    }

    /// Copies the live subvolume as what becomes the generation.
    pub(super) fn stage_snapshot(&mut self) -> anyhow::Result<()> {
        let live = self.live()?;
        let seals = tree::seals_of(&live)?;
        let Named { parent, name } = self.place_of_stage()?;
        fs::snapshot(&live, &parent, &name, fs::Access::Writable)?;
        self.work.staged = Some(NEXT.to_owned());
        if !seals.is_empty() {
            tree::unseal(self.staged()?).context("cannot clear the flags of the copy")?;
        }
        self.work.root_seals = Some(seals);
        Ok(())
    }

    /// Writes the number of the generation into the live subvolume, durably: no crash may leave a
    /// generation whose number is given away once more.
    pub(super) fn count(&mut self, number: u64) -> anyhow::Result<()> {
        let live = self.live()?;
        let read_only = fs::is_read_only(&live)?;
        fs::set_read_only(&live, false)?;
        let counted = state::count(&live, number, &self.volume.rules);
        let again = fs::set_read_only(&live, read_only);
        errors::all([counted, again.map_err(Into::into)].into_iter())?;
        Ok(fs::sync(self.top()?)?)
    }

    pub(super) fn keep_snapshot(&mut self, kept: &Path) -> anyhow::Result<()> {
        let staged = self.staged()?;
        // No read-only subvolume can come from another directory, and no generation can be written to.
        let name = snapshot_name(self.work.generation);
        self.write_record(Some(Live::staged(&staged, None, &self.volume.rules)?))?;
        self.rename_stage(&name)?;
        let seals = self.work.root_seals.take().unwrap_or(IFlags::empty());
        self.name_generation(&staged, &name, kept, seals)
    }

    /// Copies the generation as what becomes the live subvolume.
    pub(super) fn stage_generation(&mut self, number: u64) -> anyhow::Result<()> {
        let generation = self.generation(number)?;
        let Named { parent, name } = self.place_of_stage()?;
        fs::snapshot(&generation, &parent, &name, fs::Access::Writable)?;
        self.work.staged = Some(NEXT.to_owned());
        Ok(())
    }

    /// Makes the copy of the generation count as the result of this run. Nothing else in it is
    /// changed.
    pub(super) fn record_restored(&mut self, of: u64) -> anyhow::Result<()> {
        let (live, staged) = (self.live()?, self.staged()?);
        let root = &staged;
        let was = Settled::look(root).context("cannot look at the root")?;
        tree::unseal(root).context("cannot clear the flags of the root")?;
        // The generation may have been live while a reset was interrupted.
        tree::remove(&*Own::ensure(root)?, "reset").context("cannot remove an old journal")?;
        let before = state::manifest(root).unwrap_or_else(|error| {
            warn!("generation {of}: {error:#}");
            None
        });
        let (number, rules) = (self.work.generation, &self.volume.rules);
        let manifest = Manifest::of_restored(number, of, before, rules)?;
        let system = Some(self.system()?);
        state::write(root, &Manifest { system, ..manifest })?;
        was.clone().unsealed().settle(root).context("cannot set the times of the root")?;
        let roots = Roots { old: &live, new: root };
        self.work.journal = Journal::look(roots, was.seals(), &self.work.moving)?;
        self.work.journal.write(root)
    }

    /// Whether the plan restores a generation, and which.
    pub(super) fn restores(&self) -> Option<u64> {
        match self.work.does {
            Does::Restore(number) => Some(number),
            Does::Reset | Does::Snapshot | Does::Nothing => None,
        }
    }
}
