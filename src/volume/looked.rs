//! A look at the trees of a volume before anything is changed: the same for every filesystem.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rustix::fs::fstatvfs;

use super::bootable;
use super::elsewhere::{self, Elsewhere};
use crate::cmdline::Asked;
use crate::config;
use crate::fs::Dir;
use crate::fs::reserved::Reserved;
use crate::keep::attic::{self, Attic};
use crate::keep::carry;
use crate::keep::room::Room;
use crate::keep::survey::Closed;
use crate::keep::survey::Place;
use crate::keep::survey::State;
use crate::keep::survey::Surveyed;
use crate::keep::survey::survey;
use crate::keep::survey::survey_excluded;
use crate::names::shown;
use crate::rules::{OWN_DIRECTORY, Rules};
use crate::text::bytes_in_words;

/// What was seen of the trees of a volume, whatever the filesystem.
#[derive(Debug, Clone, Default)]
pub(super) struct Looked {
    /// Persisted paths in the previous state, or in the attic.
    pub(super) paths: Vec<Surveyed>,
    /// Excluded paths, likewise.
    pub(super) excluded: Vec<(PathBuf, Place)>,
    /// What goes to the attic and comes back from it.
    pub(super) attic: Attic,
    /// Persisted paths whose content is elsewhere, and is erased.
    pub(super) elsewhere: Vec<Elsewhere>,
    /// Directories that are kept as a whole; see [`crate::keep::survey::keep_whole`].
    pub(super) closed: Vec<Closed>,
    /// What is no longer persisted and cannot be moved to the attic.
    pub(super) left: Vec<PathBuf>,
}

impl Looked {
    /// Looks at everything that the rules of a volume name, for what is asked.
    pub(super) fn at(
        volume: &config::Volume,
        asked: Asked,
        previous: &Dir,
        blank: Option<&Dir>,
    ) -> anyhow::Result<Self> {
        let rules = &volume.rules;
        let reserved = Reserved::of(previous).context("cannot look at the root")?;
        for declared in rules.persisted() {
            let first = declared.path.iter().next().unwrap_or_default();
            ensure!(
                !reserved.holds(first),
                "{:?} is declared, and {first:?} is the filesystem's own: it is never touched; remove \
                 it from the configuration",
                declared.path
            );
        }
        let mut paths = survey(rules, previous, blank)?;
        let attic = attic::look(rules, previous, &mut paths)?;
        let excluded = survey_excluded(rules, previous, &paths)?;
        let elsewhere = elsewhere::look(volume, &paths, previous, blank)?;
        if asked == Asked::Reset {
            let refused = elsewhere.iter().filter(|it| it.is_refused());
            let refused: Vec<String> = refused.map(Elsewhere::words).collect();
            ensure!(refused.is_empty(), "{}", refused.join("; "));
            bootable::ensure(volume, asked, previous, blank)?;
        }
        Ok(Self { paths, excluded, attic, elsewhere, ..Self::default() })
    }

    /// Looks at a tree that a reset has put everything into its place in already: nothing goes to the
    /// attic or comes back from it any more.
    pub(super) fn in_place_at(
        rules: &Rules,
        tree: &Dir,
        blank: Option<&Dir>,
    ) -> anyhow::Result<Self> {
        let paths = survey(rules, tree, blank)?;
        let excluded = survey_excluded(rules, tree, &paths)?;
        Ok(Self { paths, excluded, ..Self::default() })
    }

    /// As a `carry` takes it.
    pub(super) fn seen<'a>(&'a self, nested: &'a [PathBuf]) -> carry::Observed<'a> {
        let Self { paths, excluded, attic, .. } = self;
        carry::Observed { persisted: paths, excluded, attic, nested }
    }

    /// Makes sure that the blank's content fits beside the previous state at `root`, by an estimate
    /// that is rather too large. `clones` says that the filesystem shares what is laid.
    pub(super) fn ensure_fits(
        &self,
        rules: &Rules,
        root: &Dir,
        blank: Option<&Dir>,
        clones: bool,
    ) -> anyhow::Result<()> {
        let Some(blank) = blank else { return Ok(()) };
        let units = carry::arrange(rules, self.seen(&[])).units;
        let needed = Room::to_lay(&units, blank, root, clones)?;
        let free = Room::free(&fstatvfs(root).context("cannot ask for the free space")?);
        ensure_copy_fits("the blank", (needed.bytes, free.bytes), "")?;
        ensure!(
            needed.entries <= free.entries,
            "the blank does not fit beside what is there: it has {} entries, and the filesystem has room \
             for {}; {REMEDY}",
            needed.entries,
            free.entries
        );
        Ok(())
    }

