//! The attic: where paths go that were persisted last time and are no longer declared, so that
//! booting an older configuration loses nothing.
//!
//! ```text
//! .darlings/attic/7/home/mia/projects    what reset 7 put away, at its own path
//! .darlings/attic/7.json                 when, and which paths those are
//! ```
//!
//! A path comes back by itself when it is declared again and absent, the newest first. What is
//! never declared again goes by retention: see [`crate::act::purge`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::fs::Dir;
use crate::fs::at::Kind;
use crate::keep::survey::State;
use crate::keep::survey::Surveyed;
use crate::keep::survey::state_at;
use crate::own::Own;
use crate::own::state;
use crate::rules::{Node, OWN_DIRECTORY, Rules, Verdict};
use crate::text::exact_number;

/// The directory in the tool's own directory.
pub const ATTIC: &str = "attic";

/// What goes to the attic in a reset, and what comes back from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attic {
    /// Paths that are put away, below the volume's root. None lies in another.
    pub stores: Vec<PathBuf>,
    /// What comes back into a persisted directory that is there. Declared paths that come back
    /// themselves say so in [`Surveyed::from`].
    pub inside: Vec<Returned>,
    /// Where directories above what comes back are in the attic, for those that neither the blank
    /// nor the previous state has.
    pub above: BTreeMap<PathBuf, PathBuf>,
    /// The highest number of a reset that has put something there.
    pub newest: u64,
}

/// Where the reset with this number puts things, below the volume's root.
#[must_use]
pub fn place(number: u64) -> PathBuf {
    Path::new(OWN_DIRECTORY).join(ATTIC).join(number.to_string())
}

/// Something that comes back; both paths are below the volume's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    /// Where it is in the attic.
    pub from: PathBuf,
    /// Where it was, and will be.
    pub path: PathBuf,
}

/// The newest format of [`List`] that this version knows.
const VERSION: u32 = 1;

/// What one reset put away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Format.
    pub version: u32,
    /// When, in seconds since 1970, by the clock of the initrd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    /// The paths, below the volume's root.
    pub paths: Vec<PathBuf>,
}

impl List {
    /// The list of a reset that runs now.
    #[must_use]
    pub fn new(paths: &[PathBuf]) -> Self {
        Self { version: VERSION, time: state::now(), paths: paths.to_vec() }
    }
}

/// Decides what goes to the attic and what comes back. What comes back is noted in `surveyed`.
pub fn look(rules: &Rules, previous: &Dir, surveyed: &mut [Surveyed]) -> anyhow::Result<Attic> {
    let mut attic = Attic::default();
    let manifest = state::known_manifest(previous, |error| {
        warn!("{error:#}; what is no longer persisted goes with the generation, not to the attic");
    })?;
    let mut connectors = BTreeSet::new();
    for path in manifest.into_iter().flat_map(|manifest| manifest.persisted) {
        check_normal(&path)?;
        connectors.extend(path.ancestors().skip(1).map(Path::to_owned));
        let dropped = rules.verdict(&path) != Verdict::Persisted
            && !attic.stores.iter().any(|outer| path.starts_with(outer));
        if dropped && matches!(state_at(previous, &path)?, State::Present { .. }) {
            attic.stores.retain(|inner| !inner.starts_with(&path));
            attic.stores.push(path);
        }
    }
    let declared = surveyed.iter().map(|declared| declared.path.clone()).collect();
    let look = Look { rules, previous, declared, connectors };
    for (number, list) in lists(previous)? {
        attic.newest = attic.newest.max(number);
        let stored = place(number);
        for path in &list.paths {
            check_normal(path)?;
            return_into(&look, &stored, path, &mut attic)?;
            for below in surveyed.iter_mut().filter(|it| it.path.starts_with(path)) {
                return_declared(previous, &stored, below, &mut attic)?;
            }
        }
    }
    Ok(attic)
}

/// Paths are written down as they are declared: any other was not written by this tool.
fn check_normal(path: &Path) -> anyhow::Result<()> {
    let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(
        normal && !path.as_os_str().is_empty(),
        "{path:?} in {OWN_DIRECTORY} is no path below the volume's root; remove the file that has it, \
         the manifest or a list in the attic"
    );
    Ok(())
}

