//! Preparing: nothing that the machine boots from is changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::IFlags;

use super::again::begin_attic;
use super::flags::open_sealable;
use super::journal::{self, Journal, Name, Sealed, Settle};
use super::layout::{ASIDE, Move, OF_RESULT, Observed, ROOT, WORK, Why, arrange};
use crate::fs::Dir;
use crate::keep::attic::ATTIC;
use crate::keep::lay::make_like;
use crate::keep::trees::Trees;
use crate::own::Own;
use crate::own::state::Manifest;
use crate::rules::Rules;
use crate::tree::{self, Scratch, Settled};

/// The trees of a `carry`, by their root directories.
#[derive(Debug, Clone, Copy)]
pub struct Roots<'a> {
    /// The previous state, which is only read.
    pub previous: &'a Dir,
    /// The blank, which is only read; `None` when it is empty.
    pub blank: Option<&'a Dir>,
    /// What becomes the result: the previous state itself, or a snapshot of it.
    pub root: &'a Dir,
    /// Whether [`super::backward`] may be called: then what it needs is written down.
    pub undoable: bool,
}

/// What was prepared.
#[derive(Debug)]
pub struct Prepared {
    /// What is still to be done.
    pub journal: Journal,
    /// Bytes of the blank's files, and of kept ones that cannot be moved, by the way they came.
    pub bytes: tree::BytesByRung,
}

/// Lays the new content beside the old one. Nothing that was there is changed but the root's own
/// seals and times; [`super::abandon`] removes it.
///
/// # Errors
/// What failed and on which path.
pub fn prepare(
    roots: Roots<'_>,
    rules: &Rules,
    seen: Observed<'_>,
    generation: u64,
    threads: usize,
) -> anyhow::Result<Prepared> {
    let was_root = Settled::look(roots.previous).context("cannot look at the root")?;
    prepare_in(roots, rules, seen, generation, threads, &was_root).map_err(|error| {
        match was_root.settle(roots.root) {
            Ok(()) => error,
            Err(left) => {
                error.context(format!("the root could not be settled after this ({left})"))
            }
        }
    })
}

fn prepare_in(
    roots: Roots<'_>,
    rules: &Rules,
    seen: Observed<'_>,
    generation: u64,
    threads: usize,
    was_root: &Settled,
) -> anyhow::Result<Prepared> {
    let Roots { previous, blank, root, undoable } = roots;
    let of_root = blank.unwrap_or(previous);
    let of_root = Settled::look(of_root).context("cannot look at the root")?;
    let work = make_work(root)?;
    // At once: a power cut from here on, before anything is moved, leaves the root as it was.
    was_root.settle(root).context("cannot settle the root")?;
    // For whoever undoes this or looks at it later.
    tree::take_attributes(previous, work.open_dir("aside/root")?)
        .context("cannot note the attributes of the root")?;
    let mut layout = arrange(rules, seen);
    let trees = Trees { previous, blank, target: &work };
    let mut settle = Vec::new();
    if !seen.attic.stores.is_empty() {
        settle = make_attic(&work, previous, &seen.attic.stores)?;
    }
    let laid = crate::keep::lay::lay(&trees, &layout.units, &layout.copies, seen.attic, threads)?;
    tree::take_attributes(blank.unwrap_or(previous), work.make_dir(OF_RESULT)?)
        .context("cannot note the attributes of the result's root")?;
    layout.moves.retain(|it| match it.why {
        Why::Lay { unit } => laid.units[unit],
        Why::Keep | Why::Clear | Why::Return | Why::Store => true,
    });
    for (path, to) in laid.connectors {
        settle.push(Settle { path, to });
    }
    let above = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
    let returned = seen.attic.inside.iter().map(|returned| &returned.path);
    let changed: BTreeSet<PathBuf> = layout
        .units
        .iter()
        .skip(1)
        .map(|unit| &unit.path)
        .chain(returned)
        .map(|it| above(it))
        .collect();
    for path in changed {
        let source = crate::keep::survey::source_of(&path, seen.persisted);
        let mut looked = look_at_all(previous, &BTreeSet::from([source]))?;
        settle.extend(looked.pop().map(|Settle { to, .. }| Settle { path, to }));
    }
    let mut undo = Vec::new();
    if undoable {
        let left = layout.moves.iter().map(|it| above(&it.from)).filter(|it| !it.starts_with(WORK));
        undo = look_at_all(previous, &left.collect())?;
    }
    undo.push(Settle { path: PathBuf::new(), to: was_root.clone() });
    let new = work.open_dir("0")?.names()?;
    let mut top: BTreeSet<Name> = new.iter().map(|name| Name(name.into())).collect();
    // Those that come with the moves.
    top.extend(layout.moves.iter().filter_map(|it| {
        let below = it.to.strip_prefix(Path::new(WORK).join("0")).ok()?;
        below.iter().next().map(|name| Name(name.into()))
    }));
    let journal = Journal {
        version: journal::VERSION,
        manifest: Manifest::new(generation, rules)?,
        seals: seals(root, &top, &layout.moves)?,
        undo_seals: if undoable { seals_before(previous, &layout.moves)? } else { Vec::new() },
        moves: layout.moves,
        top: top.into_iter().collect(),
        settle,
        root: of_root,
        undo,
    };
    Ok(Prepared { journal, bytes: laid.bytes })
}

