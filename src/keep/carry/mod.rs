//! `carry`: everything that is not persisted is moved out of the way, and the blank's content
//! takes its place. What is persisted is not copied but moved, whatever lies below it.
//!
//! | step | what it does | if it is interrupted |
//! |---|---|---|
//! | [`prepare`] | lays the new content beside the old one, and writes the journal | nothing was moved; it is removed |
//! | [`gather`] | moves the persisted paths into the new content | goes on |
//! | [`exchange`] | moves the old content aside and the new content into the root | goes on |
//! | [`settle`] | sets times and seals that the moves have changed | is done again |
//! | [`Journal::complete`] | notes that the result is complete: it may be used | |
//! | [`finish`] | moves what is aside to the trash, and removes the journal | goes on |
//!
//! How many persisted paths were moved is noted after each; whether the last rename was done is
//! seen by looking: it has a source and no target before, a target afterwards. Filesystems that
//! `carry` works on make renames durable in the order in which they were made, and between two steps
//! everything is made durable.
//!
//! On btrfs all of it happens in a snapshot that nobody uses yet, and an interrupted run's is
//! thrown away. On ZFS and in plain directories it happens in place: [`forward`] completes it
//! after a crash, whatever was done in between, and [`backward`] undoes it where the filesystem
//! cannot.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FileType, IFlags};

use crate::fs::Dir;
use crate::fs::at;
use crate::fs::reserved::Reserved;
use crate::keep::attic::ATTIC;
use crate::keep::trees::Trees;
use crate::own::Own;
use crate::own::state::Manifest;
use crate::rules::Rules;
use crate::tree::{self, Settled};

mod again;
mod journal;
mod layout;
mod moves;
mod tidy;
mod undo;

pub use again::Run;
pub use journal::{Journal, Stage};
pub use layout::{Layout, Move, Seen, WORK, Why, arrange};
pub use tidy::{finish, manifest_of, note_manifest};
pub use undo::{abandon, backward};

use journal::{Name, Sealed, Settle};
use layout::{ASIDE, ROOT};

/// Exists in [`WORK`] once everything persisted is in the new content.
const GATHERED: &str = "gathered";

/// A directory in [`WORK`] that has the attributes of the result's root: an interrupted reset is
/// completed as it was begun, whatever the blank is by then.
const OF_RESULT: &str = "of-the-result";

/// Where what was moved aside lies until it is removed, below the tool's own directory, by the number
/// of the reset.
pub const TRASH: &str = "trash";

/// Where it lies instead in a plain directory, whose generations it makes.
pub const GENERATIONS: &str = "generations";

/// The directory in one of them that is the root of the tree.
pub const ASIDE_ROOT: &str = ROOT;

/// What becomes of what was moved aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// It is removed after the boot: the filesystem keeps the previous state in its own way.
    Trash,
    /// It is the generation.
    Generation,
}

