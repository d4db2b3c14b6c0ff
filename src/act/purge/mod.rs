//! Removing what resets have left, in the running system: the trash, old generations, what the
//! attic has held long enough.
//!
//! It may be killed at any moment and run again. Each thing that goes is gone from where it was
//! looked for at once, or marked as going; what fails is reported and the rest goes on.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use darlings_btrfs as btrfs;
use tracing::{error, info, warn};

use crate::config::{self, Config, Keep};
use crate::fs::Dir;
use crate::generations::retention;
use crate::generations::{self, Access, Detail, Generation, Store};
use crate::keep::attic::ATTIC;
use crate::keep::carry::TRASH;
use crate::names::shown;
use crate::own::{Own, trash};
use crate::rules::OWN_DIRECTORY;
use crate::text::bytes_in_words;
use crate::tree::make_writable;

mod own;
pub mod report;
#[cfg(test)]
mod tests;

use report::{Failed, PurgeOutcome, PurgeReport, PurgedVolume, RemovalReason, Removed, What};

/// How a purge runs.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Change nothing.
    pub dry_run: bool,
    /// The time, in seconds since 1970; `None` where it is not known.
    pub now: Option<u64>,
}

/// Somebody who watches a purge.
pub trait Watch {
    /// So many entries of it are gone.
    fn removing(&mut self, name: &str, entries: u64);
    /// The kernel is freeing what was removed.
    fn waiting(&mut self);
    /// Something is about to be said.
    fn pause(&mut self);
}

/// Opens the generations of a volume: [`crate::volume::store`], or made-up ones in tests.
pub type Opener<'o> = dyn Fn(&config::Volume, Access) -> anyhow::Result<Box<dyn Store>> + 'o;

/// Purges every volume of `config`, one after the other.
pub fn purge(config: &Config, options: Options, watch: &mut dyn Watch) -> PurgeReport {
    purge_with(config, options, watch, &crate::volume::store)
}

/// [`purge`], with generations opened by `open`.
pub fn purge_with(
    config: &Config,
    options: Options,
    watch: &mut dyn Watch,
    open: &Opener<'_>,
) -> PurgeReport {
    let mut volumes = Vec::new();
    for volume in &config.volumes {
        let report = PurgedVolume { mount_point: volume.mount_point.clone(), ..Default::default() };
        let mut purge = Purge { keep: volume.keep.unwrap_or_default(), options, watch, report };
        purge.run(volume, open);
        volumes.push(purge.report);
    }
    let failed = volumes.iter().any(|volume| !volume.failed.is_empty());
    let outcome = if failed { PurgeOutcome::Failed } else { PurgeOutcome::Done };
    PurgeReport { version: 1, dry_run: options.dry_run, outcome, volumes }
}

/// The purge of one volume.
struct Purge<'a> {
    keep: Keep,
    options: Options,
    watch: &'a mut dyn Watch,
    report: PurgedVolume,
}