/// A declared path that is absent comes back.
fn return_declared(
    previous: &Dir,
    stored: &Path,
    declared: &mut Surveyed,
    attic: &mut Attic,
) -> anyhow::Result<()> {
    let from = stored.join(&declared.path);
    if declared.state != State::Absent {
        return Ok(());
    }
    let state = state_at(previous, &from)?;
    if matches!(state, State::Present { .. }) {
        for above in declared.path.ancestors().skip(1) {
            attic.above.entry(above.to_owned()).or_insert_with(|| stored.join(above));
        }
        declared.state = state;
        declared.from = Some(from);
    }
    Ok(())
}

/// What was put away comes back into a declared directory that is there: from the first
/// directory on its path that is missing, or, where all of it is there, see [`merge`].
fn return_into(
    look: &Look<'_>,
    stored: &Path,
    path: &Path,
    attic: &mut Attic,
) -> anyhow::Result<()> {
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    let persisted = |at: &&Path| look.rules.verdict(at) == Verdict::Persisted;
    for at in ancestors.into_iter().filter(persisted) {
        match state_at(look.previous, at)? {
            State::Present { .. } => {}
            State::Unreachable { .. } => return Ok(()),
            State::Absent => return look.return_one(stored, at, attic),
        }
    }
    if look.rules.verdict(path) == Verdict::Persisted {
        merge(look, stored, path, attic)?;
    }
    Ok(())
}

/// What is in a directory of the attic and missing in the same one of the previous state. Only
/// where that merely led to something kept in between: what was made anew meanwhile, a database
/// say, must not be mixed with what it was before.
fn merge(look: &Look<'_>, stored: &Path, path: &Path, attic: &mut Attic) -> anyhow::Result<()> {
    if !look.connectors.contains(path) {
        return Ok(());
    }
    let there = look.previous.open_dir_optional(stored.join(path))?;
    let (Some(there), Some(_)) = (there, look.previous.open_dir_optional(path)?) else {
        return Ok(());
    };
    for name in there.names()? {
        let below = path.join(&name);
        if look.rules.verdict(&below) != Verdict::Persisted {
            continue;
        }
        match state_at(look.previous, &below)? {
            State::Absent => look.return_one(stored, &below, attic)?,
            State::Present { kind: Kind::Directory } => merge(look, stored, &below, attic)?,
            State::Present { .. } | State::Unreachable { .. } => {}
        }
    }
    Ok(())
}

/// What deciding needs.
struct Look<'a> {
    rules: &'a Rules,
    previous: &'a Dir,
    /// The declared paths.
    declared: BTreeSet<PathBuf>,
    /// Directories above what the last reset kept.
    connectors: BTreeSet<PathBuf>,
}

impl Look<'_> {
    fn return_one(&self, stored: &Path, path: &Path, attic: &mut Attic) -> anyhow::Result<()> {
        let taken = |returned: &Returned| path.starts_with(&returned.path);
        // Part of it would have to stay, and all of it is safe where it is.
        let excluded = self.rules.at(path).is_some_and(Node::has_excluded_below);
        let from = stored.join(path);
        if !self.declared.contains(path)
            && !attic.inside.iter().any(taken)
            && !excluded
            && matches!(state_at(self.previous, &from)?, State::Present { .. })
        {
            attic.inside.push(Returned { from, path: path.to_owned() });
        }
        Ok(())
    }
}

/// What is in the attic, by the number of the reset that put it there, the newest first.
pub fn lists(previous: &Dir) -> anyhow::Result<Vec<(u64, List)>> {
    let Some(own) = Own::open(previous)? else { return Ok(Vec::new()) };
    let Some(directory) = own.open_dir_optional(ATTIC)? else { return Ok(Vec::new()) };
    let mut lists = Vec::new();
    for name in directory.names()? {
        let text = name.to_string_lossy();
        let Some(number) = text.strip_suffix(".json").and_then(exact_number) else { continue };
        let Some(list) = directory.read_optional(&name)? else { continue };
        let what = format!("{OWN_DIRECTORY}/{ATTIC}/{text}");
        let list = state::parse(&list, VERSION, &what, || format!("cannot read {what:?}"))?;
        lists.push((number, list));
    }
    lists.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(lists)
}