/// The trees of a `carry`, by their root directories.
#[derive(Debug, Clone, Copy)]
pub struct Roots<'a> {
    /// The previous state, which is only read.
    pub previous: &'a Dir,
    /// The blank, which is only read; `None` when it is empty.
    pub blank: Option<&'a Dir>,
    /// What becomes the result: the previous state itself, or a snapshot of it.
    pub root: &'a Dir,
    /// Whether [`backward`] may be called: then what it needs is written down.
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
/// seals and times; [`abandon`] removes it.
///
/// # Errors
/// What failed and on which path.
pub fn prepare(
    roots: Roots<'_>,
    rules: &Rules,
    seen: Seen<'_>,
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
    seen: Seen<'_>,
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
    let mut top: BTreeSet<Name> = new.iter().map(|name| name_of(name)).collect();
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

fn name_of(name: &OsStr) -> Name {
    Name(name.into())
}

/// Makes the directories above what is put away, in the work, and the list of it. Answers what
/// moving things into them changes.
fn make_attic(work: &Dir, previous: &Dir, stores: &[PathBuf]) -> anyhow::Result<Vec<Settle>> {
    let mut settle = Vec::new();
    let attic = tidy::begin_attic(work, stores)?;
    let above: BTreeSet<&Path> = stores.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    for path in above.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        let before = previous.open_dir(path)?;
        tree::take_attributes(&before, attic.make_dir(path)?)
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

/// Opens a regular file or a directory; `None` for what has no flags, and for nothing.
fn open_sealable(root: &Dir, path: &Path) -> anyhow::Result<Option<OwnedFd>> {
    let Some((parent, name)) = root.open_parent_optional(path)? else { return Ok(None) };
    let status = parent.status_optional(&name)?;
    Ok(match status.map(|status| at::kind(&status)) {
        Some(FileType::Directory) => Some(parent.open_dir(&name)?.into()),
        Some(FileType::RegularFile) => Some(parent.open_file(&name)?),
        _ => None,
    })
}

/// Why nothing in the volume at `root` may be removed now: an interrupted reset that the next run
/// completes.
///
/// # Errors
/// It cannot be completed, in words that say what to do.
pub fn unfinished(root: &Dir) -> anyhow::Result<Option<String>> {
    let moving = Journal::read(root)?.is_some_and(|(_, stage)| stage == Stage::Moving);
    Ok(moving.then(|| "its journal is there".to_owned()))
}

/// Moves the persisted paths into the new content.
///
/// # Errors
/// The rename that failed.
pub fn gather(root: &Dir, journal: &Journal) -> anyhow::Result<()> {
    journal.moves.iter().try_for_each(|it| moves::make(root, it))
}

/// Moves the old content of the root aside, and the new content in.
///
/// # Errors
/// The rename that failed.
pub fn exchange(root: &Dir, journal: &Journal, run: Run) -> anyhow::Result<()> {
    tree::unseal(root).context("cannot clear the flags of the root")?;
    let work = root.open_dir(WORK)?;
    let (new, aside) = (work.open_dir("0")?, work.open_dir("aside/root")?);
    let reserved = Reserved::of(root)?;
    // Moved in already: it is in the new content no more.
    let is_new = |name: &OsStr| -> anyhow::Result<bool> {
        Ok(journal.top.contains(&name_of(name)) && !new.holds(name)?)
    };
    if run == Run::Resumed {
        again::put_away_what_came_back(root, &journal.moves, |path| {
            path.iter().next().map_or(Ok(false), is_new)
        })?;
    }
    moves::move_all(root, &aside, |name| Ok(is_new(name)? || reserved.holds(name)))
        .context("cannot move the old content aside")?;
    moves::move_all(&new, root, |_| Ok(false)).context("cannot move the new content in")
}

/// Sets what the moves have changed: seals of what was moved, times and seals of directories
/// that things came into, and every attribute of the root. The root's own seals are set only if
/// `seal_root` says so.
///
/// # Errors
/// What could not be set.
pub fn settle(root: &Dir, journal: &Journal, run: Run, seal_root: bool) -> anyhow::Result<()> {
    seal_all(root, &journal.seals)?;
    settle_all(root, &journal.settle, run)?;
    tree::take_attributes(root.open_dir(Path::new(WORK).join(OF_RESULT))?, root)
        .context("cannot set the attributes of the root")?;
    let settled = if seal_root { journal.root.clone() } else { journal.root.clone().unsealed() };
    settled.settle(root).context("cannot set the times of the root")
}

fn seal_all(root: &Dir, all: &[Sealed]) -> anyhow::Result<()> {
    for Sealed { path, seals } in all {
        let seal = || -> anyhow::Result<()> {
            let Some(file) = open_sealable(root, path)? else { return Ok(()) };
            Ok(tree::seal(file, IFlags::from_bits_retain(*seals))?)
        };
        seal().with_context(|| format!("cannot set the flags of {path:?}"))?;
    }
    Ok(())
}

fn settle_all(root: &Dir, all: &[Settle], run: Run) -> anyhow::Result<()> {
    for Settle { path, to } in all {
        let directory = match run {
            Run::First => root.open_dir(path)?,
            Run::Resumed => match root.open_dir_optional(path)? {
                Some(directory) => directory,
                // Somebody has removed it in between, and there is nothing to set.
                None => continue,
            },
        };
        to.settle(directory)
            .with_context(|| format!("cannot set the times and flags of {path:?}"))?;
    }
    Ok(())
}

/// Does everything that an interrupted run had still to do but [`finish`], or all of it in a run
/// that was not interrupted.
///
/// # Errors
/// What failed. Running again goes on from there.
pub fn forward(root: &Dir, journal: &Journal, run: Run) -> anyhow::Result<()> {
    let work = root.open_dir(WORK)?;
    if !work.holds(GATHERED)? {
        again::gather_noting(root, journal, run)?;
        root.sync_filesystem().context("cannot make the moves durable")?;
        work.make_dir(GATHERED)?;
    }
    exchange(root, journal, run)?;
    settle(root, journal, run, true)
}
