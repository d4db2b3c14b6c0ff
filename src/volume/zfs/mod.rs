//! ZFS: the result is staged in a clone of the blank snapshot, the dataset is rolled back, and
//! the result is block-cloned back into it.
//!
//! ```text
//! rpool/local/root                           the dataset, with the property
//!                                            darlings:rolled-back while it is incomplete
//! rpool/local/root@blank                     the blank
//! rpool/local/root/darlings-stage            the stage: worth nothing until the rollback
//! rpool/local/root/darlings-stage@darlings-7 the stage of reset 7 is complete and durable
//! ```
//!
//! The rollback and the property are one transaction group. So after a crash the next run knows:
//! without the property the dataset is the complete previous state and the stage is removed; with
//! it the stage is complete, and the dataset is rolled back once more and filled from it.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, bail, ensure};
use darlings_zfs as fs;

use super::mounts::{self, Mount};
use super::{Options, Standing, Volume};
use crate::config;
use crate::plan::{Step, VolumePlan};
use crate::restore::{Outcome, Surveyed, survey};
use crate::state;

mod execute;
mod plan;

use plan::{Facts, blank_name, rollback, secured_name, stage_name};

/// The user property that marks a dataset as rolled back and not yet filled again.
/// Its value is the number of the reset.
const MARK: &str = "darlings:rolled-back";

/// A ZFS dataset that is reset.
pub(super) struct Zfs {
    library: fs::Zfs,
    volume: config::Volume,
    source: config::Zfs,
    options: Options,
    mounted: Mounts,
    generation: u64,
    paths: Vec<Surveyed>,
    /// What was free before the stage was made, in bytes.
    available_before: u64,
    /// Whether the stage was made by this run and may be removed if it goes no further.
    staged: bool,
    standing: Standing,
}

/// What is mounted of the dataset at the moment.
#[derive(Default)]
struct Mounts {
    /// The dataset itself.
    dataset: Option<Mount>,
    blank: Option<Mount>,
    stage: Option<Mount>,
}

/// The root of something that a step needs mounted.
fn root(mount: Option<&Mount>) -> anyhow::Result<BorrowedFd<'_>> {
    mount.map(AsFd::as_fd).context("BUG: it is not mounted")
}

fn mount(name: &str, label: &str, access: fs::Access) -> anyhow::Result<Option<Mount>> {
    Mount::new(label, |target| fs::mount(name, target, access))
        .map(Some)
        .with_context(|| format!("cannot mount {name}"))
}

fn unmount(mount: &mut Option<Mount>) -> anyhow::Result<()> {
    match mount.take() {
        Some(mount) => mount.close(fs::unmount),
        None => Ok(()),
    }
}

