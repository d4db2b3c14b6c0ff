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
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FileType, IFlags, Mode, mkdirat, syncfs};

use crate::fs::at;
use crate::keep::attic::ATTIC;
use crate::keep::trees::Trees;
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
const GATHERED: &CStr = c"gathered";

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
    pub previous: BorrowedFd<'a>,
    /// The blank, which is only read; `None` when it is empty.
    pub blank: Option<BorrowedFd<'a>>,
    /// What becomes the result: the previous state itself, or a snapshot of it.
    pub root: BorrowedFd<'a>,
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
    tree::take_attributes(previous, work_directory(root, "aside/root")?.as_fd())
        .context("cannot note the attributes of the root")?;
    let mut layout = arrange(rules, seen);
    let trees = Trees { previous, blank, target: work.as_fd() };
    let mut settle = Vec::new();
    if !seen.attic.stores.is_empty() {
        settle = make_attic(work.as_fd(), previous, &seen.attic.stores)?;
    }
    let laid = crate::keep::lay::lay(&trees, &layout.units, &layout.copies, seen.attic, threads)?;
    mkdirat(&work, OF_RESULT, Mode::RWXU).context("cannot make a place for attributes")?;
    tree::take_attributes(blank.unwrap_or(previous), work_directory(root, OF_RESULT)?.as_fd())
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
    let new = at::directory_beneath(work.as_fd(), Path::new("0"))
        .context("cannot open the new content")?
        .context("BUG: the new content of the root was not made")?;
    let mut top: BTreeSet<Name> =
        at::names(new.as_fd())?.iter().map(|name| name_of(name)).collect();
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

fn name_of(name: &CStr) -> Name {
    Name(at::os_name(name).into())
}

/// Makes the directories above what is put away, in the work, and the list of it. Answers what
/// moving things into them changes.
fn make_attic(
    work: BorrowedFd<'_>,
    previous: BorrowedFd<'_>,
    stores: &[PathBuf],
) -> anyhow::Result<Vec<Settle>> {
    let mut settle = Vec::new();
    let attic = tidy::begin_attic(work, stores)?;
    let above: BTreeSet<&Path> = stores.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    for path in above.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        let make = || -> anyhow::Result<Settled> {
            let before = at::open_beneath(previous, path)?;
            let (parent, name) = at::open_parent(&attic, path)?;
            mkdirat(&parent, &name, Mode::RWXU)?;
            let copy = at::open_directory(parent.as_fd(), &name)?;
            tree::take_attributes(before.as_fd(), copy.as_fd())?;
            Ok(Settled::look(before.as_fd())?.unsealed())
        };
        let to = make().with_context(|| format!("cannot make {path:?} in the attic"))?;
        settle.push(Settle { path: Path::new(WORK).join(ATTIC).join(path), to });
    }
    Ok(settle)
}

/// Makes [`WORK`] anew, and the tool's own directory if there is none.
fn make_work(root: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    tree::unseal(root).context("cannot clear the flags of the root")?;
    let own = crate::own::ensure_own_directory(root)?;
    tree::remove(own.as_fd(), c"reset").with_context(|| format!("cannot empty {WORK}"))?;
    let make = || -> anyhow::Result<OwnedFd> {
        mkdirat(&own, c"reset", Mode::RWXU)?;
        let work = at::open_directory(own.as_fd(), c"reset")?;
        mkdirat(&work, ASIDE, Mode::RWXU)?;
        mkdirat(&work, Path::new(ASIDE).join(ROOT), Mode::RWXU)?;
        Ok(work)
    };
    make().with_context(|| format!("cannot make {WORK}"))
}

fn look_at_all(root: BorrowedFd<'_>, paths: &BTreeSet<PathBuf>) -> anyhow::Result<Vec<Settle>> {
    let look = |path: &PathBuf| -> anyhow::Result<Settle> {
        let directory = at::open_beneath(root, path)?;
        Ok(Settle { path: path.clone(), to: Settled::look(directory.as_fd())? })
    };
    paths
        .iter()
        .map(|path| look(path).with_context(|| format!("cannot look at the directory {path:?}")))
        .collect()
}

/// The seals that what is moved has in the result, which a crash could leave cleared.
fn seals(
    root: BorrowedFd<'_>,
    top: &BTreeSet<Name>,
    moves: &[Move],
) -> anyhow::Result<Vec<Sealed>> {
    let new = Path::new(WORK).join("0");
    let laid: Vec<PathBuf> = top.iter().map(|Name(name)| new.join(name)).collect();
    let laid = laid.iter().zip(top).map(|(now, Name(name))| (now, name));
    let stays = |it: &&Move| !matches!(it.why, Why::Clear | Why::Store);
    let places = moves.iter().filter(stays).map(|it| (&it.from, &it.path));
    sealed(root, laid.chain(places))
}

/// The seals that what is moved, or lies in the root, has in the previous state.
fn seals_before(previous: BorrowedFd<'_>, moves: &[Move]) -> anyhow::Result<Vec<Sealed>> {
    let names = at::names(previous).context("cannot read the root")?;
    let top: Vec<PathBuf> = names.iter().map(|name| at::os_name(name).into()).collect();
    let were = moves.iter().filter(|it| !matches!(it.why, Why::Lay { .. })).map(|it| &it.from);
    sealed(previous, top.iter().chain(were).map(|path| (path, path)))
}

/// The seals at the first path of each pair, if there are any, with the second.
fn sealed<'p>(
    root: BorrowedFd<'_>,
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

fn seals_at(root: BorrowedFd<'_>, path: &Path) -> anyhow::Result<IFlags> {
    // Without opening it, where the filesystem tells.
    if let Some(seals) = at::status_beneath(root, path)?.as_ref().and_then(tree::seals_in) {
        return Ok(seals);
    }
    match open_sealable(root, path)? {
        Some(file) => Ok(tree::seals_of(file.as_fd())?),
        None => Ok(IFlags::empty()),
    }
}

