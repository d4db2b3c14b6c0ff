//! What is seen on a btrfs filesystem before a reset, and which nested subvolumes move for it. Pure.

use std::path::{Path, PathBuf};

use super::journal::{Journal, Moving};
use super::names::{NEXT, highest, ready_name, seals_for, staged_number};
use crate::config;
use crate::keep::attic::{self, ATTIC};
use crate::own::state;
use crate::rules::{OWN_DIRECTORY, Verdict};
use crate::volume::Looked;

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Number of the live subvolume's last reset; 0 when it was never reset.
    pub(super) live_generation: u64,
    /// What lies below the generations directory, but what is somebody else's and looks like a stage.
    pub(super) generations: Vec<String>,
    /// The highest number that the name of such a thing has.
    pub(super) taken: u64,
    /// Subvolumes nested in the previous state, relative to it, parents first.
    pub(super) nested: Vec<PathBuf>,
    /// Whether the live subvolume, or in an interrupted reset the previous state, is what the
    /// filesystem mounts by default.
    pub(super) is_default: bool,
    /// What was seen of the trees.
    pub(super) looked: Looked,
    /// What an interrupted reset had still to do.
    pub(super) journal: Journal,
    /// Whether the result's root is immutable or append-only.
    pub(super) root_is_sealed: bool,
    /// Whether the blank may still be written to.
    pub(super) blank_is_writable: bool,
    /// The restore that made the live subvolume, if it was one.
    pub(super) restore: Option<state::Restore>,
    /// The generation that is to be restored, if that is asked for.
    pub(super) source: Option<Source>,
}

impl Facts {
    /// The number of a reset that was interrupted after the exchange.
    pub(super) fn interrupted(&self) -> Option<u64> {
        let number = self.live_generation;
        (number > 0 && self.generations.contains(&ready_name(number))).then_some(number)
    }

    pub(super) fn next_generation(&self) -> u64 {
        let highest = highest(&self.generations).max(self.taken);
        highest.max(self.live_generation).max(self.looked.attic.newest) + 1
    }

    /// Generations whose flags a run was to set when it was interrupted.
    pub(super) fn unsealed(&self) -> impl Iterator<Item = u64> {
        self.generations.iter().filter_map(|name| seals_for(name))
    }

    /// What runs that were interrupted before the exchange left, or before a snapshot had its name.
    pub(super) fn leftovers(&self) -> impl Iterator<Item = &String> {
        self.generations.iter().filter(|name| *name == NEXT || staged_number(name).is_some())
    }
}

/// The generation that is to be restored, as it was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    pub(super) number: u64,
    /// Subvolumes nested in it, relative to it.
    pub(super) nested: Vec<PathBuf>,
    /// Subvolumes nested in the live one, below persisted paths, that find a place in it.
    pub(super) fitting: Vec<PathBuf>,
    /// A swap file at or right below a persisted path.
    pub(super) swap: Option<PathBuf>,
}

/// The nested subvolumes that move: the outermost of those that are kept, put away, or in the attic,
/// or, of an interrupted reset, those that have not moved yet. Into a generation that is restored
/// only those below persisted paths move that find a place there: it has its own attic.
pub(super) fn moving(volume: &config::Volume, facts: &Facts) -> Vec<Moving> {
    if facts.interrupted().is_some() {
        let waits = |it: &Moving| facts.nested.contains(&it.from);
        return facts.journal.moving().filter(waits).collect();
    }
    if let Some(source) = &facts.source {
        let mut moving = outermost(volume, facts);
        moving.retain(|path| source.fitting.contains(path));
        return moving.into_iter().map(|path| Moving { to: path.clone(), from: path }).collect();
    }
    let mut found: Vec<Moving> = Vec::new();
    for path in &facts.nested {
        if found.iter().any(|outer| path.starts_with(&outer.from)) {
            continue;
        }
        found.extend(place(volume, facts, path).map(|to| Moving { from: path.clone(), to }));
    }
    // What would come back from the attic into a subvolume that moves itself stays in the attic.
    let places: Vec<PathBuf> = found.iter().map(|it| it.to.clone()).collect();
    for it in &mut found {
        if places.iter().any(|outer| it.to != *outer && it.to.starts_with(outer)) {
            it.to.clone_from(&it.from);
        }
    }
    found
}

/// Where a nested subvolume is in the result of a reset; `None` if it goes with the previous state.
fn place(volume: &config::Volume, facts: &Facts, path: &Path) -> Option<PathBuf> {
    let attic = &facts.looked.attic;
    if path.starts_with(Path::new(OWN_DIRECTORY).join(ATTIC)) {
        let declared = facts.looked.paths.iter().map(|it| (it.from.as_deref(), &it.path));
        let inside = attic.inside.iter().map(|it| (Some(it.from.as_path()), &it.path));
        let back = declared.chain(inside).find_map(|(from, to)| {
            let below = path.strip_prefix(from?).ok()?;
            // A path that ends in nothing would end in a slash.
            Some(if below.as_os_str().is_empty() { to.clone() } else { to.join(below) })
        });
        return Some(back.unwrap_or_else(|| path.to_owned()));
    }
    if volume.rules.verdict(path) == Verdict::Persisted {
        return Some(path.to_owned());
    }
    let region = volume.rules.region(path);
    let is_put_away =
        |store: &&PathBuf| path.starts_with(store) && volume.rules.region(store) == region;
    attic.stores.iter().find(is_put_away)?;
    Some(attic::place(facts.next_generation()).join(path))
}

/// The outermost of the nested subvolumes below persisted paths.
pub(super) fn outermost(volume: &config::Volume, facts: &Facts) -> Vec<PathBuf> {
    let persisted = |path: &&PathBuf| volume.rules.verdict(path) == Verdict::Persisted;
    let mut found: Vec<PathBuf> = Vec::new();
    for path in facts.nested.iter().filter(persisted) {
        if !found.iter().any(|outer| path.starts_with(outer)) {
            found.push(path.clone());
        }
    }
    found
}