impl Zfs {
    pub(super) fn open(
        volume: &config::Volume,
        source: &config::Zfs,
        options: Options,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            library: fs::Zfs::open()?,
            volume: volume.clone(),
            source: source.clone(),
            options,
            mounted: Mounts::default(),
            generation: 0,
            paths: Vec::new(),
            available_before: 0,
            staged: false,
            standing: Standing::Previous,
        })
    }

    fn look(&mut self) -> anyhow::Result<Facts> {
        self.check_there()?;
        self.check_not_mounted()?;
        let dataset = &self.source.dataset;
        let mut facts = Facts {
            rolled_back: self.rolled_back()?,
            has_stage: self.library.exists(&stage_name(&self.source))?,
            newer: self.newer_than_blank()?,
            ..Facts::default()
        };
        if facts.rolled_back.is_some() {
            self.standing = Standing::Unfinished;
        }
        if !self.options.dry_run {
            self.check_rollback(&facts)?;
        }
        self.mounted.blank = mount(&blank_name(&self.source), "blank", fs::Access::ReadOnly)?;
        let previous = if let Some(number) = facts.rolled_back {
            let secured = secured_name(&self.source, number);
            ensure!(
                self.library.exists(&secured)?,
                "{dataset} was rolled back by reset {number} and {secured}, which holds the \
                 persisted paths, is missing; do not boot {dataset}: find its content (a backup, \
                 `zpool history`), restore it, and run `zfs inherit {MARK} {dataset}`"
            );
            self.mounted.stage = mount(&stage_name(&self.source), "stage", fs::Access::ReadOnly)?;
            root(self.mounted.stage.as_ref())?
        } else {
            self.mounted.dataset = mount(dataset, "previous", fs::Access::ReadOnly)?;
            let live = root(self.mounted.dataset.as_ref())?;
            facts.live_generation = state::generation(live)?;
            live
        };
        facts.paths =
            survey(&self.volume.rules, previous, Some(root(self.mounted.blank.as_ref())?))?;
        Ok(facts)
    }

    fn check_there(&self) -> anyhow::Result<()> {
        let config::Zfs { dataset, blank, .. } = &self.source;
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
        ensure!(
            self.library.exists(&blank_name(&self.source))?,
            "the blank snapshot {dataset}@{blank} is missing; {}",
            self.snapshots_in_words()?
        );
        Ok(())
    }

    /// Where a dataset of the same name is, in another pool.
    fn where_else(&self, rest: &str) -> anyhow::Result<String> {
        let pools = fs::imported_pools()?;
        for pool in &pools {
            let name = format!("{pool}/{rest}");
            if self.library.exists(&name)? {
                return Ok(format!("there is {name}: correct the configuration"));
            }
        }
        Ok(match pools.as_slice() {
            [] => "no pool is imported: import it first".to_owned(),
            pools => format!("imported are: {}", pools.join(", ")),
        })
    }

    fn snapshots_in_words(&self) -> anyhow::Result<String> {
        let snapshots = self.library.snapshots(&self.source.dataset)?;
        let names: Vec<String> =
            snapshots.into_iter().take(12).map(|snapshot| snapshot.name).collect();
        Ok(if names.is_empty() {
            "the dataset has no snapshots: take one of an empty root, or name another dataset"
                .to_owned()
        } else {
            format!("its snapshots are {}", names.join(", "))
        })
    }

    fn check_not_mounted(&self) -> anyhow::Result<()> {
        let mounted = mounts::all()?
            .into_iter()
            .find(|mount| mount.kind == "zfs" && mount.source == self.source.dataset);
        match mounted {
            Some(mount) if !self.options.dry_run => bail!(
                "the dataset {} is mounted at {:?}; a volume is reset before it is mounted: \
                 unmount it, or reboot",
                self.source.dataset,
                mount.mount_point
            ),
            _ => Ok(()),
        }
    }

    /// What stands in the way of the rollback is found before anything is done: a clone of a
    /// newer snapshot, a hold.
    fn check_rollback(&self, facts: &Facts) -> anyhow::Result<()> {
        let config::Zfs { dataset, blank, .. } = &self.source;
        Ok(self.library.check_rollback(&fs::Rollback {
            dataset,
            blank,
            destroy_first: &facts.newer,
            property: MARK,
            value: "0",
        })?)
    }

    fn rolled_back(&self) -> anyhow::Result<Option<u64>> {
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

    fn newer_than_blank(&self) -> anyhow::Result<Vec<String>> {
        let config::Zfs { dataset, blank, .. } = &self.source;
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

impl Volume for Zfs {
    fn plan(&mut self) -> anyhow::Result<VolumePlan> {
        let facts = self.look()?;
        let plan = rollback(&self.volume, &self.source, &facts)?;
        self.generation = plan.generation;
        self.paths = facts.paths;
        Ok(plan)
    }

    fn execute(&mut self, step: &Step) -> anyhow::Result<Option<Outcome>> {
        self.do_step(step)
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        self.undo_prepared()
    }

    fn standing(&self) -> Standing {
        self.standing
    }

    fn close(&mut self) -> anyhow::Result<()> {
        let Mounts { dataset, blank, stage } = &mut self.mounted;
        let results = [unmount(dataset), unmount(stage), unmount(blank)];
        results.into_iter().collect()
    }
}