/// Opens a regular file or a directory; `None` for what has no flags, and for nothing.
fn open_sealable(root: BorrowedFd<'_>, path: &Path) -> anyhow::Result<Option<OwnedFd>> {
    let Some((parent, name)) = moves::parent(root, path)? else { return Ok(None) };
    let status = at::present(at::status(parent.as_fd(), &name))?;
    Ok(match status.map(|status| at::kind(&status)) {
        Some(FileType::Directory) => Some(at::open_directory(parent.as_fd(), &name)?),
        Some(FileType::RegularFile) => Some(at::open_file(parent.as_fd(), &name)?),
        _ => None,
    })
}

/// Why nothing in the volume at `root` may be removed now: an interrupted reset that the next run
/// completes.
///
/// # Errors
/// It cannot be completed, in words that say what to do.
pub fn unfinished(root: BorrowedFd<'_>) -> anyhow::Result<Option<String>> {
    let moving = Journal::read(root)?.is_some_and(|(_, stage)| stage == Stage::Moving);
    Ok(moving.then(|| "its journal is there".to_owned()))
}

/// Moves the persisted paths into the new content.
///
/// # Errors
/// The rename that failed.
pub fn gather(root: BorrowedFd<'_>, journal: &Journal) -> anyhow::Result<()> {
    journal.moves.iter().try_for_each(|it| moves::make(root, it))
}

/// Moves the old content of the root aside, and the new content in.
///
/// # Errors
/// The rename that failed.
pub fn exchange(root: BorrowedFd<'_>, journal: &Journal, run: Run) -> anyhow::Result<()> {
    tree::unseal(root).context("cannot clear the flags of the root")?;
    let (new, aside) = (work_directory(root, "0")?, work_directory(root, "aside/root")?);
    let here = at::open_beneath(root, Path::new("")).context("cannot open the root")?;
    let reserved = moves::reserved(root)?;
    // Moved in already: it is in the new content no more.
    let is_new = |name: &CStr| -> anyhow::Result<bool> {
        let waits = || at::present(at::status(new.as_fd(), name));
        Ok(journal.top.contains(&name_of(name)) && waits()?.is_none())
    };
    if run == Run::Resumed {
        again::put_away_what_came_back(root, &journal.moves, |path| {
            path.iter().next().map_or(Ok(false), |name| is_new(&at::c_name(name)?))
        })?;
    }
    moves::move_all(&here, &aside, |name| Ok(is_new(name)? || reserved(name)))
        .context("cannot move the old content aside")?;
    moves::move_all(&new, &here, |_| Ok(false)).context("cannot move the new content in")
}

fn work_directory(root: BorrowedFd<'_>, name: &str) -> anyhow::Result<OwnedFd> {
    let path = Path::new(WORK).join(name);
    at::open_beneath(root, &path).with_context(|| format!("cannot open {path:?}"))
}

/// Sets what the moves have changed: seals of what was moved, times and seals of directories
/// that things came into, and every attribute of the root. The root's own seals are set only if
/// `seal_root` says so.
///
/// # Errors
/// What could not be set.
pub fn settle(
    root: BorrowedFd<'_>,
    journal: &Journal,
    run: Run,
    seal_root: bool,
) -> anyhow::Result<()> {
    seal_all(root, &journal.seals)?;
    settle_all(root, &journal.settle, run)?;
    let of_result = work_directory(root, OF_RESULT)?;
    tree::take_attributes(of_result.as_fd(), root)
        .context("cannot set the attributes of the root")?;
    let settled = if seal_root { journal.root.clone() } else { journal.root.clone().unsealed() };
    settled.settle(root).context("cannot set the times of the root")
}

fn seal_all(root: BorrowedFd<'_>, all: &[Sealed]) -> anyhow::Result<()> {
    for Sealed { path, seals } in all {
        let seal = || -> anyhow::Result<()> {
            let Some(file) = open_sealable(root, path)? else { return Ok(()) };
            Ok(tree::seal(file.as_fd(), IFlags::from_bits_retain(*seals))?)
        };
        seal().with_context(|| format!("cannot set the flags of {path:?}"))?;
    }
    Ok(())
}

fn settle_all(root: BorrowedFd<'_>, all: &[Settle], run: Run) -> anyhow::Result<()> {
    for Settle { path, to } in all {
        let settle = || -> anyhow::Result<()> {
            let directory = match run {
                Run::First => at::open_beneath(root, path)?,
                Run::Resumed => match at::directory_beneath(root, path)? {
                    Some(directory) => directory,
                    // Somebody has removed it in between, and there is nothing to set.
                    None => return Ok(()),
                },
            };
            Ok(to.settle(directory.as_fd())?)
        };
        settle().with_context(|| format!("cannot set the times and flags of {path:?}"))?;
    }
    Ok(())
}

/// Does everything that an interrupted run had still to do but [`finish`], or all of it in a run
/// that was not interrupted.
///
/// # Errors
/// What failed. Running again goes on from there.
pub fn forward(root: BorrowedFd<'_>, journal: &Journal, run: Run) -> anyhow::Result<()> {
    let work = at::open_beneath(root, Path::new(WORK)).context("cannot open the work")?;
    if at::present(at::status(work.as_fd(), GATHERED))?.is_none() {
        again::gather_noting(root, journal, run)?;
        syncfs(root).context("cannot make the moves durable")?;
        mkdirat(&work, GATHERED, Mode::RWXU).context("cannot mark that all is gathered")?;
    }
    exchange(root, journal, run)?;
    settle(root, journal, run, true)
}