impl Purge<'_> {
    fn run(&mut self, volume: &config::Volume, open: &Opener<'_>) {
        let access = if self.options.dry_run { Access::ReadOnly } else { Access::Writable };
        let mut store = match open(volume, access) {
            Ok(store) => store,
            Err(error) => return self.failed("", &error),
        };
        if let Err(error) = self.go(store.as_mut()) {
            self.failed("", &error);
        }
        if let Err(error) = store.close() {
            self.failed("", &error);
        }
    }

    fn go(&mut self, store: &mut dyn Store) -> anyhow::Result<()> {
        let live = store.live()?;
        let own = Own::open(&live)?;
        if !self.options.dry_run {
            store.lock()?;
            own.as_ref().map_or(Ok(()), Own::lock)?;
        }
        if let Some(why) = generations::unfinished(store, &live)? {
            anyhow::bail!(generations::interrupted_in_words(&why));
        }
        // Whoever owns the volume's root can have made it read-only, and it stays so.
        let was_read_only = !self.options.dry_run && make_writable(&live)?;
        let done = self.remove_all(store, &live, own.as_ref());
        if was_read_only {
            btrfs::set_read_only(&live, true)?;
        }
        done
    }

    fn remove_all(
        &mut self,
        store: &mut dyn Store,
        live: &Dir,
        own: Option<&Own>,
    ) -> anyhow::Result<()> {
        let before = store.space()?;
        self.report.available_bytes_before = Some(before.available);
        self.report.min_free_bytes = self.keep.min_free.map(|min_free| min_free.of(before.total));

        let trash = trash::look(live)?;
        if let Some(own) = own {
            for name in &trash.doomed {
                let path = Path::new(TRASH).join(name);
                self.empty(
                    store,
                    own,
                    &path,
                    &name.to_string_lossy(),
                    What::Trash,
                    RemovalReason::Trash,
                );
            }
        }
        let seen = store.look(Detail::Retention)?;
        let newest = seen.generations.last().map(|generation| generation.number);
        for begun in &seen.begun {
            if newest.is_some_and(|newest| begun.number < newest) {
                self.remove(store, begun, RemovalReason::Begun);
            } else {
                let note = format!("{} is incomplete, but it is the newest", begun.name);
                self.note(note);
            }
        }
        let left = self.expire(store, &seen.generations);
        if let Some(own) = own {
            self.expire_attic(store, own, &seen.generations)?;
        }
        let replaced = self.expire_replaced(store, live, &trash.replaced, &left);
        self.make_room(store, &left, live, &replaced)?;
        self.report.available_bytes = Some(store.space()?.available);
        Ok(())
    }

    /// Removes the generations that are not kept any more; answers those that are left.
    fn expire(&mut self, store: &mut dyn Store, all: &[Generation]) -> Vec<Generation> {
        let dated: Vec<_> = all.iter().map(Generation::dated).collect();
        let mut left = all.to_vec();
        for expired in retention::expired(&dated, self.keep, self.options.now) {
            if let Some(index) = left.iter().position(|it| it.number == expired.number) {
                let generation = left.remove(index);
                self.remove(store, &generation, expired.reason.into());
            }
        }
        left
    }

    fn expire_attic(
        &mut self,
        store: &mut dyn Store,
        own: &Own,
        generations: &[Generation],
    ) -> anyhow::Result<()> {
        for number in own.begun()? {
            let path = Path::new(ATTIC).join(generations::removing_name(number));
            self.empty(store, own, &path, &number.to_string(), What::Attic, RemovalReason::Begun);
        }
        let Some(days) = self.keep.days else { return Ok(()) };
        let times: BTreeMap<u64, u64> =
            generations.iter().filter_map(|it| Some((it.number, it.ended?))).collect();
        let attic = own.attic(&times)?;
        for number in retention::older_than(&attic, days, self.options.now) {
            let name = format!("{OWN_DIRECTORY}/{ATTIC}/{number}");
            if self.options.dry_run {
                self.removed(What::Attic, name, RemovalReason::TooOld, None);
                continue;
            }
            match own.doom_attic(number) {
                Ok(doomed) => {
                    let number = number.to_string();
                    self.empty(store, own, &doomed, &number, What::Attic, RemovalReason::TooOld);
                }
                Err(error) => self.failed(&name, &error),
            }
        }
        Ok(())
    }

    /// Removes what recoveries replaced and what is not kept any more; answers the numbers that are
    /// left.
    fn expire_replaced(
        &mut self,
        store: &mut dyn Store,
        live: &Dir,
        all: &[(u64, trash::Replaced)],
        generations: &[Generation],
    ) -> Vec<u64> {
        let dated: Vec<_> = generations.iter().map(Generation::dated).collect();
        let mut left: Vec<u64> = all.iter().map(|(number, _)| *number).collect();
        for expired in trash::expired(all, &dated, self.keep, self.options.now) {
            left.retain(|number| *number != expired.number);
            self.remove_replaced(store, live, expired.number, expired.reason.into());
        }
        left
    }

    fn remove_replaced(
        &mut self,
        store: &mut dyn Store,
        live: &Dir,
        number: u64,
        why: RemovalReason,
    ) {
        let name = trash::shown(number);
        if self.options.dry_run {
            return self.removed(What::Replaced, name, why, None);
        }
        let doomed = || -> anyhow::Result<Own> {
            trash::doom(live, number)?;
            Own::open(live)?.context("the own directory is gone")
        };
        match doomed() {
            Ok(own) => {
                let name = format!("replaced-{number}");
                let path = Path::new(TRASH).join(&name);
                self.empty(store, &own, &path, &name, What::Replaced, why);
            }
            Err(error) => self.failed(&name, &error),
        }
    }

    /// Removes the oldest generations while too little is free, and then what recoveries replaced.
    fn make_room(
        &mut self,
        store: &mut dyn Store,
        left: &[Generation],
        live: &Dir,
        replaced: &[u64],
    ) -> anyhow::Result<()> {
        let Some(wanted) = self.report.min_free_bytes else { return Ok(()) };
        let dated: Vec<_> = left.iter().map(Generation::dated).collect();
        let mut oldest = retention::to_make_room(&dated).into_iter();
        let mut replaced = replaced.iter();
        loop {
            let watch = &mut *self.watch;
            store.settle(wanted, &mut || watch.waiting()).context("cannot make room")?;
            let available = store.space()?.available;
            if available >= wanted {
                return Ok(());
            }
            let little = format!(
                "{} is free, less than the {} that `keep.min_free` wants",
                bytes_in_words(available),
                bytes_in_words(wanted)
            );
            let next = oldest.next();
            let Some(generation) = left.iter().find(|it| Some(it.number) == next) else {
                if let Some(&number) = replaced.next() {
                    self.remove_replaced(store, live, number, RemovalReason::LittleSpace);
                    if self.options.dry_run {
                        return Ok(());
                    }
                    continue;
                }
                self.note(if self.report.failed.is_empty() {
                    format!(
                        "{little}, and no generation is left that may go for it: the newest {} stay",
                        retention::KEPT_WITHOUT_ROOM
                    )
                } else {
                    format!("{little}, and what may go for it could not be removed")
                });
                return Ok(());
            };
            if self.options.dry_run {
                self.removed(
                    What::Generation,
                    generation.name.clone(),
                    RemovalReason::LittleSpace,
                    None,
                );
                self.note(format!("{little}: more generations may go, the oldest first"));
                return Ok(());
            }
            self.note(format!("{little}: the oldest generation goes, {}", generation.name));
            self.remove(store, generation, RemovalReason::LittleSpace);
        }
    }

    fn remove(&mut self, store: &mut dyn Store, generation: &Generation, why: RemovalReason) {
        if !self.options.dry_run {
            self.watch.removing(&generation.name, 0);
            if let Err(error) = store.remove(generation) {
                return self.failed(&generation.name, &error);
            }
        }
        self.removed(What::Generation, generation.name.clone(), why, None);
    }

    /// Removes something in the tool's own directory, which is reported by the last name that it had
    /// before.
    fn empty(
        &mut self,
        store: &mut dyn Store,
        own: &Own,
        path: &Path,
        name: &str,
        what: What,
        why: RemovalReason,
    ) {
        let below = Path::new(OWN_DIRECTORY).join(path);
        let shown = below.with_file_name(name).to_string_lossy().into_owned();
        if self.options.dry_run {
            return self.removed(what, shown, why, None);
        }
        let mut entries = 0;
        let watch = &mut *self.watch;
        let mut count = || {
            entries += 1;
            watch.removing(&shown, entries);
        };
        let result = store.remove_nested(&below).and_then(|()| own.remove(path, &mut count));
        match result {
            Ok(()) => self.removed(what, shown, why, Some(entries)),
            Err(error) => self.failed(&shown, &error),
        }
    }

    fn removed(&mut self, what: What, name: String, reason: RemovalReason, entries: Option<u64>) {
        let removed = Removed { what, name, reason, entries };
        self.watch.pause();
        let at = shown(&self.report.mount_point);
        let word = if self.options.dry_run { "would remove" } else { "removed" };
        info!("{at}: {word} {removed}");
        self.report.removed.push(removed);
    }

    fn failed(&mut self, name: &str, error: &anyhow::Error) {
        self.watch.pause();
        let at = shown(&self.report.mount_point);
        let name = name.to_owned();
        if name.is_empty() {
            error!("{at}: {error:#}");
        } else {
            error!("{at}: cannot remove {}: {error:#}", shown(&name));
        }
        self.report.failed.push(Failed { name, error: format!("{error:#}") });
    }

    fn note(&mut self, note: String) {
        self.watch.pause();
        warn!("{}: {note}", shown(&self.report.mount_point));
        self.report.notes.push(note);
    }
}