    /// Makes sure in the same way that what is kept can be copied within its filesystem, twice: to the
    /// stage, and back from there.
    pub(super) fn ensure_kept_fits(
        &self,
        rules: &Rules,
        previous: &Dir,
        clones: bool,
        free: u64,
    ) -> anyhow::Result<()> {
        let there = |path: &&Surveyed| matches!(path.state, State::Present { .. });
        let kept = self.paths.iter().filter(there);
        let kept = kept.map(|path| (path.source().to_owned(), rules.at(&path.path)));
        let stores = self.attic.stores.iter().map(|path| (path.clone(), None));
        let attic = Path::new(OWN_DIRECTORY).join(attic::ATTIC);
        let attic = previous.glance(&attic)?.map(|_| (attic, None));
        let once = Room::to_bring(kept.chain(stores).chain(attic), previous, clones)?;
        let needed = once.bytes.saturating_mul(2).saturating_add(LEAST_ROOM);
        ensure_copy_fits("what is kept", (needed, free), "")
    }

    /// What was seen, once everything is in place: for a second restoration from where the first one
    /// put it.
    pub(super) fn in_place(&self) -> Self {
        let mut looked = self.clone();
        looked.attic = Attic::default();
        looked.paths.iter_mut().for_each(|path| path.from = None);
        looked
    }

    /// What goes to the attic, for the plan.
    pub(super) fn put_away(&self, mount_point: &Path) -> Vec<String> {
        let shown = |path: &PathBuf| mount_point.join(path).display().to_string();
        self.attic.stores.iter().map(shown).collect()
    }

    /// What comes back from it.
    pub(super) fn returned(&self, mount_point: &Path) -> Vec<String> {
        let shown = |path: &PathBuf| mount_point.join(path).display().to_string();
        let declared = self.paths.iter().filter(|path| path.from.is_some()).map(|it| &it.path);
        declared.chain(self.attic.inside.iter().map(|it| &it.path)).map(shown).collect()
    }

    /// Warnings of persisted paths that cannot be reached, of those whose content is elsewhere, and of
    /// directories that are kept as a whole.
    pub(super) fn warnings(&self, mount_point: &Path) -> Vec<String> {
        let unreachable = self.paths.iter().filter_map(|path| unreachable(mount_point, path));
        let elsewhere = self.elsewhere.iter().map(Elsewhere::words);
        let closed = self.closed.iter().map(|it| it.warning(mount_point));
        let left = self.left.iter().map(|path| {
            format!(
                "{} is no longer persisted. It goes with the generation and not to the attic, since \
                 nothing can be moved out of the subvolume that it lies in",
                shown(&mount_point.join(path))
            )
        });
        unreachable.chain(elsewhere).chain(closed).chain(left).collect()
    }
}

/// With less than this left, in bytes, a reset does not begin: it needs room to write down what it does.
pub(super) const LEAST_ROOM: u64 = 4 << 20;

/// Checks that there is room for a reset with so many bytes left of something.
pub(super) fn ensure_room(left: u64) -> anyhow::Result<()> {
    ensure!(
        left >= LEAST_ROOM,
        "there is no room for a reset, with {} left: remove what is not needed, `darlings purge` \
         perhaps, or raise the quota",
        bytes_in_words(left)
    );
    Ok(())
}

/// Checks by an estimate that a copy has room. That is for a dry run alone: a reset tries, and one that
/// fails leaves nothing.
pub(super) fn ensure_copy_fits(
    copied: &str,
    (needed, free): (u64, u64),
    of: &str,
) -> anyhow::Result<()> {
    ensure!(
        needed <= free,
        "{copied} does not fit beside what is there: it takes about {}{of}, and {} is free; {REMEDY}",
        bytes_in_words(needed),
        bytes_in_words(free)
    );
    Ok(())
}

const REMEDY: &str = "remove what is not needed, `darlings purge` perhaps";

/// Words for a persisted path whose ancestor is not followed.
#[must_use]
pub fn unreachable(mount_point: &Path, path: &Surveyed) -> Option<String> {
    let State::Unreachable { ancestor, kind } = &path.state else { return None };
    Some(format!(
        "{} is not brought over: {} is a {kind}, which is not followed; declare the path that it \
         stands for",
        shown(&mount_point.join(&path.path)),
        shown(&mount_point.join(ancestor)),
    ))
}