/// Makes the directories above what is put away, in the work, and the list of it. Answers what
/// moving things into them changes.
fn make_attic(work: &Dir, previous: &Dir, stores: &[PathBuf]) -> anyhow::Result<Vec<Settle>> {
    let mut settle = Vec::new();
    let attic = begin_attic(work, stores)?;
    let above: BTreeSet<&Path> = stores.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    for path in above.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        let before = previous.open_dir(path)?;
        make_like(&before, attic.make_dir(path)?, path, &mut Scratch::default())
            .with_context(|| format!("cannot make {path:?} in the attic"))?;
        let to = Settled::look(&before)?.unsealed();
        settle.push(Settle { path: Path::new(WORK).join(ATTIC).join(path), to });
    }
    Ok(settle)
}

/// Makes [`WORK`] anew, and the tool's own directory if there is none.
fn make_work(root: &Dir) -> anyhow::Result<Dir> {
    tree::unseal(root).context("cannot clear the flags of the root")?;
    let own = Own::ensure(root)?;
    tree::remove(&*own, "reset").with_context(|| format!("cannot empty {WORK}"))?;
    let work = own.make_dir("reset")?;
    work.make_dir(ASIDE)?.make_dir(ROOT)?;
    Ok(work)
}

fn look_at_all(root: &Dir, paths: &BTreeSet<PathBuf>) -> anyhow::Result<Vec<Settle>> {
    let look = |path: &PathBuf| {
        let to = Settled::look(root.open_dir(path)?)
            .with_context(|| format!("cannot look at the directory {path:?}"))?;
        Ok(Settle { path: path.clone(), to })
    };
    paths.iter().map(look).collect()
}

/// The seals that what is moved has in the result, which a crash could leave cleared.
fn seals(root: &Dir, top: &BTreeSet<Name>, moves: &[Move]) -> anyhow::Result<Vec<Sealed>> {
    let new = Path::new(WORK).join("0");
    let laid: Vec<PathBuf> = top.iter().map(|Name(name)| new.join(name)).collect();
    let laid = laid.iter().zip(top).map(|(now, Name(name))| (now, name));
    let stays = |it: &&Move| !matches!(it.why, Why::Clear | Why::Store);
    let places = moves.iter().filter(stays).map(|it| (&it.from, &it.path));
    sealed(root, laid.chain(places))
}

/// The seals that what is moved, or lies in the root, has in the previous state.
fn seals_before(previous: &Dir, moves: &[Move]) -> anyhow::Result<Vec<Sealed>> {
    let top: Vec<PathBuf> = previous.names()?.into_iter().map(PathBuf::from).collect();
    let were = moves.iter().filter(|it| !matches!(it.why, Why::Lay { .. })).map(|it| &it.from);
    sealed(previous, top.iter().chain(were).map(|path| (path, path)))
}

/// The seals at the first path of each pair, if there are any, with the second.
fn sealed<'p>(
    root: &Dir,
    places: impl Iterator<Item = (&'p PathBuf, &'p PathBuf)>,
) -> anyhow::Result<Vec<Sealed>> {
    let mut found = Vec::new();
    for (now, path) in places {
        let seals =
            seals_at(root, now).with_context(|| format!("cannot read the flags of {now:?}"))?;
        if !seals.is_empty() {
            found.push(Sealed { path: path.clone(), seals: seals.bits() });
        }
    }
    Ok(found)
}

fn seals_at(root: &Dir, path: &Path) -> anyhow::Result<IFlags> {
    // Without opening it, where the filesystem tells.
    if let Some(seals) = root.glance(path)?.as_ref().and_then(tree::seals_in) {
        return Ok(seals);
    }
    match open_sealable(root, path)? {
        Some(file) => Ok(tree::seals_of(file)?),
        None => Ok(IFlags::empty()),
    }
}
